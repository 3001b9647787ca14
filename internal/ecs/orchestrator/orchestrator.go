package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Config is what an Orchestrator needs.
type Config struct {
	Store    *store.Store
	ServerID string
	// Archive has a stopped task's rows kept until it has the task's record; nil: nothing keeps one.
	Archive Archive
	// Recorder hears of each Run of which some task found no place; nil: nobody does.
	Recorder Recorder
	Logger   *slog.Logger
}

// Orchestrator creates and stops tasks and knows the hosts.
type Orchestrator struct {
	store    *store.Store
	log      *slog.Logger
	archive  Archive
	recorder Recorder
	placer   *placer
	hub      *hub
	absent   absence
}

// New returns an orchestrator; it works once Run runs.
func New(cfg Config) *Orchestrator {
	return &Orchestrator{
		store:    cfg.Store,
		log:      cfg.Logger,
		archive:  cfg.Archive,
		recorder: cfg.Recorder,
		placer:   newPlacer(cfg),
		hub:      newHub(cfg),
		absent:   absence{},
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

// Stop asks that a task stop and says why; who asks is the principal of ctx, if it has one. A task that
// was asked before, or has stopped, keeps its first cause; asking again is not an error.
func (o *Orchestrator) Stop(ctx context.Context, task store.Key, cause lifecycle.Cause) error {
	if p, err := caller.From(ctx); err == nil && cause.By == "" {
		cause.By = p.ARN
	}
	_, err := o.store.Update(ctx, func(tx *store.Tx) error {
		// Record guards both halves: a status that comes meanwhile may have ended the task first.
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
