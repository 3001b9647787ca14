package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// stepWait is how long a step may take, and what comes of it if it takes longer.
type stepWait struct {
	reason  string // of a pull with the image's name
	timeout time.Duration
	then    string
}

const (
	thenTaskStops  = "the task is stopped"
	thenTriedAgain = "it is tried again"
)

var stepWaits = map[kind]stepWait{
	doInspect:     {"the runtime to say how the container is", callTimeout, thenTriedAgain},
	doAdmit:       {"its turn: the host launches other tasks", 0, ""},
	doPrepare:     {"its resource limits to be set up", callTimeout, thenTaskStops},
	doVolumes:     {"its volumes to be made", callTimeout, thenTaskStops},
	doNetwork:     {"its network interface to be set up", networkTimeout, thenTaskStops},
	doPull:        {"pulling image %s", pullTimeout, ""},
	doAttach:      {"the logger to take its output", attachTimeout, ""},
	doEnvironment: {"its environment files to be fetched", fetchTimeout, thenTriedAgain},
	doConnect:     {"its connection to the host's bridge", networkTimeout, ""},
	doCreate:      {"being created", createTimeout, ""},
	doStart:       {"being started", startTimeout, ""},
	doRestart:     {"being restarted", startTimeout, "the exit before is its last"},
	doDelete:      {"being deleted", deleteTimeout, thenTriedAgain},
	doDetach:      {"the end of its output", deleteTimeout, thenTriedAgain},
	doDisconnect:  {"its connection to the host's bridge to be undone", networkTimeout, thenTriedAgain},
	doTeardown:    {"its network interface to be removed", networkTimeout, thenTriedAgain},
	doRelease:     {"its volumes to be removed", deleteTimeout, thenTriedAgain},
	doRemove:      {"its resource limits to be removed", callTimeout, thenTriedAgain},
	doFiles:       {"its files to be removed", callTimeout, thenTriedAgain},
}

// waiting says what the task waits for: steps under way, steps that failed and are to be tried again,
// containers that wait for others, and the time that containers have to stop. It answers nothing only
// for a task that is as it should be.
func (m *machine) waiting(now time.Time) []*dispatchpb.Waiting {
	if m.over() {
		if m.p.Acked < m.p.Version && !m.p.Forget {
			return []*dispatchpb.Waiting{{Reason: "the server to acknowledge that the task has stopped", Since: stamp(m.p.StoppedAt)}}
		}
		return nil
	}
	var out []*dispatchpb.Waiting
	for s := range m.running {
		if w, ok := stepWaits[s.kind]; ok {
			out = append(out, m.waitingFor(s, w, m.began[s]))
		}
	}
	for s, f := range m.failed {
		if w, ok := stepWaits[s.kind]; ok && !m.running[s] && f.again.After(now) && m.retries(s) {
			out = append(out, &dispatchpb.Waiting{
				Container: m.name(s), Since: stamp(f.at),
				Reason:   trim(fmt.Sprintf("another try, after %q failed: %v", m.phrase(s, w), f.err)),
				Deadline: stamp(f.again), Then: thenTriedAgain,
			})
		}
	}
	switch {
	case m.p.Clearing:
		if m.saved < m.urgent {
			out = append(out, m.waitingForDisk())
		}
	case m.p.Stopping:
		out = append(out, m.waitingToStop()...)
	default:
		out = append(out, m.waitingToBegin()...)
		if m.saved == 0 {
			out = append(out, m.waitingForDisk())
		}
	}
	slices.SortFunc(out, func(a, b *dispatchpb.Waiting) int {
		return cmp.Or(strings.Compare(a.Container, b.Container), strings.Compare(a.Reason, b.Reason))
	})
	return out
}

func (m *machine) name(s step) string {
	if s.container == theTask {
		return ""
	}
	return m.task.Containers[s.container].Name
}

func (m *machine) phrase(s step, w stepWait) string {
	if s.kind == doPull {
		return fmt.Sprintf(w.reason, m.task.Containers[s.container].Image)
	}
	return w.reason
}

func (m *machine) waitingFor(s step, w stepWait, since time.Time) *dispatchpb.Waiting {
	out := &dispatchpb.Waiting{Container: m.name(s), Reason: m.phrase(s, w), Since: stamp(since), Then: w.then}
	if w.timeout > 0 {
		out.Deadline = stamp(since.Add(w.timeout))
		if out.Then == "" {
			out.Then = m.thenGivenUp(s.container)
		}
	}
	return out
}

// thenGivenUp is what comes of a container that cannot be brought up.
func (m *machine) thenGivenUp(i int) string {
	if i == theTask || m.task.Containers[i].Essential {
		return thenTaskStops
	}
	return "the container is given up"
}

// retries says whether a step that failed is still wanted.
func (m *machine) retries(s step) bool {
	return !s.launches() || !m.p.Stopping && (s.container == theTask || !m.p.Containers[s.container].Exited)
}

func (m *machine) waitingForDisk() *dispatchpb.Waiting {
	return &dispatchpb.Waiting{Reason: "the host's record to be written", Since: stamp(m.changedAt)}
}

func (m *machine) waitingToBegin() (out []*dispatchpb.Waiting) {
	for i, c := range m.task.Containers {
		cp := &m.p.Containers[i]
		if cp.Restart != nil && !m.running[step{doRestart, i}] {
			out = append(out, &dispatchpb.Waiting{Container: c.Name, Reason: "being restarted", Since: stamp(cp.Restart.At)})
		}
		if cp.Started || cp.Exited || m.unblocked(i) {
			continue
		}
		o := m.graph.outlook(i, m.standing, time.Time{})
		if o.ready {
			continue
		}
		on, s := m.task.Containers[o.on.on], m.standing(o.on.on)
		w := &dispatchpb.Waiting{
			Container: c.Name, Reason: on.Name + " " + becoming[o.on.condition],
			Since: stamp(s.startedAt), Deadline: stamp(o.until),
		}
		if w.Since == nil {
			w.Since = m.task.CreatedAt
		}
		if !o.until.IsZero() {
			w.Then = m.thenGivenUp(i) + ": the dependency has timed out"
		}
		out = append(out, w)
	}
	return out
}

var becoming = map[string]string{
	conditionCreate:   "to be created",
	conditionStart:    "to start",
	conditionComplete: "to exit",
	conditionSuccess:  "to exit with 0",
	conditionHealthy:  "to become HEALTHY",
}

func (m *machine) waitingToStop() (out []*dispatchpb.Waiting) {
	for i, c := range m.task.Containers {
		cp := &m.p.Containers[i]
		if !cp.Started || cp.Exited {
			continue
		}
		w := &dispatchpb.Waiting{Container: c.Name, Since: stamp(m.p.StoppingAt)}
		switch {
		case !cp.SignaledAt.IsZero() && m.killed[i].IsZero():
			w.Reason, w.Since = "exiting after its stop signal", stamp(cp.SignaledAt)
			w.Deadline, w.Then = stamp(cp.SignaledAt.Add(m.patience(i))), "it is killed"
		case !m.killed[i].IsZero():
			w.Reason, w.Since = "exiting after SIGKILL", stamp(m.killed[i])
			w.Deadline, w.Then = stamp(m.killed[i].Add(killPatience)), "it is killed again"
		case !m.task.Kill && !m.graph.mayStop(i, m.down):
			for _, u := range m.graph.users[i] {
				if m.down(u) {
					continue
				}
				name := m.task.Containers[u].Name
				w.Reason = name + " to stop first, which depends on it"
				if at := m.p.Containers[u].SignaledAt; !at.IsZero() {
					w.Deadline, w.Then = stamp(at.Add(m.patience(u))), name+" is killed"
				}
			}
		default:
			w.Reason = "its stop signal to be sent"
		}
		out = append(out, w)
	}
	return out
}

// inspect answers the server's question what a task is doing. A task that is over and acknowledged is
// answered for by its last report.
func (a *Agent) inspect(r *dispatchpb.InspectRequest) {
	a.mu.Lock()
	l := a.tasks[r.TaskArn]
	_, stopped := a.stopped[r.TaskArn]
	a.mu.Unlock()
	reply := &dispatchpb.InspectReply{RequestId: r.RequestId}
	if l != nil {
		l.post(func(now time.Time) {
			reply.Found, reply.Status, reply.Waiting = true, l.m.present(), l.m.waiting(now)
			a.outbox.reply(reply)
		})
		return
	}
	if stopped {
		if st, err := a.journal.tombstone(r.TaskArn); err == nil {
			reply.Found, reply.Status = true, st
		}
	}
	a.outbox.reply(reply)
}

// present is the task's status with what is known beyond the last change: the last health check's outcome,
// also if it changed nothing.
func (m *machine) present() *dispatchpb.TaskStatus {
	st := proto.Clone(report(m.task, m.p)).(*dispatchpb.TaskStatus)
	for i := range m.p.Containers {
		if h := &m.health[i]; !h.at.IsZero() {
			st.Containers[i].HealthExitCode, st.Containers[i].HealthOutput = int32(h.exitCode), h.output
		}
	}
	return st
}
