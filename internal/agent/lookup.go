package agent

import "github.com/berthhq/berth/internal/dispatch/dispatchpb"

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

// Labels are the labels that container i has.
func Labels(t *dispatchpb.Task, i int) map[string]string { return labels(t, t.Containers[i]) }
