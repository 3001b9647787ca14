package state

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/store"
)

// Tables of the ecs service.
var (
	// Clusters by name.
	Clusters = store.DefineTable[ecs.Cluster]("ecs-clusters", 1)
	// Families by name: the counter of revisions, which outlives every revision.
	Families = store.DefineTable[Family]("ecs-families", 1)
	// TaskDefinitions by family/revision, the revision with ten digits so that keys sort.
	TaskDefinitions = store.DefineTable[ecs.TaskDefinition]("ecs-taskdefs", 1)
	// Tags by ARN.
	Tags = store.DefineTable[ResourceTags]("ecs-tags", 1)

	// Specs, Desires, Placements and Statuses by cluster/task.
	Specs      = store.DefineTable[Spec]("ecs-task-specs", 1, store.Index("family", func(_ store.Key, s *Spec) []string { return []string{s.Family} }))
	Desires    = store.DefineTable[lifecycle.Desired]("ecs-task-desired", 1)
	Placements = store.DefineTable[Placement]("ecs-task-placements", 1,
		store.Index("host", func(_ store.Key, p *Placement) []string { return []string{p.HostID} }))
	Statuses = store.DefineTable[lifecycle.Status]("ecs-task-statuses", 1)

	// Tokens by cluster/clientToken: which tasks a RunTask call made.
	Tokens = store.DefineTable[Token]("ecs-tokens", 1)

	// Settings by principal's ARN, or "default": account settings.
	Settings = store.DefineTable[AccountSettings]("ecs-account-settings", 1)

	// CapacityProviders by name: those of the account's own. FARGATE and FARGATE_SPOT have no row.
	CapacityProviders = store.DefineTable[CapacityProvider]("ecs-capacity-providers", 1)
	// Protections by cluster/task: tasks protected from scale-in.
	Protections = store.DefineTable[Protection]("ecs-task-protections", 1)

	// Hosts by host, in HostScope: a host belongs to no cluster.
	Hosts = store.DefineTable[Host]("hosts", 1)
	// ContainerInstances by cluster/instance.
	ContainerInstances = store.DefineTable[ContainerInstance]("ecs-container-instances", 1,
		store.Index("host", func(_ store.Key, c *ContainerInstance) []string { return []string{c.HostID} }))
)

// Tables lists all of them, for opening the store.
func Tables() []store.TableDef {
	return []store.TableDef{Clusters, Families, TaskDefinitions, Tags, Specs, Desires, Placements, Statuses,
		Tokens, Settings, CapacityProviders, Protections, Hosts, ContainerInstances}
}

// HostScope holds what belongs to no account.
var HostScope = store.Scope{Account: "-", Region: "-"}

// Family counts the revisions of a task definition family.
type Family struct {
	Latest int32 `json:"latest"` // the highest revision ever given
}

// ResourceTags are a resource's tags, in the order they were set.
type ResourceTags struct {
	Tags []ecs.Tag `json:"tags"`
}

// Spec is what a task was asked to be. It never changes.
type Spec struct {
	ARN               string         `json:"arn"`
	ID                string         `json:"id"` // 32 hexadecimal digits
	ClusterARN        string         `json:"clusterArn"`
	Cluster           string         `json:"cluster"`
	TaskDefinitionARN string         `json:"taskDefinitionArn"`
	Family            string         `json:"family"`
	Revision          int32          `json:"revision"`
	NetworkMode       string         `json:"networkMode"`
	LaunchType        ecs.LaunchType `json:"launchType"`
	PlatformVersion   string         `json:"platformVersion,omitempty"`
	// CapacityProvider is the name of the one the task was given to; empty: it was run by launch type.
	CapacityProvider string            `json:"capacityProvider,omitempty"`
	Group            string            `json:"group"`
	StartedBy        string            `json:"startedBy,omitempty"`
	Overrides        *ecs.TaskOverride `json:"overrides,omitempty"`
	ExecuteCommand   bool              `json:"executeCommand,omitempty"`
	CPU              string            `json:"cpu,omitempty"`    // as DescribeTasks shows it
	Memory           string            `json:"memory,omitempty"` // likewise
	// What is reserved for it on its host.
	CPUUnits  int64  `json:"cpuUnits"`
	MemoryMiB int64  `json:"memoryMiB"`
	Ports     []Port `json:"ports,omitempty"`
	GPUs      int    `json:"gpus,omitempty"`
	// StorageGiB is a FARGATE task's ephemeral storage.
	StorageGiB int32 `json:"storageGiB,omitempty"`
	// Containers in the definition's order, each with the ID in its ARN.
	Containers []SpecContainer `json:"containers"`
	// Interface is set for awsvpc.
	Interface *Interface `json:"interface,omitempty"`
	CreatedAt time.Time  `json:"createdAt"`
	CreatedBy string     `json:"createdBy"` // principal's ARN
}

// Attached tells whether the task has a network interface that clients see.
func (s *Spec) Attached() bool { return s.Interface != nil }

// SpecContainer names a container of a task.
type SpecContainer struct {
	Name        string `json:"name"`
	ID          string `json:"id"`
	Image       string `json:"image"`
	Essential   bool   `json:"essential,omitempty"`
	HealthCheck bool   `json:"healthCheck,omitempty"`
	CPU         string `json:"cpu,omitempty"` // as DescribeTasks shows them
	Memory      string `json:"memory,omitempty"`
	Reservation string `json:"reservation,omitempty"`
	GPUs        int    `json:"gpus,omitempty"` // how many of the placement's are its own
}

// Port is a port of the host that a task takes.
type Port struct {
	Number   int    `json:"number"`
	Protocol string `json:"protocol"` // tcp or udp
}

// Interface is what a task with an address of its own gets; the address is in the Placement.
type Interface struct {
	AttachmentID   string   `json:"attachmentId"`
	ENIID          string   `json:"eniId"`
	MAC            string   `json:"mac"`
	SubnetID       string   `json:"subnetId"`
	SecurityGroups []string `json:"securityGroups,omitempty"`
}

// AttributeArchitecture is the one attribute of a host that its tasks show as theirs, as on ECS.
const AttributeArchitecture = "ecs.cpu-architecture"

// Placement is where a task is. It never changes.
type Placement struct {
	HostID               string `json:"hostId"`
	ContainerInstanceARN string `json:"containerInstanceArn,omitempty"` // empty for FARGATE
	AvailabilityZone     string `json:"availabilityZone"`
	PrivateIPv4          string `json:"privateIpv4,omitempty"`
	// Architecture is the host's ecs.cpu-architecture.
	Architecture string `json:"architecture,omitempty"`
	// GPUIDs are the GPUs the task has to itself, for its containers in their order.
	GPUIDs []string `json:"gpuIds,omitempty"`
	// Ranking is what the host was chosen by, one for each placement strategy of the call, in order.
	Ranking []Rank `json:"ranking,omitempty"`
}

// Rank is what a host counted by a placement strategy when it was chosen; the least of all.
type Rank struct {
	Strategy string `json:"strategy"` // spread(attribute:ecs.availability-zone)
	Value    int64  `json:"value"`    // tasks of the group there, or CPU units or MiB left before the task
}

// Token remembers what a clientToken stood for, so that a repeated call answers the same tasks.
type Token struct {
	Fingerprint string    `json:"fingerprint"` // of the request
	TaskIDs     []string  `json:"taskIds"`
	At          time.Time `json:"at"`
}

// Host is a machine with an agent.
type Host struct {
	ID           string            `json:"id"`
	Hostname     string            `json:"hostname"`
	AgentVersion string            `json:"agentVersion"`
	BootID       string            `json:"bootId"`
	CPUUnits     int64             `json:"cpuUnits"`
	MemoryMiB    int64             `json:"memoryMiB"`
	SubnetCIDR   string            `json:"subnetCidr,omitempty"`
	ZoneSuffix   string            `json:"zoneSuffix"`
	Attributes   map[string]string `json:"attributes,omitempty"`
	Reserved     []Port            `json:"reserved,omitempty"` // ports no task may have
	GPUIDs       []string          `json:"gpuIds,omitempty"`
	FirstSeenAt  time.Time         `json:"firstSeenAt"`
}

// AccountSettings are what a principal, or the account by default, has set.
type AccountSettings struct {
	Values map[string]string `json:"values"` // by name
}

// ContainerInstance is a host in a cluster.
type ContainerInstance struct {
	ARN          string    `json:"arn"`
	ID           string    `json:"id"`
	ClusterARN   string    `json:"clusterArn"`
	HostID       string    `json:"hostId"`
	Status       string    `json:"status"` // ACTIVE, DRAINING, INACTIVE
	RegisteredAt time.Time `json:"registeredAt"`
	// Attributes are those that clients gave it; the host's own are with the host.
	Attributes map[string]string `json:"attributes,omitempty"`
	// DeregisteredAt is set with status INACTIVE: the host has left the cluster, and comes back to it as
	// another container instance with the next task it gets.
	DeregisteredAt time.Time `json:"deregisteredAt,omitzero"`
	// Changes counts what was done to the row since it was registered.
	Changes int64 `json:"changes,omitempty"`
}

// CapacityProvider is a capacity provider of an Auto Scaling group.
type CapacityProvider struct {
	ecs.CapacityProvider
	// DeletedAt is set with status INACTIVE.
	DeletedAt time.Time `json:"deletedAt,omitzero"`
}

// Protection keeps a service's task from being stopped when the service scales in or deploys.
type Protection struct {
	Until time.Time `json:"until"`
}

// ProtectedUntil tells until when a task is protected from scale-in; zero: it is not, or no more.
func ProtectedUntil(v store.View, task store.Key, now time.Time) time.Time {
	if p, ok := Protections.Get(v, task); ok && p.Value.Until.After(now) {
		return p.Value.Until
	}
	return time.Time{}
}

// TaskKey is the key of a task's rows.
func TaskKey(sc store.Scope, cluster, taskID string) store.Key {
	return store.Key{Scope: sc, ID: cluster + "/" + taskID}
}

// DefinitionKey is the key of a revision.
func DefinitionKey(sc store.Scope, family string, revision int32) store.Key {
	return store.Key{Scope: sc, ID: fmt.Sprintf("%s/%010d", family, revision)}
}

// HostKey is the key of a host's rows.
func HostKey(hostID string) store.Key { return store.Key{Scope: HostScope, ID: hostID} }

// ARN makes an ARN of the ecs service: ARN(sc, "cluster", "demo").
func ARN(sc store.Scope, resource ...string) string {
	return "arn:aws:ecs:" + sc.Region + ":" + sc.Account + ":" + strings.Join(resource, "/")
}

// ParsedARN is an ARN of the ecs service, taken apart.
type ParsedARN struct {
	Scope store.Scope
	Type  string   // cluster, task, task-definition, container-instance, …
	Path  []string // what follows the type
}

// ParseARN takes an ARN of the ecs service apart.
func ParseARN(arn string) (ParsedARN, error) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "ecs" {
		return ParsedARN{}, fmt.Errorf("%q is not an ARN of ecs", arn)
	}
	path := strings.Split(parts[5], "/")
	if len(path) < 2 {
		return ParsedARN{}, fmt.Errorf("%q names no resource", arn)
	}
	return ParsedARN{
		Scope: store.Scope{Account: parts[4], Region: parts[3]},
		Type:  path[0], Path: path[1:],
	}, nil
}

// ParseTaskARN answers the key of the task an ARN names.
func ParseTaskARN(arn string) (store.Key, error) {
	p, err := ParseARN(arn)
	if err != nil {
		return store.Key{}, err
	}
	if p.Type != "task" || len(p.Path) != 2 {
		return store.Key{}, fmt.Errorf("%q is not a task's ARN", arn)
	}
	return TaskKey(p.Scope, p.Path[0], p.Path[1]), nil
}

// SplitTaskKey takes a task's key apart.
func SplitTaskKey(k store.Key) (cluster, taskID string) {
	cluster, taskID, _ = strings.Cut(k.ID, "/")
	return cluster, taskID
}

// PrivateDNSName is the name AWS gives an address in a VPC.
func PrivateDNSName(ipv4, region string) string {
	name := "ip-" + strings.ReplaceAll(ipv4, ".", "-")
	if region == "us-east-1" {
		return name + ".ec2.internal"
	}
	return name + "." + region + ".compute.internal"
}

// NewID makes an ID as ECS makes them: 32 random hexadecimal digits.
func NewID() string {
	id := make([]byte, 16)
	rand.Read(id)
	return hex.EncodeToString(id)
}
