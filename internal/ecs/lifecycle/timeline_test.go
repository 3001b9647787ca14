package lifecycle

import (
	"strings"
	"testing"
	"time"
)

func TestTimelineTellsEveryStep(t *testing.T) {
	t.Parallel()
	t0 := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	sec := func(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }
	r := New(Facts{CreatedAt: t0, Containers: []Member{{Name: "web", Essential: true, HasHealthCheck: true}}})
	apply := func(version int64, at int, rep Report) {
		rep.Version = version
		r, _ = Apply(r, rep, sec(at))
	}
	apply(1, 1, Report{LastStatus: Activating})
	apply(2, 2, Report{LastStatus: Running, StartedAt: sec(2), Containers: []ContainerReport{{Name: "web", LastStatus: ContainerRunning, StartedAt: sec(2)}}})
	apply(3, 3, Report{LastStatus: Running, Containers: []ContainerReport{{Name: "web", Health: Unhealthy}}})
	apply(4, 3, Report{LastStatus: Running}) // says nothing new
	r, _ = RequestStop(r, Cause{Reason: "too slow", By: "arn:aws:iam::1:root"}, sec(4))
	one := int32(1)
	apply(5, 6, Report{LastStatus: Stopped, StoppedAt: sec(6), Containers: []ContainerReport{{Name: "web", LastStatus: ContainerStopped, ExitCode: &one, FinishedAt: sec(5)}}})

	want := []Entry{
		{At: t0, What: TaskCreated},
		{At: sec(1), What: "ACTIVATING"},
		{At: sec(2), Container: "web", What: "RUNNING"},
		{At: sec(2), What: "RUNNING"},
		{At: sec(3), Container: "web", What: "UNHEALTHY"},
		{At: sec(4), What: StopRequested, Cause: "too slow", By: "arn:aws:iam::1:root"},
		{At: sec(5), Container: "web", What: "STOPPED", Cause: "exit code 1"},
		{At: sec(6), What: "STOPPED", Cause: "too slow"},
	}
	got := r.Timeline()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	if r.UpdatedAt() != sec(6) {
		t.Errorf("updated at %v, want %v", r.UpdatedAt(), sec(6))
	}
}

func TestTimelineIsBounded(t *testing.T) {
	t.Parallel()
	var s Status
	for i := range 3 * timelineLimit {
		before := s.Timeline
		s.add(Entry{At: time.Unix(int64(i), 0), What: "HEALTHY", Cause: strings.Repeat("é", 2*entryLimit)})
		if len(before) > 0 && before[len(before)-1].At.Unix() != int64(i-1) {
			t.Fatalf("adding entry %d changed the timeline before it", i)
		}
	}
	if len(s.Timeline) != timelineLimit || s.TimelineDropped != 2*timelineLimit {
		t.Fatalf("%d entries and %d left out", len(s.Timeline), s.TimelineDropped)
	}
	if first, last := s.Timeline[timelineHead-1].At.Unix(), s.Timeline[timelineLimit-1].At.Unix(); first != timelineHead-1 || last != 3*timelineLimit-1 {
		t.Errorf("entry %d is of %d, the last of %d", timelineHead-1, first, last)
	}
	if n := len([]rune(s.Timeline[0].Cause)); n != entryLimit {
		t.Errorf("a cause of %d characters", n)
	}
}
