package orchestrator

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// registrations is how many container instances one transaction registers or deletes.
const registrations = 60

// HostConnected makes a host's facts durable and has the placer consider it.
func (o *Orchestrator) HostConnected(ctx context.Context, hello *dispatchpb.Hello) error {
	h, err := hostOf(hello)
	if err != nil {
		return err
	}
	if err := o.reach(ctx, hello); err != nil {
		return err
	}
	_, err = o.store.Update(ctx, func(tx *store.Tx) error {
		if old, ok := state.Hosts.Get(tx, state.HostKey(h.ID)); ok {
			h.FirstSeenAt = old.Value.FirstSeenAt
			if reflect.DeepEqual(old.Value, h) {
				return nil
			}
		}
		state.Hosts.Put(tx, state.HostKey(h.ID), h)
		return nil
	})
	if err != nil {
		return fmt.Errorf("record host %s: %w", h.ID, err)
	}
	o.placer.hosts.set(h.ID, true)
	return nil
}

// reach waits until this server knows all that the host has been told, by any server: payloads built
// from less would be stale to the host. A host that has been told more than the store holds belongs to
// another state than this one; it would take every payload for an old one, in silence.
func (o *Orchestrator) reach(ctx context.Context, hello *dispatchpb.Hello) error {
	if hello.LastSequence <= o.store.Snapshot().Revision() {
		return nil
	}
	if err := o.store.Sync(ctx); err != nil {
		return fmt.Errorf("catch up with what host %s was told: %w", hello.HostId, err)
	}
	if have := o.store.Snapshot().Revision(); hello.LastSequence > have {
		return fmt.Errorf("host %s was told of revision %d, but the state here is at %d: it is an older copy, or not the one the host belonged to", hello.HostId, hello.LastSequence, have)
	}
	return nil
}

func hostOf(hello *dispatchpb.Hello) (*state.Host, error) {
	h := &state.Host{
		ID: hello.HostId, Hostname: hello.Hostname, AgentVersion: hello.AgentVersion, BootID: hello.BootId,
		CPUUnits: hello.CpuUnits, MemoryMiB: hello.MemoryMib, SubnetCIDR: hello.SubnetCidr,
		ZoneSuffix: hello.AvailabilityZoneSuffix, FirstSeenAt: time.Now().UTC(),
	}
	if len(hello.GpuIds) > 0 {
		h.GPUIDs = hello.GpuIds
	}
	if len(hello.Attributes) > 0 { // as it comes back from the store, to be compared with it
		h.Attributes = hello.Attributes
	}
	for _, text := range hello.ReservedTcpPorts {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("reserved port of host %s: %w", h.ID, err)
		}
		h.Reserved = append(h.Reserved, state.Port{Number: int(n), Protocol: "tcp"})
	}
	return h, nil
}

// HostDisconnected has the placer pass the host over until it comes back. A host that has opened its
// next session already stays: the end of the one before may be told late.
func (o *Orchestrator) HostDisconnected(_ context.Context, hostID string) {
	if !o.hub.subscribed(hostID) {
		o.placer.hosts.set(hostID, false)
	}
}

// HostOf names the host a task was placed on.
func (o *Orchestrator) HostOf(taskARN string) (string, bool) {
	key, err := state.ParseTaskARN(taskARN)
	if err != nil {
		return "", false
	}
	pl, ok := state.Placements.Get(o.store.Snapshot(), key)
	if !ok {
		return "", false
	}
	return pl.Value.HostID, true
}

// HostUsage tells what of each host is taken and whether its agent is connected.
type HostUsage struct {
	Host      state.Host
	Connected bool
	CPUFree   int64 // units; negative when the host shrank below what its tasks hold
	MemFree   int64 // MiB; likewise
	Ports     []placement.Port
	GPUIDs    []string // taken
}

// Usage tells how full the hosts are.
func (o *Orchestrator) Usage(context.Context) (map[string]HostUsage, error) {
	snap := o.store.Snapshot()
	out := map[string]HostUsage{}
	for h := range state.Hosts.All(snap) {
		out[h.ID] = o.usage(snap, h.Value)
	}
	return out, nil
}

// UsageOf tells how full one host is, in a snapshot; false: there is no such host.
func (o *Orchestrator) UsageOf(v store.View, hostID string) (HostUsage, bool) {
	row, ok := state.Hosts.Get(v, state.HostKey(hostID))
	if !ok {
		return HostUsage{}, false
	}
	return o.usage(v, row.Value), true
}

func (o *Orchestrator) usage(v store.View, h *state.Host) HostUsage {
	u := HostUsage{Host: *h, Connected: o.placer.hosts.has(h.ID), CPUFree: h.CPUUnits, MemFree: h.MemoryMiB, Ports: portsOf(h.Reserved)}
	for pl := range state.Placements.By(v, "host", h.ID) {
		spec, ok := state.Specs.Get(v, pl.Key)
		if !ok || stopped(v, pl.Key) {
			continue
		}
		u.CPUFree -= spec.Value.CPUUnits
		u.MemFree -= spec.Value.MemoryMiB
		u.Ports = append(u.Ports, portsOf(spec.Value.Ports)...)
		u.GPUIDs = append(u.GPUIDs, pl.Value.GPUIDs...)
	}
	slices.SortFunc(u.Ports, placement.Port.Compare)
	u.Ports = slices.Compact(u.Ports)
	slices.Sort(u.GPUIDs)
	return u
}

// EnsureInstances registers every connected host in a cluster.
func (o *Orchestrator) EnsureInstances(ctx context.Context, cluster store.Key, clusterARN string) error {
	lacking := func(v store.View) []string {
		have := map[string]bool{}
		for ci := range state.ContainerInstances.List(v, cluster.Scope, cluster.ID+"/") {
			have[ci.Value.HostID] = true
		}
		return slices.DeleteFunc(o.placer.hosts.all(), func(id string) bool { return have[id] })
	}
	if len(lacking(o.store.Snapshot())) == 0 {
		return nil
	}
	return o.placer.exclusive(ctx, func(update update) error {
		for some := range slices.Chunk(lacking(o.store.Snapshot()), registrations) {
			err := update(func(tx *store.Tx) error {
				if c, ok := state.Clusters.Get(tx, cluster); !ok || *c.Value.Status != "ACTIVE" {
					return ErrClusterInactive
				}
				for _, id := range some {
					ci := newInstance(cluster, clusterARN, id, time.Now().UTC())
					state.ContainerInstances.Put(tx, store.K(cluster.Scope, cluster.ID+"/"+ci.ID), ci)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
