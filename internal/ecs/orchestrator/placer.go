package orchestrator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// electionName is what the servers' placers compete for: one placer at a time.
const electionName = "ecs-placer"

// maxOperations is how many operations the placer lets a transaction grow to before it stops taking
// in further requests. It leaves room under the store's 128 for one largest request.
const maxOperations = 72

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

	errStopped = errors.New("the placer has stopped")
)

// Run is a request for tasks, all of one kind. The IDs are chosen by the caller, before the commit.
type Run struct {
	Cluster    store.Key
	ClusterARN string
	Definition store.Key
	Tasks      []*state.Spec
	Tags       []ecs.Tag // of each task
	// Token and Fingerprint make the call repeatable: empty, or the clientToken and a digest of all
	// that the call asked for.
	Token       string
	Fingerprint string
}

// Placed is what became of a Run.
type Placed struct {
	TaskIDs []string // that have a place, in order
	// Failures has the verdict of each host that was considered, if some task found no place.
	Failures []placement.Verdict
	// Snapshot includes the tasks.
	Snapshot *store.Snapshot
}

type placer struct {
	store *store.Store
	id    string
	log   *slog.Logger

	runs    chan *pending
	control chan func(*placement.Ledger)
	turns   chan *turn

	stopped chan struct{} // closed when run has returned

	// connected is the placer goroutine's own: which hosts have a session here.
	connected map[string]bool
}

// pending is a Run on its way.
type pending struct {
	run    Run
	result chan outcome
}

type outcome struct {
	placed Placed
	err    error
}

// turn is an exclusive transaction on its way.
type turn struct {
	ctx  context.Context
	fn   func(*store.Tx) error
	done chan error
}

func newPlacer(cfg Config) *placer {
	return &placer{
		store: cfg.Store, id: cfg.ServerID, log: cfg.Logger,
		runs:      make(chan *pending, 256),
		control:   make(chan func(*placement.Ledger)),
		turns:     make(chan *turn),
		stopped:   make(chan struct{}),
		connected: map[string]bool{},
	}
}

// Place finds places for the tasks of a Run and makes them durable. A task that found none is in
// Failures and does not exist.
func (o *Orchestrator) Place(ctx context.Context, run Run) (Placed, error) {
	p := &pending{run: run, result: make(chan outcome, 1)}
	select {
	case o.placer.runs <- p:
	case <-ctx.Done():
		return Placed{}, fmt.Errorf("wait for the placer: %w", ctx.Err())
	case <-o.placer.stopped:
		return Placed{}, errStopped
	}
	// From here on the tasks may come to exist, so the answer is waited for even if the caller has
	// gone: the placer always answers.
	select {
	case out := <-p.result:
		return out.placed, out.err
	case <-o.placer.stopped:
		return Placed{}, errStopped
	}
}

func (p *placer) exclusive(ctx context.Context, fn func(*store.Tx) error) error {
	t := &turn{ctx: ctx, fn: fn, done: make(chan error, 1)}
	select {
	case p.turns <- t:
	case <-ctx.Done():
		return fmt.Errorf("wait for the placer: %w", ctx.Err())
	case <-p.stopped:
		return errStopped
	}
	select {
	case err := <-t.done:
		return err
	case <-p.stopped:
		return errStopped
	}
}

// do runs f in the placer's goroutine and waits for it.
func (p *placer) do(ctx context.Context, f func(*placement.Ledger)) error {
	done := make(chan struct{})
	select {
	case p.control <- func(l *placement.Ledger) { f(l); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-p.stopped:
		return errStopped
	}
	select {
	case <-done:
		return nil
	case <-p.stopped:
		return errStopped
	}
}

// run holds the election and places, until ctx ends. Losing the election starts again from a cold
// snapshot.
func (p *placer) run(ctx context.Context) error {
	defer close(p.stopped)
	for {
		lead, err := p.store.Campaign(ctx, electionName, p.id)
		if err != nil {
			return fmt.Errorf("campaign for placer: %w", err)
		}
		err = p.lead(ctx, lead)
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

// lead places while the leadership lasts.
func (p *placer) lead(ctx context.Context, lead *store.Leadership) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	snap := p.store.Snapshot()
	watch := p.store.Watch(ctx, snap)
	ledger := p.cold(snap)
	changes := make(chan store.Change)
	failed := make(chan error, 1)
	go func() {
		for {
			c, err := watch.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			select {
			case changes <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lead.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("watch for placer: %w", err)
		case c := <-changes:
			p.apply(ledger, c)
		case f := <-p.control:
			f(ledger)
		case t := <-p.turns:
			_, err := p.store.Update(t.ctx, func(tx *store.Tx) error {
				tx.Require(lead)
				return t.fn(tx)
			})
			t.done <- err
		case first := <-p.runs:
			p.place(ctx, lead, ledger, first)
		}
	}
}

// cold builds the ledger from a snapshot.
func (p *placer) cold(snap *store.Snapshot) *placement.Ledger {
	l := placement.NewLedger()
	for h := range state.Hosts.All(snap) {
		l.SetHost(p.facts(h.Value))
	}
	for ci := range state.ContainerInstances.All(snap) {
		l.SetInstance(instanceOf(ci.Value))
	}
	for pl := range state.Placements.All(snap) {
		if spec, ok := state.Specs.Get(snap, pl.Key); ok && !stopped(snap, pl.Key) {
			l.Reserve(reservation(spec.Value, pl.Value))
		}
	}
	return l
}

// apply brings the ledger up to date with one revision. Tasks this placer placed are in it already.
func (p *placer) apply(l *placement.Ledger, c store.Change) {
	for _, row := range c.Rows {
		switch v := row.New.(type) {
		case *state.Host:
			l.SetHost(p.facts(v))
		case *state.ContainerInstance:
			l.SetInstance(instanceOf(v))
		case *state.Placement:
			spec, ok := state.Specs.Get(c.Snapshot, row.Key)
			if _, held := l.Reservation(taskOf(row.Key)); ok && !held && !stopped(c.Snapshot, row.Key) {
				l.Reserve(reservation(spec.Value, v))
			}
		case *lifecycle.Status:
			if v.LastStatus == lifecycle.Stopped {
				l.Release(taskOf(row.Key))
			}
		}
		if row.New != nil {
			continue
		}
		switch old := row.Old.(type) {
		case *state.Host:
			l.RemoveHost(old.ID)
		case *state.ContainerInstance:
			l.RemoveInstance(old.HostID, old.ClusterARN)
		case *state.Placement:
			l.Release(taskOf(row.Key))
		}
	}
}

// plan is one Run's part of a batch.
type plan struct {
	*pending
	batch     *placement.Batch
	decisions []placement.Decision // one a task, of the first tasks of the run
	failures  []placement.Verdict
	repeated  *state.Token
}

// place plans the first request and whatever else is waiting, and commits all in one transaction.
func (p *placer) place(ctx context.Context, lead *store.Leadership, ledger *placement.Ledger, first *pending) {
	snap := p.store.Snapshot()
	var plans []*plan
	tokens := map[store.Key]bool{}
	operations := 0
	for next := first; next != nil; {
		pl := p.plan(snap, ledger, next)
		key, hasToken := next.run.tokenKey()
		if hasToken && tokens[key] {
			// The same token twice in one batch: the second one waits for the first one's commit.
			pl.batch.Undo()
			p.commit(ctx, lead, plans)
			p.place(ctx, lead, ledger, next)
			return
		}
		tokens[key] = true
		plans = append(plans, pl)
		operations += pl.operations()
		next = nil
		if operations < maxOperations {
			select {
			case next = <-p.runs:
			default:
			}
		}
	}
	p.commit(ctx, lead, plans)
}

func (r *Run) tokenKey() (store.Key, bool) {
	return store.Key{Scope: r.Cluster.Scope, ID: r.Cluster.ID + "/" + r.Token}, r.Token != ""
}

// operations is how many rows the plan writes at most.
func (p *plan) operations() int {
	n := len(p.decisions) * 4 // spec, placement, host sequence, container instance
	if len(p.run.Tags) > 0 {
		n += len(p.decisions)
	}
	return n + 3 // token, cluster, definition
}

func (p *placer) plan(snap *store.Snapshot, ledger *placement.Ledger, next *pending) *plan {
	pl := &plan{pending: next, batch: ledger.Begin()}
	run := &next.run
	if key, ok := run.tokenKey(); ok {
		if t, ok := state.Tokens.Get(snap, key); ok {
			pl.repeated = t.Value
			return pl
		}
	}
	for _, spec := range run.Tasks {
		req := request(spec)
		d, ok := pl.batch.Place(req)
		if !ok {
			pl.failures = ledger.Explain(req)
			break // the others are of the same kind
		}
		pl.decisions = append(pl.decisions, d)
	}
	return pl
}

// commit makes plans durable and answers them. A batch that fails as a whole is tried again one by
// one, so that nobody fails for another's fault.
func (p *placer) commit(ctx context.Context, lead *store.Leadership, plans []*plan) {
	if len(plans) == 0 {
		return
	}
	now := time.Now().UTC()
	_, err := p.store.Update(ctx, func(tx *store.Tx) error {
		tx.Require(lead)
		for _, pl := range plans {
			if err := pl.write(tx, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && len(plans) > 1 {
		for _, pl := range plans {
			p.commit(ctx, lead, []*plan{pl})
		}
		return
	}
	for _, pl := range plans {
		out := outcome{err: err}
		switch {
		case err != nil:
			pl.batch.Undo()
		case pl.repeated != nil:
			out.placed = Placed{TaskIDs: pl.repeated.TaskIDs, Snapshot: p.store.Snapshot()}
			if pl.repeated.Fingerprint != pl.run.Fingerprint {
				out = outcome{err: ErrTokenReused}
			}
		case len(pl.decisions) == 0 && !considered(pl.failures):
			out.err = ErrNoInstances
		default:
			out.placed = Placed{Failures: pl.failures, Snapshot: p.store.Snapshot()}
			for _, d := range pl.decisions {
				out.placed.TaskIDs = append(out.placed.TaskIDs, d.TaskID)
			}
		}
		pl.result <- out
	}
}

func considered(verdicts []placement.Verdict) bool {
	_, ok := placement.Closest(verdicts)
	return ok
}

// write puts the plan's rows into a transaction.
func (pl *plan) write(tx *store.Tx, now time.Time) error {
	run := &pl.run
	if pl.repeated != nil {
		return nil
	}
	if len(pl.decisions) == 0 {
		return nil
	}
	if c, ok := state.Clusters.Get(tx, run.Cluster); !ok || *c.Value.Status != "ACTIVE" {
		return ErrClusterInactive
	}
	if d, ok := state.TaskDefinitions.Get(tx, run.Definition); !ok || d.Value.Status != ecs.TaskDefinitionStatusActive {
		return ErrDefinitionInactive
	}
	var ids []string
	for i, d := range pl.decisions {
		spec := run.Tasks[i]
		key := state.TaskKey(run.Cluster.Scope, run.Cluster.ID, spec.ID)
		host, ok := state.Hosts.Get(tx, state.HostKey(d.HostID))
		if !ok {
			return fmt.Errorf("host %s: %w", d.HostID, ErrNotFound)
		}
		place := &state.Placement{HostID: d.HostID, AvailabilityZone: run.Cluster.Scope.Region + host.Value.ZoneSuffix}
		if spec.LaunchType != ecs.LaunchTypeFargate {
			place.ContainerInstanceARN = register(tx, run.Cluster, run.ClusterARN, d.HostID, now).ARN
		}
		if d.Address.IsValid() {
			place.PrivateIPv4 = d.Address.String()
		}
		state.Specs.Put(tx, key, spec)
		state.Placements.Put(tx, key, place)
		if len(run.Tags) > 0 {
			state.Tags.Put(tx, state.ScopeKey(run.Cluster.Scope, spec.ARN), &state.ResourceTags{Tags: run.Tags})
		}
		bump(tx, d.HostID)
		ids = append(ids, spec.ID)
	}
	if key, ok := run.tokenKey(); ok {
		state.Tokens.Put(tx, key, &state.Token{Fingerprint: run.Fingerprint, TaskIDs: ids, At: now})
	}
	return nil
}

// bump grows the host's sequence: reading it in the transaction is what makes the commit compare it.
func bump(tx *store.Tx, hostID string) {
	seq := int64(1)
	if row, ok := state.HostSequences.Get(tx, state.HostKey(hostID)); ok {
		seq = row.Value.Sequence + 1
	}
	state.HostSequences.Put(tx, state.HostKey(hostID), &state.HostSequence{Sequence: seq})
}

// register makes the host a container instance of the cluster, if it is none yet.
func register(tx *store.Tx, cluster store.Key, clusterARN, hostID string, now time.Time) *state.ContainerInstance {
	for ci := range state.ContainerInstances.By(tx, "host", hostID) {
		if ci.Value.ClusterARN == clusterARN {
			return ci.Value
		}
	}
	id := randomID()
	ci := &state.ContainerInstance{
		ARN: state.ARN(cluster.Scope, "container-instance", cluster.ID, id), ID: id,
		ClusterARN: clusterARN, HostID: hostID, Status: "ACTIVE", RegisteredAt: now,
	}
	state.ContainerInstances.Put(tx, state.ScopeKey(cluster.Scope, cluster.ID+"/"+id), ci)
	return ci
}

func (p *placer) facts(h *state.Host) placement.Host {
	f := placement.Host{
		ID: h.ID, CPUUnits: h.CPUUnits, MemoryMiB: h.MemoryMiB, Attributes: h.Attributes,
		AvailabilityZone: h.ZoneSuffix, AgentConnected: p.connected[h.ID],
	}
	if prefix, err := netip.ParsePrefix(h.SubnetCIDR); err == nil {
		f.Subnet = prefix
	}
	for _, port := range h.Reserved {
		f.ReservedPorts = append(f.ReservedPorts, portOf(port))
	}
	return f
}

func instanceOf(ci *state.ContainerInstance) placement.Instance {
	return placement.Instance{HostID: ci.HostID, Cluster: ci.ClusterARN, ARN: ci.ARN, Status: placement.InstanceStatus(ci.Status)}
}

func request(spec *state.Spec) placement.Request {
	return placement.Request{
		TaskID: spec.ID, Cluster: spec.ClusterARN, CPUUnits: spec.CPUUnits, MemoryMiB: spec.MemoryMiB,
		Ports: portsOf(spec.Ports), Address: spec.Interface != nil,
	}
}

func reservation(spec *state.Spec, pl *state.Placement) placement.Reservation {
	r := placement.Reservation{
		TaskID: spec.ID, HostID: pl.HostID, Cluster: spec.ClusterARN,
		CPUUnits: spec.CPUUnits, MemoryMiB: spec.MemoryMiB, Ports: portsOf(spec.Ports),
	}
	if a, err := netip.ParseAddr(pl.PrivateIPv4); err == nil {
		r.Address = a
	}
	return r
}

func portsOf(ports []state.Port) []placement.Port {
	out := make([]placement.Port, len(ports))
	for i, p := range ports {
		out[i] = portOf(p)
	}
	return out
}

func portOf(p state.Port) placement.Port {
	port := placement.Port{Number: uint16(p.Number)}
	if p.Protocol == "udp" {
		port.Protocol = placement.UDP
	}
	return port
}

// taskOf is the task's ID in the ledger.
func taskOf(k store.Key) string {
	_, id := state.SplitTaskKey(k)
	return id
}

func stopped(v store.View, task store.Key) bool {
	st, ok := state.Statuses.Get(v, task)
	return ok && st.Value.LastStatus == lifecycle.Stopped
}

// randomID is an ID as ECS makes them: 32 hexadecimal digits.
func randomID() string {
	id := make([]byte, 16)
	rand.Read(id)
	return hex.EncodeToString(id)
}
