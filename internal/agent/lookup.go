package agent

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// Task tells about one task at this moment, as Snapshot does; ok is false when the agent has none of
// that ARN, or no longer.
func (a *Agent) Task(arn string) (TaskSnapshot, bool) {
	a.mu.Lock()
	l := a.tasks[arn]
	a.mu.Unlock()
	if l == nil {
		return TaskSnapshot{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shown, true
}

// ContainerID is the name that container i has in the runtime.
func ContainerID(t *dispatchpb.Task, i int) string { return containerID(t, i) }

// DockerName is the name that Amazon's agent would have given Docker for container i of a task.
func DockerName(t *dispatchpb.Task, i int) string { return dockerName(t, i) }

// Labels are the labels that container i has.
func Labels(t *dispatchpb.Task, i int) map[string]string { return labels(t, t.Containers[i]) }

// Protect asks the server for the protection of one of this host's tasks, or changes it.
func (a *Agent) Protect(ctx context.Context, r *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error) {
	conn, err := a.cfg.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	own := proto.Clone(r).(*dispatchpb.ProtectionRequest)
	own.HostId = a.hostID
	return dispatchpb.NewDispatchClient(conn).Protection(ctx, own)
}
