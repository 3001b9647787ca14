package events

import (
	"slices"
	"strings"
	"time"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Describe is a container instance as DescribeContainerInstances shows it at a snapshot.
type Describe func(v store.View, instance store.Key) (ecs.ContainerInstance, bool)

// Derive answers the events of a change: one for each task whose version grew, in the order in which
// they came to it, and then one for each container instance that is not what it was. Now is the time of
// the instances' events.
func Derive(c store.Change, describe Describe, now time.Time) []Event {
	tasks := map[store.Key]bool{}
	hosts := map[string]bool{}
	instances := map[store.Key]bool{}
	for _, row := range c.Rows {
		if _, spec, ok := state.Specs.Change(row); ok && spec != nil {
			tasks[row.Key] = tasks[row.Key] || row.Old == nil
		}
		if old, d, ok := state.Desires.Change(row); ok && d != nil {
			tasks[row.Key] = tasks[row.Key] || old == nil && d.Changes > 0 || old != nil && old.Changes != d.Changes
		}
		if old, st, ok := state.Statuses.Change(row); ok && st != nil {
			tasks[row.Key] = tasks[row.Key] || old == nil && st.Changes > 0 || old != nil && old.Changes != st.Changes
			if st.LastStatus == lifecycle.Stopped && (old == nil || old.LastStatus != lifecycle.Stopped) {
				if p, ok := state.Placements.Get(c.Snapshot, row.Key); ok {
					hosts[p.Value.HostID] = true // what the task held is free
				}
			}
		}
		if old, p, ok := state.Placements.Change(row); ok && old == nil && p != nil {
			hosts[p.HostID] = true
		}
		if old, h, ok := state.Hosts.Change(row); ok && old != nil && h != nil {
			hosts[h.ID] = true
		}
		if _, ci, ok := state.ContainerInstances.Change(row); ok && ci != nil {
			instances[row.Key] = true
		}
	}
	var out []Event
	for key, changed := range tasks {
		if changed {
			out = appendTask(out, c.Snapshot, key)
		}
	}
	sortByTime(out)
	for host := range hosts {
		for ci := range state.ContainerInstances.By(c.Snapshot, "host", host) {
			instances[ci.Key] = true
		}
	}
	return append(out, instanceEvents(c.Snapshot, instances, describe, now)...)
}

// Since answers the events of what changed after a revision, as far as it can be told from the rows
// that are there: the state of each task and container instance one of whose rows is younger.
func Since(snap *store.Snapshot, revision int64, describe Describe, now time.Time) []Event {
	young := map[store.Key]bool{}
	add := func(key store.Key, mod int64) {
		if mod > revision {
			young[key] = true
		}
	}
	for r := range state.Specs.All(snap) {
		add(r.Key, r.ModRevision)
	}
	for r := range state.Desires.All(snap) {
		add(r.Key, r.ModRevision)
	}
	for r := range state.Statuses.All(snap) {
		add(r.Key, r.ModRevision)
	}
	var out []Event
	instances := map[store.Key]bool{}
	for key := range young {
		out = appendTask(out, snap, key)
		if p, ok := state.Placements.Get(snap, key); ok {
			for ci := range state.ContainerInstances.By(snap, "host", p.Value.HostID) {
				instances[ci.Key] = true
			}
		}
	}
	sortByTime(out)
	for r := range state.ContainerInstances.All(snap) {
		if r.ModRevision > revision {
			instances[r.Key] = true
		}
	}
	return append(out, instanceEvents(snap, instances, describe, now)...)
}

// OfHost answers the events of a host whose agent connected or disconnected.
func OfHost(snap *store.Snapshot, hostID string, describe Describe, now time.Time) []Event {
	instances := map[store.Key]bool{}
	for ci := range state.ContainerInstances.By(snap, "host", hostID) {
		instances[ci.Key] = true
	}
	return instanceEvents(snap, instances, describe, now)
}

func appendTask(out []Event, v store.View, key store.Key) []Event {
	t, ok := state.Task(v, key)
	if !ok {
		return out // its rows are gone, or going
	}
	rec, _ := state.Record(v, key)
	return append(out, TaskStateChange(key.Scope, t, rec.UpdatedAt()))
}

// instanceEvents number the events with the revision: it grows with every change of any row.
func instanceEvents(snap *store.Snapshot, keys map[store.Key]bool, describe Describe, now time.Time) []Event {
	var out []Event
	for key := range keys {
		row, ok := state.ContainerInstances.Get(snap, key)
		if !ok {
			continue
		}
		if ci, ok := describe(snap, key); ok {
			out = append(out, ContainerInstanceStateChange(key.Scope, row.Value.ClusterARN, ci, snap.Revision(), now))
		}
	}
	sortByTime(out)
	return out
}

// sortByTime orders events as they happened; of those of one second the resource decides, so that the
// order is always the same.
func sortByTime(events []Event) {
	slices.SortFunc(events, func(a, b Event) int {
		if c := updated(a).Compare(updated(b)); c != 0 {
			return c
		}
		return strings.Compare(a.Resources[0], b.Resources[0])
	})
}

func updated(e Event) time.Time {
	if d, ok := e.Detail.(taskDetail); ok {
		return d.UpdatedAt
	}
	return e.Time
}
