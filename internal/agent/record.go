package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// progress is the durable part of what happened to a task on this host. Everything else about a task
// is either in its assignment or can be asked of the rooms.
//
// It holds no container IDs and no paths: they follow from the assignment (containerID), so that
// nothing has to be written before a room is called. What a crash leaves behind is found under the
// same name.
type progress struct {
	// Version of the last report. It is durable before the report is sent.
	Version int64 `json:"version"`
	// Acked is the version the server last acknowledged. It is saved along with other changes only:
	// after a crash a report may be sent once more than needed.
	Acked int64 `json:"acked,omitempty"`
	// Forget says that the server does not know the task: it is stopped, and nothing is reported.
	Forget bool `json:"forget,omitempty"`

	PullStartedAt      time.Time `json:"pullStartedAt,omitzero"`
	PullStoppedAt      time.Time `json:"pullStoppedAt,omitzero"`
	StartedAt          time.Time `json:"startedAt,omitzero"` // all containers were started
	ExecutionStoppedAt time.Time `json:"executionStoppedAt,omitzero"`
	StoppedAt          time.Time `json:"stoppedAt,omitzero"` // nothing of the task is left but its output

	// Networked says that the task has its namespace and interface.
	Networked bool `json:"networked,omitempty"`
	// Stopping is set once the task is on its way down; StopReason says why, in ECS's words.
	Stopping   bool      `json:"stopping,omitempty"`
	StoppingAt time.Time `json:"stoppingAt,omitzero"`
	StopReason string    `json:"stopReason,omitempty"`
	// Clearing is set once every container has stopped and none can start any more. Only then is
	// anything deleted.
	Clearing bool `json:"clearing,omitempty"`

	Containers []containerProgress `json:"containers"` // in the assignment's order
}

// containerProgress is what is known of one container.
type containerProgress struct {
	Image      *Image      `json:"image,omitempty"`
	Connection *connection `json:"connection,omitempty"` // in mode bridge
	Unblocked  bool        `json:"unblocked,omitempty"`  // what it depends on was met
	CreatedAt  time.Time   `json:"createdAt,omitzero"`
	Started    bool        `json:"started,omitempty"`
	StartedAt  time.Time   `json:"startedAt,omitzero"`  // the first time
	SignaledAt time.Time   `json:"signaledAt,omitzero"` // when it was asked to stop
	// Exited: it will not run again, or, if it was never started, not at all.
	Exited     bool      `json:"exited,omitempty"`
	ExitCode   int       `json:"exitCode,omitempty"` // -1: unknown, or none
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	Reason     string    `json:"reason,omitempty"`

	Restart      *exit     `json:"restart,omitempty"` // an exit that a restart is to follow
	RestartCount int64     `json:"restartCount,omitempty"`
	RestartedAt  time.Time `json:"restartedAt,omitzero"` // the last time

	Health         string    `json:"health,omitempty"` // empty: there is no check, or nothing to check yet
	HealthSince    time.Time `json:"healthSince,omitzero"`
	HealthExitCode int       `json:"healthExitCode,omitempty"` // of the check that led to Health
	HealthOutput   string    `json:"healthOutput,omitempty"`
}

// connection is what a container got on the host's bridge.
type connection struct {
	IPv4     string    `json:"ipv4,omitempty"`
	Gateway  string    `json:"gateway,omitempty"`
	MAC      string    `json:"mac,omitempty"`
	Bindings []binding `json:"bindings,omitempty"`
}

// binding is one port of the host that leads to a container, or one range.
type binding struct {
	BindIP         string `json:"bindIP,omitempty"`
	ContainerPort  int32  `json:"containerPort,omitempty"`
	HostPort       int32  `json:"hostPort,omitempty"`
	ContainerRange string `json:"containerRange,omitempty"`
	HostRange      string `json:"hostRange,omitempty"`
	Protocol       string `json:"protocol"`
}

func newConnection(c Connection) *connection {
	out := &connection{IPv4: c.IPv4, Gateway: c.Gateway, MAC: c.MAC}
	for _, b := range c.Bindings {
		out.Bindings = append(out.Bindings, binding{
			BindIP: b.BindIp, ContainerPort: b.ContainerPort, HostPort: b.HostPort,
			ContainerRange: b.ContainerPortRange, HostRange: b.HostPortRange, Protocol: b.Protocol,
		})
	}
	return out
}

func (c *connection) equal(d *connection) bool {
	return c.IPv4 == d.IPv4 && c.Gateway == d.Gateway && c.MAC == d.MAC && slices.Equal(c.Bindings, d.Bindings)
}

func (b binding) message() *dispatchpb.PortMapping {
	return &dispatchpb.PortMapping{
		BindIp: b.BindIP, ContainerPort: b.ContainerPort, HostPort: b.HostPort,
		ContainerPortRange: b.ContainerRange, HostPortRange: b.HostRange, Protocol: b.Protocol,
	}
}

// Limits of what a server may ask for. Names become parts of paths and of runtime IDs, so they are
// held to AWS's own alphabets.
var (
	taskIDPattern        = regexp.MustCompile(`^[0-9a-zA-Z]{1,64}$`)
	containerNamePattern = regexp.MustCompile(`^[0-9a-zA-Z_-]{1,255}$`)
)

const maxContainers = 32

// taskID is the last part of a task's ARN. It is unique on the host, since it is random.
func taskID(arn string) string {
	return arn[strings.LastIndexByte(arn, '/')+1:]
}

// checkAssignment refuses what this agent cannot represent, whoever sent it.
func checkAssignment(t *dispatchpb.Task) error {
	if !taskIDPattern.MatchString(taskID(t.GetArn())) {
		return fmt.Errorf("task ARN %q has no usable task ID", t.GetArn())
	}
	if n := len(t.Containers); n == 0 || n > maxContainers {
		return fmt.Errorf("task %s has %d containers, not 1 to %d", t.Arn, n, maxContainers)
	}
	names := make(map[string]bool, len(t.Containers))
	for _, c := range t.Containers {
		if !containerNamePattern.MatchString(c.GetName()) || names[c.GetName()] {
			return fmt.Errorf("task %s has an unusable or repeated container name %q", t.Arn, c.GetName())
		}
		names[c.Name] = true
	}
	switch t.DesiredStatus {
	case statusRunning, statusStopped:
	default:
		return fmt.Errorf("task %s has the desired status %q", t.Arn, t.DesiredStatus)
	}
	switch t.NetworkMode {
	case networkHost, networkNone, networkBridge:
	case networkAWSVPC:
		if t.NetworkInterface == nil {
			return fmt.Errorf("task %s has the network mode %s and no network interface", t.Arn, t.NetworkMode)
		}
	default:
		return fmt.Errorf("task %s has the network mode %q, which this agent does not know", t.Arn, t.NetworkMode)
	}
	if _, err := newGraph(t); err != nil {
		return fmt.Errorf("task %s: %w", t.Arn, err)
	}
	return nil
}

func encodeAssignment(t *dispatchpb.Task) ([]byte, error) { return proto.Marshal(t) }

func decodeAssignment(b []byte) (*dispatchpb.Task, error) {
	t := &dispatchpb.Task{}
	if err := proto.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("decode assignment: %w", err)
	}
	if err := checkAssignment(t); err != nil {
		return nil, err
	}
	return t, nil
}

func encodeProgress(p *progress) ([]byte, error) { return json.Marshal(p) }

// decodeProgress reads the progress of a task with n containers.
func decodeProgress(b []byte, n int) (*progress, error) {
	p := &progress{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("decode progress: %w", err)
	}
	if len(p.Containers) != n {
		return nil, fmt.Errorf("decode progress: %d containers recorded, %d assigned", len(p.Containers), n)
	}
	if p.Version < 0 || p.Acked > p.Version {
		return nil, errors.New("decode progress: a version was acknowledged that was never reported")
	}
	return p, nil
}

// tombstone remembers a task that is over and acknowledged, until its output is pruned: a server that
// shows the task again, from an older snapshot, gets the same answer and the task does not run twice.
type tombstone struct {
	status    *dispatchpb.TaskStatus
	stoppedAt time.Time
}

func encodeTombstone(st *dispatchpb.TaskStatus) ([]byte, error) { return proto.Marshal(st) }

func decodeTombstone(b []byte) (tombstone, error) {
	st := &dispatchpb.TaskStatus{}
	if err := proto.Unmarshal(b, st); err != nil {
		return tombstone{}, fmt.Errorf("decode stopped task: %w", err)
	}
	if !taskIDPattern.MatchString(taskID(st.Arn)) || st.LastStatus != statusStopped {
		return tombstone{}, fmt.Errorf("decode stopped task: %q is %q", st.Arn, st.LastStatus)
	}
	return tombstone{status: st, stoppedAt: st.StoppedAt.AsTime()}, nil
}
