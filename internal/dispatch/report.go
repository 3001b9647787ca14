package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// ErrUnknownTask says that ECS does not know the task (any more): there is nothing left to report.
var ErrUnknownTask = errors.New("unknown task")

// Reporter makes a host's status of a task durable.
type Reporter interface {
	Report(ctx context.Context, hostID string, st *dispatchpb.TaskStatus) error
}

// Observer takes what a host sees of a task and a state change cannot say: its containers' health, which
// with AWS goes by the telemetry channel, and their restarts and times. A task that is not the host's is
// not an error and changes nothing.
type Observer interface {
	Observe(ctx context.Context, hostID string, st *dispatchpb.TaskStatus) error
}

// APIReporter reports through the ecs API, as Amazon's agent does.
type APIReporter struct {
	ECS      ecs.API
	Observer Observer // nil: what it is for is lost
}

// Report implements Reporter.
func (r APIReporter) Report(ctx context.Context, hostID string, st *dispatchpb.TaskStatus) error {
	// arn:aws:ecs:<region>:<account>:task/<cluster>/<id>
	parts := strings.SplitN(st.Arn, ":", 6)
	if len(parts) != 6 {
		return fmt.Errorf("status of %q: %w", st.Arn, ErrUnknownTask)
	}
	region, account := parts[3], parts[4]
	path := strings.Split(parts[5], "/")
	if len(path) != 3 {
		return fmt.Errorf("status of %q: %w", st.Arn, ErrUnknownTask)
	}
	ctx = caller.With(ctx, caller.ForService("host-"+hostID, account, region))
	in := &ecs.SubmitTaskStateChangeInput{
		Cluster: &path[1], Task: &st.Arn, Status: &st.LastStatus,
		PullStartedAt: at(st.PullStartedAt), PullStoppedAt: at(st.PullStoppedAt),
		ExecutionStoppedAt: at(st.ExecutionStoppedAt),
	}
	if st.Reason != "" {
		in.Reason = &st.Reason
	}
	for _, c := range st.Containers {
		in.Containers = append(in.Containers, containerChange(c))
	}
	if st.AttachmentStatus != "" {
		in.Attachments = []ecs.AttachmentStateChange{{AttachmentArn: &st.AttachmentId, Status: &st.AttachmentStatus}}
	}
	// Before the state change, so that what clients see of it is whole.
	if r.Observer != nil && worthObserving(st) {
		if err := r.Observer.Observe(ctx, hostID, st); err != nil {
			return fmt.Errorf("take in what host %s sees of %s: %w", hostID, st.Arn, err)
		}
	}
	_, err := r.ECS.SubmitTaskStateChange(ctx, in)
	var aerr api.Error
	if errors.As(err, &aerr) && aerr.ErrorFault() == api.FaultClient {
		return fmt.Errorf("%w: %w", ErrUnknownTask, err)
	}
	return err
}

// worthObserving spares most tasks a second write for each report: what a state change lacks matters once
// there is health, or a restart, and at the end for the record of the task.
func worthObserving(st *dispatchpb.TaskStatus) bool {
	for _, c := range st.Containers {
		if c.HealthStatus != "" || c.RestartCount > 0 {
			return true
		}
	}
	return st.LastStatus == "STOPPED"
}

func containerChange(c *dispatchpb.ContainerStatus) ecs.ContainerStateChange {
	out := ecs.ContainerStateChange{ContainerName: &c.Name, Status: &c.LastStatus}
	if c.RuntimeId != "" {
		out.RuntimeId = &c.RuntimeId
	}
	if c.ImageDigest != "" {
		out.ImageDigest = &c.ImageDigest
	}
	if c.Reason != "" {
		out.Reason = &c.Reason
	}
	if c.HasExitCode {
		out.ExitCode = &c.ExitCode
	}
	for _, b := range c.NetworkBindings {
		n := ecs.NetworkBinding{Protocol: ecs.TransportProtocol(b.Protocol)}
		if b.BindIp != "" {
			n.BindIP = &b.BindIp
		}
		if b.ContainerPortRange != "" {
			n.ContainerPortRange, n.HostPortRange = &b.ContainerPortRange, &b.HostPortRange
		} else {
			n.ContainerPort, n.HostPort = &b.ContainerPort, &b.HostPort
		}
		out.NetworkBindings = append(out.NetworkBindings, n)
	}
	return out
}

func at(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	return api.Ptr(t.AsTime())
}
