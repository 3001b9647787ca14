package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	bolt "go.etcd.io/bbolt"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/failpoint"
)

// watch passes the runtime's events on as hints. When they break off, every task looks for itself.
func (a *Agent) watch(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := a.cfg.Runtime.Events(ctx)
		if err != nil {
			a.cfg.Logger.Warn("the runtime's events cannot be had; asking instead", "error", err)
		} else {
			a.resync() // for what happened before
			for e := range events {
				a.mu.Lock()
				ref, ok := a.byID[e.ID]
				a.mu.Unlock()
				if ok {
					ref.loop.post(func(time.Time) { ref.loop.m.hint(ref.index, e.OOM) })
				}
			}
		}
		if !sleep(ctx, time.Second) {
			return
		}
	}
}

func (a *Agent) resync() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.tasks {
		l.post(func(time.Time) { l.m.resync() })
	}
}

// housekeep prunes the output and the tombstones of tasks stopped long ago, and sweeps.
func (a *Agent) housekeep(ctx context.Context) {
	for sleep(ctx, sweepEvery) {
		a.prune(ctx, time.Now())
		a.sweep(ctx)
	}
}

// prune removes output that has been kept for the retention. The tombstone goes last.
func (a *Agent) prune(ctx context.Context, now time.Time) {
	a.mu.Lock()
	var due []string
	for arn, at := range a.stopped {
		if now.Sub(at) >= a.cfg.Retention {
			due = append(due, arn)
		}
	}
	a.mu.Unlock()
	for _, arn := range due {
		if a.cfg.LogDrivers.Pending(taskID(arn)) {
			continue // its log driver still needs it
		}
		failpoint.Hit("agent/prune/before")
		err := a.cfg.Output.Remove(ctx, taskID(arn))
		failpoint.Hit("agent/prune/after")
		if err != nil {
			a.cfg.Logger.Warn("output of a stopped task cannot be removed", "task", taskID(arn), "error", err)
			continue
		}
		a.mu.Lock()
		delete(a.stopped, arn)
		a.mu.Unlock()
		a.journal.put(nil, write{bucketStopped, []byte(arn), nil})
	}
}

// sweep removes what is there of tasks that no record explains: leftovers of clearings that failed,
// and of a record that was lost. Output is only ever pruned by age.
func (a *Agent) sweep(ctx context.Context) {
	if err := a.sweepOnce(ctx); err != nil && ctx.Err() == nil {
		a.cfg.Logger.Warn("leftovers could not all be removed", "error", err)
	}
}

func (a *Agent) sweepOnce(ctx context.Context) error {
	found, err := a.find(ctx)
	if err != nil {
		return err
	}
	// What is found is asked for after it was listed, so that a task that came up in between is known.
	a.mu.Lock()
	ids := make(map[string]bool, len(a.tasks))
	for arn := range a.tasks {
		ids[taskID(arn)] = true
	}
	containers := make(map[string]bool, len(a.byID))
	for id := range a.byID {
		containers[id] = true
	}
	a.mu.Unlock()
	return a.remove(ctx, found.without(ids, containers))
}

// leftovers is what the rooms hold.
type leftovers struct {
	containers map[string]string // runtime ID → task ID
	attached   []string          // runtime IDs
	networks   []string          // task IDs
	volumes    []string          // task IDs
	endpoints  []Endpoint
	tasks      map[string]bool // task IDs
}

// find lists all that the rooms hold.
func (a *Agent) find(ctx context.Context) (leftovers, error) {
	f := leftovers{containers: map[string]string{}, tasks: map[string]bool{}}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	states, err := a.cfg.Runtime.List(ctx)
	if err != nil {
		return f, fmt.Errorf("list containers: %w", err)
	}
	for _, s := range states {
		f.containers[s.ID] = s.TaskID
		f.tasks[s.TaskID] = true
	}
	if f.networks, err = a.cfg.Network.List(ctx); err != nil {
		return f, fmt.Errorf("list task networks: %w", err)
	}
	if f.endpoints, err = a.cfg.Bridge.Connected(ctx); err != nil {
		return f, fmt.Errorf("list connected containers: %w", err)
	}
	if f.volumes, err = a.cfg.Volumes.List(ctx); err != nil {
		return f, fmt.Errorf("list task volumes: %w", err)
	}
	if f.attached, err = a.cfg.Output.Attached(ctx); err != nil {
		return f, fmt.Errorf("list attached containers: %w", err)
	}
	dirs, err := os.ReadDir(filepath.Join(a.cfg.Dir, "tasks"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return f, fmt.Errorf("list task directories: %w", err)
	}
	for _, d := range dirs {
		f.tasks[d.Name()] = true
	}
	return f, nil
}

// without leaves out what belongs to known tasks.
func (f leftovers) without(tasks, containers map[string]bool) leftovers {
	out := leftovers{containers: map[string]string{}, tasks: map[string]bool{}}
	for id, task := range f.containers {
		if !containers[id] {
			out.containers[id] = task
		}
	}
	for _, id := range f.attached {
		if !containers[id] {
			out.attached = append(out.attached, id)
		}
	}
	for _, id := range f.networks {
		if !tasks[id] {
			out.networks = append(out.networks, id)
		}
	}
	for _, id := range f.volumes {
		if !tasks[id] {
			out.volumes = append(out.volumes, id)
		}
	}
	for _, e := range f.endpoints {
		if !tasks[e.TaskID] {
			out.endpoints = append(out.endpoints, e)
		}
	}
	for id := range f.tasks {
		if !tasks[id] {
			out.tasks[id] = true
		}
	}
	return out
}

// remove takes everything listed down, as far as it can.
func (a *Agent) remove(ctx context.Context, f leftovers) error {
	var all []error
	each := func(what string, ids []string, do func(context.Context, string) error) {
		var g errgroup.Group
		g.SetLimit(8)
		errs := make([]error, len(ids))
		for i, id := range ids {
			g.Go(func() error {
				ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
				defer cancel()
				a.cfg.Logger.Info("removing what no task explains", "what", what, "id", id)
				failpoint.Hit("agent/sweep/before")
				if err := do(ctx, id); err != nil {
					errs[i] = fmt.Errorf("remove %s %s: %w", what, id, err)
				}
				failpoint.Hit("agent/sweep/after")
				return nil
			})
		}
		g.Wait()
		all = append(all, errs...)
	}
	containers := make([]string, 0, len(f.containers))
	for id := range f.containers {
		containers = append(containers, id)
	}
	tasks := make([]string, 0, len(f.tasks))
	for id := range f.tasks {
		tasks = append(tasks, id)
	}
	each("container", containers, a.cfg.Runtime.Delete)
	each("output", f.attached, a.detach)
	each("network", f.networks, a.cfg.Network.Teardown)
	endpoints, names := make(map[string]Endpoint, len(f.endpoints)), make([]string, 0, len(f.endpoints))
	for _, e := range f.endpoints {
		name := e.TaskID + "/" + e.Container
		endpoints[name] = e
		names = append(names, name)
	}
	each("connection", names, func(ctx context.Context, name string) error {
		return a.cfg.Bridge.Disconnect(ctx, endpoints[name].TaskID, endpoints[name].Container)
	})
	each("volumes", f.volumes, a.cfg.Volumes.Release)
	each("task", tasks, func(ctx context.Context, id string) error {
		if err := a.cfg.Runtime.RemoveTask(ctx, id); err != nil {
			return err
		}
		return os.RemoveAll(a.taskDir(id))
	})
	return errors.Join(all...)
}

// RemoveAll kills and removes everything of every task, output included, and forgets them all. It
// needs no server, and cannot go on beside Run. The host keeps its ID.
func (a *Agent) RemoveAll(ctx context.Context) error {
	if !a.running.TryLock() {
		return errors.New("agent: tasks cannot be removed while it runs")
	}
	defer a.running.Unlock()
	found, err := a.find(ctx)
	if err != nil {
		return err
	}
	output := map[string]bool{}
	a.mu.Lock()
	for arn, l := range a.tasks {
		id := taskID(arn)
		found.tasks[id], output[id] = true, true
		for i := range l.m.task.Containers {
			found.containers[containerID(l.m.task, i)] = id
		}
	}
	for arn := range a.stopped {
		output[taskID(arn)] = true
	}
	a.mu.Unlock()
	// Without the lock, which the rooms may need to ask whether a task is live. Nothing changes
	// meanwhile: nothing runs.
	if err := a.remove(ctx, found); err != nil {
		return err
	}
	for id := range output {
		if err := a.cfg.LogDrivers.Forget(ctx, id); err != nil {
			return fmt.Errorf("end the delivery of output of task %s: %w", id, err)
		}
		if err := a.cfg.Output.Remove(ctx, id); err != nil {
			return fmt.Errorf("remove output of task %s: %w", id, err)
		}
	}
	var writes []write
	a.mu.Lock()
	for arn := range a.tasks {
		writes = append(writes, write{bucketAssignments, []byte(arn), nil}, write{bucketProgress, []byte(arn), nil})
		a.outbox.drop(arn)
	}
	for arn := range a.stopped {
		writes = append(writes, write{bucketStopped, []byte(arn), nil})
	}
	clear(a.tasks)
	clear(a.byID)
	clear(a.stopped)
	a.mu.Unlock()
	a.journal.put(nil, writes...)
	a.journal.flush()
	return nil
}

// repeatStopped sends the last report of a task that is over.
func (a *Agent) repeatStopped(arn string) {
	st, err := a.journal.tombstone(arn)
	if err != nil {
		a.cfg.Logger.Error("the report of a stopped task cannot be read", "task", taskID(arn), "error", err)
		return
	}
	a.outbox.report(st)
}

// tombstone reads the last report of a task that is over. It may still be on its way to the disk.
func (j *journal) tombstone(arn string) (*dispatchpb.TaskStatus, error) {
	var value []byte
	j.mu.Lock()
	if w, ok := j.pending[string(bucketStopped)+"/"+arn]; ok {
		value = w.value
	}
	j.mu.Unlock()
	if value == nil {
		err := j.db.View(func(tx *bolt.Tx) error {
			value = append([]byte(nil), tx.Bucket(bucketStopped).Get([]byte(arn))...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	t, err := decodeTombstone(value)
	return t.status, err
}

func cloneTask(t *dispatchpb.Task) *dispatchpb.Task { return proto.Clone(t).(*dispatchpb.Task) }

// sleep waits; false says that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
