package orchestrator

import (
	"context"
	"errors"
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
		if err := o.Stop(ctx, key, cause); err != nil && !errors.Is(err, ErrNotFound) {
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

// CloseCluster runs a transaction that makes a cluster INACTIVE, at a moment when no task is being
// created, and then deletes what goes with the cluster: its container instances and its clientTokens,
// because a cluster made later under the same name is another one. An error of close changes nothing.
func (o *Orchestrator) CloseCluster(ctx context.Context, cluster store.Key, close func(*store.Tx) error) error {
	return o.placer.exclusive(ctx, func(update update) error {
		if err := update(close); err != nil {
			return err
		}
		return o.deleteAll(update, remainsOf(o.store.Snapshot(), cluster))
	})
}

// remainsOf are rows of a closed cluster that nothing refers to any more.
func remainsOf(v store.View, cluster store.Key) []deletion {
	var rows []deletion
	for r := range state.ContainerInstances.List(v, cluster.Scope, cluster.ID+"/") {
		rows = append(rows, deletion{r.Key, state.ContainerInstances.Delete})
		rows = append(rows, deletion{store.K(cluster.Scope, r.Value.ARN), state.Tags.Delete})
	}
	for r := range state.Tokens.List(v, cluster.Scope, cluster.ID+"/") {
		rows = append(rows, deletion{r.Key, state.Tokens.Delete})
	}
	return rows
}

// deletion is one row to delete.
type deletion struct {
	key store.Key
	del func(*store.Tx, store.Key)
}

// deleteAll deletes rows, as many in a transaction as it takes.
func (o *Orchestrator) deleteAll(update update, rows []deletion) error {
	for some := range slices.Chunk(rows, deleteBatch) {
		err := update(func(tx *store.Tx) error {
			for _, d := range some {
				d.del(tx, d.key)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Clear kills an account's tasks and forgets everything that the ecs service keeps for it. Tasks that
// are started meanwhile are stopped as well.
func (o *Orchestrator) Clear(ctx context.Context, account string) error {
	cause := lifecycle.Cause{Code: lifecycle.UserInitiated, Reason: "The account's state was reset", Kill: true}
	errMore := errors.New("tasks were started meanwhile")
	for {
		if err := o.StopAll(ctx, account, cause, func(int) {}); err != nil {
			return err
		}
		err := o.placer.exclusive(ctx, func(update update) error {
			snap := o.store.Snapshot()
			if len(Unstopped(snap, account)) > 0 {
				return errMore
			}
			return o.deleteAll(update, everything(snap, account))
		})
		if err == nil {
			return nil
		}
		if !errors.Is(err, errMore) {
			return fmt.Errorf("clear account %s: %w", account, err)
		}
	}
}

// everything is all rows of an account. Of a task the spec goes first: should the deletion break off,
// what is left is no task, while one without its status would be taken for one that is yet to start.
func everything(v store.View, account string) []deletion {
	var rows []deletion
	rows = rowsOf(rows, v, state.Specs, account)
	rows = rowsOf(rows, v, state.Placements, account)
	rows = rowsOf(rows, v, state.Desires, account)
	rows = rowsOf(rows, v, state.Statuses, account)
	rows = rowsOf(rows, v, state.Protections, account)
	rows = rowsOf(rows, v, state.Tokens, account)
	rows = rowsOf(rows, v, state.ContainerInstances, account)
	rows = rowsOf(rows, v, state.TaskDefinitions, account)
	rows = rowsOf(rows, v, state.Families, account)
	rows = rowsOf(rows, v, state.Tags, account)
	rows = rowsOf(rows, v, state.Settings, account)
	rows = rowsOf(rows, v, state.CapacityProviders, account)
	return rowsOf(rows, v, state.Clusters, account)
}

func rowsOf[T any](rows []deletion, v store.View, table *store.Table[T], account string) []deletion {
	for r := range table.All(v) {
		if r.Account == account {
			rows = append(rows, deletion{r.Key, table.Delete})
		}
	}
	return rows
}
