package orchestrator

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// While another holds the election requests end in time, and none is placed for nobody afterwards.
func TestOnlyTheElectedPlaces(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	other, err := db.Campaign(t.Context(), electionName, "other")
	if err != nil {
		t.Fatal(err)
	}
	o, _ := begin(t, db)
	o.placer.patience = 50 * time.Millisecond
	connect(t, o, "h1") // does not wait for the election
	if _, err := o.Place(t.Context(), aTask()); !errors.Is(err, ErrNoPlacer) {
		t.Fatalf("Place while another is elected: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.Place(gone, aTask()); !errors.Is(err, context.Canceled) {
		t.Fatalf("Place for a caller who left: %v", err)
	}
	if err := o.EnsureInstances(t.Context(), cluster, "arn"); !errors.Is(err, ErrNoPlacer) {
		t.Fatalf("a turn while another is elected: %v", err)
	}
	if err := other.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.placer.patience = patience
	placeOne(t, o)
	if n := state.Specs.Len(db.Snapshot()); n != 1 {
		t.Errorf("%d tasks: requests that were given up have been placed", n)
	}
}

// A lost election loses no request and no reservation, and places nothing twice.
func TestLosingTheElection(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	o, _ := begin(t, db)
	connect(t, o, "h1")
	placeOne(t, o)
	stop := make(chan struct{})
	var thief sync.WaitGroup
	thief.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if lead := o.placer.leading.Load(); lead != nil {
				if err := lead.Resign(t.Context()); err != nil {
					t.Errorf("resign: %v", err)
					return
				}
			}
		}
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				placed, err := o.Place(t.Context(), aTask())
				if err != nil || len(placed.TaskIDs) != 1 {
					t.Errorf("Place: %v", err)
				}
			}
		})
	}
	all.Wait()
	close(stop)
	thief.Wait()
	snap := db.Snapshot()
	if n := state.Specs.Len(snap); n != 161 {
		t.Errorf("%d tasks, want 161", n)
	}
	if n := state.ContainerInstances.Len(snap); n != 1 {
		t.Errorf("%d container instances of one host", n)
	}
}

// What a restarted placer knows is what the one before knew.
func TestAColdLedgerIsTheSame(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	o, end := begin(t, db)
	connect(t, o, "h1")
	connect(t, o, "h2")
	tasks := []store.Key{placeOne(t, o), placeOne(t, o), placeOne(t, o)}
	report(t, o, tasks[0], lifecycle.Stopped)
	end()
	snap := db.Snapshot()
	l := o.placer.cold(snap)
	for _, id := range []string{"h1", "h2"} {
		want, _ := o.UsageOf(snap, id)
		if got, ok := l.Usage(id); !ok || got.CPUFree != want.CPUFree || got.MemFree != want.MemFree {
			t.Errorf("%s: ledger %d, %d; store %d, %d", id, got.CPUFree, got.MemFree, want.CPUFree, want.MemFree)
		}
	}
	if _, err := o.Place(t.Context(), aTask()); !errors.Is(err, errStopped) {
		t.Errorf("Place after the end: %v", err)
	}
}

// The end of a session that is told after the next has begun does not count.
func TestLateDisconnection(t *testing.T) {
	t.Parallel()
	o, _ := begin(t, openStore(t))
	connect(t, o, "h1")
	next, err := o.Assignments(t.Context(), "h1")
	if err != nil {
		t.Fatal(err)
	}
	o.HostDisconnected(t.Context(), "h1")
	placeOne(t, o)
	next.Close()
	o.HostDisconnected(t.Context(), "h1")
	if placed, err := o.Place(t.Context(), aTask()); err != nil || len(placed.TaskIDs) != 0 || len(placed.Failures) != 1 {
		t.Errorf("with the host away: %v %+v", err, placed)
	}
}
