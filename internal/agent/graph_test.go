package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func depends(c *dispatchpb.Container, on, condition string) {
	c.DependsOn = append(c.DependsOn, &dispatchpb.Dependency{Container: on, Condition: condition})
}

func TestGraphRefusesCircles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(task *dispatchpb.Task)
		want   string
	}{
		"none":        {func(*dispatchpb.Task) {}, ""},
		"itself":      {func(task *dispatchpb.Task) { depends(task.Containers[0], "c0", "START") }, "on itself"},
		"nobody":      {func(task *dispatchpb.Task) { depends(task.Containers[0], "c9", "START") }, `"c9", which the task does not have`},
		"no such way": {func(task *dispatchpb.Task) { depends(task.Containers[0], "c1", "READY") }, `unknown condition "READY"`},
		"circle of three": {func(task *dispatchpb.Task) {
			depends(task.Containers[0], "c1", "START")
			task.Containers[1].Links = []string{"c2:db"}
			task.Containers[2].VolumesFrom = []*dispatchpb.VolumesFrom{{Container: "c0"}}
		}, "in a circle"},
		"diamond": {func(task *dispatchpb.Task) {
			depends(task.Containers[0], "c1", "HEALTHY")
			depends(task.Containers[0], "c2", "COMPLETE")
			depends(task.Containers[1], "c2", "START")
		}, ""},
	} {
		task := testTask("a", 3)
		c.change(task)
		err := checkAssignment(task)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestOutlook(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	began := now.Add(-time.Minute)
	for _, c := range []struct {
		condition string
		s         standing
		ready     bool
		never     string
		until     time.Time
	}{
		{condition: "CREATE", s: standing{}},
		{condition: "CREATE", s: standing{created: true}, ready: true},
		{condition: "START", s: standing{created: true}},
		{condition: "START", s: standing{started: true}, ready: true},
		{condition: "START", s: standing{started: true, ended: true, exitCode: 1}, ready: true},
		{condition: "START", s: standing{ended: true, exitCode: -1}, never: neverStarts},
		{condition: "START", s: standing{startedAt: began, startTimeout: time.Second}},
		{condition: "COMPLETE", s: standing{started: true}},
		{condition: "COMPLETE", s: standing{started: true, ended: true, exitCode: 3}, ready: true},
		{condition: "COMPLETE", s: standing{ended: true, exitCode: 143}, never: neverStarts},
		{condition: "COMPLETE", s: standing{started: true, startedAt: began, startTimeout: time.Minute}, never: neverTimedOut},
		{condition: "COMPLETE", s: standing{started: true, startedAt: began, startTimeout: 61 * time.Second}, until: now.Add(time.Second)},
		{condition: "COMPLETE", s: standing{started: true, ended: true, startedAt: began, startTimeout: time.Second}, ready: true},
		{condition: "SUCCESS", s: standing{started: true, ended: true}, ready: true},
		{condition: "SUCCESS", s: standing{started: true, ended: true, exitCode: 1}, never: neverExited},
		{condition: "SUCCESS", s: standing{started: true, ended: true, exitCode: -1}, never: neverExited},
		{condition: "HEALTHY", s: standing{started: true, health: healthUnknown}},
		{condition: "HEALTHY", s: standing{started: true, health: healthUnhealthy}},
		{condition: "HEALTHY", s: standing{started: true, health: healthHealthy}, ready: true},
		{condition: "HEALTHY", s: standing{started: true, ended: true, health: healthUnhealthy}, never: neverHealthy},
		{condition: "HEALTHY", s: standing{started: true, health: healthUnhealthy, startedAt: began, startTimeout: time.Second}, never: neverTimedOut},
	} {
		task := testTask("a", 2)
		task.Containers[0].DependsOn = []*dispatchpb.Dependency{{Container: "c1", Condition: c.condition}}
		if c.condition == "CREATE" {
			task.Containers[0].DependsOn, task.Containers[0].VolumesFrom = nil, []*dispatchpb.VolumesFrom{{Container: "c1"}}
		}
		g, err := newGraph(task)
		if err != nil {
			t.Fatal(err)
		}
		got := g.outlook(0, func(int) standing { return c.s }, now)
		if got.ready != c.ready || got.never != c.never || !got.until.Equal(c.until) {
			t.Errorf("%s of %+v: %+v", c.condition, c.s, got)
		}
	}
}

// randomTask draws a definition whose containers may depend on earlier ones in every way.
func randomTask(rt *rapid.T, name string, most int) *dispatchpb.Task {
	task := testTask(name, rapid.IntRange(1, most).Draw(rt, "containers"))
	for i, c := range task.Containers {
		c.Essential = i == 0 || rapid.Bool().Draw(rt, "essential")
		c.StopTimeoutSeconds = rapid.Int64Range(0, 5).Draw(rt, "stopTimeout")
		c.StartTimeoutSeconds = rapid.SampledFrom([]int64{0, 2, 30}).Draw(rt, "startTimeout")
		if rapid.Bool().Draw(rt, "check") {
			c.HealthCheck = &dispatchpb.HealthCheck{
				Command:         []string{"CMD", "ok"},
				IntervalSeconds: 5, TimeoutSeconds: 2, Retries: 2, StartPeriodSeconds: rapid.SampledFrom([]int64{0, 12}).Draw(rt, "startPeriod"),
			}
		}
		if rapid.IntRange(0, 2).Draw(rt, "restart") == 0 {
			c.RestartPolicy = &dispatchpb.RestartPolicy{Enabled: true, IgnoredExitCodes: []int32{7}, AttemptPeriodSeconds: 2}
		}
	}
	order := rapid.Permutation(indexes(len(task.Containers))).Draw(rt, "order")
	for k, i := range order {
		for _, on := range order[:k] {
			c, d := task.Containers[i], task.Containers[on]
			switch rapid.IntRange(0, 9).Draw(rt, "depends") {
			case 0:
				depends(c, d.Name, conditionStart)
			case 1:
				depends(c, d.Name, conditionComplete)
			case 2:
				depends(c, d.Name, conditionSuccess)
			case 3:
				if d.HealthCheck != nil {
					depends(c, d.Name, conditionHealthy)
				}
			case 4:
				c.Links = append(c.Links, d.Name)
			case 5:
				c.VolumesFrom = append(c.VolumesFrom, &dispatchpb.VolumesFrom{Container: d.Name})
			}
		}
	}
	return task
}

func indexes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// scene is a machine with a host that is all in the test's hands: what each container's process does, and
// which steps fail.
type scene struct {
	m       *machine
	now     time.Time
	phase   []ContainerState
	found   []bool
	durable *progress
	wrong   []string
	// what begins and what is signaled, as it happens
	sequence []string
}

func newScene(task *dispatchpb.Task) *scene {
	n := len(task.Containers)
	s := &scene{now: time.Unix(1e9, 0), phase: make([]ContainerState, n), found: make([]bool, n)}
	s.m = newMachine(task, nil, false)
	s.m.stopTimeout = 30 * time.Second
	return s
}

func (s *scene) save() {
	s.m.handOver()
	s.m.saved = s.m.handed
	p, err := decodeProgress(s.m.encoded, len(s.m.task.Containers))
	if err != nil {
		s.wrong = append(s.wrong, err.Error())
	}
	s.durable = p
}

// crash leaves what was durable, and what the host has.
func (s *scene) crash() {
	if s.durable == nil {
		return
	}
	b, _ := encodeProgress(s.durable)
	p, err := decodeProgress(b, len(s.m.task.Containers))
	if err != nil {
		s.wrong = append(s.wrong, err.Error())
		return
	}
	s.m = newMachine(s.m.task, p, true)
	s.m.stopTimeout = 30 * time.Second
}

// do takes a step on the host: ok says whether it succeeds, code what a process exits with when it is
// told to stop, or what a check says.
func (s *scene) do(st step, ok bool, code int) result {
	if !ok && st.kind != doInspect {
		return result{err: fmt.Errorf("bad luck with %s", st.kind)}
	}
	r := result{}
	i := st.container
	switch st.kind {
	case doPull:
		r.image = Image{Ref: s.m.task.Containers[i].Image, Digest: "sha256:1"}
	case doCreate:
		if !s.found[i] {
			s.found[i], s.phase[i] = true, ContainerState{Phase: PhaseCreated}
		}
	case doStart:
		s.legalStart(i)
		if s.phase[i].Phase == PhaseCreated {
			s.phase[i] = ContainerState{Phase: PhaseRunning, StartedAt: s.now}
			s.sequence = append(s.sequence, fmt.Sprintf("start %d", i))
		}
		r.at = s.phase[i].StartedAt
	case doRestart:
		if s.phase[i].Phase == PhaseStopped {
			s.phase[i] = ContainerState{Phase: PhaseRunning, StartedAt: s.now}
		}
		r.at = s.phase[i].StartedAt
	case doSignal:
		s.legalStop(i)
		if s.phase[i].Phase == PhaseRunning && code%3 != 0 {
			s.end(i, 143)
		}
	case doKill:
		s.end(i, 137)
	case doInspect:
		r.state, r.found = s.phase[i], s.found[i]
	case doDelete:
		s.found[i] = false
	case doCheck:
		r.exitCode, r.restarts = code%2, s.m.p.Containers[i].RestartCount
	}
	return r
}

func (s *scene) end(i, code int) {
	if s.found[i] && s.phase[i].Phase == PhaseRunning {
		s.phase[i].Phase, s.phase[i].ExitCode, s.phase[i].FinishedAt = PhaseStopped, code, s.now
		s.m.hint(i, false)
	}
}

// legalStart checks what must hold when a container starts, by the host's own knowledge.
func (s *scene) legalStart(i int) {
	for _, n := range s.m.graph.needs[i] {
		c, p := s.m.task.Containers[n.on], &s.m.p.Containers[n.on]
		ok := true
		switch n.condition {
		case conditionCreate:
			ok = s.found[n.on] || p.Started
		case conditionStart:
			ok = p.Started
		case conditionComplete:
			ok = p.Started && p.Exited
		case conditionSuccess:
			ok = p.Started && p.Exited && p.ExitCode == 0
		case conditionHealthy:
			ok = p.Started && c.HealthCheck != nil // it was healthy once, which may be over
		}
		if !ok {
			s.wrong = append(s.wrong, fmt.Sprintf("c%d starts while %s is not %s: %+v", i, c.Name, n.condition, *p))
		}
	}
}

// legalStop checks that those that need a container are gone when it is told to stop.
func (s *scene) legalStop(i int) {
	for _, u := range s.m.graph.users[i] {
		if s.found[u] && s.phase[u].Phase == PhaseRunning {
			s.wrong = append(s.wrong, fmt.Sprintf("c%d is told to stop while c%d, which needs it, runs", i, u))
		}
	}
	s.sequence = append(s.sequence, fmt.Sprintf("signal %d", i))
}

// TestDependenciesAreKept is the graph's safety and liveness: whatever definition, whatever fails, exits or
// crashes, containers start and stop in a legal order, and the task comes to an end in bounded time once
// it is to stop, or by itself when something that it needs will never be.
func TestDependenciesAreKept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := newScene(randomTask(rt, "a", 6))
		turns := rapid.IntRange(10, 300).Draw(rt, "turns")
		misfortune := rapid.SampledFrom([]int{0, 0, 1, 10}).Draw(rt, "misfortune") // in a hundred steps
		stopped := false
		for turn := 0; !s.m.over(); turn++ {
			if turn > turns+2000 {
				rt.Fatalf("the task does not end: %+v\nwaiting %v", s.m.p, s.m.waiting(s.now))
			}
			lucky := turn > turns
			if lucky && !stopped {
				stopped = true
				end := cloneTask(s.m.task)
				end.DesiredStatus = statusStopped
				s.m.assign(end)
			}
			s.m.advance(s.now)
			if s.m.changed != s.m.handed && (lucky || rapid.Bool().Draw(rt, "save")) {
				s.save()
			}
			steps, wake := s.m.plan(s.now)
			for _, st := range steps {
				s.m.begin(st, s.now)
			}
			var open []step
			for st := range s.m.running {
				open = append(open, st)
			}
			slices.SortFunc(open, func(a, b step) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			// Nothing waits in silence: where there is nothing to do, there is a reason or nothing to wait for.
			if len(open) == 0 && (s.m.p.StartedAt.IsZero() || s.m.p.Stopping) && !s.m.over() && len(s.m.waiting(s.now)) == 0 {
				rt.Fatalf("waits without a reason: %+v", s.m.p)
			}
			move := "result"
			if !lucky {
				move = rapid.SampledFrom([]string{"result", "result", "result", "result", "result", "result", "results", "results", "time", "exit", "crash"}).Draw(rt, "move")
			}
			switch {
			case move == "result" && len(open) > 0:
				st := open[turn%len(open)]
				if !lucky {
					st = rapid.SampledFrom(open).Draw(rt, "step")
				}
				ok := lucky || rapid.IntRange(1, 100).Draw(rt, "luck") > misfortune
				code := 1
				if !lucky {
					code = rapid.IntRange(0, 5).Draw(rt, "code")
				}
				s.m.finish(st, s.do(st, ok, code), s.now)
			case move == "results":
				for _, st := range open {
					if st.kind != doSignal {
						s.m.finish(st, s.do(st, true, 0), s.now)
					}
				}
			case move == "exit":
				s.end(rapid.IntRange(0, len(s.phase)-1).Draw(rt, "container"), rapid.SampledFrom([]int{0, 0, 1, 7}).Draw(rt, "code"))
			case move == "crash":
				for _, st := range open {
					if rapid.Bool().Draw(rt, "unseen") {
						s.do(st, true, 1) // it was done, and nobody could take a note
					}
				}
				s.crash()
			case lucky && !wake.IsZero():
				s.now = wake
			default:
				s.now = s.now.Add(time.Second)
			}
			if len(s.wrong) > 0 {
				rt.Fatalf("%s\nafter %v", strings.Join(s.wrong, "\n"), s.sequence)
			}
		}
		for i := range s.phase {
			if s.found[i] && s.phase[i].Phase == PhaseRunning {
				rt.Fatalf("c%d runs after the end", i)
			}
		}
	})
}

// With no failures every task whose dependencies can be met starts all of its containers.
func TestEveryGraphStarts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		task := randomTask(rt, "a", 8)
		for _, c := range task.Containers {
			c.StartTimeoutSeconds, c.RestartPolicy = 0, nil
			c.Essential = true
		}
		// ECS lets nothing wait for the end of an essential container.
		for _, c := range task.Containers {
			for _, d := range c.DependsOn {
				if d.Condition == conditionComplete || d.Condition == conditionSuccess {
					for _, other := range task.Containers {
						if other.Name == d.Container {
							other.Essential = false
						}
					}
				}
			}
		}
		s := newScene(task)
		for turn := 0; s.m.p.StartedAt.IsZero(); turn++ {
			if turn > 3000 || s.m.p.Stopping {
				rt.Fatalf("the task does not run: %+v, waiting %v", s.m.p, s.m.waiting(s.now))
			}
			s.m.advance(s.now)
			s.save()
			steps, _ := s.m.plan(s.now)
			for _, st := range steps {
				s.m.begin(st, s.now)
				s.m.finish(st, s.do(st, true, 2), s.now)
			}
			if len(steps) == 0 {
				s.now = s.now.Add(time.Second)
				for i, c := range task.Containers {
					if !c.Essential && s.now.Sub(s.phase[i].StartedAt) > time.Minute { // healthy by then
						s.end(i, 0)
					}
				}
			}
		}
		if len(s.wrong) > 0 {
			rt.Fatal(strings.Join(s.wrong, "\n"))
		}
	})
}
