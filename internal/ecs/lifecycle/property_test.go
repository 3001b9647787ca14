package lifecycle

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyReport is what no honest host would send.
func anyReport() *rapid.Generator[Report] {
	return rapid.Custom(func(t *rapid.T) Report {
		moment := rapid.Custom(func(t *rapid.T) time.Time {
			if n := rapid.IntRange(0, 5).Draw(t, "moment"); n > 0 {
				return at(n)
			}
			return time.Time{}
		})
		rep := Report{
			Version:       rapid.Int64Range(0, 12).Draw(t, "version"),
			LastStatus:    rapid.SampledFrom(append([]State{"", "BOGUS"}, states...)).Draw(t, "state"),
			Reason:        rapid.SampledFrom([]string{"", "CannotPullContainerError: x", "Essential container in task exited"}).Draw(t, "reason"),
			Attachment:    rapid.SampledFrom(append([]AttachmentState{"", "BOGUS"}, attachmentStates...)).Draw(t, "attachment"),
			PullStartedAt: moment.Draw(t, "pullStarted"), StartedAt: moment.Draw(t, "started"), StoppedAt: moment.Draw(t, "stopped"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "containers") {
			c := ContainerReport{
				Name:       rapid.SampledFrom([]string{"c0", "c1", "pause"}).Draw(t, "name"),
				LastStatus: rapid.SampledFrom(append([]ContainerState{"", "BOGUS"}, containerStates...)).Draw(t, "status"),
				Reason:     rapid.SampledFrom([]string{"", "OutOfMemoryError: x"}).Draw(t, "why"),
				Health:     rapid.SampledFrom([]Health{"", Healthy, Unhealthy, "BOGUS"}).Draw(t, "health"),
			}
			if rapid.Bool().Draw(t, "exited") {
				c.ExitCode = code(rapid.Int32Range(0, 255).Draw(t, "code"))
			}
			rep.Containers = append(rep.Containers, c)
		}
		return rep
	})
}

func anyFacts() *rapid.Generator[Facts] {
	return rapid.Custom(func(t *rapid.T) Facts {
		f := Facts{CreatedAt: t0, OwnInterface: rapid.Bool().Draw(t, "interface")}
		for i := range rapid.IntRange(1, 3).Draw(t, "members") {
			f.Containers = append(f.Containers, Member{
				Name: fmt.Sprint("c", i), Essential: i == 0 || rapid.Bool().Draw(t, "essential"), HasHealthCheck: rapid.Bool().Draw(t, "check"),
			})
		}
		return f
	})
}

// TestForwardOnly: whatever is reported and requested, a task moves forward only, never loses what is
// known of it, and stops for a stated reason.
func TestForwardOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := New(anyFacts().Draw(t, "facts"))
		n := 0
		step := func(next Record, changed bool) {
			if !changed {
				if !reflect.DeepEqual(next, r) {
					t.Fatalf("changed in silence: %+v, then %+v", r, next)
				}
				return
			}
			forward(t, r, next)
			r = next
		}
		t.Repeat(map[string]func(*rapid.T){
			"report": func(t *rapid.T) {
				n++
				rep := anyReport().Draw(t, "report")
				before := copyOf(r)
				next, changed := Apply(r, rep, at(100+n))
				if !reflect.DeepEqual(r, before) {
					t.Fatal("Apply wrote into its argument")
				}
				step(next, changed)
				if again, changed := Apply(r, rep, at(200+n)); changed || !reflect.DeepEqual(again, r) {
					t.Fatalf("the same report again: %+v, then %+v", r, again)
				}
			},
			"stop": func(t *rapid.T) {
				n++
				cause := Cause{
					Code:   rapid.SampledFrom([]StopCode{"", UserInitiated, ServiceSchedulerInitiated}).Draw(t, "code"),
					Reason: rapid.SampledFrom([]string{"", "because"}).Draw(t, "reason"),
				}
				step(RequestStop(r, cause, at(100+n)))
				if r.DesiredStatus() != Stopped {
					t.Fatal("a stop was requested and is not desired")
				}
				if _, changed := RequestStop(r, Cause{Code: UserInitiated, Reason: "again"}, at(200)); changed {
					t.Fatal("a second request changed something")
				}
			},
			"abandon": func(t *rapid.T) {
				n++
				step(Abandon(r, Cause{Code: TerminationNotice, Reason: "host gone"}, at(100+n)))
				if r.Status.LastStatus != Stopped {
					t.Fatal("abandoned, not stopped")
				}
			},
		})
	})
}

func copyOf(r Record) Record {
	r.Status.Containers = slices.Clone(r.Status.Containers)
	return r
}

func forward(t *rapid.T, a, b Record) {
	if b.Status.LastStatus.Before(a.Status.LastStatus) {
		t.Fatalf("from %s back to %s", a.Status.LastStatus, b.Status.LastStatus)
	}
	if a.DesiredStatus() == Stopped && b.DesiredStatus() != Stopped {
		t.Fatal("a stop was taken back")
	}
	if b.Status.Attachment.before(a.Status.Attachment) {
		t.Fatalf("interface from %s back to %s", a.Status.Attachment, b.Status.Attachment)
	}
	for i, c := range a.Status.Containers {
		d := b.Status.Containers[i]
		if d.LastStatus.before(c.LastStatus) || c.ExitCode != nil && *d.ExitCode != *c.ExitCode {
			t.Fatalf("container from %+v back to %+v", c, d)
		}
	}
	if a.Desired.Stop != nil {
		if was, _ := a.Stop(); a.Status.Stop == nil {
			if is, _ := b.Stop(); is != was {
				t.Fatalf("requested because of %+v, stopping because of %+v", was, is)
			}
		}
	}
	if !b.Status.LastStatus.Before(Deactivating) || b.DesiredStatus() == Stopped {
		cause, ok := b.Stop()
		if !ok || cause.Code == "" || cause.Reason == "" || b.StoppingAt().IsZero() {
			t.Fatalf("%s without a cause: %+v", b.Status.LastStatus, b)
		}
	}
	if b.Status.LastStatus == Stopped {
		if b.Status.StoppedAt.IsZero() || b.Status.Attachment != "" && b.Status.Attachment != Gone {
			t.Fatalf("stopped with open ends: %+v", b)
		}
		for _, c := range b.Status.Containers {
			if c.LastStatus != ContainerStopped {
				t.Fatalf("stopped with a container that is %s", c.LastStatus)
			}
		}
	}
	if b.Status.LastStatus == Deleted {
		t.Fatal("a record is DELETED")
	}
	if d := b.Version() - a.Version(); d < 0 || d > 1 {
		t.Fatalf("version %d, then %d", a.Version(), b.Version())
	}
}

// life is what an honest host reports, first to last: cumulative, each a step or several on.
func life() *rapid.Generator[[]Report] {
	return rapid.Custom(func(t *rapid.T) []Report {
		end := rapid.SampledFrom([]string{"never ends", "fails to start", "exits"}).Draw(t, "end")
		now := Report{Containers: []ContainerReport{
			{Name: "c0", LastStatus: ContainerPending}, {Name: "c1", LastStatus: ContainerPending},
		}}
		var reports []Report
		clock := 0
		say := func(change func()) {
			clock++
			change()
			now.Version++
			rep := now
			rep.Containers = slices.Clone(now.Containers)
			reports = append(reports, rep)
		}
		say(func() { now.LastStatus = Pending })
		say(func() { now.LastStatus, now.Attachment = Activating, Attached })
		say(func() { now.PullStartedAt = at(clock) })
		if end == "fails to start" {
			say(func() {
				now.Reason = "CannotPullContainerError: no"
				now.Containers[0].Reason, now.Containers[0].LastStatus = now.Reason, ContainerStopped
			})
		} else {
			say(func() { now.PullStoppedAt = at(clock) })
			say(func() { now.Containers[0].LastStatus = ContainerRunning })
			say(func() {
				now.Containers[1].LastStatus = ContainerRunning
				now.LastStatus, now.StartedAt = Running, at(clock)
			})
			for range rapid.IntRange(0, 3).Draw(t, "checks") {
				say(func() { now.Containers[0].Health = rapid.SampledFrom([]Health{Healthy, Unhealthy}).Draw(t, "health") })
			}
			if end == "never ends" {
				return reports
			}
			say(func() {
				now.Containers[0].LastStatus, now.Containers[0].ExitCode = ContainerStopped, code(1)
				now.ExecutionStoppedAt = at(clock)
			})
		}
		say(func() { now.LastStatus = Stopping })
		say(func() { now.Containers[1].LastStatus, now.Containers[1].ExitCode = ContainerStopped, code(143) })
		say(func() { now.LastStatus, now.Attachment = Deprovisioning, Detached })
		say(func() { now.LastStatus, now.StoppedAt = Stopped, at(clock) })
		return reports
	})
}

// TestAnyOrderEndsEqual: lost, repeated and shuffled, the host's reports end in the same record, so
// long as the last one arrives.
func TestAnyOrderEndsEqual(t *testing.T) {
	t.Parallel()
	facts := Facts{CreatedAt: t0, OwnInterface: true, Containers: []Member{{Name: "c0", Essential: true, HasHealthCheck: true}, {Name: "c1"}}}
	rapid.Check(t, func(t *rapid.T) {
		reports := life().Draw(t, "life")
		start := New(facts)
		if rapid.Bool().Draw(t, "stopRequested") {
			start, _ = RequestStop(start, Cause{Code: UserInitiated, Reason: "enough"}, at(0))
		}
		want := start
		for _, rep := range reports {
			want, _ = Apply(want, rep, at(50))
		}

		arrived := rapid.SliceOf(rapid.SampledFrom(reports)).Draw(t, "arrived")
		arrived = slices.Insert(arrived, rapid.IntRange(0, len(arrived)).Draw(t, "last"), reports[len(reports)-1])
		got := start
		for _, rep := range arrived {
			got, _ = Apply(got, rep, at(50))
		}
		// How many events were made on the way, and what was seen of it, is all that may differ.
		if got.Version() > want.Version() {
			t.Fatalf("%d events of %d reports", got.Version(), want.Version())
		}
		got.Status.Changes = want.Status.Changes
		for _, s := range []*Status{&got.Status, &want.Status} {
			is := func(e Entry) bool { return e.Container == "" && e.What == string(s.LastStatus) }
			if s.LastStatus != start.Status.LastStatus && !slices.ContainsFunc(s.Timeline, is) {
				t.Fatalf("the timeline of a task that is %s does not say so: %+v", s.LastStatus, s.Timeline)
			}
			s.Timeline = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("in order  %+v\nas it came %+v", want, got)
		}
	})
}
