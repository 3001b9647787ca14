package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// fakeDrivers are LogDrivers in memory.
type fakeDrivers struct {
	mu       sync.Mutex
	err      error
	started  map[string]bool // by container ID
	finished []string
	pending  bool
}

func (f *fakeDrivers) Start(_ context.Context, t *dispatchpb.Task, i int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.started[containerID(t, i)] = true
	}
	return f.err
}

func (f *fakeDrivers) Finish(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finished = append(f.finished, id)
	return nil
}

func (f *fakeDrivers) Pending(string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pending
}

func (f *fakeDrivers) Forget(context.Context, string) error { return nil }
func (f *fakeDrivers) Stats() LogStats                      { return LogStats{Delivered: 7} }

func withDrivers(t *testing.T, f *fakeDrivers, do func(t *testing.T, w *world)) {
	f.started = map[string]bool{}
	inWorld(t, func(t *testing.T, w *world) {
		w.stop()
		w.tune = func(c *Config) { c.LogDrivers = f }
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		do(t, w)
	})
}

// TestLogDriverKeepsOutput: output stays beyond its time for as long as its driver needs it.
func TestLogDriverKeepsOutput(t *testing.T) {
	f := &fakeDrivers{pending: true}
	withDrivers(t, f, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		if !f.started[containerID(task, 0)] || w.agent.Snapshot().Logs.Delivered != 7 {
			t.Error("the driver was not started, or is not in the snapshot")
		}
		w.server.stop(task, "")
		pass(4 * time.Hour)
		if !slices.Contains(f.finished, containerID(task, 0)) {
			t.Error("the driver was not told of the end")
		}
		if got := w.output.pruned(); len(got) != 0 {
			t.Fatalf("removed %v, which is not delivered", got)
		}
		f.mu.Lock()
		f.pending = false
		f.mu.Unlock()
		pass(2 * time.Minute)
		if got := w.output.pruned(); !slices.Equal(got, []string{"a1"}) {
			t.Fatalf("removed %v", got)
		}
	})
}

func TestLogDriverRefuses(t *testing.T) {
	f := &fakeDrivers{err: errors.New("logger: no log driver named 'x' is registered")}
	withDrivers(t, f, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Minute)
		wantStatus(t, w, task, statusStopped)
		want := "ResourceInitializationError: failed to initialize logging driver: logger: no log driver named 'x' is registered"
		if got := w.server.status(task.Arn).Reason; got != want {
			t.Errorf("stopped because %q", got)
		}
	})
}
