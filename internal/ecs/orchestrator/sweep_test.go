package orchestrator

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

var (
	sc         = store.Scope{Account: "123456789012", Region: "eu-west-1"}
	cluster    = store.K(sc, "demo")
	definition = state.DefinitionKey(sc, "web", 1)
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, state.Tables()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	_, err = db.Update(t.Context(), func(tx *store.Tx) error {
		state.Clusters.Put(tx, cluster, &ecs.Cluster{ClusterName: api.Ptr("demo"), ClusterArn: api.Ptr(state.ARN(sc, "cluster", "demo")), Status: api.Ptr("ACTIVE")})
		state.TaskDefinitions.Put(tx, definition, &ecs.TaskDefinition{
			Family: api.Ptr("web"), Revision: api.Ptr(int32(1)), Status: ecs.TaskDefinitionStatusActive,
			TaskDefinitionArn:    api.Ptr(state.ARN(sc, "task-definition", "web:1")),
			ContainerDefinitions: []ecs.ContainerDefinition{{Name: api.Ptr("app"), Image: api.Ptr("app")}},
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// begin runs an orchestrator; the function ends it.
func begin(t *testing.T, db *store.Store) (*Orchestrator, func()) {
	t.Helper()
	o := New(Config{Store: db, ServerID: "test", Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	ended := false
	end := func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("orchestrator: %v", err)
		}
	}
	t.Cleanup(end)
	return o, end
}

func connect(t *testing.T, o *Orchestrator, host string) {
	t.Helper()
	if err := o.HostConnected(t.Context(), &dispatchpb.Hello{HostId: host, CpuUnits: 1 << 20, MemoryMib: 1 << 20, AvailabilityZoneSuffix: "a"}); err != nil {
		t.Fatal(err)
	}
}

func aTask() Run {
	id := state.NewID()
	return Run{Cluster: cluster, ClusterARN: state.ARN(sc, "cluster", "demo"), Definition: definition, Tasks: []*state.Spec{{
		ID: id, ARN: state.ARN(sc, "task", "demo", id), Cluster: "demo", ClusterARN: state.ARN(sc, "cluster", "demo"), Family: "web", Revision: 1, CPUUnits: 10, MemoryMiB: 10,
		LaunchType: ecs.LaunchTypeEc2, CreatedAt: time.Now().UTC(), Containers: []state.SpecContainer{{Name: "app", ID: state.NewID(), Essential: true}},
	}}}
}

func placeOne(t *testing.T, o *Orchestrator) store.Key {
	t.Helper()
	placed, err := o.Place(t.Context(), aTask())
	if err != nil || len(placed.TaskIDs) != 1 {
		t.Fatalf("Place: %v %+v", err, placed)
	}
	return state.TaskKey(sc, "demo", placed.TaskIDs[0])
}

func report(t *testing.T, o *Orchestrator, task store.Key, status lifecycle.State) {
	t.Helper()
	_, err := o.store.Update(t.Context(), func(tx *store.Tx) error {
		rec, _ := state.Record(tx, task)
		next, _ := lifecycle.Apply(rec, lifecycle.Report{Version: rec.Status.Reported + 1, LastStatus: status}, time.Now())
		state.Statuses.Put(tx, task, &next.Status)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func record(o *Orchestrator, task store.Key) lifecycle.Record {
	rec, _ := state.Record(o.store.Snapshot(), task)
	return rec
}

// overdueAt judges the tasks at a time from now, as the sweep does.
func overdueAt(t *testing.T, o *Orchestrator, after time.Duration) {
	t.Helper()
	if err := o.endOverdue(t.Context(), time.Now().Add(after)); err != nil {
		t.Fatal(err)
	}
}

// testable is an orchestrator whose sweep the test does itself.
func testable(o *Orchestrator) *Orchestrator {
	return &Orchestrator{store: o.store, log: o.log, placer: o.placer, hub: o.hub, absent: absence{}}
}

func TestTasksOfAHostThatIsAway(t *testing.T) {
	t.Parallel()
	running, _ := begin(t, openStore(t))
	o := testable(running)
	connect(t, o, "h1")
	fresh, pending, up, stopping := placeOne(t, o), placeOne(t, o), placeOne(t, o), placeOne(t, o)
	report(t, o, pending, lifecycle.Pending)
	report(t, o, up, lifecycle.Running)
	report(t, o, stopping, lifecycle.Running)
	o.HostDisconnected(t.Context(), "h1")
	if err := o.Stop(t.Context(), stopping, lifecycle.Cause{Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	overdueAt(t, o, 0)
	overdueAt(t, o, returnDeadline-time.Second)
	for _, task := range []store.Key{fresh, pending, up, stopping} {
		if stopped(o.store.Snapshot(), task) {
			t.Errorf("%s is given up early", task)
		}
	}
	overdueAt(t, o, returnDeadline+time.Second)
	for _, task := range []store.Key{fresh, pending} {
		rec := record(o, task)
		cause, _ := rec.Stop()
		if rec.Status.LastStatus != lifecycle.Stopped || cause.Code != lifecycle.TaskFailedToStart || !strings.Contains(cause.Reason, "AGENT") {
			t.Errorf("a task that never started: %s, %+v", rec.Status.LastStatus, cause)
		}
	}
	overdueAt(t, o, stopDeadline+time.Second)
	if rec := record(o, stopping); rec.Status.LastStatus != lifecycle.Stopped || rec.Status.Stop.Reason != "enough" {
		t.Errorf("a task to be stopped: %+v", rec.Status)
	}
	overdueAt(t, o, 1000*time.Hour)
	if rec := record(o, up); rec.Status.LastStatus != lifecycle.Running {
		t.Errorf("a running task is %s", rec.Status.LastStatus)
	}
}

func TestAHostThatDoesNotAcknowledge(t *testing.T) {
	t.Parallel()
	running, _ := begin(t, openStore(t))
	o := testable(running)
	connect(t, o, "h1")
	silent, told := placeOne(t, o), placeOne(t, o)
	report(t, o, told, lifecycle.Pending)
	overdueAt(t, o, acceptDeadline-time.Minute)
	if record(o, silent).DesiredStatus() != lifecycle.Running {
		t.Fatal("stopped early")
	}
	overdueAt(t, o, acceptDeadline+time.Second)
	if rec := record(o, silent); rec.DesiredStatus() != lifecycle.Stopped || rec.Status.LastStatus == lifecycle.Stopped {
		t.Fatalf("first it is told to stop: %+v", rec)
	}
	overdueAt(t, o, acceptDeadline+time.Second)
	if rec := record(o, silent); rec.Status.LastStatus != lifecycle.Stopped || rec.Status.Stop.Code != lifecycle.TaskFailedToStart {
		t.Errorf("then it is given up: %+v", rec.Status)
	}
	overdueAt(t, o, 100*time.Hour)
	if rec := record(o, told); rec.DesiredStatus() != lifecycle.Running {
		t.Errorf("an agent that has the task keeps its own deadlines: %+v", rec)
	}
}

func TestForgetting(t *testing.T) {
	t.Parallel()
	running, _ := begin(t, openStore(t))
	o := testable(running)
	connect(t, o, "h1")
	gone, stays := placeOne(t, o), placeOne(t, o)
	report(t, o, gone, lifecycle.Stopped)
	_, err := o.store.Update(t.Context(), func(tx *store.Tx) error {
		def, _ := state.TaskDefinitions.Get(tx, definition)
		deleting := *def.Value
		deleting.Status = ecs.TaskDefinitionStatusDeleteInProgress
		state.TaskDefinitions.Put(tx, definition, &deleting)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	has := func(task store.Key) bool { _, ok := state.Specs.Get(o.store.Snapshot(), task); return ok }
	forget := func(after time.Duration) {
		t.Helper()
		if err := o.forgetOld(t.Context(), time.Now().Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	forget(stoppedRetention - time.Minute)
	if !has(gone) {
		t.Error("forgotten early")
	}
	forget(stoppedRetention + time.Minute)
	if has(gone) || !has(stays) {
		t.Error("after an hour the stopped task, and it alone, is forgotten")
	}
	if _, ok := state.TaskDefinitions.Get(o.store.Snapshot(), definition); !ok {
		t.Error("a definition is deleted while a task uses it")
	}
	report(t, o, stays, lifecycle.Stopped)
	forget(0)
	if _, ok := state.TaskDefinitions.Get(o.store.Snapshot(), definition); ok {
		t.Error("a definition to be deleted outlives the last task")
	}
}

// shelf is an archive that has the tasks on it.
type shelf map[string]bool

func (s shelf) Archived(_ context.Context, id string) (bool, error) { return s[id], nil }

func TestRowsStayUntilTheTaskIsArchived(t *testing.T) {
	t.Parallel()
	running, _ := begin(t, openStore(t))
	o := testable(running)
	archive := shelf{}
	o.archive = archive
	connect(t, o, "h1")
	task := placeOne(t, o)
	report(t, o, task, lifecycle.Stopped)
	later := time.Now().Add(24 * time.Hour)
	for _, archived := range []bool{false, true} {
		_, id := state.SplitTaskKey(task)
		archive[id] = archived
		if err := o.forgetOld(t.Context(), later); err != nil {
			t.Fatal(err)
		}
		if _, kept := state.Specs.Get(o.store.Snapshot(), task); kept == archived {
			t.Errorf("archived %v, and its rows are there: %v", archived, kept)
		}
	}
}
