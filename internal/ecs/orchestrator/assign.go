package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/dispatch"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/ecs/taskdef"
	"github.com/berthhq/berth/internal/store"
)

// hub tells each connected host's stream which of its tasks have changed.
type hub struct {
	store *store.Store
	log   *slog.Logger
	start *store.Snapshot

	mu    sync.Mutex
	hosts map[string]map[*subscription]struct{}
}

func newHub(cfg Config) *hub {
	return &hub{store: cfg.Store, log: cfg.Logger, start: cfg.Store.Snapshot(), hosts: map[string]map[*subscription]struct{}{}}
}

// subscription is one stream of payloads. Only its reader takes from it; the hub only adds.
type subscription struct {
	hub    *hub
	hostID string

	mu    sync.Mutex
	snap  *store.Snapshot
	full  bool
	dirty map[store.Key]reason
	wake  chan struct{} // holds one token when there is something to take
}

// reason is why a host is told of a task.
type reason int

const (
	changed reason = iota
	// insisted: the host speaks of a task that has been given up, as of one that lives. It is told to
	// stop it.
	insisted
)

// Assignments starts a stream of payloads for a host. A host that takes its payloads is connected,
// whatever HostDisconnected may still say of its session before.
func (o *Orchestrator) Assignments(_ context.Context, hostID string) (dispatch.Assignments, error) {
	s := o.hub.subscribe(hostID)
	o.placer.hosts.set(hostID, true)
	return s, nil
}

func (h *hub) subscribe(hostID string) *subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	// The newest snapshot: the host may have been told of it by another server.
	s := &subscription{hub: h, hostID: hostID, snap: h.store.Snapshot(), full: true, dirty: map[store.Key]reason{}, wake: make(chan struct{}, 1)}
	s.wake <- struct{}{}
	if h.hosts[hostID] == nil {
		h.hosts[hostID] = map[*subscription]struct{}{}
	}
	h.hosts[hostID][s] = struct{}{}
	return s
}

func (h *hub) subscribed(hostID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.hosts[hostID]) > 0
}

// Close ends the stream.
func (s *subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.hosts[s.hostID], s)
	if len(s.hub.hosts[s.hostID]) == 0 {
		delete(s.hub.hosts, s.hostID)
	}
}

// run follows the store.
func (h *hub) run(ctx context.Context) error {
	watch := h.store.Watch(ctx, h.start)
	h.start = nil
	for {
		c, err := watch.Next(ctx)
		if err != nil {
			return fmt.Errorf("watch for assignments: %w", err)
		}
		h.spread(c)
	}
}

func (h *hub) spread(c store.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.hosts) == 0 {
		return
	}
	for _, row := range c.Rows {
		why := changed
		switch now := row.New.(type) {
		case *state.Placement, *lifecycle.Desired:
		case *lifecycle.Status:
			before, ok := row.Old.(*lifecycle.Status)
			if !ok || before.LastStatus != lifecycle.Stopped || now.LastStatus != lifecycle.Stopped {
				continue
			}
			why = insisted
		default:
			continue
		}
		pl, ok := state.Placements.Get(c.Snapshot, row.Key)
		if !ok {
			continue
		}
		for s := range h.hosts[pl.Value.HostID] {
			s.mark(c.Snapshot, row.Key, why)
		}
	}
}

func (s *subscription) mark(snap *store.Snapshot, task store.Key, why reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if snap.Revision() < s.snap.Revision() || snap.Revision() == s.snap.Revision() && s.full {
		return // the full payload has it, or had it
	}
	s.snap = snap
	s.dirty[task] = max(s.dirty[task], why)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next waits for the next payload. Its sequence is the store's revision: it grows from one payload to
// the next because each is woken by a later revision than the one before was built from.
func (s *subscription) Next(ctx context.Context) (*dispatchpb.Payload, error) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s.mu.Lock()
		snap, full, dirty := s.snap, s.full, s.dirty
		s.full, s.dirty = false, map[store.Key]reason{}
		s.mu.Unlock()
		p := &dispatchpb.Payload{Sequence: snap.Revision(), Full: full}
		if full {
			for pl := range state.Placements.By(snap, "host", s.hostID) {
				dirty[pl.Key] = max(dirty[pl.Key], changed)
			}
		}
		for key, why := range dirty {
			if why == changed && stopped(snap, key) {
				continue
			}
			t, err := assignment(snap, key)
			if err != nil {
				// Nothing a retry would mend; the task's deadline will tell its owner.
				s.hub.log.Error("a task cannot be assigned", "task", key, "error", err)
				continue
			}
			if t != nil {
				p.Tasks = append(p.Tasks, t)
			}
		}
		if full || len(p.Tasks) > 0 {
			return p, nil
		}
	}
}

// assignment puts together what a host must know to run a task, or to stop it; nil when the task is no
// longer kept.
func assignment(snap *store.Snapshot, key store.Key) (*dispatchpb.Task, error) {
	specRow, ok := state.Specs.Get(snap, key)
	if !ok {
		return nil, nil
	}
	spec := specRow.Value
	pl, ok := state.Placements.Get(snap, key)
	if !ok {
		return nil, fmt.Errorf("placement: %w", ErrNotFound)
	}
	def, ok := state.TaskDefinitions.Get(snap, state.DefinitionKey(key.Scope, spec.Family, spec.Revision))
	if !ok {
		return nil, fmt.Errorf("task definition %s: %w", spec.TaskDefinitionARN, ErrNotFound)
	}
	effective, err := taskdef.Resolve(def.Value, spec.Overrides)
	if err != nil {
		return nil, fmt.Errorf("apply overrides: %w", err)
	}
	t := &dispatchpb.Task{
		Arn: spec.ARN, ClusterArn: spec.ClusterARN, AccountId: key.Account, Region: key.Region,
		Family: spec.Family, Revision: int64(spec.Revision),
		DesiredStatus: string(lifecycle.Running), LaunchType: string(spec.LaunchType), NetworkMode: spec.NetworkMode,
		CreatedAt:            timestamppb.New(spec.CreatedAt),
		ContainerInstanceArn: pl.Value.ContainerInstanceARN,
	}
	if effective.Cpu != nil {
		t.CpuUnits = spec.CPUUnits
	}
	if effective.Memory != nil {
		t.MemoryMib = spec.MemoryMiB
	}
	if rec, ok := state.Record(snap, key); ok {
		if cause, ends := rec.Stop(); ends && (rec.Desired.Stop != nil || rec.Status.LastStatus == lifecycle.Stopped) {
			t.DesiredStatus, t.StopReason, t.Kill = string(lifecycle.Stopped), cause.Reason, cause.Kill
		}
	}
	if ni := spec.Interface; spec.Attached() {
		t.NetworkInterface = &dispatchpb.NetworkInterface{
			AttachmentId: ni.AttachmentID, EniId: ni.ENIID, MacAddress: ni.MAC, SubnetId: ni.SubnetID,
			PrivateIpv4:    pl.Value.PrivateIPv4,
			PrivateDnsName: state.PrivateDNSName(pl.Value.PrivateIPv4, key.Region),
		}
	}
	t.PidMode, t.IpcMode = string(effective.PidMode), string(effective.IpcMode)
	t.Group, t.StartedBy = spec.Group, spec.StartedBy
	t.AvailabilityZone = pl.Value.AvailabilityZone
	t.TaskRoleArn, t.ExecutionRoleArn = api.Value(effective.TaskRoleArn), api.Value(effective.ExecutionRoleArn)
	if effective.EphemeralStorage != nil {
		t.EphemeralStorageGib = int64(api.Value(effective.EphemeralStorage.SizeInGiB))
	}
	if tags, ok := state.Tags.Get(snap, store.K(key.Scope, spec.ARN)); ok {
		t.Tags = make(map[string]string, len(tags.Value.Tags))
		for _, tag := range tags.Value.Tags {
			t.Tags[api.Value(tag.Key)] = api.Value(tag.Value)
		}
	}
	for _, v := range effective.Volumes {
		t.Volumes = append(t.Volumes, volume(&v))
	}
	gpus := pl.Value.GPUIDs
	cluster, _ := state.SplitTaskKey(key)
	for i, def := range effective.ContainerDefinitions {
		c := container(&def)
		c.Arn = state.ARN(key.Scope, "container", cluster, spec.ID, spec.Containers[i].ID)
		n := min(taskdef.GPUs(&def), len(gpus))
		c.GpuIds, gpus = gpus[:n], gpus[n:]
		t.Containers = append(t.Containers, c)
	}
	return t, nil
}
