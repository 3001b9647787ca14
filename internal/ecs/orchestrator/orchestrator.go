package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Retention of what ECS forgets. Stopped tasks stay describable for an hour at least, as in AWS; a
// clientToken protects for as long as the tasks it made can be seen.
const (
	stoppedRetention = time.Hour
	tokenRetention   = 24 * time.Hour
	sweepInterval    = 5 * time.Minute
)

// Config is what an Orchestrator needs.
type Config struct {
	Store    *store.Store
	ServerID string
	Logger   *slog.Logger
}

// Orchestrator creates and stops tasks and knows the hosts.
type Orchestrator struct {
	store  *store.Store
	log    *slog.Logger
	placer *placer
	hub    *hub
}

// New returns an orchestrator; it works once Run runs.
func New(cfg Config) *Orchestrator {
	return &Orchestrator{
		store:  cfg.Store,
		log:    cfg.Logger,
		placer: newPlacer(cfg),
		hub:    newHub(cfg),
	}
}

// Run runs the loops until ctx ends or one of them fails.
func (o *Orchestrator) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.placer.run(ctx) })
	g.Go(func() error { return o.hub.run(ctx) })
	g.Go(func() error { return o.sweep(ctx) })
	return g.Wait()
}

// Stop asks that a task stop and says why. A task that was asked before, or has stopped, keeps its
// first cause; asking again is not an error.
func (o *Orchestrator) Stop(ctx context.Context, task store.Key, cause lifecycle.Cause) error {
	_, err := o.store.Update(ctx, func(tx *store.Tx) error {
		rec, ok := state.Record(tx, task)
		if !ok {
			return fmt.Errorf("task %s: %w", task, ErrNotFound)
		}
		if next, changed := lifecycle.RequestStop(rec, cause, time.Now().UTC()); changed {
			state.Desires.Put(tx, task, &next.Desired)
		}
		return nil
	})
	return err
}

// Exclusive runs a transaction in the placer's turn: no task is created while it runs. It is for
// changes that are only right while there are no tasks, such as deleting a cluster.
func (o *Orchestrator) Exclusive(ctx context.Context, fn func(tx *store.Tx) error) error {
	return o.placer.exclusive(ctx, fn)
}

// sweep forgets what is past its retention.
func (o *Orchestrator) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := o.sweepOnce(ctx, time.Now()); err != nil && ctx.Err() == nil {
			o.log.Warn("old tasks were not swept away; trying again later", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o *Orchestrator) sweepOnce(ctx context.Context, now time.Time) error {
	snap := o.store.Snapshot()
	for st := range state.Statuses.All(snap) {
		r := st.Value
		if r.LastStatus != lifecycle.Stopped || now.Sub(r.StoppedAt) < stoppedRetention {
			continue
		}
		if err := o.forget(ctx, st.Key); err != nil {
			return fmt.Errorf("forget task %s: %w", st.Key, err)
		}
	}
	for t := range state.Tokens.All(snap) {
		if now.Sub(t.Value.At) < tokenRetention {
			continue
		}
		if _, err := o.store.Update(ctx, func(tx *store.Tx) error { state.Tokens.Delete(tx, t.Key); return nil }); err != nil {
			return fmt.Errorf("forget client token: %w", err)
		}
	}
	return nil
}

// forget deletes a task's rows.
func (o *Orchestrator) forget(ctx context.Context, task store.Key) error {
	_, err := o.store.Update(ctx, func(tx *store.Tx) error {
		if spec, ok := state.Specs.Get(tx, task); ok {
			state.Tags.Delete(tx, state.ScopeKey(task.Scope, spec.Value.ARN))
		}
		state.Specs.Delete(tx, task)
		state.Desires.Delete(tx, task)
		state.Placements.Delete(tx, task)
		state.Statuses.Delete(tx, task)
		return nil
	})
	return err
}
