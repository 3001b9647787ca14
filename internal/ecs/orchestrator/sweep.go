package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Retention of what ECS forgets. Stopped tasks stay describable for an hour at least, as in AWS. A
// clientToken protects for a day; it may outlive the tasks it made.
const (
	stoppedRetention = time.Hour
	tokenRetention   = 24 * time.Hour
	forgetInterval   = 5 * time.Minute
)

// Deadlines of tasks that wait for a host. A task that runs waits for nothing: it stays RUNNING however
// long its host is away, as in ECS, because its containers go on.
const (
	// acceptDeadline is how long a connected host may take to say that it has a task, and then to say
	// that it has stopped it.
	acceptDeadline = 10 * time.Minute
	// returnDeadline is how long a task that has not started waits for its host to come back.
	returnDeadline = 15 * time.Minute
	// stopDeadline is how long a task that is to stop waits for its host to come back. When it comes
	// back later still, it is told to stop what it has of the task.
	stopDeadline    = time.Hour
	overdueInterval = 30 * time.Second
)

// Archive keeps what is forgotten here.
type Archive interface {
	// Archived tells whether a task's record is durable.
	Archived(ctx context.Context, taskID string) (bool, error)
}

// absence is since when each host has been away, as far as this process saw it. It belongs to the
// goroutine of sweep.
type absence map[string]time.Time

// sweep keeps the deadlines and forgets what is past its retention.
func (o *Orchestrator) sweep(ctx context.Context) error {
	tick := time.NewTicker(overdueInterval)
	defer tick.Stop()
	var forgot time.Time
	for {
		now := time.Now()
		if err := o.endOverdue(ctx, now); err != nil && ctx.Err() == nil {
			o.log.Warn("the deadlines of waiting tasks were not kept; trying again later", "error", err)
		}
		if now.Sub(forgot) >= forgetInterval {
			if err := o.forgetOld(ctx, now); err != nil && ctx.Err() == nil {
				o.log.Warn("what is past its retention was not forgotten; trying again later", "error", err)
			} else {
				forgot = now
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endOverdue ends tasks whose deadline has passed. Only the elected placer's server does it: it is the
// one that knows which hosts are connected.
func (o *Orchestrator) endOverdue(ctx context.Context, now time.Time) error {
	if o.placer.leading.Load() == nil {
		clear(o.absent)
		return nil
	}
	snap := o.store.Snapshot()
	var failures []error
	for spec := range state.Specs.All(snap) {
		if stopped(snap, spec.Key) {
			continue
		}
		pl, ok := state.Placements.Get(snap, spec.Key)
		if !ok {
			continue
		}
		away := o.absent.note(pl.Value.HostID, o.placer.hosts.has(pl.Value.HostID), now)
		if err := o.endIfOverdue(ctx, snap, spec.Key, away, now); err != nil && !errors.Is(err, ErrNotFound) {
			failures = append(failures, fmt.Errorf("task %s: %w", spec.Key, err))
		}
	}
	return errors.Join(failures...)
}

// note takes down whether a host is connected, and answers for how long it has been away; 0: it is not.
func (a absence) note(hostID string, connected bool, now time.Time) time.Duration {
	if connected {
		delete(a, hostID)
		return 0
	}
	if _, known := a[hostID]; !known {
		a[hostID] = now
	}
	return max(now.Sub(a[hostID]), 1)
}

func (o *Orchestrator) endIfOverdue(ctx context.Context, v store.View, task store.Key, away time.Duration, now time.Time) error {
	switch end, cause := overdue(v, task, away, now); end {
	case stopIt:
		o.log.Warn("a task is stopped: its host does not take it", "task", task, "reason", cause.Reason)
		return o.Stop(ctx, task, cause)
	case abandonIt:
		o.log.Warn("a task is given up", "task", task, "reason", cause.Reason)
		_, err := o.store.Update(ctx, func(tx *store.Tx) error {
			// What has come in meanwhile decides.
			if end, _ := overdue(tx, task, away, now); end != abandonIt {
				return nil
			}
			rec, _ := state.Record(tx, task)
			if next, changed := lifecycle.Abandon(rec, cause, now); changed {
				state.Statuses.Put(tx, task, &next.Status)
			}
			return nil
		})
		return err
	}
	return nil
}

// end is what is to be done about a waiting task.
type end int

const (
	waitOn end = iota
	stopIt
	abandonIt
)

// overdue judges a task by how long its host has been away; 0: it is connected.
func overdue(v store.View, task store.Key, away time.Duration, now time.Time) (end, lifecycle.Cause) {
	rec, ok := state.Record(v, task)
	if !ok || rec.Status.LastStatus == lifecycle.Stopped {
		return waitOn, lifecycle.Cause{}
	}
	_, reported := state.Statuses.Get(v, task)
	failed := func(why string, after time.Duration) lifecycle.Cause {
		return lifecycle.Cause{Code: lifecycle.TaskFailedToStart, Reason: fmt.Sprintf("TaskFailedToStart: AGENT (%s for %s)", why, after)}
	}
	stopping := rec.DesiredStatus() == lifecycle.Stopped
	switch {
	case away == 0 && reported:
		return waitOn, lifecycle.Cause{} // the agent has its own deadlines
	case away == 0 && stopping && now.Sub(rec.StoppingAt()) >= acceptDeadline:
		return abandonIt, failed("the host did not acknowledge the task", acceptDeadline)
	case away == 0 && !stopping && now.Sub(rec.Facts.CreatedAt) >= acceptDeadline:
		// The host may have it all the same, so it is first told to stop.
		return stopIt, failed("the host did not acknowledge the task", acceptDeadline)
	case away >= stopDeadline && stopping:
		return abandonIt, failed("the host was not connected", stopDeadline)
	case away >= returnDeadline && rec.Status.LastStatus.Before(lifecycle.Running):
		return abandonIt, failed("the host was not connected", returnDeadline)
	}
	return waitOn, lifecycle.Cause{}
}

// forgetOld deletes what is past its retention, and what nothing refers to any more.
func (o *Orchestrator) forgetOld(ctx context.Context, now time.Time) error {
	snap := o.store.Snapshot()
	update := func(fn func(*store.Tx) error) error {
		_, err := o.store.Update(ctx, fn)
		return err
	}
	var rows []deletion
	for st := range state.Statuses.All(snap) {
		if r := st.Value; r.LastStatus != lifecycle.Stopped || now.Sub(r.StoppedAt) < stoppedRetention {
			continue
		}
		if o.archive != nil {
			_, id := state.SplitTaskKey(st.Key)
			archived, err := o.archive.Archived(ctx, id)
			if err != nil {
				return fmt.Errorf("forget stopped tasks: %w", err)
			}
			if !archived {
				continue // its rows are all there is of it
			}
		}
		rows = append(rows, deletion{st.Key, deleteTask})
	}
	// Six rows a task: few enough at a time for a transaction.
	for some := range slices.Chunk(rows, deleteBatch/6) {
		if err := o.deleteAll(update, some); err != nil {
			return fmt.Errorf("forget stopped tasks: %w", err)
		}
	}
	rows = nil
	for t := range state.Tokens.All(snap) {
		if now.Sub(t.Value.At) >= tokenRetention {
			rows = append(rows, deletion{t.Key, state.Tokens.Delete})
		}
	}
	for c := range state.Clusters.All(snap) {
		if *c.Value.Status != "ACTIVE" { // closing it may have broken off
			rows = append(rows, remainsOf(snap, c.Key)...)
		}
	}
	rows = append(rows, replaced(snap, now)...)
	for p := range state.CapacityProviders.All(snap) {
		if gone := p.Value.DeletedAt; !gone.IsZero() && now.Sub(gone) >= stoppedRetention {
			rows = append(rows, deletion{p.Key, state.CapacityProviders.Delete})
		}
	}
	if err := o.deleteAll(update, rows); err != nil {
		return fmt.Errorf("forget client tokens and container instances: %w", err)
	}
	return o.deleteDefinitions(ctx)
}

// deleteTask deletes a task's rows.
func deleteTask(tx *store.Tx, task store.Key) {
	if spec, ok := state.Specs.Get(tx, task); ok {
		state.Tags.Delete(tx, store.K(task.Scope, spec.Value.ARN))
	}
	state.Specs.Delete(tx, task)
	state.Desires.Delete(tx, task)
	state.Placements.Delete(tx, task)
	state.Statuses.Delete(tx, task)
	state.Protections.Delete(tx, task)
}

// deleteDefinitions completes the deletion of revisions that no task refers to any more. A revision
// whose deletion was asked for gets no new tasks.
func (o *Orchestrator) deleteDefinitions(ctx context.Context) error {
	snap := o.store.Snapshot()
	for def := range state.TaskDefinitions.All(snap) {
		if def.Value.Status != ecs.TaskDefinitionStatusDeleteInProgress || used(snap, def) {
			continue
		}
		_, err := o.store.Update(ctx, func(tx *store.Tx) error {
			state.TaskDefinitions.Delete(tx, def.Key)
			state.Tags.Delete(tx, store.K(def.Scope, *def.Value.TaskDefinitionArn))
			return nil
		})
		if err != nil {
			return fmt.Errorf("delete task definition %s: %w", def.Key, err)
		}
	}
	return nil
}

func used(v store.View, def store.Row[ecs.TaskDefinition]) bool {
	for spec := range state.Specs.By(v, "family", *def.Value.Family) {
		if spec.Scope == def.Scope && spec.Value.Revision == *def.Value.Revision && !stopped(v, spec.Key) {
			return true
		}
	}
	return false
}
