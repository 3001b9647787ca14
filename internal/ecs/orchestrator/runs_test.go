package orchestrator

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/placement/query"
	"github.com/berthhq/berth/internal/ecs/state"
)

type recorded struct {
	mu   sync.Mutex
	runs []RunRecord
}

func (r *recorded) RunNotPlaced(_ context.Context, run RunRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs = append(r.runs, run)
}

// A run of which a task found no place is recorded with what every filter says; one that was placed is
// not.
func TestRunsWithoutAPlaceAreRecorded(t *testing.T) {
	t.Parallel()
	o, _ := begin(t, openStore(t))
	r := &recorded{}
	o.recorder = r
	run := aTask()
	run.RequestID = "request-1"
	if _, err := o.Place(t.Context(), run); !errors.Is(err, ErrNoInstances) {
		t.Fatalf("Place without hosts: %v", err)
	}
	connect(t, o, "h1")
	placeOne(t, o)

	run = aTask()
	run.RequestID = "request-2"
	run.Tasks = append(run.Tasks, aTask().Tasks[0])
	run.Tasks[0].CapacityProvider, run.Tasks[1].MemoryMiB = "", 1<<30
	run.Tasks[1].Group, run.Tasks[0].Group = "family:web", "family:web"
	run.Rules.Distinct = true
	placed, err := o.Place(t.Context(), run)
	if err != nil || len(placed.TaskIDs) != 1 {
		t.Fatalf("Place: %v %+v", err, placed)
	}
	named := aTask()
	named.Tasks[0].GPUs, named.Hosts = 1, []string{"h1"}
	named.Rules.Distinct = true // which is not asked of a host that is named
	if _, err := o.Place(t.Context(), named); err != nil {
		t.Fatal(err)
	}

	if len(r.runs) != 3 {
		t.Fatalf("%d runs recorded, want 3", len(r.runs))
	}
	if e := r.runs[0].Explanations; r.runs[0].RequestID != "request-1" || len(e) != 1 || e[0].Total != 0 {
		t.Errorf("without hosts: %+v", r.runs[0])
	}
	got := r.runs[1]
	if got.RequestID != "request-2" || got.Count != 2 || !slices.Equal(got.Placed, placed.TaskIDs) || len(got.Explanations) != 1 || got.Family != "web" {
		t.Fatalf("recorded %+v", got)
	}
	host := got.Explanations[0].Hosts[0]
	refused := map[string]bool{}
	for _, c := range host.Checks {
		refused[c.Filter] = !c.OK
	}
	if host.Reason != placement.Memory || !refused["memory"] || !refused["distinctInstance"] || refused["cpu"] || refused["agent"] || host.InstanceARN == "" {
		t.Errorf("verdict %+v", host)
	}
	if e := r.runs[2].Explanations; len(e) != 1 || e[0].Total != 1 || e[0].Hosts[0].Reason != placement.GPU || e[0].GPUs != 1 {
		t.Errorf("on a named host: %+v", e)
	}
}

// What a restarted placer knows of groups, of what runs and of GPUs is what the one before knew, and
// what a strategy chose a host by is with the task.
func TestAColdLedgerCountsGroupsAndGPUs(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	o, end := begin(t, db)
	err := o.HostConnected(t.Context(), &dispatchpb.Hello{
		HostId: "h1", CpuUnits: 1 << 20, MemoryMib: 1 << 20, AvailabilityZoneSuffix: "a", AgentVersion: "1.2.3", GpuIds: []string{"g0", "g1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	run := aTask()
	run.Tasks[0].GPUs, run.Tasks[0].Group = 1, "family:web"
	run.Rules.Strategies = []placement.Strategy{{Kind: placement.Spread, Field: placement.ByHost}, {Kind: placement.Binpack, Field: placement.ByCPU}}
	placed, err := o.Place(t.Context(), run)
	if err != nil || len(placed.TaskIDs) != 1 {
		t.Fatalf("Place: %v %+v", err, placed)
	}
	task := state.TaskKey(sc, "demo", placed.TaskIDs[0])
	pl, _ := state.Placements.Get(db.Snapshot(), task)
	if want := []state.Rank{{Strategy: "spread(instanceId)", Value: 0}, {Strategy: "binpack(cpu)", Value: 1 << 20}}; !slices.Equal(pl.Value.Ranking, want) || !slices.Equal(pl.Value.GPUIDs, []string{"g0"}) {
		t.Errorf("placement %+v", pl.Value)
	}
	report(t, o, task, lifecycle.Running)

	want := map[string]bool{
		"runningTasksCount == 1": true, "runningTasksCount == 0": false, "task:group == family:web": true,
		"agentVersion >= 1.2": true, "attribute:ecs.availability-zone == " + sc.Region + "a": true, "registeredAt > 2020-01-01": true,
	}
	fits := func(l *placement.Ledger, text string) bool {
		e, err := query.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return l.Fits("h1", placement.Request{TaskID: "t", Cluster: run.ClusterARN, GPUs: 1, Rules: placement.Rules{Members: []*query.Expr{e}}}).OK()
	}
	for text, holds := range want {
		e, _ := query.Parse(text)
		next := aTask()
		next.Tasks[0].Group = "probe"
		next.Rules.Members = []*query.Expr{e}
		next.Hosts = nil
		placed, err := o.Place(t.Context(), next)
		if err != nil || (len(placed.TaskIDs) == 1) != holds {
			t.Errorf("%s: %v %+v", text, err, placed.Failures)
		}
	}
	end()
	l := o.placer.cold(db.Snapshot())
	for text, holds := range want {
		if fits(l, text) != holds {
			t.Errorf("%s, from a cold ledger: %v", text, !holds)
		}
	}
	if u, _ := l.Usage("h1"); !slices.Equal(u.GPUs, []string{"g0"}) {
		t.Errorf("GPUs taken: %v", u.GPUs)
	}
}
