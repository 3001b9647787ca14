package events

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/berthhq/berth/internal/store"
)

const (
	// gather is how long the first event of a batch waits for others of the same moment, and pause how
	// long after a batch the next one is written: a disk that is flushed for each event would be busy
	// with nothing else.
	gather = 20 * time.Millisecond
	pause  = 200 * time.Millisecond
	// again is the pause before a batch that could not be written is tried again.
	again = time.Second
)

// Feed reads the store's changes into a log.
type Feed struct {
	store    *store.Store
	to       *Log
	describe Describe
	log      *slog.Logger

	mu    sync.Mutex
	hosts map[string]bool // whose connection changed
	nudge chan struct{}
}

// NewFeed returns a feed; it feeds once Run runs.
func NewFeed(s *store.Store, to *Log, describe Describe, log *slog.Logger) *Feed {
	return &Feed{store: s, to: to, describe: describe, log: log, hosts: map[string]bool{}, nudge: make(chan struct{}, 1)}
}

// HostChanged says that a host's agent connected or disconnected, which no row tells.
func (f *Feed) HostChanged(hostID string) {
	f.mu.Lock()
	f.hosts[hostID] = true
	f.mu.Unlock()
	select {
	case f.nudge <- struct{}{}:
	default:
	}
}

func (f *Feed) takeHosts() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.hosts
	f.hosts = map[string]bool{}
	return out
}

// Run feeds until ctx ends or the store stops. It first makes the events of what changed while nobody
// fed the log.
func (f *Feed) Run(ctx context.Context) error {
	snap := f.store.Snapshot()
	from := f.to.Revision()
	if from > snap.Revision() {
		from = 0 // another store's
	}
	if from < snap.Revision() {
		if err := f.write(ctx, snap.Revision(), Since(snap, from, f.describe, time.Now().UTC())); err != nil {
			return err
		}
	}
	w := f.store.Watch(ctx, snap)
	for {
		batch, err := f.collect(ctx, w)
		if err != nil {
			return err
		}
		if err := f.write(ctx, w.Snapshot().Revision(), batch); err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// collect waits for events and takes what comes with the first of them.
func (f *Feed) collect(ctx context.Context, w *store.Watcher) ([]Event, error) {
	var batch []Event
	var enough <-chan time.Time
	for {
		select {
		case <-w.Moved():
			c, err := w.Next(ctx)
			if err != nil {
				return nil, err
			}
			batch = append(batch, Derive(c, f.describe, time.Now().UTC())...)
		case <-f.nudge:
			for host := range f.takeHosts() {
				batch = append(batch, OfHost(w.Snapshot(), host, f.describe, time.Now().UTC())...)
			}
		case <-enough:
			return batch, nil
		case <-f.store.Done():
			return nil, f.store.Err()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if enough == nil && len(batch) > 0 {
			enough = time.After(gather)
		}
	}
}

// write appends until it succeeds. Meanwhile the store's watch folds what comes, so nothing piles up.
func (f *Feed) write(ctx context.Context, revision int64, batch []Event) error {
	for {
		err := f.to.AppendThrough(ctx, revision, batch)
		if err == nil {
			return nil
		}
		f.log.Warn("events could not be written; trying again", "error", err, "after", again)
		if err := sleep(ctx, again); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
