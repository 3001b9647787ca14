package orchestrator

import (
	"errors"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// instanceOfTask is the container instance a task is on.
func instanceOfTask(t *testing.T, o *Orchestrator, task store.Key) store.Row[state.ContainerInstance] {
	t.Helper()
	snap := o.store.Snapshot()
	pl, ok := state.Placements.Get(snap, task)
	if !ok {
		t.Fatalf("task %s has no place", task)
	}
	arn, err := state.ParseARN(pl.Value.ContainerInstanceARN)
	if err != nil {
		t.Fatal(err)
	}
	row, ok := state.ContainerInstances.Get(snap, store.K(sc, arn.Path[0]+"/"+arn.Path[1]))
	if !ok {
		t.Fatalf("no instance %s", pl.Value.ContainerInstanceARN)
	}
	return row
}

func TestADeregisteredHostComesBackAsAnother(t *testing.T) {
	t.Parallel()
	running, _ := begin(t, openStore(t))
	o := testable(running)
	connect(t, o, "h1")
	first := placeOne(t, o)
	old := instanceOfTask(t, o, first)
	cause := lifecycle.Cause{Code: lifecycle.UserInitiated, Reason: "forced"}

	no := errors.New("no")
	if err := o.Deregister(t.Context(), old.Key, cause, func(_ *state.ContainerInstance, tasks int) error {
		if tasks != 1 {
			t.Errorf("%d tasks", tasks)
		}
		return no
	}); !errors.Is(err, no) || record(o, first).DesiredStatus() == lifecycle.Stopped {
		t.Fatalf("a refused deregistration: %v, the task is %s", err, record(o, first).DesiredStatus())
	}
	yes := func(*state.ContainerInstance, int) error { return nil }
	if err := o.Deregister(t.Context(), old.Key, cause, yes); err != nil {
		t.Fatal(err)
	}
	if got, ok := record(o, first).Stop(); !ok || got.Reason != "forced" {
		t.Errorf("the task's cause: %+v", got)
	}
	if err := o.Deregister(t.Context(), old.Key, cause, yes); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if err := o.EnsureInstances(t.Context(), cluster, state.ARN(sc, "cluster", "demo")); err != nil {
		t.Fatal(err)
	}
	if n := state.ContainerInstances.Len(o.store.Snapshot()); n != 1 {
		t.Errorf("a look at the cluster made %d instances", n)
	}
	forget := func(after time.Duration) int {
		t.Helper()
		if err := o.forgetOld(t.Context(), time.Now().Add(after)); err != nil {
			t.Fatal(err)
		}
		return state.ContainerInstances.Len(o.store.Snapshot())
	}
	if forget(2*stoppedRetention) != 1 {
		t.Error("that a host was taken out is forgotten, so it would come back unasked")
	}

	second := instanceOfTask(t, o, placeOne(t, o))
	if second.ID == old.ID || second.Value.HostID != "h1" || second.Value.Status != "ACTIVE" {
		t.Errorf("came back as %+v", second.Value)
	}
	if forget(stoppedRetention/2) != 2 || forget(2*stoppedRetention) != 1 {
		t.Error("the one replaced is kept for an hour and no longer")
	}
	// The placer still knows where it is, and a new one learns it.
	if third := instanceOfTask(t, o, placeOne(t, o)); third.ID != second.ID {
		t.Errorf("the next task is on %s", third.ID)
	}
	l := o.placer.cold(o.store.Snapshot())
	if v := l.Fits("h1", need(&Run{}, &state.Spec{ID: state.NewID(), ClusterARN: second.Value.ClusterARN})); v.InstanceARN != second.Value.ARN || !v.OK() {
		t.Errorf("from a cold start: %+v", v)
	}
}
