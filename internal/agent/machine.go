package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// kind is one sort of work for a task. Each calls one room.
type kind string

const (
	doInspect  kind = "inspect"  // container: what is its state?
	doAdmit    kind = "admit"    // task: a place among the launches under way on this host
	doPrepare  kind = "prepare"  // task: its directory and its cgroup
	doNetwork  kind = "network"  // task: its namespace
	doPull     kind = "pull"     // container: its image, also for the others with the same image
	doAttach   kind = "attach"   // container: its FIFOs
	doCreate   kind = "create"   // container
	doStart    kind = "start"    // container
	doSignal   kind = "signal"   // container: its stop signal
	doKill     kind = "kill"     // container: SIGKILL
	doDelete   kind = "delete"   // container
	doDetach   kind = "detach"   // container: its FIFOs, once emptied
	doTeardown kind = "teardown" // task: its namespace
	doRemove   kind = "remove"   // task: its cgroup
	doFiles    kind = "files"    // task: its directory
)

// step is one piece of work: at most one of each runs at a time, and every one may be repeated.
type step struct {
	kind      kind
	container int // index in the assignment; -1 for the task as a whole
}

const theTask = -1

// The deadlines of Amazon's agent, and of what it leaves open.
const (
	pullTimeout    = 2 * time.Hour
	createTimeout  = 4 * time.Minute
	startTimeout   = 3 * time.Minute
	networkTimeout = 4 * time.Minute
	attachTimeout  = time.Minute
	callTimeout    = 30 * time.Second // inspect, signal, kill, prepare
	deleteTimeout  = 2 * time.Minute  // one try to delete or detach
	clearTimeout   = 5 * time.Minute  // all of the clearing; what is left then is swept up later

	pullTries   = 5
	pullBackoff = 1100 * time.Millisecond // doubled for each further try

	stepBackoff    = 200 * time.Millisecond // for steps that must succeed in the end
	maxStepBackoff = 30 * time.Second

	killPatience = 10 * time.Second // after SIGKILL, until it is sent again
	lazyDelay    = time.Second      // how long a change may wait to be saved with the next
)

// machine decides what happens next to one task. It has no I/O and no clock: advance and plan are
// functions of the assignment, the progress, what the running agent has done so far, and the time
// they are given. A task's goroutine (task.go) carries the steps out and feeds the results back.
//
//	finish(step, result) ─► advance: what follows at once? ─► plan: which steps can start now?
type machine struct {
	task *dispatchpb.Task // replaced, never changed
	p    *progress

	stopTimeout time.Duration // for containers that name none
	pullPolicy  PullPolicy

	// What follows is of this run of the agent only, and a crash loses it without harm.
	running map[step]bool
	done    map[step]bool
	failed  map[step]failure
	known   []bool // the container's state was seen, or it cannot have one yet
	created []bool
	suspect []bool // something hinted that the container's state changed
	killed  []time.Time
	oom     []bool      // an OOM event named the container
	fifos   [][2]string // of standard output and error
	netNS   string
	// resumed says that an earlier run of the agent may have done any step.
	resumed    bool
	clearingAt time.Time

	reported *dispatchpb.TaskStatus // as of the last handOver
	encoded  []byte
	// Revisions of the progress: the current one, the last that must be saved without delay, the last
	// that was handed to the journal, and the last that the journal confirmed.
	changed, urgent, handed, saved int64
	changedAt                      time.Time // of the oldest change not handed over
}

// failure is a step's last one, and when it may be tried again.
type failure struct {
	err   error
	tries int
	again time.Time
}

// result is a finished step's outcome. Only the member of its kind is set.
type result struct {
	err   error
	image Image
	netNS string
	fifos [2]string
	at    time.Time
	state ContainerState
	found bool
}

// newMachine makes the machine of a task. p is nil for a task never seen before; resumed says that
// the task comes from the record of an earlier run.
func newMachine(t *dispatchpb.Task, p *progress, resumed bool) *machine {
	n := len(t.Containers)
	m := &machine{
		task: t, p: p, resumed: resumed,
		running: map[step]bool{}, done: map[step]bool{}, failed: map[step]failure{},
		known: make([]bool, n), created: make([]bool, n), suspect: make([]bool, n),
		killed: make([]time.Time, n), oom: make([]bool, n), fifos: make([][2]string, n),
	}
	if m.p == nil {
		m.p = &progress{Containers: make([]containerProgress, n)}
	}
	for i := range n {
		m.known[i] = !resumed
	}
	if p != nil {
		m.changed, m.urgent, m.handed, m.saved = 1, 1, 1, 1
		m.reported = report(t, p)
	} else {
		m.changed, m.urgent = 1, 1
	}
	return m
}

// touch notes a change of the progress. Only an urgent one is saved at once: each save costs fsyncs
// that compete with those of the launch itself.
func (m *machine) touch(now time.Time, urgent bool) {
	if m.changed == m.handed {
		m.changedAt = now
	}
	m.changed++
	if urgent {
		m.urgent = m.changed
	}
}

// saveDue says whether the progress must be handed to the journal now, or else when; zero is never.
func (m *machine) saveDue(now time.Time) (due bool, at time.Time) {
	switch {
	case m.changed == m.handed:
		return false, time.Time{}
	case m.urgent > m.handed, now.Sub(m.changedAt) >= lazyDelay:
		return true, time.Time{}
	default:
		return false, m.changedAt.Add(lazyDelay)
	}
}

// handOver encodes the progress for the journal, and makes the report that it justifies. The report's
// version grows if it says anything new; if not, there is none.
func (m *machine) handOver() (*dispatchpb.TaskStatus, error) {
	st := report(m.task, m.p)
	news := !proto.Equal(st, m.reported)
	if news {
		m.p.Version++
		st.Version = m.p.Version
	}
	b, err := encodeProgress(m.p)
	if err != nil {
		return nil, fmt.Errorf("encode progress: %w", err)
	}
	m.reported, m.encoded, m.handed = st, b, m.changed
	if !news {
		return nil, nil
	}
	return st, nil
}

// retirable says whether the task can be forgotten but for its tombstone.
func (m *machine) retirable() bool {
	return m.over() && m.saved >= m.urgent && (m.p.Forget || m.p.Acked >= m.reported.GetVersion() && m.handed == m.changed)
}

// assign takes a newer statement of what the task should be. RUNNING after STOPPED is ignored: a task
// runs once.
func (m *machine) assign(t *dispatchpb.Task) {
	if m.task.DesiredStatus == statusStopped || t.DesiredStatus != statusStopped {
		return
	}
	m.task = t
}

// forget makes the task one that the server does not know.
func (m *machine) forget(now time.Time) {
	if !m.p.Forget {
		m.p.Forget = true
		m.touch(now, true)
	}
	m.stop("Task stopped: the server no longer knows it", now)
}

// stop sends the task on its way down; the first cause stays.
func (m *machine) stop(reason string, now time.Time) {
	if m.p.Stopping {
		return
	}
	m.p.Stopping, m.p.StopReason = true, reason
	m.touch(now, true)
}

// rebooted ends a task whose containers the reboot of the host has ended.
func (m *machine) rebooted(hostName string, now time.Time) {
	m.p.Networked = false
	for i := range m.known {
		m.known[i] = true // there is nothing to see any more
	}
	for i := range m.p.Containers {
		c := &m.p.Containers[i]
		if c.Started && !c.Exited {
			m.exited(i, ContainerState{ExitCode: -1, FinishedAt: now}, now)
			c.Reason = "ContainerRuntimeError: the host was restarted while the container ran"
		}
	}
	m.stop(fmt.Sprintf("Host (instance %s) restarted.", hostName), now)
	m.touch(now, true)
}

// hint says that a container may have changed.
func (m *machine) hint(i int, oom bool) {
	m.suspect[i] = true
	m.oom[i] = m.oom[i] || oom
}

// resync doubts the state of every container that should be running.
func (m *machine) resync() {
	for i := range m.p.Containers {
		if c := &m.p.Containers[i]; c.Started && !c.Exited {
			m.suspect[i] = true
		}
	}
}

// over says that nothing is left to do but to report.
func (m *machine) over() bool { return !m.p.StoppedAt.IsZero() }

// launching says whether a step that can bring something into being is under way.
func (m *machine) launching() bool {
	for s := range m.running {
		switch s.kind {
		case doAdmit, doPrepare, doNetwork, doPull, doAttach, doCreate, doStart:
			return true
		}
	}
	return false
}

// holdsPlace says whether the task still needs its place among the launches.
func (m *machine) holdsPlace() bool {
	if m.p.Stopping {
		return m.launching()
	}
	return m.p.StartedAt.IsZero()
}

// alive counts containers that were started and not seen to have stopped.
func (m *machine) alive() (n int) {
	for i := range m.p.Containers {
		if c := &m.p.Containers[i]; c.Started && !c.Exited {
			n++
		}
	}
	return n
}

// advance draws the conclusions that need no work.
func (m *machine) advance(now time.Time) {
	p := m.p
	if m.over() {
		return
	}
	if m.task.DesiredStatus == statusStopped {
		reason := m.task.StopReason
		if reason == "" {
			reason = "Task stopped by user"
		}
		m.stop(reason, now)
	}
	allStarted, last := true, time.Time{}
	essentialExit, anyAlive := false, false
	ended := now // when the first essential container, or the last of all, did
	for i, c := range m.task.Containers {
		cp := &p.Containers[i]
		allStarted = allStarted && cp.Started
		if cp.StartedAt.After(last) {
			last = cp.StartedAt
		}
		if c.Essential && cp.Exited {
			essentialExit = true
			if cp.FinishedAt.Before(ended) {
				ended = cp.FinishedAt
			}
		}
		anyAlive = anyAlive || !cp.Exited
	}
	if allStarted && p.StartedAt.IsZero() {
		// Also when it is being stopped already: it did run.
		p.StartedAt = last
		if last.IsZero() {
			p.StartedAt = now
		}
		m.touch(now, true)
	}
	if essentialExit || !anyAlive {
		if p.ExecutionStoppedAt.IsZero() {
			p.ExecutionStoppedAt = ended
			m.touch(now, true)
		}
		m.stop("Essential container in task exited", now)
	}
	if p.Stopping && !p.Clearing && m.allKnown() && m.alive() == 0 && !m.launching() {
		p.Clearing = true
		if p.ExecutionStoppedAt.IsZero() && !p.StartedAt.IsZero() {
			p.ExecutionStoppedAt = now
		}
		m.touch(now, true)
	}
	if p.Clearing && m.clearingAt.IsZero() {
		m.clearingAt = now
	}
	if p.Clearing && m.saved >= m.urgent && m.cleared(now) {
		p.StoppedAt, p.Networked = now, false
		m.touch(now, true)
	}
}

func (m *machine) allKnown() bool {
	for _, k := range m.known {
		if !k {
			return false
		}
	}
	return true
}

// begun says whether a step may have left something behind, in this run of the agent or an earlier.
func (m *machine) begun(k kind, i int) bool {
	s := step{k, i}
	return m.resumed || m.done[s] || m.failed[s].tries > 0
}

// clearing lists what must be undone, each with what must be undone before it.
func (m *machine) clearing(yield func(s step, after []step) bool) {
	deletes := make([]step, 0, len(m.task.Containers))
	for i := range m.task.Containers {
		remove := step{doDelete, i}
		if m.begun(doCreate, i) {
			deletes = append(deletes, remove)
			if !yield(remove, nil) {
				return
			}
		}
		// The shim holds the FIFOs open until the container is deleted, so the output's end is seen
		// only then.
		if m.begun(doAttach, i) && !yield(step{doDetach, i}, []step{remove}) {
			return
		}
	}
	if hasInterface(m.task) && m.begun(doNetwork, theTask) &&
		!yield(step{doTeardown, theTask}, deletes) {
		return
	}
	if m.begun(doPrepare, theTask) && yield(step{doRemove, theTask}, deletes) {
		yield(step{doFiles, theTask}, []step{{doRemove, theTask}})
	}
}

// cleared says whether the clearing has come to its end. No container runs by then. Should a room
// keep failing for clearTimeout, the task stops all the same, and what is left is for the sweep.
func (m *machine) cleared(now time.Time) bool {
	late := now.Sub(m.clearingAt) >= clearTimeout
	for s := range m.clearing {
		if !m.done[s] && (!late || m.running[s]) {
			return false
		}
	}
	return true
}

// plan lists the steps that can start now, and when to ask again if nothing happens before; a zero
// time is never.
func (m *machine) plan(now time.Time) (steps []step, wake time.Time) {
	at := func(t time.Time) {
		if wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	want := func(k kind, i int) {
		s := step{k, i}
		if m.running[s] || m.done[s] {
			return
		}
		if f, ok := m.failed[s]; ok && f.again.After(now) {
			at(f.again)
			return
		}
		steps = append(steps, s)
	}
	if m.over() {
		return nil, wake
	}
	p := m.p
	for i := range p.Containers {
		c := &p.Containers[i]
		if !m.known[i] && !p.Clearing || m.suspect[i] && c.Started && !c.Exited {
			want(doInspect, i)
		}
	}
	switch {
	case p.Clearing:
		if m.saved < m.urgent {
			return steps, wake // exit codes are durable before their source is deleted
		}
		at(m.clearingAt.Add(clearTimeout))
		for s, after := range m.clearing {
			ready := true
			for _, a := range after {
				ready = ready && (m.done[a] || a.kind == doDelete && !m.begun(doCreate, a.container))
			}
			if ready {
				want(s.kind, s.container)
			}
		}
	case p.Stopping:
		m.planStop(now, want, at)
	case m.allKnown():
		m.planLaunch(want)
	}
	return steps, wake
}

func (m *machine) planStop(now time.Time, want func(kind, int), at func(time.Time)) {
	for i := range m.p.Containers {
		c := &m.p.Containers[i]
		if !c.Started || c.Exited || !m.known[i] {
			continue
		}
		switch deadline := c.SignaledAt.Add(m.patience(i)); {
		case c.SignaledAt.IsZero():
			want(doSignal, i)
		case now.Before(deadline):
			at(deadline)
		case m.killed[i].IsZero() || !now.Before(m.killed[i].Add(killPatience)):
			want(doKill, i)
		default:
			at(m.killed[i].Add(killPatience))
		}
	}
}

func (m *machine) planLaunch(want func(kind, int)) {
	p := m.p
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Exited {
			continue
		}
		if c.Image == nil && m.pulls(i) {
			want(doPull, i)
		}
		if !c.Started || m.resumed {
			want(doAttach, i) // of a container that runs: in case the logger does not know it any more
		}
	}
	if !p.StartedAt.IsZero() {
		return
	}
	want(doPrepare, theTask)
	ready := m.done[step{doPrepare, theTask}]
	if hasInterface(m.task) {
		want(doNetwork, theTask)
		ready = ready && m.done[step{doNetwork, theTask}]
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		ready = ready && (c.Started || c.Image != nil && m.done[step{doAttach, i}])
	}
	if !ready {
		return
	}
	// Only now: a slow pull holds up no other task's launch.
	if want(doAdmit, theTask); !m.done[step{doAdmit, theTask}] {
		return
	}
	// All are created before the first starts: a task one of whose images is missing runs nothing.
	// Nothing starts that a crash would make the host forget.
	startable := m.saved > 0
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Started || m.created[i] {
			continue
		}
		startable = false
		want(doCreate, i)
	}
	if !startable {
		return
	}
	for i := range p.Containers {
		if !p.Containers[i].Started {
			want(doStart, i)
			return // one after the other, in the definition's order
		}
	}
}

// pulls says whether container i pulls its image, rather than an earlier one with the same.
func (m *machine) pulls(i int) bool {
	for k := range i {
		if m.task.Containers[k].Image == m.task.Containers[i].Image && m.p.Containers[k].Image == nil && !m.p.Containers[k].Exited {
			return false
		}
	}
	return true
}

// patience is how long a container may take to stop before it is killed.
func (m *machine) patience(i int) time.Duration {
	if m.task.Kill {
		return 0
	}
	if s := m.task.Containers[i].StopTimeoutSeconds; s > 0 {
		return time.Duration(s) * time.Second
	}
	return m.stopTimeout
}

// begin notes that a step has started.
func (m *machine) begin(s step, now time.Time) {
	m.running[s] = true
	switch s.kind {
	case doPull:
		if m.p.PullStartedAt.IsZero() {
			m.p.PullStartedAt = now
			m.touch(now, false)
		}
	case doInspect:
		m.suspect[s.container] = false // a hint from here on is about a later state
	}
}

// finish takes a step's result.
func (m *machine) finish(s step, r result, now time.Time) {
	delete(m.running, s)
	if r.err != nil {
		m.fail(s, r.err, now)
		return
	}
	delete(m.failed, s)
	m.done[s] = true
	switch s.kind {
	case doInspect:
		delete(m.done, s)
		m.inspected(s.container, r, now)
	case doNetwork:
		m.netNS = r.netNS
		m.p.Networked = true
		m.touch(now, false)
	case doPull:
		m.pulled(s.container, r.image, now)
	case doAttach:
		m.fifos[s.container] = r.fifos
	case doCreate:
		m.created[s.container] = true
	case doStart:
		m.started(s.container, r.at, now)
	case doSignal:
		m.p.Containers[s.container].SignaledAt = now
		m.touch(now, false)
	case doKill:
		delete(m.done, s)
		m.killed[s.container] = now
		m.suspect[s.container] = true
	}
}

func (m *machine) pulled(i int, img Image, now time.Time) {
	open := false
	for k, c := range m.task.Containers {
		cp := &m.p.Containers[k]
		if c.Image == m.task.Containers[i].Image && cp.Image == nil {
			cp.Image = &img
		}
		open = open || cp.Image == nil
	}
	if !open && m.p.PullStoppedAt.IsZero() {
		m.p.PullStoppedAt = now
	}
	m.touch(now, false)
}

func (m *machine) started(i int, at, now time.Time) {
	c := &m.p.Containers[i]
	if c.Started {
		return
	}
	if at.IsZero() {
		at = now
	}
	c.Started, c.StartedAt = true, at
	m.touch(now, false)
}

// inspected takes what the runtime says of a container.
func (m *machine) inspected(i int, r result, now time.Time) {
	c := &m.p.Containers[i]
	m.known[i] = true
	if c.Exited {
		return
	}
	switch {
	case r.found && r.state.Phase == PhaseRunning:
		m.started(i, r.state.StartedAt, now)
		m.suspect[i] = false
	case r.found && r.state.Phase == PhaseStopped:
		m.exited(i, r.state, now)
	case c.Started:
		m.exited(i, ContainerState{ExitCode: -1, FinishedAt: now}, now)
		c.Reason = "ContainerRuntimeError: the runtime has lost the container"
	}
}

func (m *machine) exited(i int, st ContainerState, now time.Time) {
	c := &m.p.Containers[i]
	m.started(i, st.StartedAt, now)
	m.suspect[i] = false
	c.Exited, c.ExitCode, c.FinishedAt = true, st.ExitCode, st.FinishedAt
	if c.FinishedAt.IsZero() {
		c.FinishedAt = now
	}
	// An OOM event alone may be about a child of a container that went on; with the exit status of
	// SIGKILL, which was not ours, it is about the container.
	if st.OOMKilled || m.oom[i] && st.ExitCode == 137 && m.killed[i].IsZero() {
		c.Reason = "OutOfMemoryError: Container killed due to memory usage"
	}
	m.touch(now, true)
}

// fail decides what a step's error means: try again, give the task up, or carry on regardless.
func (m *machine) fail(s step, err error, now time.Time) {
	f := m.failed[s]
	f.err = err
	f.tries++
	f.again = now.Add(min(stepBackoff<<min(f.tries-1, 10), maxStepBackoff))
	defer func() { m.failed[s] = f }()
	if m.p.Stopping && s.launches() {
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
		m.giveUp(s.container, "ResourceInitializationError: failed to initialize logging driver: "+err.Error(), now)
	case doPrepare:
		m.giveUp(theTask, "ResourceInitializationError: failed to set up the task's resource limits: "+err.Error(), now)
	case doNetwork:
		m.giveUp(theTask, "ResourceInitializationError: failed to set up the task's network: "+err.Error(), now)
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
		m.p.PullStoppedAt = now
		m.giveUp(s.container, typed("CannotPullContainerError", "pulled", pullTimeout, f.err), now)
		return
	}
	f.again = now.Add(pullBackoff << (f.tries - 1))
}

// giveUp stops the task for a typed reason, which is also the container's if there is one.
func (m *machine) giveUp(i int, reason string, now time.Time) {
	if i != theTask {
		m.p.Containers[i].Reason = reason
	}
	m.stop(reason, now)
}

func (s step) launches() bool {
	switch s.kind {
	case doAdmit, doPrepare, doNetwork, doPull, doAttach, doCreate, doStart:
		return true
	}
	return false
}

// typed gives an error ECS's type. A deadline that passed has a type of its own.
func typed(name, state string, timeout time.Duration, err error) string {
	if timedOut(err) {
		return fmt.Sprintf("ContainerRuntimeTimeoutError: Could not transition to %s; timed out after waiting %s", state, timeout)
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
