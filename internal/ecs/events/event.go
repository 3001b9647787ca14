package events

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/store"
)

// Detail types of ECS's events.
const (
	TaskChange       = "ECS Task State Change"
	InstanceChange   = "ECS Container Instance State Change"
	ServiceAction    = "ECS Service Action"
	DeploymentChange = "ECS Deployment State Change"
)

// Event is an event as EventBridge delivers it.
type Event struct {
	Version    string    `json:"version"` // "0"
	ID         string    `json:"id"`      // a UUID; the same event made again has the same one
	DetailType string    `json:"detail-type"`
	Source     string    `json:"source"` // aws.ecs
	Account    string    `json:"account"`
	Time       time.Time `json:"time"` // in whole seconds
	Region     string    `json:"region"`
	Resources  []string  `json:"resources"`
	Detail     any       `json:"detail"` // json.RawMessage in an event read from the log
}

// newEvent fills in the envelope. The ID comes from what tells the event from every other.
func newEvent(sc store.Scope, detailType, resource string, at time.Time, identity string, detail any) Event {
	return Event{
		Version: "0", ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte(resource+"#"+detailType+"#"+identity)).String(),
		DetailType: detailType, Source: "aws.ecs", Account: sc.Account, Time: at.UTC().Truncate(time.Second), Region: sc.Region,
		Resources: []string{resource}, Detail: detail,
	}
}

// taskDetail is a task as DescribeTasks shows it, but for what the events have otherwise.
type taskDetail struct {
	ecs.Task
	Attachments []attachment `json:"attachments"`
	UpdatedAt   time.Time    `json:"updatedAt"`
}

// attachment has other types than the API's: "eni" for "ElasticNetworkInterface".
type attachment struct {
	ID      string             `json:"id"`
	Type    string             `json:"type"`
	Status  string             `json:"status"`
	Details []ecs.KeyValuePair `json:"details"`
}

// TaskStateChange is the event of a task that has come to its present version at updatedAt. The task is
// DescribeTasks' own; it is not changed.
func TaskStateChange(sc store.Scope, t ecs.Task, updatedAt time.Time) Event {
	d := taskDetail{Task: t, Attachments: []attachment{}, UpdatedAt: millis(updatedAt)}
	for _, a := range t.Attachments {
		kind := value(a.Type)
		if kind == "ElasticNetworkInterface" {
			kind = "eni"
		}
		d.Attachments = append(d.Attachments, attachment{value(a.Id), kind, value(a.Status), a.Details})
	}
	// What real events do not have.
	d.Tags, d.HealthStatus, d.PlatformFamily = nil, "", nil
	if t.Overrides != nil {
		o := *t.Overrides
		// DescribeTasks shows the member, an event does not.
		o.InferenceAcceleratorOverrides = nil
		d.Overrides = &o
	}
	if len(d.Attributes) == 0 {
		d.Attributes = nil
	}
	d.Containers = make([]ecs.Container, len(t.Containers))
	for i, c := range t.Containers {
		c.HealthStatus = ""
		if len(c.NetworkBindings) == 0 {
			c.NetworkBindings = nil
		}
		d.Containers[i] = c
	}
	for _, at := range []**time.Time{
		&d.ConnectivityAt, &d.CreatedAt, &d.ExecutionStoppedAt, &d.PullStartedAt, &d.PullStoppedAt,
		&d.StartedAt, &d.StoppedAt, &d.StoppingAt,
	} {
		if *at != nil {
			ms := millis(**at)
			*at = &ms
		}
	}
	var version int64
	if t.Version != nil {
		version = *t.Version
	}
	return newEvent(sc, TaskChange, value(t.TaskArn), updatedAt, fmt.Sprint(version), d)
}

// instanceDetail is a container instance as events show it.
type instanceDetail struct {
	AgentConnected       bool             `json:"agentConnected"`
	Attributes           []ecs.Attribute  `json:"attributes"`
	ClusterARN           string           `json:"clusterArn"`
	ContainerInstanceARN string           `json:"containerInstanceArn"`
	EC2InstanceID        string           `json:"ec2InstanceId,omitempty"`
	RegisteredResources  []resource       `json:"registeredResources"`
	RemainingResources   []resource       `json:"remainingResources"`
	Status               string           `json:"status"`
	Version              int64            `json:"version"`
	VersionInfo          *ecs.VersionInfo `json:"versionInfo,omitempty"`
	UpdatedAt            time.Time        `json:"updatedAt"`
}

// resource has only the value of its type, other than the API's.
type resource struct {
	Name    string    `json:"name"`
	Type    string    `json:"type"` // INTEGER or STRINGSET
	Integer *int32    `json:"integerValue,omitempty"`
	Strings *[]string `json:"stringSetValue,omitempty"`
}

func resources(from []ecs.Resource) []resource {
	out := []resource{}
	for _, r := range from {
		res := resource{Name: value(r.Name), Type: value(r.Type)}
		if res.Type == "STRINGSET" {
			set := append([]string{}, r.StringSetValue...)
			res.Strings = &set
		} else {
			res.Integer = r.IntegerValue
		}
		out = append(out, res)
	}
	return out
}

// ContainerInstanceStateChange is the event of a container instance that came to be as ci says. Version
// grows with every event of the instance.
func ContainerInstanceStateChange(sc store.Scope, clusterARN string, ci ecs.ContainerInstance, version int64, updatedAt time.Time) Event {
	d := instanceDetail{
		AgentConnected: ci.AgentConnected != nil && *ci.AgentConnected,
		Attributes:     append([]ecs.Attribute{}, ci.Attributes...),
		ClusterARN:     clusterARN, ContainerInstanceARN: value(ci.ContainerInstanceArn), EC2InstanceID: value(ci.Ec2InstanceId),
		RegisteredResources: resources(ci.RegisteredResources), RemainingResources: resources(ci.RemainingResources),
		Status: value(ci.Status), Version: version, VersionInfo: ci.VersionInfo, UpdatedAt: millis(updatedAt),
	}
	identity := fmt.Sprintf("%d/%t", version, d.AgentConnected)
	return newEvent(sc, InstanceChange, d.ContainerInstanceARN, updatedAt, identity, d)
}

// Action is the detail of an ECS Service Action event.
type Action struct {
	EventType             string    `json:"eventType"` // INFO, WARN or ERROR
	EventName             string    `json:"eventName"` // SERVICE_STEADY_STATE, SERVICE_TASK_PLACEMENT_FAILURE, …
	ClusterARN            string    `json:"clusterArn"`
	CreatedAt             time.Time `json:"createdAt"`
	Reason                string    `json:"reason,omitempty"`
	CapacityProviderARNs  []string  `json:"capacityProviderArns,omitempty"`
	ContainerInstanceARNs []string  `json:"containerInstanceArns,omitempty"`
}

// NewServiceAction is the event of something that a service did or could not do.
func NewServiceAction(sc store.Scope, serviceARN string, a Action) Event {
	a.CreatedAt = millis(a.CreatedAt)
	return newEvent(sc, ServiceAction, serviceARN, a.CreatedAt, a.EventName+a.CreatedAt.String(), a)
}

// Deployment is the detail of an ECS Deployment State Change event.
type Deployment struct {
	EventType    string    `json:"eventType"` // INFO or ERROR
	EventName    string    `json:"eventName"` // SERVICE_DEPLOYMENT_IN_PROGRESS, …_COMPLETED or …_FAILED
	DeploymentID string    `json:"deploymentId"`
	UpdatedAt    time.Time `json:"updatedAt"`
	Reason       string    `json:"reason"`
}

// NewDeploymentStateChange is the event of a deployment that began, came to its end, or failed.
func NewDeploymentStateChange(sc store.Scope, serviceARN string, d Deployment) Event {
	d.UpdatedAt = millis(d.UpdatedAt)
	return newEvent(sc, DeploymentChange, serviceARN, d.UpdatedAt, d.DeploymentID+d.EventName+d.UpdatedAt.String(), d)
}

// UnmarshalJSON reads an event and leaves its detail as it is written.
func (e *Event) UnmarshalJSON(b []byte) error {
	type plain Event
	in := struct {
		*plain
		Detail json.RawMessage `json:"detail"`
	}{plain: (*plain)(e)}
	if err := json.Unmarshal(b, &in); err != nil {
		return fmt.Errorf("read an event: %w", err)
	}
	e.Detail = in.Detail
	return nil
}

// millis is how precisely events tell the time.
func millis(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
