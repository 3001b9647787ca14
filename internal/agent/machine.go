package agent

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// kind is one sort of work for a task. Each calls one room.
type kind string

const (
	doInspect     kind = "inspect"     // container: what is its state?
	doAdmit       kind = "admit"       // task: a place among the launches under way on this host
	doPrepare     kind = "prepare"     // task: its directory and its cgroup
	doNetwork     kind = "network"     // task: its namespace
	doVolumes     kind = "volumes"     // task: the directories of its volumes
	doPull        kind = "pull"        // container: its image, also for the others with the same image
	doAttach      kind = "attach"      // container: its FIFOs
	doEnvironment kind = "environment" // container: its environment files
	doConnect     kind = "connect"     // container: its namespace, in mode bridge
	doCreate      kind = "create"      // container
	doStart       kind = "start"       // container
	doCheck       kind = "check"       // container: its health check, once
	doRestart     kind = "restart"     // container: its process once more, after it has exited
	doSignal      kind = "signal"      // container: its stop signal
	doKill        kind = "kill"        // container: SIGKILL
	doDelete      kind = "delete"      // container
	doDetach      kind = "detach"      // container: its FIFOs, once emptied
	doDisconnect  kind = "disconnect"  // container: its namespace
	doTeardown    kind = "teardown"    // task: its namespace
	doRelease     kind = "release"     // task: its volumes
	doRemove      kind = "remove"      // task: its cgroup
	doFiles       kind = "files"       // task: its directory
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
	fetchTimeout   = 30 * time.Second // environment files, all of one try
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

	graph graph

	stopTimeout time.Duration // for containers that name none
	pullPolicy  PullPolicy
	pullUpfront bool // also what waits for other containers

	// What follows is of this run of the agent only, and a crash loses it without harm.
	running map[step]bool
	began   map[step]time.Time // those that run, or ran last
	done    map[step]bool
	failed  map[step]failure
	known   []bool // the container's state was seen, or it cannot have one yet
	created []bool
	suspect []bool // something hinted that the container's state changed
	killed  []time.Time
	oom     []bool      // an OOM event named the container
	botched []bool      // its restart failed
	fifos   [][2]string // of standard output and error
	health  []healthRun
	envFile [][]*dispatchpb.KeyValue // what its environment files say
	netNS   string
	spaces  []string          // the containers' namespaces, in mode bridge
	volumes map[string]string // the directory of each, by name
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
	at    time.Time
	again time.Time
}

// result is a finished step's outcome. Only the members of its kind are set.
type result struct {
	err        error
	state      ContainerState // inspect
	found      bool
	netNS      string                 // network
	volumes    map[string]string      // volumes
	image      Image                  // pull
	fifos      [2]string              // attach
	variables  []*dispatchpb.KeyValue // environment
	connection Connection             // connect
	at         time.Time              // start and restart
	exitCode   int                    // check
	output     []byte
	restarts   int64 // of the container, when the check began
}

// newMachine makes the machine of a task. p is nil for a task never seen before; resumed says that
// the task comes from the record of an earlier run.
func newMachine(t *dispatchpb.Task, p *progress, resumed bool) *machine {
	n := len(t.Containers)
	g, err := newGraph(t)
	if err != nil {
		panic("agent: " + err.Error()) // checkAssignment lets no such task through
	}
	m := &machine{
		task: t, p: p, resumed: resumed, graph: g,
		running: map[step]bool{}, began: map[step]time.Time{}, done: map[step]bool{}, failed: map[step]failure{},
		known: make([]bool, n), created: make([]bool, n), suspect: make([]bool, n),
		killed: make([]time.Time, n), oom: make([]bool, n), botched: make([]bool, n), fifos: make([][2]string, n),
		health: make([]healthRun, n), envFile: make([][]*dispatchpb.KeyValue, n), spaces: make([]string, n),
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
	m.p.Stopping, m.p.StoppingAt, m.p.StopReason = true, now, reason
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
			m.ended(i, exit{Code: -1, At: now}, now)
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
		if s.launches() {
			return true
		}
	}
	return false
}

func (s step) launches() bool {
	switch s.kind {
	case doAdmit, doPrepare, doVolumes, doNetwork, doPull, doAttach, doEnvironment, doConnect, doCreate, doStart, doRestart:
		return true
	}
	return false
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
	m.settleRestarts(now)
	m.judge(now)
	up, last := true, time.Time{}
	essentialExit, anyAlive := false, false
	var ended time.Time // when the first essential container, or the last of all, did
	for i, c := range m.task.Containers {
		cp := &p.Containers[i]
		up = up && (cp.Started || cp.Exited && !c.Essential)
		if cp.StartedAt.After(last) {
			last = cp.StartedAt
		}
		if c.Essential && cp.Exited {
			essentialExit = true
			if cp.Started && (ended.IsZero() || cp.FinishedAt.Before(ended)) {
				ended = cp.FinishedAt
			}
		}
		anyAlive = anyAlive || !cp.Exited
	}
	if up && p.StartedAt.IsZero() {
		// Also when it is being stopped already: it did run.
		p.StartedAt = last
		if last.IsZero() {
			p.StartedAt = now
		}
		clear(m.envFile) // nobody needs them any more
		m.touch(now, true)
	}
	if essentialExit || !anyAlive {
		if p.ExecutionStoppedAt.IsZero() && !ended.IsZero() {
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
	for i := range m.p.Containers {
		c := &m.p.Containers[i]
		if (!m.known[i] && !m.p.Clearing || m.suspect[i] && c.Started && !c.Exited) && !m.running[step{doRestart, i}] {
			want(doInspect, i)
		}
	}
	switch {
	case m.p.Clearing:
		m.planClearing(want, at)
	case m.p.Stopping:
		m.planStop(now, want, at)
	case m.allKnown():
		m.planLaunch(want, at)
		m.planRestarts(want)
		m.planChecks(now, want, at)
	}
	return steps, wake
}

// begin notes that a step has started.
func (m *machine) begin(s step, now time.Time) {
	m.running[s], m.began[s] = true, now
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
	if s.kind == doCheck {
		m.checked(s.container, r, now)
		return
	}
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
	case doVolumes:
		m.volumes = r.volumes
	case doPull:
		m.pulled(s.container, r.image, now)
	case doAttach:
		m.fifos[s.container] = r.fifos
	case doEnvironment:
		m.envFile[s.container] = r.variables
	case doConnect:
		m.connected(s.container, r.connection, now)
	case doCreate:
		m.created[s.container] = true
		if c := &m.p.Containers[s.container]; c.CreatedAt.IsZero() {
			c.CreatedAt = now
			m.touch(now, false)
		}
	case doStart:
		m.started(s.container, r.at, now)
	case doRestart:
		delete(m.done, s)
		m.restarted(s.container, r.at, now)
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
	for k, c := range m.task.Containers {
		if cp := &m.p.Containers[k]; c.Image == m.task.Containers[i].Image && cp.Image == nil {
			cp.Image = &img
		}
	}
	m.settlePulls(now)
	m.touch(now, false)
}

// settlePulls notes when there is nothing left to pull.
func (m *machine) settlePulls(now time.Time) {
	for i := range m.p.Containers {
		if c := &m.p.Containers[i]; c.Image == nil && !c.Exited {
			return
		}
	}
	if !m.p.PullStartedAt.IsZero() && m.p.PullStoppedAt.IsZero() {
		m.p.PullStoppedAt = now
	}
}

func (m *machine) connected(i int, c Connection, now time.Time) {
	m.spaces[i] = c.NetNS
	next := newConnection(c)
	if have := m.p.Containers[i].Connection; have == nil || !have.equal(next) {
		m.p.Containers[i].Connection = next
		m.touch(now, false)
	}
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
	m.scheduleCheck(i, now)
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
		m.suspect[i] = false
		if c.Restart != nil {
			m.restarted(i, r.state.StartedAt, now)
		} else {
			m.started(i, r.state.StartedAt, now)
		}
		if m.health[i].next.IsZero() { // an earlier run of the agent knew it
			m.scheduleCheck(i, now)
		}
	case r.found && r.state.Phase == PhaseStopped:
		m.exited(i, r.state, now)
	case c.Restart != nil:
		m.suspect[i] = false
		if !r.found || m.botched[i] {
			m.ended(i, *c.Restart, now)
		}
	case c.Started:
		m.ended(i, exit{Code: -1, At: now}, now)
		c.Reason = "ContainerRuntimeError: the runtime has lost the container"
	}
}

// exited takes the end of a container's process: it is the container's, unless it is to run again.
func (m *machine) exited(i int, st ContainerState, now time.Time) {
	c := &m.p.Containers[i]
	m.started(i, st.StartedAt, now)
	m.suspect[i] = false
	if c.Restart != nil {
		if st.FinishedAt.IsZero() || !st.FinishedAt.After(c.Restart.At) { // the one that is known
			if m.botched[i] {
				m.ended(i, *c.Restart, now)
			}
			return
		}
		m.restarted(i, st.StartedAt, now) // by a run of the agent that could not take a note of it
	}
	e := exit{Code: st.ExitCode, At: st.FinishedAt}
	if e.At.IsZero() {
		e.At = now
	}
	// An OOM event alone may be about a child of a container that went on; with the exit status of
	// SIGKILL, which was not ours, it is about the container.
	e.OOM = st.OOMKilled || m.oom[i] && st.ExitCode == 137 && m.killed[i].IsZero()
	if m.restarts(i, e) {
		c.Restart = &e
		m.touch(now, true)
		return
	}
	m.ended(i, e, now)
}

// ended makes an exit the container's.
func (m *machine) ended(i int, e exit, now time.Time) {
	c := &m.p.Containers[i]
	m.suspect[i] = false
	c.Restart = nil
	c.Exited, c.ExitCode, c.FinishedAt = true, e.Code, e.At
	if e.OOM {
		c.Reason = "OutOfMemoryError: Container killed due to memory usage"
	}
	m.settlePulls(now)
	m.touch(now, true)
}
