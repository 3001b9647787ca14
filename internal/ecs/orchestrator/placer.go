package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// electionName is what the servers' placers compete for: one placer at a time.
const electionName = "ecs-placer"

const (
	// maxInFlight is how many commits the placer has under way at once. Each waits for the disk; the
	// ledger knows what all of them take, so they need not wait for each other.
	maxInFlight = 4
	// patience is how long a request waits for a placer to take it up: longer than an election takes
	// when a server died, shorter than clients wait for an answer.
	patience = 20 * time.Second
	// commitTimeout bounds one commit, all its repetitions included.
	commitTimeout = time.Minute
	// standAgain is the pause after an election that could not be held.
	standAgain = time.Second
)

var (
	// ErrNotFound says that a row which the call depends on is not there.
	ErrNotFound = errors.New("not found")
	// ErrTokenReused says that a clientToken was used before with other parameters.
	ErrTokenReused = errors.New("client token used with different parameters")
	// ErrClusterInactive says that the cluster went away while the tasks were placed.
	ErrClusterInactive = errors.New("cluster is not active")
	// ErrDefinitionInactive says the same of the task definition.
	ErrDefinitionInactive = errors.New("task definition is not active")
	// ErrNoInstances says that the cluster has no host to consider.
	ErrNoInstances = errors.New("no container instances")
	// ErrNoPlacer says that no placer took the request up in time: this server was not elected.
	ErrNoPlacer = errors.New("no placer took the request up")

	errStopped = errors.New("the placer has stopped")
)

// Run is a request for tasks, all of one kind. The IDs are chosen by the caller, before the commit.
type Run struct {
	Cluster    store.Key
	ClusterARN string
	Definition store.Key
	Tasks      []*state.Spec
	// Hosts names the host of each task, in order, as in StartTask; empty: the placer chooses.
	Hosts []string
	// Rules are what all of the tasks ask of their hosts beside room. Of tasks with named hosts only the
	// attributes count.
	Rules placement.Rules
	// RequestID is the call's, by which its record is found.
	RequestID string
	Tags      []ecs.Tag // of each task
	// Token and Fingerprint make the call repeatable: empty, or the clientToken and a digest of all
	// that the call asked for.
	Token       string
	Fingerprint string
}

// TokenKey is where a clientToken of a cluster is remembered.
func TokenKey(cluster store.Key, token string) store.Key {
	return store.Key{Scope: cluster.Scope, ID: cluster.ID + "/" + token}
}

func (r *Run) tokenKey() (store.Key, bool) { return TokenKey(r.Cluster, r.Token), r.Token != "" }

// Placed is what became of a Run.
type Placed struct {
	TaskIDs []string // that have a place, in order
	// Failures has the verdict of each host that was considered, if some task found no place; for
	// tasks with named hosts, the verdicts of those that cannot take theirs.
	Failures []placement.Verdict
	// Explanations say the same of every filter: one for each capacity provider, or one for the tasks
	// without, of which some task found no place.
	Explanations []Explanation
	// Snapshot includes the tasks.
	Snapshot *store.Snapshot
}

// placer is the server's candidate for the election and, once elected, the only one that places.
// What it does in one term of office is in term.
type placer struct {
	store    *store.Store
	id       string
	log      *slog.Logger
	patience time.Duration

	runs    chan *pending
	turns   chan *turn
	stopped chan struct{} // closed when run has returned

	// backlog is the run goroutine's own: requests to place before any that come new, such as those
	// that an earlier term could not commit.
	backlog []*pending

	hosts   connections
	leading atomic.Pointer[store.Leadership] // nil: not elected
}

// pending is a Run on its way.
type pending struct {
	ctx    context.Context // ends when the caller will wait no longer
	run    Run
	taken  atomic.Bool // by the placer, or by the caller who gave up: whoever is first
	result chan outcome
}

type outcome struct {
	placed Placed
	err    error
}

func (p *pending) answer(placed Placed, err error) { p.result <- outcome{placed, err} }

// turn is a stretch of time in which no task is created.
type turn struct {
	ctx  context.Context
	fn   func(update) error
	done chan error
}

// update is one transaction of a turn.
type update func(fn func(*store.Tx) error) error

func newPlacer(cfg Config) *placer {
	return &placer{
		store: cfg.Store, id: cfg.ServerID, log: cfg.Logger, patience: patience,
		runs:    make(chan *pending, 256),
		turns:   make(chan *turn),
		stopped: make(chan struct{}),
		hosts:   connections{is: map[string]bool{}, changed: map[string]struct{}{}, nudge: make(chan struct{}, 1)},
	}
}

// Place finds places for the tasks of a Run and makes them durable. A task that found none is in
// Failures and does not exist.
//
// A caller that gives up while its request still waits has changed nothing. Once the placer has taken
// the request up its tasks may come to exist, so Place then returns with the placer's answer and not
// before.
func (o *Orchestrator) Place(ctx context.Context, run Run) (Placed, error) {
	placed, err := o.placer.submit(ctx, run)
	if o.recorder != nil && len(placed.Explanations) > 0 {
		o.recorder.RunNotPlaced(ctx, runRecord(&run, placed, time.Now().UTC()))
	}
	return placed, err
}

func (p *placer) submit(ctx context.Context, run Run) (Placed, error) {
	waiting, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	req := &pending{ctx: waiting, run: run, result: make(chan outcome, 1)}
	gaveUp := func() error {
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the placer: %w", ctx.Err())
		}
		return fmt.Errorf("%w within %s", ErrNoPlacer, p.patience)
	}
	select {
	case p.runs <- req:
	case <-waiting.Done():
		return Placed{}, gaveUp()
	case <-p.stopped:
		return Placed{}, errStopped
	}
	select {
	case out := <-req.result:
		return out.placed, out.err
	case <-waiting.Done():
		if req.taken.CompareAndSwap(false, true) {
			return Placed{}, gaveUp()
		}
	case <-p.stopped:
	}
	select {
	case out := <-req.result:
		return out.placed, out.err
	case <-p.stopped:
		select {
		case out := <-req.result: // answered before it stopped
			return out.placed, out.err
		default:
			return Placed{}, errStopped
		}
	}
}

// exclusive runs fn in a turn of the placer.
func (p *placer) exclusive(ctx context.Context, fn func(update) error) error {
	waiting, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	t := &turn{ctx: ctx, fn: fn, done: make(chan error, 1)}
	select {
	case p.turns <- t:
	case <-waiting.Done():
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the placer: %w", ctx.Err())
		}
		return fmt.Errorf("%w within %s", ErrNoPlacer, p.patience)
	case <-p.stopped:
		return errStopped
	}
	return <-t.done // a turn taken up is always answered
}

// run stands for election and places while elected, until ctx ends or the store stops. Each term
// starts from a cold snapshot.
func (p *placer) run(ctx context.Context) error {
	defer close(p.stopped)
	for {
		lead, err := p.store.Campaign(ctx, electionName, p.id)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case p.store.Err() != nil:
			return fmt.Errorf("campaign for placer: %w", err)
		case err != nil:
			p.log.Warn("the placer's election could not be held; trying again", "error", err)
			select {
			case <-time.After(standAgain):
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		p.log.Debug("elected as placer")
		p.leading.Store(lead)
		err = p.newTerm(lead).serve(ctx)
		p.leading.Store(nil)
		if ctx.Err() != nil {
			release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if rerr := lead.Resign(release); rerr != nil {
				p.log.Debug("placer did not resign; its lease will end", "error", rerr)
			}
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		p.log.Warn("placer lost its election; standing again")
	}
}

// connections knows which hosts have a session at this server.
type connections struct {
	mu      sync.Mutex
	is      map[string]bool
	changed map[string]struct{} // since the placer last asked
	nudge   chan struct{}       // holds one token when changed is not empty
}

func (c *connections) set(hostID string, connected bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if connected {
		c.is[hostID] = true
	} else {
		delete(c.is, hostID)
	}
	c.changed[hostID] = struct{}{}
	select {
	case c.nudge <- struct{}{}:
	default:
	}
}

func (c *connections) has(hostID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.is[hostID]
}

// all names the connected hosts.
func (c *connections) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 0, len(c.is))
	for id := range c.is {
		ids = append(ids, id)
	}
	return ids
}

// take hands out which hosts came or went.
func (c *connections) take() map[string]struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.changed) == 0 {
		return nil
	}
	out := c.changed
	c.changed = map[string]struct{}{}
	return out
}
