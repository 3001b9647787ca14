package orchestrator

import (
	"net/netip"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// cold builds the ledger from a snapshot.
func (p *placer) cold(snap *store.Snapshot) *placement.Ledger {
	l := placement.NewLedger()
	for h := range state.Hosts.All(snap) {
		l.SetHost(p.facts(h.Value))
	}
	for ci := range state.ContainerInstances.All(snap) {
		if ci.Value.Status != inactive {
			l.SetInstance(instanceOf(ci.Value))
		}
	}
	for pl := range state.Placements.All(snap) {
		if spec, ok := state.Specs.Get(snap, pl.Key); ok && !stopped(snap, pl.Key) {
			r := reservation(spec.Value, pl.Value)
			if st, ok := state.Statuses.Get(snap, pl.Key); ok {
				r.Running = st.Value.LastStatus == lifecycle.Running
			}
			l.Reserve(r)
		}
	}
	return l
}

// apply brings the ledger up to date with one change. Tasks that this placer placed are in it already.
func (p *placer) apply(l *placement.Ledger, c store.Change) {
	for _, row := range c.Rows {
		switch v := row.New.(type) {
		case *state.Host:
			l.SetHost(p.facts(v))
		case *state.ContainerInstance:
			if v.Status == inactive {
				l.RemoveInstance(v.HostID, v.ClusterARN)
			} else {
				l.SetInstance(instanceOf(v))
			}
		case *state.Placement:
			if _, held := l.Reservation(taskOf(row.Key)); held || stopped(c.Snapshot, row.Key) {
				continue
			}
			if spec, ok := state.Specs.Get(c.Snapshot, row.Key); ok {
				l.Reserve(reservation(spec.Value, v))
			}
		case *lifecycle.Status:
			switch v.LastStatus {
			case lifecycle.Stopped:
				l.Release(taskOf(row.Key))
			case lifecycle.Running:
				l.SetRunning(taskOf(row.Key))
			}
		}
		if row.New != nil {
			continue
		}
		switch old := row.Old.(type) {
		case *state.Host:
			l.RemoveHost(old.ID)
		case *state.ContainerInstance:
			if old.Status != inactive { // else the host may be another instance of the cluster by now
				l.RemoveInstance(old.HostID, old.ClusterARN)
			}
		case *state.Placement:
			l.Release(taskOf(row.Key))
		}
	}
}

// facts are what placement knows of a host.
func (p *placer) facts(h *state.Host) placement.Host {
	f := placement.Host{
		ID: h.ID, CPUUnits: h.CPUUnits, MemoryMiB: h.MemoryMiB, GPUIDs: h.GPUIDs, Attributes: h.Attributes,
		AvailabilityZone: h.ZoneSuffix, AgentConnected: p.hosts.has(h.ID), AgentVersion: h.AgentVersion,
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
	return placement.Instance{
		HostID: ci.HostID, Cluster: ci.ClusterARN, ARN: ci.ARN, Status: placement.InstanceStatus(ci.Status),
		Attributes: ci.Attributes, RegisteredAt: ci.RegisteredAt,
	}
}

// need is what a task of a Run asks of a host. A task on a named host, as of StartTask, asks for the
// room and what the host can do; where it might be better is not asked.
func need(run *Run, spec *state.Spec) placement.Request {
	req := placement.Request{
		TaskID: spec.ID, Cluster: spec.ClusterARN, Group: spec.Group, CPUUnits: spec.CPUUnits, MemoryMiB: spec.MemoryMiB,
		Ports: portsOf(spec.Ports), GPUs: spec.GPUs, Address: spec.Attached(), Rules: run.Rules,
	}
	if len(run.Hosts) > 0 {
		req.Rules = placement.Rules{Attributes: run.Rules.Attributes}
	}
	if spec.CapacityProvider != "" && spec.LaunchType != ecs.LaunchTypeFargate {
		req.Within = map[string]string{ProviderAttribute: spec.CapacityProvider}
	}
	return req
}

// reservation is what a task holds on its host.
func reservation(spec *state.Spec, pl *state.Placement) placement.Reservation {
	r := placement.Reservation{
		TaskID: spec.ID, HostID: pl.HostID, Cluster: spec.ClusterARN, Group: spec.Group,
		CPUUnits: spec.CPUUnits, MemoryMiB: spec.MemoryMiB, Ports: portsOf(spec.Ports), GPUIDs: pl.GPUIDs,
	}
	if a, err := netip.ParseAddr(pl.PrivateIPv4); err == nil {
		r.Address = a
	}
	return r
}

func portsOf(ports []state.Port) []placement.Port {
	if len(ports) == 0 {
		return nil
	}
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
