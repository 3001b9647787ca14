package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// term is one term of office of an elected placer. Everything in it belongs to the goroutine of
// serve; commits run beside it and come back through finished.
//
// The ledger is the snapshot the watcher has come to, and on top of it what the commits in flight
// take. A task's place is therefore free for others only when the store says so, or its commit is
// known to have failed.
type term struct {
	*placer
	lead     *store.Leadership
	watch    *store.Watcher
	ledger   *placement.Ledger
	inFlight int
	finished chan *batch
	// tokens are those of the commits in flight, each with the requests that wait for its outcome.
	tokens map[store.Key][]*pending
	// registering are container instances that a commit registers and the snapshot does not show yet.
	registering map[instanceKey]*state.ContainerInstance
}

type instanceKey struct {
	cluster store.Key
	hostID  string
}

// batch is what one transaction commits.
type batch struct {
	plans      []*plan
	operations int
	err        error   // of the transaction
	failed     []*plan // of those, with their own errors
}

// plan is one Run's part of a batch.
type plan struct {
	*pending
	tasks        []placedTask
	failures     []placement.Verdict
	explanations []Explanation
	err          error
}

// placedTask is a task with its place.
type placedTask struct {
	spec     *state.Spec
	decision placement.Decision
	instance string                   // its ARN; empty for FARGATE
	register *state.ContainerInstance // to be registered if it is not yet; nil: it is
}

func (p *placer) newTerm(lead *store.Leadership) *term {
	snap := p.store.Snapshot()
	p.hosts.take() // cold reads them all
	return &term{
		placer: p, lead: lead,
		watch:       p.store.Watch(context.Background(), snap),
		ledger:      p.cold(snap),
		finished:    make(chan *batch, maxInFlight+1), // place may go one over
		tokens:      map[store.Key][]*pending{},
		registering: map[instanceKey]*state.ContainerInstance{},
	}
}

// serve places until the leadership is lost (nil), ctx ends or the store stops.
func (t *term) serve(ctx context.Context) error {
	defer t.drain()
	for {
		runs := t.runs
		if t.inFlight >= maxInFlight {
			runs = nil
		} else if len(t.backlog) > 0 && ctx.Err() == nil {
			select {
			case <-t.lead.Done():
				return nil
			default:
			}
			t.place(ctx, nil)
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.lead.Done():
			return nil
		case <-t.store.Done():
			return fmt.Errorf("placer: %w", t.store.Err())
		case <-t.watch.Moved():
			t.follow()
		case <-t.hosts.nudge:
			t.catchUp()
		case b := <-t.finished:
			t.finish(b)
		case x := <-t.turns:
			t.drain()
			x.done <- x.fn(func(fn func(*store.Tx) error) error {
				ctx, cancel := context.WithTimeout(x.ctx, commitTimeout)
				defer cancel()
				_, err := t.store.Update(ctx, func(tx *store.Tx) error {
					tx.Require(t.lead)
					return fn(tx)
				})
				return err
			})
		case first := <-runs:
			t.place(ctx, first)
		}
	}
}

// drain waits for the commits in flight.
func (t *term) drain() {
	for t.inFlight > 0 {
		t.finish(<-t.finished)
	}
}

// catchUp brings the ledger up to the newest snapshot: whoever saw a task stop, or a host come, and
// then asks for a place finds it.
func (t *term) catchUp() {
	newest := t.store.Snapshot().Revision()
	for t.watch.Snapshot().Revision() < newest && t.follow() {
	}
	for id := range t.hosts.take() {
		if row, ok := state.Hosts.Get(t.watch.Snapshot(), state.HostKey(id)); ok {
			t.ledger.SetHost(t.facts(row.Value))
		}
	}
}

// follow takes in the watch's next change, which is there already. It answers false when the store has
// stopped; serve sees that too.
func (t *term) follow() bool {
	c, err := t.watch.Next(context.Background())
	if err != nil {
		return false
	}
	t.apply(t.ledger, c)
	for _, row := range c.Rows {
		if ci, ok := row.New.(*state.ContainerInstance); ok {
			name, _ := state.SplitTaskKey(row.Key)
			delete(t.registering, instanceKey{store.K(row.Scope, name), ci.HostID})
		}
	}
	return true
}

// next is a request that waits, or nil.
func (t *term) next() *pending {
	for {
		var p *pending
		if len(t.backlog) > 0 {
			p, t.backlog = t.backlog[0], t.backlog[1:]
		} else {
			select {
			case p = <-t.runs:
			default:
				return nil
			}
		}
		if t.take(p) {
			return p
		}
	}
}

// take makes a request the placer's own, unless its caller gave up before.
func (t *term) take(p *pending) bool { return p.taken.CompareAndSwap(false, true) }

// place plans the first request and whatever else is waiting, and has it committed, as much in one
// transaction as there is room for.
func (t *term) place(ctx context.Context, first *pending) {
	t.catchUp()
	if first != nil && !t.take(first) {
		first = nil
	}
	b := &batch{operations: 1} // the leadership
	for p := first; t.inFlight < maxInFlight; {
		if p == nil {
			if p = t.next(); p == nil {
				break
			}
		}
		if pl := t.plan(p); pl != nil {
			n := pl.operations()
			if len(b.plans) > 0 && b.operations+n > store.MaxOps {
				t.commit(ctx, b)
				b = &batch{operations: 1}
			}
			b.plans = append(b.plans, pl)
			b.operations += n
		}
		p = nil
	}
	if len(b.plans) > 0 {
		t.commit(ctx, b)
	}
}

// plan finds places for a Run and reserves them. Nil: the Run is answered, or waits for another with
// the same token.
func (t *term) plan(p *pending) *plan {
	snap, run := t.watch.Snapshot(), &p.run
	key, hasToken := run.tokenKey()
	if hasToken {
		if waiters, busy := t.tokens[key]; busy {
			t.tokens[key] = append(waiters, p)
			return nil
		}
		if row, ok := state.Tokens.Get(snap, key); ok {
			p.answer(repeated(row.Value, run, snap))
			return nil
		}
	}
	pl := &plan{pending: p}
	reserve := t.ledger.Begin()
	full := map[string]bool{} // capacity providers, "" for none, that had no place for a task
	for i, spec := range run.Tasks {
		if full[spec.CapacityProvider] {
			continue // the provider's others are of the same kind
		}
		req := need(run, spec)
		if len(run.Hosts) > 0 {
			d, v := reserve.PlaceOn(run.Hosts[i], req)
			if !v.OK() {
				pl.failures = append(pl.failures, v)
				pl.explain(t.ledger, spec, req, run.Hosts[i])
				continue
			}
			pl.tasks = append(pl.tasks, t.placed(run, spec, d))
			continue
		}
		d, ok := reserve.Place(req)
		if !ok {
			pl.failures = append(pl.failures, t.ledger.Judge(req)...)
			pl.explain(t.ledger, spec, req, "")
			full[spec.CapacityProvider] = true
			continue
		}
		pl.tasks = append(pl.tasks, t.placed(run, spec, d))
	}
	if len(pl.tasks) == 0 {
		if _, considered := placement.Closest(pl.failures); !considered && len(run.Hosts) == 0 {
			p.answer(Placed{Explanations: pl.explanations}, ErrNoInstances)
		} else {
			p.answer(Placed{Failures: pl.failures, Explanations: pl.explanations, Snapshot: snap}, nil)
		}
		return nil
	}
	if hasToken {
		t.tokens[key] = nil
	}
	return pl
}

// repeated answers a Run whose token is known.
func repeated(token *state.Token, run *Run, snap *store.Snapshot) (Placed, error) {
	if token.Fingerprint != run.Fingerprint {
		return Placed{}, ErrTokenReused
	}
	return Placed{TaskIDs: token.TaskIDs, Snapshot: snap}, nil
}

// placed settles which container instance the task is on. A host becomes one of the cluster with its
// first task there; until the snapshot shows it, each commit that uses it would register it.
func (t *term) placed(run *Run, spec *state.Spec, d placement.Decision) placedTask {
	pt := placedTask{spec: spec, decision: d}
	if spec.LaunchType == ecs.LaunchTypeFargate {
		return pt
	}
	if d.InstanceARN != "" {
		pt.instance = d.InstanceARN
		return pt
	}
	key := instanceKey{run.Cluster, d.HostID}
	ci := t.registering[key]
	if ci == nil {
		ci = newInstance(run.Cluster, run.ClusterARN, d.HostID, time.Now().UTC())
		t.registering[key] = ci
	}
	pt.instance, pt.register = ci.ARN, ci
	return pt
}

func newInstance(cluster store.Key, clusterARN, hostID string, now time.Time) *state.ContainerInstance {
	id := state.NewID()
	return &state.ContainerInstance{
		ARN: state.ARN(cluster.Scope, "container-instance", cluster.ID, id), ID: id,
		ClusterARN: clusterARN, HostID: hostID, Status: "ACTIVE", RegisteredAt: now,
	}
}

// operations is how many rows the plan reads and writes at most.
func (pl *plan) operations() int {
	n := 3 // token, cluster, definition
	for i := range pl.tasks {
		n += 2 // spec, placement
		if pl.tasks[i].register != nil {
			n++
		}
	}
	if len(pl.run.Tags) > 0 {
		n += len(pl.tasks)
	}
	return n
}

// commit makes a batch durable, beside the loop. A batch that fails as a whole is tried again one by
// one, so that nobody fails for another's fault.
func (t *term) commit(ctx context.Context, b *batch) {
	t.inFlight++
	go func() {
		b.err = t.write(ctx, b.plans...)
		for _, pl := range b.plans {
			if pl.err = b.err; b.err != nil && len(b.plans) > 1 && !errors.Is(b.err, store.ErrNotLeader) && ctx.Err() == nil {
				pl.err = t.write(ctx, pl)
			}
			if pl.err != nil {
				b.failed = append(b.failed, pl)
				continue
			}
			placed := Placed{Failures: pl.failures, Explanations: pl.explanations, Snapshot: t.store.Snapshot()}
			for i := range pl.tasks {
				placed.TaskIDs = append(placed.TaskIDs, pl.tasks[i].spec.ID)
			}
			pl.answer(placed, nil)
		}
		t.finished <- b
	}()
}

// finish takes a batch back from its commit.
func (t *term) finish(b *batch) {
	t.inFlight--
	if len(b.failed) > 0 {
		// A commit whose answer was lost may have taken place: what the snapshot has stays reserved.
		// Should it come later, apply reserves it again.
		t.catchUp()
	}
	for _, pl := range b.failed {
		snap := t.watch.Snapshot()
		for i := range pl.tasks {
			id := pl.tasks[i].spec.ID
			if _, exists := state.Placements.Get(snap, state.TaskKey(pl.run.Cluster.Scope, pl.run.Cluster.ID, id)); !exists {
				t.ledger.Release(id)
			}
		}
		if errors.Is(pl.err, store.ErrNotLeader) && pl.ctx.Err() == nil {
			t.putBack(pl.pending) // nothing was written: whoever is elected next may place it
			continue
		}
		pl.answer(Placed{}, pl.err)
	}
	for _, pl := range b.plans {
		if key, ok := pl.run.tokenKey(); ok {
			for _, waiter := range t.tokens[key] {
				t.putBack(waiter)
			}
			delete(t.tokens, key)
		}
	}
}

// putBack has a request wait again. Its caller may have given up since it was taken, and then has left
// it to the placer to say so.
func (t *term) putBack(p *pending) {
	p.taken.Store(false)
	if p.ctx.Err() != nil && t.take(p) {
		p.answer(Placed{}, fmt.Errorf("wait for the placer: %w", p.ctx.Err()))
		return
	}
	t.backlog = append(t.backlog, p)
}

// write commits plans in one transaction.
func (t *term) write(ctx context.Context, plans ...*plan) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	now := time.Now().UTC()
	_, err := t.store.Update(ctx, func(tx *store.Tx) error {
		tx.Require(t.lead)
		for _, pl := range plans {
			if err := pl.write(tx, now); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// write puts the plan's rows into a transaction.
func (pl *plan) write(tx *store.Tx, now time.Time) error {
	run := &pl.run
	if c, ok := state.Clusters.Get(tx, run.Cluster); !ok || *c.Value.Status != "ACTIVE" {
		return ErrClusterInactive
	}
	if d, ok := state.TaskDefinitions.Get(tx, run.Definition); !ok || d.Value.Status != ecs.TaskDefinitionStatusActive {
		return ErrDefinitionInactive
	}
	var ids []string
	for i := range pl.tasks {
		pt := &pl.tasks[i]
		spec, hostID := pt.spec, pt.decision.HostID
		host, ok := state.Hosts.Get(tx.Snapshot(), state.HostKey(hostID))
		if !ok {
			return fmt.Errorf("host %s: %w", hostID, ErrNotFound)
		}
		place := &state.Placement{
			HostID: hostID, AvailabilityZone: run.Cluster.Region + host.Value.ZoneSuffix, ContainerInstanceARN: pt.instance,
			Architecture: host.Value.Attributes[state.AttributeArchitecture], GPUIDs: pt.decision.GPUIDs,
		}
		for _, r := range pt.decision.Ranking {
			place.Ranking = append(place.Ranking, state.Rank(r))
		}
		if pt.decision.Address.IsValid() {
			place.PrivateIPv4 = pt.decision.Address.String()
		}
		if ci := pt.register; ci != nil {
			key := store.K(run.Cluster.Scope, run.Cluster.ID+"/"+ci.ID)
			if _, registered := state.ContainerInstances.Get(tx, key); !registered {
				state.ContainerInstances.Put(tx, key, ci)
			}
		}
		key := state.TaskKey(run.Cluster.Scope, run.Cluster.ID, spec.ID)
		state.Specs.Put(tx, key, spec)
		state.Placements.Put(tx, key, place)
		if len(run.Tags) > 0 {
			state.Tags.Put(tx, store.K(run.Cluster.Scope, spec.ARN), &state.ResourceTags{Tags: run.Tags})
		}
		ids = append(ids, spec.ID)
	}
	if key, ok := run.tokenKey(); ok {
		state.Tokens.Put(tx, key, &state.Token{Fingerprint: run.Fingerprint, TaskIDs: ids, At: now})
	}
	return nil
}
