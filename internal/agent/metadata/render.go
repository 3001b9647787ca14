package metadata

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// The answers, in the order and under the names of Amazon's agent. Version 3 has version 2's.

type taskV2 struct {
	Cluster               string            `json:"Cluster"`
	TaskARN               string            `json:"TaskARN"`
	Family                string            `json:"Family"`
	Revision              string            `json:"Revision"`
	DesiredStatus         string            `json:"DesiredStatus,omitempty"`
	KnownStatus           string            `json:"KnownStatus"`
	Containers            []containerV2     `json:"Containers,omitempty"`
	Limits                *limits           `json:"Limits,omitempty"`
	PullStartedAt         *time.Time        `json:"PullStartedAt,omitempty"`
	PullStoppedAt         *time.Time        `json:"PullStoppedAt,omitempty"`
	ExecutionStoppedAt    *time.Time        `json:"ExecutionStoppedAt,omitempty"`
	AvailabilityZone      string            `json:"AvailabilityZone,omitempty"`
	TaskTags              map[string]string `json:"TaskTags,omitempty"`
	ContainerInstanceTags map[string]string `json:"ContainerInstanceTags,omitempty"`
	LaunchType            string            `json:"LaunchType,omitempty"`
}

type taskV4 struct {
	*taskV2
	Containers              []containerV4     `json:"Containers,omitempty"`
	VPCID                   string            `json:"VPCID,omitempty"`
	ServiceName             string            `json:"ServiceName,omitempty"`
	ClockDrift              *clockDrift       `json:"ClockDrift,omitempty"`
	EphemeralStorageMetrics *ephemeralStorage `json:"EphemeralStorageMetrics,omitempty"`
	FaultInjectionEnabled   bool              `json:"FaultInjectionEnabled"`
}

type containerV2 struct {
	ID            string            `json:"DockerId"`
	Name          string            `json:"Name"`
	DockerName    string            `json:"DockerName"`
	Image         string            `json:"Image"`
	ImageID       string            `json:"ImageID"`
	Ports         []port            `json:"Ports,omitempty"`
	Labels        map[string]string `json:"Labels,omitempty"`
	DesiredStatus string            `json:"DesiredStatus"`
	KnownStatus   string            `json:"KnownStatus"`
	ExitCode      *int32            `json:"ExitCode,omitempty"`
	Limits        limits            `json:"Limits"`
	CreatedAt     *time.Time        `json:"CreatedAt,omitempty"`
	StartedAt     *time.Time        `json:"StartedAt,omitempty"`
	FinishedAt    *time.Time        `json:"FinishedAt,omitempty"`
	Type          string            `json:"Type"`
	Networks      []network         `json:"Networks,omitempty"`
	Health        *health           `json:"Health,omitempty"`
	Volumes       []volume          `json:"Volumes,omitempty"`
	LogDriver     string            `json:"LogDriver,omitempty"`
	LogOptions    map[string]string `json:"LogOptions,omitempty"`
	ContainerARN  string            `json:"ContainerARN,omitempty"`
}

type containerV4 struct {
	*containerV2
	Networks     []networkV4 `json:"Networks,omitempty"`
	RestartCount *int64      `json:"RestartCount,omitempty"`
}

type limits struct {
	CPU    *float64 `json:"CPU,omitempty"`    // of a task in vCPUs, of a container in CPU units
	Memory *int64   `json:"Memory,omitempty"` // MiB
}

type port struct {
	ContainerPort uint16 `json:"ContainerPort,omitempty"`
	Protocol      string `json:"Protocol,omitempty"`
	HostPort      uint16 `json:"HostPort,omitempty"`
	HostIP        string `json:"HostIp,omitempty"`
}

type health struct {
	Status   string     `json:"status,omitempty"`
	Since    *time.Time `json:"statusSince,omitempty"`
	ExitCode int32      `json:"exitCode,omitempty"`
	Output   string     `json:"output,omitempty"`
}

type volume struct {
	DockerName  string `json:"DockerName,omitempty"`
	Source      string `json:"Source,omitempty"`
	Destination string `json:"Destination,omitempty"`
}

type network struct {
	NetworkMode   string   `json:"NetworkMode,omitempty"`
	IPv4Addresses []string `json:"IPv4Addresses,omitempty"`
}

type networkV4 struct {
	network
	AttachmentIndex     *int     `json:"AttachmentIndex,omitempty"`
	MACAddress          string   `json:"MACAddress,omitempty"`
	IPv4SubnetCIDRBlock string   `json:"IPv4SubnetCIDRBlock,omitempty"`
	DomainNameServers   []string `json:"DomainNameServers,omitempty"`
	PrivateDNSName      string   `json:"PrivateDNSName,omitempty"`
	SubnetGateway       string   `json:"SubnetGatewayIpv4Address,omitempty"`
}

// clockDrift is Fargate's: how far the host's clock can be off.
type clockDrift struct {
	ErrorBound float64    `json:"ClockErrorBound,omitempty"` // ms
	Reference  *time.Time `json:"ReferenceTimestamp,omitempty"`
	Status     string     `json:"ClockSynchronizationStatus,omitempty"`
}

// ephemeralStorage is Fargate's, in MiB.
type ephemeralStorage struct {
	Utilized int64 `json:"Utilized"`
	Reserved int64 `json:"Reserved"`
}

// view renders a task as one version of the endpoint shows it.
type view struct {
	v4         bool
	subnet     netip.Prefix
	dnsServers []string
}

// The statuses of Amazon's agent, which are not those of the API, in their order.
const (
	knownNone    = "NONE"
	knownPulled  = "PULLED"
	knownCreated = "CREATED"
	knownRunning = "RUNNING"
	knownStopped = "STOPPED"
)

var knownOrder = map[string]int{knownNone: 0, knownPulled: 1, knownCreated: 2, knownRunning: 3, knownStopped: 4}

// statusOf answers container i's, which an old report may not have.
func statusOf(snap agent.TaskSnapshot, i int) *dispatchpb.ContainerStatus {
	if cs := snap.Status.GetContainers(); i < len(cs) {
		return cs[i]
	}
	return &dispatchpb.ContainerStatus{}
}

func containerKnown(snap agent.TaskSnapshot, i int) string {
	st := statusOf(snap, i)
	switch {
	case st.LastStatus == knownStopped, st.LastStatus == knownRunning:
		return st.LastStatus
	case st.CreatedAt != nil:
		return knownCreated
	case st.ImageDigest != "":
		return knownPulled
	}
	return knownNone
}

// taskKnown is the least of the containers' statuses.
func taskKnown(snap agent.TaskSnapshot) string {
	switch snap.Status.GetLastStatus() {
	case "RUNNING", "STOPPED":
		return snap.Status.LastStatus
	}
	least := knownStopped
	for i := range snap.Task.Containers {
		if k := containerKnown(snap, i); knownOrder[k] < knownOrder[least] {
			least = k
		}
	}
	return least
}

// desired is what the agent is working towards: STOPPED as soon as there is a cause.
func desired(snap agent.TaskSnapshot) string {
	switch snap.Status.GetLastStatus() {
	case "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED":
		return knownStopped
	}
	return snap.Task.DesiredStatus
}

// cluster is the cluster's name on EC2 and its ARN on Fargate, as there.
func cluster(t *dispatchpb.Task) string {
	if t.LaunchType == "FARGATE" {
		return t.ClusterArn
	}
	return lastPart(t.ClusterArn)
}

func lastPart(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// taskFields renders all but the containers.
func (v view) taskFields(snap agent.TaskSnapshot, tags bool) taskV2 {
	t, st := snap.Task, snap.Status
	out := taskV2{
		Cluster: cluster(t), TaskARN: t.Arn, Family: t.Family, Revision: strconv.FormatInt(t.Revision, 10),
		DesiredStatus: desired(snap), KnownStatus: taskKnown(snap),
		PullStartedAt: at(st.GetPullStartedAt()), PullStoppedAt: at(st.GetPullStoppedAt()),
		ExecutionStoppedAt: at(st.GetExecutionStoppedAt()), AvailabilityZone: t.AvailabilityZone,
	}
	if t.CpuUnits != 0 || t.MemoryMib != 0 {
		out.Limits = &limits{}
		if t.CpuUnits != 0 {
			out.Limits.CPU = ptr(float64(t.CpuUnits) / 1024)
		}
		if t.MemoryMib != 0 {
			out.Limits.Memory = ptr(t.MemoryMib)
		}
	}
	if v.v4 {
		out.LaunchType = t.LaunchType
	}
	if tags {
		out.TaskTags = t.Tags
	}
	return out
}

// taskV2 renders a task for versions 2 and 3. Containers that have not been created are left out.
func (v view) taskV2(snap agent.TaskSnapshot, tags bool) taskV2 {
	out := v.taskFields(snap, tags)
	for i := range snap.Task.Containers {
		if knownOrder[containerKnown(snap, i)] >= knownOrder[knownCreated] {
			out.Containers = append(out.Containers, v.containerV2(snap, i))
		}
	}
	return out
}

// taskV4 renders a task for version 4, which shows containers from their pull on.
func (v view) taskV4(snap agent.TaskSnapshot, tags bool) taskV4 {
	fields := v.taskFields(snap, tags)
	out := taskV4{taskV2: &fields, VPCID: snap.Task.VpcId}
	if name, ok := strings.CutPrefix(snap.Task.Group, "service:"); ok {
		out.ServiceName = name
	}
	for i := range snap.Task.Containers {
		if knownOrder[containerKnown(snap, i)] >= knownOrder[knownPulled] {
			out.Containers = append(out.Containers, v.containerV4(snap, i))
		}
	}
	return out
}

// minimumCPU is what Docker gives a container that asks for less.
const minimumCPU = 2

func (v view) containerV2(snap agent.TaskSnapshot, i int) containerV2 {
	c, st, known := snap.Task.Containers[i], statusOf(snap, i), containerKnown(snap, i)
	id := containerID(snap, i)
	out := containerV2{
		ID: id, DockerName: agent.DockerName(snap.Task, i), Name: c.Name, Image: c.Image, ImageID: st.ImageId,
		Labels: agent.Labels(snap.Task, i), DesiredStatus: desired(snap), KnownStatus: known,
		Limits:    limits{CPU: ptr(float64(max(c.CpuUnits, minimumCPU))), Memory: ptr(c.MemoryMib)},
		CreatedAt: at(st.CreatedAt), StartedAt: at(st.StartedAt), FinishedAt: at(st.FinishedAt),
		Type: "NORMAL", Ports: ports(st.NetworkBindings, v.v4), Networks: networks(snap, i), Volumes: volumes(snap.Task, c),
	}
	if known == knownStopped {
		out.DesiredStatus = knownStopped
	}
	if st.HasExitCode {
		out.ExitCode = ptr(st.ExitCode)
	}
	if st.HealthStatus != "" {
		out.Health = &health{Status: st.HealthStatus, Since: at(st.HealthSince), ExitCode: st.HealthExitCode, Output: st.HealthOutput}
		if st.HealthStatus == "UNKNOWN" {
			out.Health.Status = ""
		}
	}
	if v.v4 {
		out.LogDriver, out.LogOptions, out.ContainerARN = c.LogDriver, c.LogOptions, c.Arn
	}
	return out
}

func (v view) containerV4(snap agent.TaskSnapshot, i int) containerV4 {
	fields := v.containerV2(snap, i)
	out := containerV4{containerV2: &fields}
	shown := fields.Networks
	if knownOrder[fields.KnownStatus] < knownOrder[knownCreated] {
		shown = nil // as Amazon's agent has it of a container that is only pulled
	}
	for _, n := range shown {
		n4 := networkV4{network: n}
		if nic := snap.Task.NetworkInterface; n.NetworkMode == "awsvpc" && nic != nil {
			n4.AttachmentIndex, n4.MACAddress, n4.PrivateDNSName = ptr(0), nic.MacAddress, nic.PrivateDnsName
			n4.DomainNameServers = v.dnsServers
			if v.subnet.IsValid() {
				// The first address is the router's in every subnet of a VPC.
				n4.IPv4SubnetCIDRBlock = v.subnet.Masked().String()
				n4.SubnetGateway = netip.PrefixFrom(v.subnet.Masked().Addr().Next(), v.subnet.Bits()).String()
			}
		}
		out.Networks = append(out.Networks, n4)
	}
	if snap.Task.Containers[i].RestartPolicy.GetEnabled() {
		out.RestartCount = ptr(statusOf(snap, i).RestartCount)
	}
	return out
}

// containerID is the runtime's name of a container, which a report has only once it has started.
func containerID(snap agent.TaskSnapshot, i int) string {
	return cmp.Or(statusOf(snap, i).RuntimeId, agent.ContainerID(snap.Task, i))
}

// networks shows what Docker shows of a container's. In mode host that is an empty address.
func networks(snap agent.TaskSnapshot, i int) []network {
	st := statusOf(snap, i)
	switch mode := snap.Task.NetworkMode; mode {
	case "awsvpc":
		return []network{{mode, []string{snap.Task.NetworkInterface.GetPrivateIpv4()}}}
	case "bridge":
		if snap.Task.Containers[i].DisableNetworking {
			mode = "none"
		}
		return []network{{mode, []string{st.PrivateIpv4}}}
	default:
		return []network{{mode, []string{""}}}
	}
}

func volumes(t *dispatchpb.Task, c *dispatchpb.Container) []volume {
	byName := make(map[string]*dispatchpb.Volume, len(t.Volumes))
	for _, v := range t.Volumes {
		byName[v.Name] = v
	}
	var out []volume
	for _, m := range c.Mounts {
		shown := volume{Source: m.Source, Destination: m.Target}
		if v := byName[m.Volume]; v != nil {
			shown.Source = v.HostPath
			if v.HostPath == "" {
				shown.DockerName = v.Name
			}
		}
		out = append(out, shown)
	}
	return out
}

// ports shows bindings, those of ranges one by one.
func ports(bindings []*dispatchpb.PortMapping, hostIP bool) []port {
	var out []port
	add := func(b *dispatchpb.PortMapping, container, host uint16) {
		p := port{ContainerPort: container, Protocol: cmp.Or(b.Protocol, "tcp"), HostPort: host}
		if hostIP {
			p.HostIP = b.BindIp
		}
		out = append(out, p)
	}
	for _, b := range bindings {
		if b.ContainerPortRange == "" {
			add(b, uint16(b.ContainerPort), uint16(b.HostPort))
			continue
		}
		first, last, ok := portRange(b.ContainerPortRange)
		host, _, hostOK := portRange(b.HostPortRange)
		for p := first; ok && p <= last; p++ {
			h := 0
			if hostOK {
				h = host + p - first
			}
			add(b, uint16(p), uint16(h))
		}
	}
	return out
}

func portRange(s string) (first, last int, ok bool) {
	a, b, found := strings.Cut(s, "-")
	first, err1 := strconv.Atoi(a)
	last, err2 := strconv.Atoi(b)
	return first, last, found && err1 == nil && err2 == nil && 0 < first && first <= last && last <= 65535
}

func at(ts *timestamppb.Timestamp) *time.Time {
	if ts == nil {
		return nil
	}
	return ptr(ts.AsTime())
}

func ptr[T any](v T) *T { return &v }
