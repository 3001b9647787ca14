package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// fail decides what a step's error means: try again, give the task up, or carry on regardless.
func (m *machine) fail(s step, err error, now time.Time) {
	f := m.failed[s]
	f.err, f.at = err, now
	f.tries++
	f.again = now.Add(min(stepBackoff<<min(f.tries-1, 10), maxStepBackoff))
	defer func() { m.failed[s] = f }()
	if s.kind != doRestart && s.launches() && (m.p.Stopping || s.container != theTask && m.p.Containers[s.container].Exited) {
		return // it was cancelled, or it no longer matters
	}
	switch s.kind {
	case doPull:
		m.pullFailed(s, &f, now)
	case doCreate:
		name := "CannotCreateContainerError"
		if ociCreateFailed(err) {
			name = "CannotStartContainerError"
		}
		m.giveUp(s.container, typed(name, "created", createTimeout, err), now)
	case doStart:
		m.giveUp(s.container, typed("CannotStartContainerError", "started", startTimeout, err), now)
	case doAttach:
		if m.p.Containers[s.container].Started {
			return // its output is lost until this succeeds; the container matters more
		}
		m.giveUp(s.container, resourceError("failed to initialize logging driver: "+err.Error()), now)
	case doEnvironment:
		if m.p.Containers[s.container].Started || !permanentFetch(err) && f.tries < fetchTries {
			return
		}
		// To Amazon's agent a container's environment files are a resource of the task.
		m.p.Containers[s.container].Reason = resourceError(err.Error())
		m.giveUp(theTask, resourceError(err.Error()), now)
	case doConnect:
		if m.p.Containers[s.container].Started {
			return // it goes on in the namespace that it has; its ports are held once this succeeds
		}
		m.giveUp(s.container, typed("CannotStartContainerError", "started", networkTimeout, err), now)
	case doRestart:
		// Only the runtime can say whether the process runs now.
		m.botched[s.container], m.suspect[s.container] = true, true
	case doVolumes:
		name := "CannotCreateVolumeError"
		if named := (interface{ ErrorName() string })(nil); errors.As(err, &named) {
			name = named.ErrorName()
		}
		m.giveUp(theTask, typed(name, "created", callTimeout, err), now)
	case doPrepare:
		m.giveUp(theTask, resourceError("failed to set up the task's resource limits: "+err.Error()), now)
	case doNetwork:
		m.giveUp(theTask, resourceError("failed to set up the task's network: "+err.Error()), now)
	case doInspect:
		m.suspect[s.container] = true
	case doKill:
		m.p.Containers[s.container].Reason = "CannotStopContainerError: " + err.Error()
		m.touch(now, false)
	case doSignal:
		// It is killed when its time is over, as if it had ignored the signal.
		if m.p.Containers[s.container].SignaledAt.IsZero() && f.tries >= 3 {
			m.p.Containers[s.container].SignaledAt = now
			m.touch(now, false)
		}
	}
}

func (m *machine) pullFailed(s step, f *failure, now time.Time) {
	if m.p.Containers[s.container].Started {
		// Only its digest and stop signal were wanted, after a crash: do without.
		m.pulled(s.container, Image{Ref: m.task.Containers[s.container].Image}, now)
		return
	}
	if timedOut(f.err) || permanent(f.err) || f.tries >= pullTries {
		m.giveUp(s.container, typed("CannotPullContainerError", "pulled", pullTimeout, f.err), now)
		return
	}
	f.again = now.Add(pullBackoff << (f.tries - 1))
}

// giveUp says that a step's failure is final. It ends the task, or, if the step was for a container that
// is not essential, that container alone. The reason is typed.
func (m *machine) giveUp(i int, reason string, now time.Time) {
	if i != theTask {
		m.p.Containers[i].Reason = reason
		if !m.task.Containers[i].Essential {
			m.ended(i, exit{Code: -1, At: now}, now)
			return
		}
	}
	if !m.p.PullStartedAt.IsZero() && m.p.PullStoppedAt.IsZero() {
		m.p.PullStoppedAt = now
	}
	m.stop(reason, now)
}

func resourceError(text string) string { return "ResourceInitializationError: " + text }

// typed gives an error ECS's type: its own, if the room knows it, or name. A deadline that passed has a
// type to itself.
func typed(name, state string, timeout time.Duration, err error) string {
	if timedOut(err) {
		return fmt.Sprintf("ContainerRuntimeTimeoutError: Could not transition to %s; timed out after waiting %s", state, timeout)
	}
	var own interface{ ErrorName() string }
	if errors.As(err, &own) {
		name = own.ErrorName()
	}
	return name + ": " + err.Error()
}

// ociCreateFailed says whether the OCI runtime refused a container, such as for a command that is not in
// its image. To ECS that is a start that failed: Docker calls the runtime's create when it starts a
// container. The words are those of containerd's shim.
func ociCreateFailed(err error) bool {
	return strings.Contains(err.Error(), "OCI runtime create failed")
}

func timedOut(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// permanent says whether a pull's error will be the same next time. The runtime's error says in words
// what is wrong with an image; the words are the registries' and containerd's.
func permanent(err error) bool {
	text := strings.ToLower(err.Error())
	for _, w := range []string{
		"not found", "manifest unknown", "name unknown", "does not exist",
		"unauthorized", "denied", "forbidden", "authentication required", "authorization failed",
		"invalid reference", "invalid image", "no match for platform", "corrupt",
	} {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}
