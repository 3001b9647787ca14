package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// resyncEvery is how often the runtime is asked about containers that have given no sign.
const resyncEvery = 15 * time.Second

// taskLoop is the goroutine of one task. It alone touches the machine; others post to it.
type taskLoop struct {
	agent *Agent
	arn   string
	log   *slog.Logger
	m     *machine

	mu     sync.Mutex
	posted []func(now time.Time)
	shown  TaskSnapshot
	wake   chan struct{}

	// launch ends when the task is to stop or the agent to end; work only when the agent's patience
	// with what it has begun is over.
	launch, work context.Context
	stopLaunch   context.CancelFunc
	steps        sync.WaitGroup
	placed       bool // holds a place among the launches
}

func (a *Agent) newTaskLoop(m *machine) *taskLoop {
	m.stopTimeout, m.pullPolicy, m.pullUpfront = a.cfg.StopTimeout, a.cfg.PullPolicy, a.cfg.PullUpfront
	l := &taskLoop{
		agent: a, arn: m.task.Arn, m: m,
		log:  a.cfg.Logger.With("task", taskID(m.task.Arn)),
		wake: make(chan struct{}, 1),
	}
	l.show()
	return l
}

// post hands f to the loop. It never blocks.
func (l *taskLoop) post(f func(now time.Time)) {
	l.mu.Lock()
	l.posted = append(l.posted, f)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run drives the task until it is retired or ctx ends. What was begun by then is waited for, for as
// long as work lasts; containers are left as they are.
func (l *taskLoop) run(ctx, work context.Context) {
	l.work = work
	l.launch, l.stopLaunch = context.WithCancel(ctx)
	defer l.release()
	defer l.steps.Wait()
	defer l.stopLaunch()

	timer := time.NewTimer(0)
	defer timer.Stop()
	resync := time.NewTicker(resyncEvery)
	defer resync.Stop()
	for {
		l.mu.Lock()
		posted := l.posted
		l.posted = nil
		l.mu.Unlock()
		now := time.Now()
		for _, f := range posted {
			f(now)
		}
		next := l.turn(now)
		if l.m.retirable() {
			l.agent.retire(l)
			return
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			l.save() // with what was not worth a write of its own
			return
		case <-l.wake:
		case <-timer.C:
		case <-resync.C:
			l.m.resync()
		}
	}
}

// turn lets the machine draw its conclusions, saves them, and starts what can start. It answers when
// to turn again at the latest.
func (l *taskLoop) turn(now time.Time) time.Time {
	before := l.m.p.lastStatus()
	l.m.advance(now)
	if after := l.m.p.lastStatus(); after != before {
		l.log.Info("task", "status", after, "reason", l.m.p.StopReason)
	}
	if l.m.p.Stopping {
		l.stopLaunch()
	}
	due, saveAt := l.m.saveDue(now)
	if due {
		l.save()
	}
	steps, next := l.m.plan(now)
	for _, s := range steps {
		l.m.begin(s, now)
		l.start(s)
	}
	if l.placed && !l.m.holdsPlace() {
		l.release()
		l.m.releasePlace()
	}
	l.show()
	if next.IsZero() || !saveAt.IsZero() && saveAt.Before(next) {
		next = saveAt
	}
	return next
}

// save hands the progress to the journal; the report it justifies goes out once it is durable.
func (l *taskLoop) save() {
	st, err := l.m.handOver()
	if err != nil {
		l.log.Error("the task's progress cannot be saved", "error", err)
		return
	}
	l.agent.journal.put(l.savedAs(l.m.handed, st), l.progressWrite())
}

func (l *taskLoop) progressWrite() write {
	return write{bucketProgress, []byte(l.arn), l.m.encoded}
}

// savedAs returns what to do once a revision is durable: st, if not nil, may be sent.
func (l *taskLoop) savedAs(revision int64, st *dispatchpb.TaskStatus) func() {
	return func() {
		l.post(func(time.Time) {
			l.m.saved = max(l.m.saved, revision)
			if st != nil && !l.m.p.Forget {
				l.agent.outbox.report(st)
			}
		})
	}
}

// acked takes the server's word that it has a report.
func (l *taskLoop) acked(version int64) {
	l.post(func(time.Time) { l.m.p.Acked = max(l.m.p.Acked, min(version, l.m.p.Version)) })
}

// repeat has the report of a task that is over sent again: the server has shown it once more.
func (l *taskLoop) repeat() {
	l.post(func(time.Time) {
		if l.m.over() && l.m.reported != nil && l.m.saved == l.m.handed && !l.m.p.Forget {
			l.agent.outbox.report(l.m.reported)
		}
	})
}

// start carries a step out beside the loop. The machine is not touched from there: what a step needs
// is taken now.
func (l *taskLoop) start(s step) {
	do := l.prepare(s)
	name := ""
	if s.container != theTask {
		name = l.m.task.Containers[s.container].Name
	}
	l.steps.Go(func() {
		r := do()
		if r.err != nil {
			l.log.Warn("step failed", "step", s.kind, "container", name, "error", r.err)
		}
		l.post(func(now time.Time) {
			if s.kind == doAdmit && r.err == nil {
				l.placed = true
			}
			l.m.finish(s, r, now)
		})
	})
}

func (l *taskLoop) release() {
	if l.placed {
		l.placed = false
		<-l.agent.launches
	}
}

// show publishes the state for Snapshot.
func (l *taskLoop) show() {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := report(l.m.task, l.m.p)
	doing := make([]string, 0, len(l.m.running))
	for s := range l.m.running {
		doing = append(doing, string(s.kind))
	}
	l.shown = TaskSnapshot{Task: l.m.task, Status: st, Doing: doing}
}
