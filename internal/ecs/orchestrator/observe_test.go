package orchestrator

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// What a host sees of its task is shown by DescribeTasks; what it says of another's is not, and what is no
// news is not written.
func TestHealthReachesTheTask(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	o := New(Config{Store: db, ServerID: "test"})
	spec := aTask().Tasks[0]
	spec.Containers[0].HealthCheck = true
	key := state.TaskKey(sc, "demo", spec.ID)
	_, err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Specs.Put(tx, key, spec)
		state.Placements.Put(tx, key, &state.Placement{HostID: "h1"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	health := func() (task, container string) {
		shown, ok := state.Task(db.Snapshot(), key)
		if !ok {
			t.Fatal("the task is gone")
		}
		return string(shown.HealthStatus), string(shown.Containers[0].HealthStatus)
	}
	observe := func(host, status string, at time.Time) {
		t.Helper()
		if err := o.Observe(t.Context(), host, &dispatchpb.TaskStatus{Arn: spec.ARN, Containers: []*dispatchpb.ContainerStatus{
			{Name: "app", HealthStatus: status, HealthSince: timestamppb.New(at), RestartCount: 1, RestartedAt: timestamppb.New(at)},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	observe("h2", "UNHEALTHY", now)
	if task, container := health(); task != string(lifecycle.Unknown) || container != string(lifecycle.Unknown) {
		t.Fatalf("after a stranger's word: %s, %s", task, container)
	}
	observe("h1", "HEALTHY", now)
	if task, container := health(); task != string(lifecycle.Healthy) || container != string(lifecycle.Healthy) {
		t.Fatalf("after its host's word: %s, %s", task, container)
	}
	before := db.Snapshot().Revision()
	observe("h1", "HEALTHY", now)
	if after := db.Snapshot().Revision(); after != before {
		t.Fatalf("no news took revisions %d to %d", before, after)
	}
	if row, _ := state.Statuses.Get(db.Snapshot(), key); row.Value.Containers[0].RestartCount != 1 {
		t.Fatalf("kept as %+v", row.Value.Containers[0])
	}
	if err := o.Observe(t.Context(), "h1", &dispatchpb.TaskStatus{Arn: "arn:aws:ecs:eu-west-1:123456789012:task/demo/none"}); err != nil {
		t.Fatalf("a task that is gone: %v", err)
	}
}
