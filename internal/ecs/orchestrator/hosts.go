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

// HostConnected makes a host's facts durable and has the placer consider it.
func (o *Orchestrator) HostConnected(ctx context.Context, hello *dispatchpb.Hello) error {
	h := &state.Host{
		ID: hello.HostId, Hostname: hello.Hostname, AgentVersion: hello.AgentVersion, BootID: hello.BootId,
		CPUUnits: hello.CpuUnits, MemoryMiB: hello.MemoryMib, SubnetCIDR: hello.SubnetCidr,
		ZoneSuffix: hello.AvailabilityZoneSuffix, Attributes: hello.Attributes,
		FirstSeenAt: time.Now().UTC(),
	}
	for _, text := range hello.ReservedTcpPorts {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("reserved port of host %s: %w", h.ID, err)
		}
		h.Reserved = append(h.Reserved, state.Port{Number: int(n), Protocol: "tcp"})
	}
	_, err := o.store.Update(ctx, func(tx *store.Tx) error {
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
	return o.placer.do(ctx, func(l *placement.Ledger) {
		o.placer.connected[h.ID] = true
		l.SetHost(o.placer.facts(h))
	})
}

// HostDisconnected has the placer pass the host over until it comes back.
func (o *Orchestrator) HostDisconnected(ctx context.Context, hostID string) {
	err := o.placer.do(ctx, func(l *placement.Ledger) {
		delete(o.placer.connected, hostID)
		if row, ok := state.Hosts.Get(o.store.Snapshot(), state.HostKey(hostID)); ok {
			l.SetHost(o.placer.facts(row.Value))
		}
	})
	if err != nil {
		o.log.Debug("placer is gone before a host's disconnection", "host", hostID)
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
	CPUFree   int64
	MemFree   int64
	Ports     []placement.Port
}

// Usage tells how full the hosts are.
func (o *Orchestrator) Usage(ctx context.Context) (map[string]HostUsage, error) {
	out := map[string]HostUsage{}
	err := o.placer.do(ctx, func(l *placement.Ledger) {
		for h := range state.Hosts.All(o.store.Snapshot()) {
			u := HostUsage{Host: *h.Value, Connected: o.placer.connected[h.ID], CPUFree: h.Value.CPUUnits, MemFree: h.Value.MemoryMiB}
			if lu, ok := l.Usage(h.ID); ok {
				u.CPUFree, u.MemFree, u.Ports = lu.CPUFree, lu.MemFree, lu.Ports
			}
			out[h.ID] = u
		}
	})
	if err != nil {
		return nil, fmt.Errorf("ask the placer: %w", err)
	}
	return out, nil
}

// EnsureInstances registers every connected host in a cluster.
func (o *Orchestrator) EnsureInstances(ctx context.Context, cluster store.Key, clusterARN string) error {
	var hosts []string
	if err := o.placer.do(ctx, func(*placement.Ledger) {
		for id := range o.placer.connected {
			hosts = append(hosts, id)
		}
	}); err != nil {
		return fmt.Errorf("ask the placer: %w", err)
	}
	for some := range slices.Chunk(hosts, maxOperations) {
		err := o.Exclusive(ctx, func(tx *store.Tx) error {
			if c, ok := state.Clusters.Get(tx, cluster); !ok || *c.Value.Status != "ACTIVE" {
				return ErrClusterInactive
			}
			for _, id := range some {
				register(tx, cluster, clusterARN, id, time.Now().UTC())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
