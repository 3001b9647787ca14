package orchestrator

import (
	"context"
	"slices"
	"time"

	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// ProviderAttribute is the attribute by which a host, or one of its container instances, belongs to a
// capacity provider: its value is the provider's name.
const ProviderAttribute = "berth.capacity-provider"

// inactive is the status of a container instance that was deregistered. Placement knows no such
// instance: to it the host is one that the cluster has not used yet.
const inactive = "INACTIVE"

// stopsAtOnce is how many tasks one transaction asks to stop, each with the rows of its record.
const stopsAtOnce = 30

// Deregister takes a host out of a cluster, at a moment when no task is being created: refuse sees the
// tasks that the instance holds and may end the call with its error; then they are asked to stop, and
// last the instance becomes INACTIVE. Should it break off between, the instance is still registered and
// the call can be repeated.
func (o *Orchestrator) Deregister(ctx context.Context, instance store.Key, cause lifecycle.Cause, refuse func(ci *state.ContainerInstance, tasks int) error) error {
	return o.placer.exclusive(ctx, func(update update) error {
		snap := o.store.Snapshot()
		row, ok := state.ContainerInstances.Get(snap, instance)
		if !ok || row.Value.Status == inactive {
			return ErrNotFound
		}
		var tasks []store.Key
		for pl := range state.Placements.By(snap, "host", row.Value.HostID) {
			if pl.Value.ContainerInstanceARN == row.Value.ARN && !stopped(snap, pl.Key) {
				tasks = append(tasks, pl.Key)
			}
		}
		if err := refuse(row.Value, len(tasks)); err != nil {
			return err
		}
		now := time.Now().UTC()
		for some := range slices.Chunk(tasks, stopsAtOnce) {
			err := update(func(tx *store.Tx) error {
				for _, task := range some {
					rec, ok := state.Record(tx, task)
					if !ok {
						continue
					}
					if next, changed := lifecycle.RequestStop(rec, cause, now); changed {
						state.Desires.Put(tx, task, &next.Desired)
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return update(func(tx *store.Tx) error {
			row, ok := state.ContainerInstances.Get(tx, instance)
			if !ok || row.Value.Status == inactive {
				return ErrNotFound
			}
			gone := *row.Value
			gone.Status, gone.DeregisteredAt, gone.Changes = inactive, now, gone.Changes+1
			state.ContainerInstances.Put(tx, instance, &gone)
			return nil
		})
	})
}

// replaced are INACTIVE container instances past their retention. The last one of a host stays: it says
// that the host was taken out of the cluster, so that looking at the cluster does not bring it back.
func replaced(v store.View, now time.Time) []deletion {
	var rows []deletion
	for row := range state.ContainerInstances.All(v) {
		ci := row.Value
		if ci.Status != inactive || now.Sub(ci.DeregisteredAt) < stoppedRetention {
			continue
		}
		for other := range state.ContainerInstances.By(v, "host", ci.HostID) {
			if other.Value.ClusterARN == ci.ClusterARN && other.Value.RegisteredAt.After(ci.RegisteredAt) {
				rows = append(rows,
					deletion{row.Key, state.ContainerInstances.Delete},
					deletion{store.K(row.Scope, ci.ARN), state.Tags.Delete})
				break
			}
		}
	}
	return rows
}
