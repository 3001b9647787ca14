package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Hosts answers for the hosts of tasks. dispatch's server implements it.
type Hosts interface {
	Inspect(ctx context.Context, taskARN string) (*dispatchpb.InspectReply, error)
	OpenLogs(ctx context.Context, req *dispatchpb.LogRequest, line func(*dispatchpb.LogLine) error) error
}

const (
	archivers     = 4                // tasks archived at once
	inspectWait   = 2 * time.Second  // for a host's answer
	outputWait    = 10 * time.Second // for the last of a task's output
	retryInterval = time.Minute      // between attempts to get the output, or to write the record
	pruneInterval = time.Hour
)

// Archiver writes stopped tasks to an archive.
type Archiver struct {
	store   *store.Store
	archive *Archive
	hosts   Hosts
	log     *slog.Logger
}

// NewArchiver returns an archiver; it archives once Run runs.
func NewArchiver(s *store.Store, a *Archive, hosts Hosts, log *slog.Logger) *Archiver {
	return &Archiver{store: s, archive: a, hosts: hosts, log: log}
}

// Run archives every stopped task whose rows are there, until ctx ends or the store stops. A task that
// could not be archived, or not with its output, is tried again for as long as its rows live.
func (a *Archiver) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.prune(ctx) })
	g.Go(func() error { return a.follow(ctx) })
	return g.Wait()
}

func (a *Archiver) prune(ctx context.Context) error {
	tick := time.NewTicker(pruneInterval)
	defer tick.Stop()
	for {
		if err := a.archive.Prune(ctx, time.Now()); err != nil && ctx.Err() == nil {
			a.log.Warn("the archive was not pruned; trying again later", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow keeps a queue of what is to be archived, and so many workers on it.
func (a *Archiver) follow(ctx context.Context) error {
	work := make(chan store.Key)
	type result struct {
		key  store.Key
		done bool
	}
	results := make(chan result, archivers)
	g, ctx := errgroup.WithContext(ctx)
	for range archivers {
		g.Go(func() error {
			for {
				select {
				case key := <-work:
					results <- result{key, a.attempt(ctx, key)}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	g.Go(func() error {
		snap := a.store.Snapshot()
		q := newQueue()
		for st := range state.Statuses.All(snap) {
			if st.Value.LastStatus == lifecycle.Stopped {
				q.add(st.Key)
			}
		}
		w := a.store.Watch(ctx, snap)
		tick := time.NewTicker(retryInterval / 4)
		defer tick.Stop()
		for {
			next, some := q.next()
			out := work
			if !some {
				out = nil
			}
			select {
			case out <- next:
				q.take()
			case r := <-results:
				q.done(r.key)
				if !r.done {
					q.later(r.key, time.Now().Add(retryInterval))
				}
			case <-w.Moved():
				c, err := w.Next(ctx)
				if err != nil {
					return err
				}
				for _, row := range c.Rows {
					old, st, ok := state.Statuses.Change(row)
					if ok && st != nil && st.LastStatus == lifecycle.Stopped && (old == nil || old.Changes != st.Changes) {
						q.add(row.Key)
					}
				}
			case now := <-tick.C:
				q.wake(now)
			case <-a.store.Done():
				return a.store.Err()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

// attempt archives one task. It answers whether there is nothing left to do for it.
func (a *Archiver) attempt(ctx context.Context, key store.Key) bool {
	t, ok := FromRows(a.store.Snapshot(), key)
	if !ok || t.Status.LastStatus != lifecycle.Stopped {
		return true
	}
	have, err := a.archive.Task(ctx, t.Spec.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		have, err = nil, nil
	case err == nil && have.NoOutput == "" && have.Status.Changes >= t.Status.Changes:
		return true
	case err == nil:
	default:
		have, err = nil, nil // damaged: it is written anew
	}
	a.Complete(ctx, t)
	if have != nil && have.NoOutput == "" && t.NoOutput != "" {
		// A report came after the host had gone. What it had sent is kept.
		t.Extras, t.NoOutput = have.Extras, ""
	}
	if have == nil || have.Status.Changes < t.Status.Changes || t.NoOutput == "" {
		t.ArchivedAt = time.Now().UTC()
		err = a.archive.PutTask(ctx, t)
	}
	if err != nil && ctx.Err() == nil {
		a.log.Warn("a stopped task was not archived; trying again", "task", t.Spec.ID, "error", err, "after", retryInterval)
	}
	return err == nil && t.NoOutput == ""
}

// Complete adds to a record what the task's host knows: how its containers fared in detail, and what they
// wrote last. What cannot be had is left out, and the record's NoOutput or the answer's Problem say why.
func (a *Archiver) Complete(ctx context.Context, t *Task) *Live {
	live := &Live{}
	if t.Placement == nil {
		return live // it never had a host, so it has no output
	}
	inspecting, cancel := context.WithTimeout(ctx, inspectWait)
	reply, err := a.hosts.Inspect(inspecting, t.Spec.ARN)
	cancel()
	switch {
	case err == nil:
		t.learn(reply.Status)
		for _, w := range reply.Waiting {
			waiting := Waiting{Container: w.Container, For: w.Reason, Then: w.Then}
			if w.Since != nil {
				waiting.Since = w.Since.AsTime()
			}
			if w.Deadline != nil {
				waiting.Deadline = w.Deadline.AsTime()
			}
			live.Waiting = append(live.Waiting, waiting)
		}
	case errors.Is(err, context.DeadlineExceeded):
		live.Problem = fmt.Sprintf("its host did not answer within %v", inspectWait)
	default:
		live.Problem = err.Error()
	}
	t.NoOutput = ""
	if err := a.output(ctx, t); err != nil {
		t.NoOutput = err.Error()
	}
	return live
}

// output reads the last lines of each container.
func (a *Archiver) output(ctx context.Context, t *Task) error {
	reading, cancel := context.WithTimeout(ctx, outputWait)
	defer cancel()
	lines := newTails(t)
	// Of a stopped task, following ends with its last line; asked for without, what is on its way to the
	// spool would be missed.
	stopped := t.Status.LastStatus == lifecycle.Stopped
	err := a.hosts.OpenLogs(reading, &dispatchpb.LogRequest{TaskArn: t.Spec.ARN, Follow: stopped, Tail: keptLines},
		func(line *dispatchpb.LogLine) error { lines.add(line); return nil })
	lines.end()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("the host did not send all of it within %v", outputWait)
	}
	return err
}
