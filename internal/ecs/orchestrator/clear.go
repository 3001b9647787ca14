package orchestrator

import (
	"context"
	"fmt"
	"slices"

	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// deleteBatch keeps a transaction of deletions within the store's bounds.
const deleteBatch = 100

// Unstopped names the tasks of an account that have not stopped; of all accounts when it is empty.
func Unstopped(v store.View, account string) []store.Key {
	var keys []store.Key
	for spec := range state.Specs.All(v) {
		if (account == "" || spec.Account == account) && !stopped(v, spec.Key) {
			keys = append(keys, spec.Key)
		}
	}
	return keys
}

// StopAll asks all tasks of an account to stop, or those of all accounts when it is empty, and returns
// when they have. left is told how many there are, whenever that changes.
func (o *Orchestrator) StopAll(ctx context.Context, account string, cause lifecycle.Cause, left func(int)) error {
	snap := o.store.Snapshot()
	waiting := Unstopped(snap, account)
	for _, key := range waiting {
		if err := o.Stop(ctx, key, cause); err != nil {
			return fmt.Errorf("stop task %s: %w", key, err)
		}
	}
	watch := o.store.Watch(ctx, snap)
	for told := -1; ; {
		waiting = slices.DeleteFunc(waiting, func(k store.Key) bool {
			_, exists := state.Specs.Get(snap, k)
			return !exists || stopped(snap, k)
		})
		if len(waiting) != told {
			told = len(waiting)
			left(told)
		}
		if told == 0 {
			return nil
		}
		c, err := watch.Next(ctx)
		if err != nil {
			return fmt.Errorf("wait for %d tasks to stop: %w", told, err)
		}
		snap = c.Snapshot
	}
}

// Clear stops an account's tasks and forgets everything that the ecs service keeps for it.
func (o *Orchestrator) Clear(ctx context.Context, account string) error {
	cause := lifecycle.Cause{Code: lifecycle.UserInitiated, Reason: "The account's state was reset"}
	if err := o.StopAll(ctx, account, cause, func(int) {}); err != nil {
		return err
	}
	snap := o.store.Snapshot()
	var deletes []func(*store.Tx)
	collect := func(k store.Key, del func(*store.Tx, store.Key)) {
		if k.Account == account {
			deletes = append(deletes, func(tx *store.Tx) { del(tx, k) })
		}
	}
	for r := range state.Specs.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.Specs.Delete(tx, k) })
	}
	for r := range state.Desires.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.Desires.Delete(tx, k) })
	}
	for r := range state.Placements.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.Placements.Delete(tx, k) })
	}
	for r := range state.Statuses.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.Statuses.Delete(tx, k) })
	}
	for r := range state.Tokens.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.Tokens.Delete(tx, k) })
	}
	for r := range state.ContainerInstances.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.ContainerInstances.Delete(tx, k) })
	}
	for r := range state.TaskDefinitions.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.TaskDefinitions.Delete(tx, k) })
	}
	for r := range state.Families.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.Families.Delete(tx, k) })
	}
	for r := range state.Tags.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.Tags.Delete(tx, k) })
	}
	for r := range state.Clusters.All(snap) {
		collect(r.Key, func(tx *store.Tx, k store.Key) { state.Clusters.Delete(tx, k) })
	}
	for some := range slices.Chunk(deletes, deleteBatch) {
		err := o.Exclusive(ctx, func(tx *store.Tx) error {
			for _, del := range some {
				del(tx)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("clear account %s: %w", account, err)
		}
	}
	return nil
}
