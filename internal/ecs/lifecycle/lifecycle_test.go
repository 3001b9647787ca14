package lifecycle

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var (
	t0  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	web = Facts{
		CreatedAt: t0, OwnInterface: true,
		Containers: []Member{{Name: "app", Essential: true, HasHealthCheck: true}, {Name: "sidecar"}},
	}
)

func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

func code(c int32) *int32 { return &c }

func must(t *testing.T, r Record, changed bool) Record {
	t.Helper()
	if !changed {
		t.Fatalf("nothing changed in %+v", r)
	}
	return r
}

func apply(t *testing.T, r Record, rep Report, now time.Time) Record {
	t.Helper()
	next, changed := Apply(r, rep, now)
	return must(t, next, changed)
}

func TestALife(t *testing.T) {
	t.Parallel()
	r := New(web)
	if r.Status.LastStatus != Provisioning || r.DesiredStatus() != Running || r.Version() != 1 || r.Status.Attachment != Precreated {
		t.Fatalf("new: %+v", r)
	}
	if bare := New(Facts{Containers: web.Containers}); bare.Status.LastStatus != Pending || bare.Status.Attachment != "" {
		t.Fatalf("without an interface: %+v", bare)
	}

	r = apply(t, r, Report{Version: 1, LastStatus: Pending, Attachment: Attached, PullStartedAt: at(1)}, at(2))
	if r.Status.LastStatus != Pending || r.Version() != 2 || !r.Status.ConnectedAt.Equal(at(2)) {
		t.Fatalf("pending: %+v", r)
	}
	running := Report{
		Version: 2, LastStatus: Running, PullStartedAt: at(1), PullStoppedAt: at(3), StartedAt: at(4),
		Containers: []ContainerReport{
			{Name: "app", LastStatus: ContainerRunning, RuntimeID: "x", ImageDigest: "sha256:1", Health: Healthy},
			{Name: "~internal~pause", LastStatus: ContainerRunning},
		},
	}
	r = apply(t, r, running, at(5))
	if r.Status.LastStatus != Running || r.Health() != Healthy || len(r.Status.Containers) != 2 {
		t.Fatalf("running: %+v", r)
	}
	if _, ok := r.Stop(); ok {
		t.Fatal("a running task has a stop cause")
	}
	if again, changed := Apply(r, running, at(9)); changed || !reflect.DeepEqual(again, r) {
		t.Fatal("a repeated report changed the record")
	}
	before := r.Version()
	running.Version = 3
	if same, changed := Apply(r, running, at(9)); !changed || same.Version() != before {
		t.Fatal("a newer report without news must be recorded and make no event")
	}

	stopped := running
	stopped.Version, stopped.LastStatus = 4, Stopped
	stopped.ExecutionStoppedAt, stopped.StoppedAt = at(20), at(22)
	stopped.Containers = []ContainerReport{{Name: "app", LastStatus: ContainerStopped, ExitCode: code(3)}}
	r = apply(t, r, stopped, at(23))
	cause, _ := r.Stop()
	if cause != (Cause{Code: EssentialContainerExited, Reason: "Essential container in task exited"}) {
		t.Errorf("cause %+v", cause)
	}
	if r.DesiredStatus() != Stopped || !r.StoppingAt().Equal(at(23)) || !r.Status.StoppedAt.Equal(at(22)) || r.Status.Attachment != Gone {
		t.Errorf("stopped: %+v", r)
	}
	if c := r.Status.Containers[1]; c.LastStatus != ContainerStopped || c.ExitCode != nil {
		t.Errorf("the sidecar, of which nothing was heard: %+v", c)
	}
	if _, changed := RequestStop(r, Cause{}, at(30)); changed {
		t.Error("a stopped task took a request to stop")
	}
}

func TestStopCauses(t *testing.T) {
	t.Parallel()
	user := Cause{Code: UserInitiated, Reason: "maintenance"}
	exit := func(c *int32, reason string) []ContainerReport {
		return []ContainerReport{{Name: "app", LastStatus: ContainerStopped, ExitCode: c, Reason: reason}}
	}
	for _, c := range []struct {
		name   string
		before *Cause
		report Report
		want   Cause
	}{
		{"pull failed", nil,
			Report{LastStatus: Stopped, Reason: "CannotPullContainerError: no such image", Containers: exit(nil, "CannotPullContainerError: no such image")},
			Cause{Code: TaskFailedToStart, Reason: "CannotPullContainerError: no such image"}},
		{"pull failed, said of the container only", nil,
			Report{LastStatus: Stopped, Containers: exit(nil, "CannotPullContainerError: no such image")},
			Cause{Code: TaskFailedToStart, Reason: "CannotPullContainerError: no such image"}},
		{"stopped without a word", nil, Report{LastStatus: Stopped}, Cause{Code: TaskFailedToStart, Reason: "Task failed to start"}},
		{"over before it was seen running", nil,
			Report{LastStatus: Stopped, Containers: exit(code(0), "")},
			Cause{Code: EssentialContainerExited, Reason: "Essential container in task exited"}},
		{"killed for memory", nil,
			Report{LastStatus: Stopping, StartedAt: at(1), Containers: exit(code(137), "OutOfMemoryError: Container killed due to memory usage")},
			Cause{Code: EssentialContainerExited, Reason: "Essential container in task exited"}},
		{"exit known, task still running", nil,
			Report{LastStatus: Running, StartedAt: at(1), Containers: exit(code(1), "")},
			Cause{Code: EssentialContainerExited, Reason: "Essential container in task exited"}},
		{"the user was first", &user,
			Report{LastStatus: Stopped, StartedAt: at(1), Containers: exit(code(143), "")}, user},
		{"the user was first, while it failed to start", &user,
			Report{LastStatus: Stopped, Reason: "CannotPullContainerError: canceled"}, user},
		{"the user had nothing to say", &Cause{Code: UserInitiated},
			Report{LastStatus: Stopped}, Cause{Code: UserInitiated, Reason: "Task stopped by user"}},
		{"the service", &Cause{Code: ServiceSchedulerInitiated, Reason: "Scaling activity initiated by (deployment ecs-svc/1)"},
			Report{LastStatus: Stopped}, Cause{Code: ServiceSchedulerInitiated, Reason: "Scaling activity initiated by (deployment ecs-svc/1)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := New(web)
			if c.before != nil {
				r, _ = RequestStop(r, *c.before, at(1))
				if !r.StoppingAt().Equal(at(1)) || r.Version() != 2 || r.Status.LastStatus != Provisioning {
					t.Fatalf("after the request: %+v", r)
				}
			}
			c.report.Version = 1
			r = apply(t, r, c.report, at(5))
			if got, ok := r.Stop(); !ok || got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestAbandon(t *testing.T) {
	t.Parallel()
	gone := Cause{Code: TerminationNotice, Reason: "Host EC2 (instance i-1) terminated."}
	r, _ := Apply(New(web), Report{Version: 1, LastStatus: Running}, at(1))
	r, changed := Abandon(r, gone, at(9))
	r = must(t, r, changed)
	if cause, _ := r.Stop(); cause != gone || r.Status.LastStatus != Stopped || !r.Status.StoppedAt.Equal(at(9)) {
		t.Fatalf("%+v", r)
	}
	if _, changed := Abandon(r, gone, at(10)); changed {
		t.Error("abandoned twice")
	}
	wanted, _ := RequestStop(New(web), Cause{Code: UserInitiated, Reason: "enough"}, at(1))
	wanted, _ = Abandon(wanted, gone, at(9))
	if cause, _ := wanted.Stop(); cause.Reason != "enough" {
		t.Errorf("the request's cause was lost: %+v", cause)
	}
}

func TestAStatusWithoutContainersIsFilledIn(t *testing.T) {
	t.Parallel()
	r := Record{Facts: web, Status: Status{LastStatus: Pending}}
	r = apply(t, r, Report{Version: 1, LastStatus: Running}, at(1))
	if len(r.Status.Containers) != 2 || r.Status.Containers[1].Name != "sidecar" {
		t.Fatalf("%+v", r.Status)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	member := func(essential, checked bool) Member { return Member{Essential: essential, HasHealthCheck: checked} }
	for _, c := range []struct {
		members []Member
		healths []Health
		want    Health
	}{
		{[]Member{member(true, false)}, []Health{Healthy}, Unknown},
		{[]Member{member(false, true)}, []Health{Unhealthy}, Unknown},
		{[]Member{member(true, true), member(false, true)}, []Health{Healthy, Unhealthy}, Healthy},
		{[]Member{member(true, true), member(true, true)}, []Health{Healthy, Unknown}, Unknown},
		{[]Member{member(true, true), member(true, true)}, []Health{Unknown, Unhealthy}, Unhealthy},
	} {
		r := New(Facts{Containers: c.members})
		for i, h := range c.healths {
			r.Status.Containers[i].Health = h
		}
		if got := r.Health(); got != c.want {
			t.Errorf("%v %v: %s, want %s", c.members, c.healths, got, c.want)
		}
	}
}

func TestTrimReason(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", " a ", strings.Repeat("ü", 2000), "bad \xff utf-8", strings.Repeat("a", 1024)} {
		got := TrimReason(s)
		if n := utf8.RuneCountInString(got); n > ReasonLimit || !utf8.ValidString(got) {
			t.Errorf("%d characters, valid: %v", n, utf8.ValidString(got))
		}
	}
	if got := TrimReason(strings.Repeat("ü", 2000)); got != strings.Repeat("ü", 1024) {
		t.Errorf("cut to %d bytes", len(got))
	}
}

func TestStatusSurvivesJSON(t *testing.T) {
	t.Parallel()
	r, _ := Apply(New(web), Report{
		Version: 7, LastStatus: Stopped, StartedAt: at(1),
		Containers: []ContainerReport{{Name: "app", LastStatus: ContainerStopped, ExitCode: code(0), Bindings: []Binding{{BindIP: "0.0.0.0", ContainerPort: 80, HostPort: 32768, Protocol: "tcp"}}}},
	}, at(5))
	b, err := json.Marshal(r.Status)
	if err != nil {
		t.Fatal(err)
	}
	var back Status
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, r.Status) {
		t.Fatalf("%v: %s", err, b)
	}
}

func TestParseState(t *testing.T) {
	t.Parallel()
	if _, ok := ParseState("RUNNING"); !ok {
		t.Error("RUNNING is a state")
	}
	for _, s := range []string{"", "running", "GONE"} {
		if _, ok := ParseState(s); ok {
			t.Errorf("%q is none", s)
		}
	}
}
