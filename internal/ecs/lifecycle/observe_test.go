package lifecycle

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func TestHealthIsObserved(t *testing.T) {
	t.Parallel()
	r := New(Facts{Containers: []Member{{Name: "app", Essential: true, HasHealthCheck: true}, {Name: "side"}}})
	r, _ = Apply(r, Report{Version: 1, LastStatus: Running}, at(1))
	version := r.Version()

	next, news := Observe(r, []ContainerObservation{
		{Name: "app", Health: Healthy, HealthSince: at(2), HealthOutput: "ok", CreatedAt: at(0)},
		{Name: "stranger", Health: Unhealthy, HealthSince: at(2)},
	}, at(3))
	if !news || next.Health() != Healthy || next.Version() != version+1 || next.UpdatedAt() != at(3) {
		t.Fatalf("healthy: news %v, health %s, version %d after %d", news, next.Health(), next.Version(), version)
	}
	if c := next.Status.Containers[0]; c.HealthOutput != "ok" || !c.CreatedAt.Equal(at(0)) || c.Reason != "" {
		t.Fatalf("container %+v", c)
	}
	if r.Health() != Unknown {
		t.Fatal("the record before has changed")
	}
	if late, news := Observe(next, []ContainerObservation{{Name: "app", Health: Unhealthy, HealthSince: at(1)}}, at(4)); news || late.Health() != Healthy {
		t.Fatalf("an older health counts: %s", late.Health())
	}

	again, news := Observe(next, []ContainerObservation{{Name: "side", RestartCount: 2, RestartedAt: at(5)}}, at(6))
	if !news || again.Status.Containers[1].RestartCount != 2 || again.Version() != next.Version() {
		t.Fatalf("a restart: news %v, %+v, version %d", news, again.Status.Containers[1], again.Version())
	}
	if last := again.Timeline()[len(again.Timeline())-1]; last.What != Restarted || last.Container != "side" {
		t.Fatalf("the timeline ends with %+v", last)
	}
}

// Whatever is observed, in whatever order and however often: an observation without news leaves the
// record as it is, one repeated is none, and restarts and healths end at the latest.
func TestObservationsMayComeInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := New(Facts{Containers: []Member{{Name: "app", Essential: true, HasHealthCheck: true}}})
		var latest ContainerObservation
		seen := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) ContainerObservation {
			n := rapid.IntRange(0, 20).Draw(rt, "n")
			return ContainerObservation{
				Name: "app", Health: []Health{Healthy, Unhealthy, Unknown}[n%3], HealthSince: at(n),
				RestartCount: int64(n / 4), RestartedAt: at(n),
			}
		}), 1, 20).Draw(rt, "observations")
		for _, o := range seen {
			if !o.HealthSince.Before(latest.HealthSince) {
				latest = o
			}
			next, news := Observe(r, []ContainerObservation{o}, at(30))
			if !news && !reflect.DeepEqual(next, r) {
				rt.Fatalf("no news of %+v, but %+v became %+v", o, r, next)
			}
			if same, news := Observe(next, []ContainerObservation{o}, at(31)); news {
				rt.Fatalf("%+v is news twice: %+v", o, same)
			}
			r = next
		}
		c := r.Status.Containers[0]
		if c.Health != latest.Health || !c.HealthSince.Equal(latest.HealthSince) || c.RestartCount != latest.RestartCount {
			rt.Fatalf("ends as %+v, want %+v", c, latest)
		}
	})
}

// A container that never ran for want of another has an exit code; its task did not run.
func TestBlockedContainerDidNotRun(t *testing.T) {
	t.Parallel()
	r := New(Facts{Containers: []Member{{Name: "init"}, {Name: "app", Essential: true}}})
	const reason = "CannotStartContainerError: dependency graph: …"
	r, _ = Apply(r, Report{Version: 1, LastStatus: Stopped, Reason: reason, Containers: []ContainerReport{
		{Name: "init", RuntimeID: "x", LastStatus: ContainerStopped, ExitCode: code(1), StartedAt: at(1)},
		{Name: "app", LastStatus: ContainerStopped, ExitCode: code(143), Reason: reason},
	}}, at(9))
	cause, _ := r.Stop()
	if cause.Code != TaskFailedToStart || cause.Reason != reason || !r.Status.StartedAt.IsZero() {
		t.Fatalf("stopped by %+v, started at %v", cause, r.Status.StartedAt)
	}
}
