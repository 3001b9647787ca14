package lifecycle

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// State is a task's lastStatus.
type State string

const (
	Provisioning   State = "PROVISIONING" // its network interface is being made
	Pending        State = "PENDING"      // waits for the host
	Activating     State = "ACTIVATING"   // images are pulled, containers made
	Running        State = "RUNNING"
	Deactivating   State = "DEACTIVATING" // leaves load balancers
	Stopping       State = "STOPPING"     // containers are told to stop
	Deprovisioning State = "DEPROVISIONING"
	Stopped        State = "STOPPED"
	Deleted        State = "DELETED" // no longer kept; no record is ever in this state
)

var states = []State{
	Provisioning, Pending, Activating, Running, Deactivating, Stopping, Deprovisioning, Stopped, Deleted,
}

// ParseState reads a lastStatus. It answers false for what is not one.
func ParseState(s string) (State, bool) {
	return State(s), slices.Contains(states, State(s))
}

// Before tells whether a task reaches s earlier than t. What is not a state comes before all.
func (s State) Before(t State) bool { return slices.Index(states, s) < slices.Index(states, t) }

// ContainerState is a container's lastStatus.
type ContainerState string

const (
	ContainerPending ContainerState = "PENDING"
	ContainerRunning ContainerState = "RUNNING"
	ContainerStopped ContainerState = "STOPPED"
)

var containerStates = []ContainerState{ContainerPending, ContainerRunning, ContainerStopped}

func (s ContainerState) before(t ContainerState) bool {
	return slices.Index(containerStates, s) < slices.Index(containerStates, t)
}

// AttachmentState is the status of a task's network interface.
type AttachmentState string

const (
	Precreated AttachmentState = "PRECREATED"
	Created    AttachmentState = "CREATED"
	Attaching  AttachmentState = "ATTACHING"
	Attached   AttachmentState = "ATTACHED"
	Detaching  AttachmentState = "DETACHING"
	Detached   AttachmentState = "DETACHED"
	Gone       AttachmentState = "DELETED" // what a stopped task shows
)

var attachmentStates = []AttachmentState{Precreated, Created, Attaching, Attached, Detaching, Detached, Gone}

func (s AttachmentState) before(t AttachmentState) bool {
	return slices.Index(attachmentStates, s) < slices.Index(attachmentStates, t)
}

// Health is a healthStatus.
type Health string

const (
	Healthy   Health = "HEALTHY"
	Unhealthy Health = "UNHEALTHY"
	Unknown   Health = "UNKNOWN" // not checked, or not yet
)

func (h Health) known() bool { return h == Healthy || h == Unhealthy || h == Unknown }

// StopCode says what kind of thing stopped a task.
type StopCode string

const (
	TaskFailedToStart         StopCode = "TaskFailedToStart"
	EssentialContainerExited  StopCode = "EssentialContainerExited"
	UserInitiated             StopCode = "UserInitiated"
	ServiceSchedulerInitiated StopCode = "ServiceSchedulerInitiated"
	SpotInterruption          StopCode = "SpotInterruption"
	TerminationNotice         StopCode = "TerminationNotice"
)

// reasons are stoppedReasons for causes that come without one, in ECS's words where it has some.
var reasons = map[StopCode]string{
	TaskFailedToStart:         "Task failed to start",
	EssentialContainerExited:  "Essential container in task exited",
	UserInitiated:             "Task stopped by user",
	ServiceSchedulerInitiated: "Task stopped by the service scheduler",
	SpotInterruption:          "Your Spot Task was interrupted.",
	TerminationNotice:         "Your task received a termination notice.",
}

// ReasonLimit bounds a stoppedReason and a container's reason, in characters, as ECS's agent does.
const ReasonLimit = 1024

// Cause is why a task stops.
type Cause struct {
	Code   StopCode `json:"code"`
	Reason string   `json:"reason"`
	// Kill leaves the containers no time to stop.
	Kill bool `json:"kill,omitempty"`
	// By is the ARN of the principal that asked for the stop; empty: nobody did.
	By string `json:"by,omitempty"`
}

// whole returns the cause with both parts present and within bounds.
func (c Cause) whole() Cause {
	if c.Code == "" {
		c.Code = UserInitiated
	}
	if c.Reason = TrimReason(c.Reason); c.Reason == "" {
		if c.Reason = reasons[c.Code]; c.Reason == "" {
			c.Reason = string(c.Code)
		}
	}
	return c
}

// TrimReason cuts a reason to ReasonLimit characters and makes it valid UTF-8.
func TrimReason(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= ReasonLimit || utf8.RuneCountInString(s) <= ReasonLimit {
		return s
	}
	n := 0
	for i := range s {
		if n == ReasonLimit {
			return s[:i]
		}
		n++
	}
	return s
}

// Facts are what of a task's spec its life depends on; they never change.
type Facts struct {
	CreatedAt time.Time `json:"createdAt"`
	// OwnInterface: the task has a network interface of its own (network mode awsvpc).
	OwnInterface bool     `json:"ownInterface,omitempty"`
	Containers   []Member `json:"containers"` // in the order of the task definition
}

// Member is one container of a task.
type Member struct {
	Name           string `json:"name"`
	Essential      bool   `json:"essential,omitempty"`
	HasHealthCheck bool   `json:"hasHealthCheck,omitempty"`
}

// Desired is what the task should be. The zero value is a task that should run.
type Desired struct {
	// Stop is why the task should stop; nil: it should run.
	Stop *Cause `json:"stop,omitempty"`
	// At is when the stop was requested.
	At      time.Time `json:"at,omitzero"`
	Changes int64     `json:"changes,omitempty"` // to this half that clients can see
}

// Status is what is known of the task.
type Status struct {
	LastStatus State `json:"lastStatus"`
	// Reported numbers the newest report that is part of this.
	Reported int64 `json:"reported,omitempty"`
	Changes  int64 `json:"changes,omitempty"` // to this half that clients can see

	// Stop is why the task stops or stopped. It is set from the moment its end is known, and always
	// when LastStatus is Deactivating or later.
	Stop       *Cause          `json:"stop,omitempty"`
	Containers []Container     `json:"containers"` // one for each of Facts.Containers, in that order
	Attachment AttachmentState `json:"attachment,omitempty"`

	// ConnectedAt is when the host first reported; zero: not yet, and the task shows no connectivity.
	ConnectedAt        time.Time `json:"connectedAt,omitzero"`
	PullStartedAt      time.Time `json:"pullStartedAt,omitzero"`
	PullStoppedAt      time.Time `json:"pullStoppedAt,omitzero"`
	StartedAt          time.Time `json:"startedAt,omitzero"`
	StoppingAt         time.Time `json:"stoppingAt,omitzero"` // when the end became known or was requested
	ExecutionStoppedAt time.Time `json:"executionStoppedAt,omitzero"`
	StoppedAt          time.Time `json:"stoppedAt,omitzero"`

	// ChangedAt is when Changes last grew.
	ChangedAt time.Time `json:"changedAt,omitzero"`
	// Timeline is what happened to this half, at most 100 steps; TimelineDropped counts those left out
	// in its middle.
	Timeline        []Entry `json:"timeline,omitempty"`
	TimelineDropped int     `json:"timelineDropped,omitempty"`
}

// Container is what is known of one container.
type Container struct {
	Name        string         `json:"name"`
	RuntimeID   string         `json:"runtimeId,omitempty"`
	LastStatus  ContainerState `json:"lastStatus"`
	ExitCode    *int32         `json:"exitCode,omitempty"` // nil: none, or lost
	Reason      string         `json:"reason,omitempty"`
	ImageDigest string         `json:"imageDigest,omitempty"`
	Health      Health         `json:"health"`
	StartedAt   time.Time      `json:"startedAt,omitzero"`
	FinishedAt  time.Time      `json:"finishedAt,omitzero"`
	Bindings    []Binding      `json:"bindings,omitempty"`

	// What follows comes by Observe.
	CreatedAt      time.Time `json:"createdAt,omitzero"`
	HealthSince    time.Time `json:"healthSince,omitzero"`
	HealthExitCode int32     `json:"healthExitCode,omitempty"` // of the check that made it Health
	HealthOutput   string    `json:"healthOutput,omitempty"`   // likewise, its end
	RestartCount   int64     `json:"restartCount,omitempty"`
	RestartedAt    time.Time `json:"restartedAt,omitzero"` // the last time
}

// Binding is a port of the host that leads to a container.
type Binding struct {
	BindIP        string `json:"bindIP,omitempty"`
	ContainerPort int32  `json:"containerPort"` // 0 with a range
	HostPort      int32  `json:"hostPort"`      // likewise
	Protocol      string `json:"protocol"`      // tcp or udp
	// Ranges are "8000-8010".
	ContainerPortRange string `json:"containerPortRange,omitempty"`
	HostPortRange      string `json:"hostPortRange,omitempty"`
}

// Record is a task's life so far.
type Record struct {
	Facts   Facts
	Desired Desired
	Status  Status
}

// New is the record of a task just accepted: PROVISIONING with a network interface to be made,
// PENDING without.
func New(f Facts) Record {
	f.Containers = slices.Clone(f.Containers)
	s := Status{LastStatus: Pending, Containers: f.containers(nil)}
	if f.OwnInterface {
		s.LastStatus, s.Attachment = Provisioning, Precreated
	}
	return Record{Facts: f, Status: s}
}

// containers copies what is known into one container for each member, in their order.
func (f Facts) containers(known []Container) []Container {
	out := make([]Container, len(f.Containers))
	for i, m := range f.Containers {
		if j := slices.IndexFunc(known, func(c Container) bool { return c.Name == m.Name }); j >= 0 {
			out[i] = known[j]
		} else {
			out[i] = Container{Name: m.Name, LastStatus: ContainerPending, Health: Unknown}
		}
	}
	return out
}

// Version is the task's version as clients see it: 1, and one more with each change that makes an
// event. Consumers of events use it to drop repetitions and to put them in order.
func (r Record) Version() int64 { return 1 + r.Desired.Changes + r.Status.Changes }

// UpdatedAt is when the version last grew.
func (r Record) UpdatedAt() time.Time {
	at := r.Facts.CreatedAt
	for _, t := range []time.Time{r.Desired.At, r.Status.ChangedAt} {
		if t.After(at) {
			at = t
		}
	}
	return at
}

// DesiredStatus is RUNNING until the task's end is known or wanted, then STOPPED.
func (r Record) DesiredStatus() State {
	if r.Desired.Stop != nil || r.Status.Stop != nil {
		return Stopped
	}
	return Running
}

// Stop is why the task stops or stopped. It answers false for a task that should run.
func (r Record) Stop() (Cause, bool) {
	switch {
	case r.Status.Stop != nil:
		return *r.Status.Stop, true
	case r.Desired.Stop != nil:
		return *r.Desired.Stop, true
	}
	return Cause{}, false
}

// StoppingAt is when the task's end became known or was requested; zero while it should run.
func (r Record) StoppingAt() time.Time {
	if !r.Status.StoppingAt.IsZero() {
		return r.Status.StoppingAt
	}
	return r.Desired.At
}

// Health is the task's healthStatus: that of its essential containers with a health check, UNHEALTHY
// if any of them is, otherwise UNKNOWN if any is or there are none.
func (r Record) Health() Health {
	result, checked := Healthy, false
	for i, m := range r.Facts.Containers {
		if !m.Essential || !m.HasHealthCheck || i >= len(r.Status.Containers) {
			continue
		}
		checked = true
		switch r.Status.Containers[i].Health {
		case Unhealthy:
			return Unhealthy
		case Healthy:
		default:
			result = Unknown
		}
	}
	if !checked {
		return Unknown
	}
	return result
}
