package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/failpoint"
)

// Config is what an Agent needs. Dir, Dial, the rooms but Metadata and Objects, and
// Hello are required.
type Config struct {
	Dir string // the agent's own state: agent.db and the tasks' generated files

	// Dial connects to a server. It is called for every attempt, and the connection is closed with the
	// session.
	Dial func(ctx context.Context) (*grpc.ClientConn, error)

	Runtime Runtime
	Network Network
	Output  Output

	Processes Processes
	Volumes   Volumes
	Bridge    Bridge
	Metadata  Metadata // nil: containers are not told of any endpoint
	// LogDrivers deliver output elsewhere; nil: it stays on the host.
	LogDrivers LogDrivers
	Objects    Objects // default: the server, through Dial

	// Hello is what the host says of itself. HostID, BootID and LastSequence are filled in.
	Hello *dispatchpb.Hello
	// BootID tells one boot of the host from the next. Default: the kernel's.
	BootID string

	PullPolicy  PullPolicy    // default: PullDefault
	StopTimeout time.Duration // between stop signal and SIGKILL, for containers that name none; default 30 s
	// PullUpfront has images pulled also for containers that wait for others
	// (ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT).
	PullUpfront bool
	// Retention is how long a stopped task's output is kept, and its ID remembered; default 3 h, which
	// is when Amazon's agent removes containers.
	Retention time.Duration
	// Launches is how many tasks may be between creation and start at once; the others wait in
	// ACTIVATING. More than the disk and the CPUs can serve makes all of them late. Default 8.
	Launches int

	Logger *slog.Logger
}

// shutdownPatience is how long Run waits, once its context has ended, for calls under way.
const shutdownPatience = 10 * time.Second

// sweepEvery is how often leftovers of failed clearings are looked for.
const sweepEvery = time.Minute

// Agent runs the tasks of one host.
type Agent struct {
	cfg      Config
	journal  *journal
	outbox   *outbox
	files    hostFiles
	hostID   string
	hostname string
	launches chan struct{} // a place for each launch under way

	running sync.Mutex // held by Run and RemoveAll

	mu        sync.Mutex
	tasks     map[string]*taskLoop // by ARN
	byID      map[string]containerRef
	stopped   map[string]time.Time // tombstones: when the task stopped
	sequence  int64
	connected bool
	spawn     func(*taskLoop) // set while Run runs
}

// containerRef finds a container's loop by its runtime ID.
type containerRef struct {
	loop  *taskLoop
	index int
}

// New opens the host's record in cfg.Dir, which it makes if need be. Nothing runs before Run. Close
// the agent in the end.
func New(cfg Config) (*Agent, error) { return open(cfg, disk{}) }

func open(cfg Config, disk disk) (*Agent, error) {
	if cfg.Dir == "" || cfg.Runtime == nil || cfg.Network == nil || cfg.Output == nil || cfg.Processes == nil ||
		cfg.Volumes == nil || cfg.Bridge == nil {
		return nil, errors.New("agent: Dir, Runtime, Processes, Network, Bridge, Volumes and Output are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.LogDrivers == nil {
		cfg.LogDrivers = noDrivers{}
	}
	if cfg.Objects == nil {
		cfg.Objects = dialed{cfg.Dial}
	}
	cfg.PullPolicy = cmp.Or(cfg.PullPolicy, PullDefault)
	cfg.StopTimeout = cmp.Or(cfg.StopTimeout, 30*time.Second)
	cfg.Retention = cmp.Or(cfg.Retention, 3*time.Hour)
	cfg.Launches = cmp.Or(cfg.Launches, 8)
	if cfg.BootID == "" {
		b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("read the host's boot ID: %w", err)
		}
		cfg.BootID = strings.TrimSpace(string(b))
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the agent's directory: %w", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the host's name: %w", err)
	}
	j, err := openJournal(cfg.Dir, disk, cfg.Logger)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, journal: j, outbox: newOutbox(), files: defaultHostFiles(), hostname: hostname,
		launches: make(chan struct{}, cfg.Launches),
		tasks:    map[string]*taskLoop{}, byID: map[string]containerRef{}, stopped: map[string]time.Time{},
	}
	if err := a.adopt(); err != nil {
		j.close()
		return nil, err
	}
	return a, nil
}

// adopt takes over what earlier runs recorded. After a reboot every task is over: its containers are
// gone with their exit codes, and a task runs once.
func (a *Agent) adopt() error {
	c, err := a.journal.load()
	if err != nil {
		return err
	}
	now := time.Now()
	var writes []write
	a.hostID, a.sequence = c.hostID, c.sequence
	if a.hostID == "" {
		var id [16]byte
		rand.Read(id[:])
		a.hostID = hex.EncodeToString(id[:])
		writes = append(writes, write{bucketMeta, keyHost, []byte(a.hostID)})
	}
	rebooted := c.bootID != "" && c.bootID != a.cfg.BootID
	if c.bootID != a.cfg.BootID {
		writes = append(writes, write{bucketMeta, keyBoot, []byte(a.cfg.BootID)})
	}
	for _, t := range c.stopped {
		a.stopped[t.status.Arn] = t.stoppedAt
	}
	for _, r := range c.tasks {
		m := newMachine(r.task, r.progress, true)
		if rebooted && !m.over() {
			m.rebooted(a.hostID, now)
			if _, err := m.handOver(); err != nil {
				return err
			}
			m.saved = m.handed // by the flush below
			writes = append(writes, write{bucketProgress, []byte(r.task.Arn), m.encoded})
		}
		l := a.newTaskLoop(m)
		a.enter(l)
		if m.reported != nil && m.p.Acked < m.p.Version && !m.p.Forget {
			a.outbox.report(m.reported)
		}
	}
	if len(writes) > 0 {
		// In one transaction: the new boot ID is never recorded without what follows from it.
		failpoint.Hit("agent/adopt/before")
		err := a.journal.commit(byKey(writes))
		failpoint.Hit("agent/adopt/after")
		if err != nil {
			return fmt.Errorf("write the host's record: %w", err)
		}
	}
	return nil
}

func byKey(writes []write) map[string]write {
	m := make(map[string]write, len(writes))
	for _, w := range writes {
		m[string(w.bucket)+"/"+string(w.key)] = w
	}
	return m
}

// enter makes a task known. The caller holds mu, or is alone.
func (a *Agent) enter(l *taskLoop) {
	a.tasks[l.arn] = l
	for i := range l.m.task.Containers {
		a.byID[containerID(l.m.task, i)] = containerRef{l, i}
	}
}

// HostID is this host's name for as long as its directory: 32 hexadecimal digits.
func (a *Agent) HostID() string { return a.hostID }

// Close closes the record. Run must have returned.
func (a *Agent) Close() error { return a.journal.close() }

// Run adopts what runs, removes what no record explains, and then runs tasks until ctx ends. It
// leaves all containers as they are. It may be called once.
func (a *Agent) Run(ctx context.Context) error {
	if !a.running.TryLock() {
		return errors.New("agent: already running")
	}
	defer a.running.Unlock()

	// Calls under way when ctx ends may take a little longer: a container half created costs more to
	// clear up than to wait for.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(shutdownPatience, stopWork)
		context.AfterFunc(work, func() { timer.Stop() })
	})

	// Before the first task starts, so that nothing new can be taken for a leftover.
	a.sweep(ctx)

	var loops, own sync.WaitGroup
	a.mu.Lock()
	a.spawn = func(l *taskLoop) { loops.Go(func() { l.run(ctx, work) }) }
	for _, l := range a.tasks {
		a.spawn(l)
	}
	a.mu.Unlock()

	own.Go(func() { a.watch(ctx) })
	own.Go(func() { a.housekeep(ctx) })
	own.Go(func() { a.connect(ctx) })
	own.Wait()
	a.mu.Lock()
	a.spawn = nil
	a.mu.Unlock()
	loops.Wait()
	a.journal.flush()
	return ctx.Err()
}

// payload takes what the server says this host should run. It is acknowledged once durable, while
// the tasks have begun already; only their start waits for it.
func (a *Agent) payload(p *dispatchpb.Payload) {
	failpoint.Hit("agent/payload/before")
	defer failpoint.Hit("agent/payload/after")
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.Sequence < a.sequence || a.spawn == nil {
		a.cfg.Logger.Warn("stale payload ignored", "sequence", p.Sequence, "have", a.sequence)
		return
	}
	a.sequence = p.Sequence
	now := time.Now()
	writes := []write{{bucketMeta, keySequence, encodeUint(uint64(p.Sequence))}}
	var saved []func()
	named := make(map[string]bool, len(p.Tasks))
	for _, t := range p.Tasks {
		named[t.GetArn()] = true
		if l := a.tasks[t.GetArn()]; l != nil {
			if w, ok := a.reassign(l, t); ok {
				writes = append(writes, w)
			}
			continue
		}
		if _, ok := a.stopped[t.GetArn()]; ok {
			a.repeatStopped(t.Arn)
			continue
		}
		l, w, after, err := a.assign(t, now)
		if err != nil {
			a.refuse(t, err, now)
			continue
		}
		writes = append(writes, w...)
		saved = append(saved, after)
		a.spawn(l)
	}
	if p.Full {
		for arn, l := range a.tasks {
			if !named[arn] {
				l.post(func(now time.Time) {
					if !l.m.over() { // a report of STOPPED is on its way: the server has yet to say that it has it
						l.m.forget(now)
						a.outbox.drop(arn)
					}
				})
			}
		}
	}
	a.journal.put(func() {
		for _, f := range saved {
			f()
		}
		a.outbox.payloadSaved(p.Sequence)
	}, writes...)
}

// assign makes the loop of a new task. Its assignment and its first report are one write.
func (a *Agent) assign(t *dispatchpb.Task, now time.Time) (*taskLoop, []write, func(), error) {
	if err := checkAssignment(t); err != nil {
		return nil, nil, nil, err
	}
	assignment, err := encodeAssignment(t)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encode assignment: %w", err)
	}
	m := newMachine(t, nil, false)
	m.advance(now)
	st, err := m.handOver()
	if err != nil {
		return nil, nil, nil, err
	}
	l := a.newTaskLoop(m)
	a.enter(l)
	a.cfg.Logger.Info("task assigned", "task", taskID(t.Arn), "family", t.Family, "revision", t.Revision, "desired", t.DesiredStatus)
	return l, []write{{bucketAssignments, []byte(t.Arn), assignment}, l.progressWrite()}, l.savedAs(m.handed, st), nil
}

// reassign takes a newer statement about a known task, and has its report sent again if the server
// seems not to know that it is over.
func (a *Agent) reassign(l *taskLoop, t *dispatchpb.Task) (write, bool) {
	stop := t.DesiredStatus == statusStopped
	var w write
	l.mu.Lock()
	known := l.shown.Task
	l.mu.Unlock()
	if stop && known.DesiredStatus != statusStopped {
		// The rest of an assignment never changes; the recorded one stays the base.
		next := cloneTask(known)
		next.DesiredStatus, next.StopReason, next.Kill = statusStopped, t.StopReason, t.Kill
		b, err := encodeAssignment(next)
		if err == nil {
			w = write{bucketAssignments, []byte(l.arn), b}
		}
		l.post(func(time.Time) { l.m.assign(next) })
	}
	l.post(func(time.Time) {
		if l.m.p.Forget && !l.m.over() {
			l.m.p.Forget = false // the server does know it, after all
		}
	})
	l.repeat()
	return w, w.key != nil
}

// refuse answers for a task that this agent cannot represent: it is reported STOPPED, once a session.
func (a *Agent) refuse(t *dispatchpb.Task, err error, now time.Time) {
	a.cfg.Logger.Error("assignment refused", "error", err)
	st := &dispatchpb.TaskStatus{
		Arn: t.GetArn(), Version: 1, LastStatus: statusStopped,
		Reason: trim("CannotCreateContainerError: " + err.Error()), StoppedAt: stamp(now),
	}
	for _, c := range t.GetContainers() {
		st.Containers = append(st.Containers, &dispatchpb.ContainerStatus{Name: c.GetName(), LastStatus: statusStopped})
	}
	a.outbox.report(st)
}

// acked takes the server's acknowledgement of a report.
func (a *Agent) acked(arn string, version int64) {
	a.outbox.acked(arn, version)
	a.mu.Lock()
	l := a.tasks[arn]
	a.mu.Unlock()
	if l != nil {
		l.acked(version)
	}
}

// retire replaces a task's record by its tombstone.
func (a *Agent) retire(l *taskLoop) {
	b, err := encodeTombstone(report(l.m.task, l.m.p))
	if err != nil {
		l.log.Error("the stopped task cannot be recorded", "error", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tasks, l.arn)
	for i := range l.m.task.Containers {
		delete(a.byID, containerID(l.m.task, i))
	}
	a.stopped[l.arn] = l.m.p.StoppedAt
	key := []byte(l.arn)
	a.journal.put(nil,
		write{bucketAssignments, key, nil}, write{bucketProgress, key, nil}, write{bucketStopped, key, b})
}

// TaskSnapshot is one task at one moment. Its messages must not be changed.
type TaskSnapshot struct {
	Task   *dispatchpb.Task
	Status *dispatchpb.TaskStatus
	Doing  []string // the work under way: "pull", "create", …
}

// Snapshot is the agent at one moment.
type Snapshot struct {
	HostID    string
	Connected bool // to a server, and welcomed
	Sequence  int64
	Logs      LogStats
	Tasks     []TaskSnapshot // not yet reported STOPPED and acknowledged, by ARN
}

// Snapshot tells what the agent has to do and how far it is. It may be called at any time.
func (a *Agent) Snapshot() Snapshot {
	a.mu.Lock()
	s := Snapshot{HostID: a.hostID, Connected: a.connected, Sequence: a.sequence}
	loops := make([]*taskLoop, 0, len(a.tasks))
	for _, l := range a.tasks {
		loops = append(loops, l)
	}
	a.mu.Unlock()
	s.Logs = a.cfg.LogDrivers.Stats()
	for _, l := range loops {
		l.mu.Lock()
		s.Tasks = append(s.Tasks, l.shown)
		l.mu.Unlock()
	}
	slices.SortFunc(s.Tasks, func(x, y TaskSnapshot) int { return strings.Compare(x.Task.Arn, y.Task.Arn) })
	return s
}

// Live tells whether a task, by the last part of its ARN, is on this host and not STOPPED: more output
// may come of it.
func (a *Agent) Live(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for arn, l := range a.tasks {
		if taskID(arn) == id {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.shown.Status.LastStatus != statusStopped
		}
	}
	return false
}

func (a *Agent) taskDir(id string) string { return filepath.Join(a.cfg.Dir, "tasks", id) }
