package agent

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// drive plays a machine's own steps, all with success, until none is left to take; saves succeed at
// once. It returns the steps in order.
func drive(m *machine, now *time.Time) (taken []string) {
	for range 1000 {
		m.advance(*now)
		if due, _ := m.saveDue(*now); due {
			m.handOver()
			m.saved = m.handed
			continue
		}
		steps, _ := m.plan(*now)
		if len(steps) == 0 {
			return taken
		}
		for _, s := range steps {
			m.begin(s, *now)
		}
		for _, s := range steps {
			name := string(s.kind)
			if s.container != theTask {
				name = fmt.Sprintf("%s %d", s.kind, s.container)
			}
			taken = append(taken, name)
			m.finish(s, success(m, s, *now), *now)
		}
	}
	panic("the machine does not come to rest")
}

func success(m *machine, s step, now time.Time) result {
	switch s.kind {
	case doPull:
		return result{image: Image{Ref: m.task.Containers[s.container].Image, Digest: "sha256:1"}}
	case doStart:
		return result{at: now}
	case doInspect:
		c := m.p.Containers[s.container]
		st := ContainerState{Phase: PhaseRunning, StartedAt: c.StartedAt}
		if !m.killed[s.container].IsZero() || m.done[step{doSignal, s.container}] {
			st = ContainerState{Phase: PhaseStopped, ExitCode: 143, StartedAt: c.StartedAt}
		}
		return result{state: st, found: c.Started}
	}
	return result{}
}

func TestMachineOrder(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	m := newMachine(awsvpc(testTask("a", 2)), nil, false)
	m.stopTimeout = 30 * time.Second
	want := []string{
		"pull 0", "attach 0", "pull 1", "attach 1", "prepare", "network", // together
		"admit",
		"create 0", "create 1", // together
		"start 0", "start 1", // together
	}
	if got := drive(m, &now); !slices.Equal(got, want) {
		t.Fatalf("launch: %q, want %q", got, want)
	}
	if got := m.p.lastStatus(); got != statusRunning {
		t.Fatalf("status %s", got)
	}
	m.stop("over", now)
	want = []string{"signal 0", "signal 1"}
	if got := drive(m, &now); !slices.Equal(got, want) {
		t.Fatalf("stop: %q, want %q", got, want)
	}
	m.hint(0, false)
	m.hint(1, false)
	want = []string{"inspect 0", "inspect 1", "delete 0", "delete 1", "detach 0", "detach 1", "teardown", "remove", "files"}
	if got := drive(m, &now); !slices.Equal(got, want) {
		t.Fatalf("clearing: %q, want %q", got, want)
	}
	if got := m.p.lastStatus(); got != statusStopped {
		t.Fatalf("status %s", got)
	}
}

// One launch makes two saves: the assignment's, which nothing but the start waits for, and that of
// RUNNING, for which nothing waits.
func TestLaunchSavesTwice(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	m := newMachine(awsvpc(testTask("a", 1)), nil, false)
	saves := 0
	for range 100 {
		m.advance(now)
		if due, _ := m.saveDue(now); due {
			saves++
			m.handOver()
			m.saved = m.handed
		}
		steps, _ := m.plan(now)
		for _, s := range steps {
			m.begin(s, now)
			m.finish(s, success(m, s, now), now)
		}
	}
	if saves != 2 || m.p.lastStatus() != statusRunning {
		t.Fatalf("%d saves until %s", saves, m.p.lastStatus())
	}
}

// TestMachineNeverLies plays arbitrary results, hints, stops, saves and crashes against the machine
// alone, and checks each plan against what must hold whatever happened.
func TestMachineNeverLies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Unix(1e9, 0)
		task := testTask("a", rapid.IntRange(1, 3).Draw(rt, "containers"))
		if rapid.Bool().Draw(rt, "awsvpc") {
			awsvpc(task)
		}
		m := newMachine(task, nil, false)
		m.stopTimeout = 30 * time.Second
		var durable *progress // what a crash leaves
		rank := 0
		for range rapid.IntRange(1, 80).Draw(rt, "moves") {
			m.advance(now)
			if r := slices.Index(statusOrder, m.p.lastStatus()); r < rank {
				rt.Fatalf("from %s back to %s", statusOrder[rank], statusOrder[r])
			} else {
				rank = r
			}
			if m.p.Stopping && m.p.StopReason == "" {
				rt.Fatal("stopping without a cause")
			}
			steps, wake := m.plan(now)
			for _, s := range steps {
				check(rt, m, s, durable)
				m.begin(s, now)
			}
			_, saveAt := m.saveDue(now)
			if len(m.running) == 0 && wake.IsZero() && saveAt.IsZero() && m.handed == m.changed && m.saved >= m.urgent &&
				!m.over() && m.alive() == 0 {
				rt.Fatalf("waits for nothing: %+v", m.p)
			}
			switch rapid.SampledFrom([]string{"result", "result", "result", "result", "save", "save", "time", "hint", "stop", "crash"}).Draw(rt, "move") {
			case "result":
				var open []step
				for s := range m.running {
					open = append(open, s)
				}
				if len(open) == 0 {
					continue
				}
				slices.SortFunc(open, func(a, b step) int {
					return slices.Compare([]byte(fmt.Sprint(a)), []byte(fmt.Sprint(b)))
				})
				s := rapid.SampledFrom(open).Draw(rt, "step")
				r := success(m, s, now)
				if rapid.IntRange(0, 9).Draw(rt, "luck") == 0 {
					r = result{err: errors.New("bad luck")}
				}
				m.finish(s, r, now)
			case "save":
				m.handOver()
				m.saved = m.handed
				p, err := decodeProgress(m.encoded, len(task.Containers))
				if err != nil {
					rt.Fatal(err)
				}
				durable = p
			case "time":
				now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(rt, "s")) * time.Second)
			case "hint":
				m.hint(rapid.IntRange(0, len(task.Containers)-1).Draw(rt, "container"), rapid.Bool().Draw(rt, "oom"))
			case "stop":
				stopped := cloneTask(m.task)
				stopped.DesiredStatus = statusStopped
				m.assign(stopped)
			case "crash":
				if durable == nil || len(m.running) > 0 {
					continue // the whole agent's crashes are TestAnythingMayHappen's
				}
				b, _ := encodeProgress(durable)
				p, err := decodeProgress(b, len(task.Containers))
				if err != nil {
					rt.Fatal(err)
				}
				m = newMachine(m.task, p, true)
				m.stopTimeout = 30 * time.Second
				rank = slices.Index(statusOrder, p.lastStatus())
			}
		}
	})
}

// check holds a planned step against the rules.
func check(rt *rapid.T, m *machine, s step, durable *progress) {
	if m.running[s] {
		rt.Fatalf("%v is planned while it runs", s)
	}
	switch s.kind {
	case doPull, doCreate, doStart, doNetwork, doAdmit, doPrepare:
		if m.p.Stopping {
			rt.Fatalf("%v is planned for a task that stops", s)
		}
	}
	switch s.kind {
	case doStart:
		if durable == nil {
			rt.Fatal("started before its assignment is durable")
		}
		if m.p.Containers[s.container].Started {
			rt.Fatal("started again")
		}
	case doCreate:
		if m.p.Containers[s.container].Started {
			rt.Fatal("created after it was started")
		}
	case doKill:
		c := m.p.Containers[s.container]
		if c.SignaledAt.IsZero() {
			rt.Fatal("killed without a warning")
		}
	case doDelete, doDetach, doTeardown, doRemove, doFiles:
		if durable == nil || !durable.Stopping || !durable.Clearing {
			rt.Fatalf("%v is planned before it is durable that the task stops", s)
		}
		for i, c := range durable.Containers {
			if c.Started != m.p.Containers[i].Started || c.Exited != m.p.Containers[i].Exited || c.Started && !c.Exited {
				rt.Fatalf("%v is planned before all exits are durable", s)
			}
		}
		if m.launching() {
			rt.Fatalf("%v is planned during the launch", s)
		}
	}
}

func TestPermanentPullErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"docker.io/library/nope:latest: not found":                      true,
		"pull access denied, repository does not exist":                 true,
		"unexpected status from HEAD request: 401 Unauthorized":         true,
		"the image is corrupt: blob sha256:… has another digest":        true,
		"no match for platform in manifest":                             true,
		"dial tcp 127.0.0.1:5000: connect: connection refused":          false,
		"unexpected status from GET request: 503 Service Unavailable":   false,
		"unexpected status from GET request: 429 Too Many Requests":     false,
		"read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset":     false,
		"lookup registry.example: Temporary failure in name resolution": false,
	} {
		if got := permanent(errors.New(text)); got != want {
			t.Errorf("permanent(%q) = %v", text, got)
		}
	}
}

func TestReasonIsTrimmed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.StringN(0, 2000, 4000).Draw(rt, "reason")
		got := trim(s)
		if len(got) > maxReason || s[:len(got)] != got || len(s) <= maxReason && got != s || len(s) > maxReason && len(got) < maxReason-3 {
			rt.Fatalf("%d bytes became %d", len(s), len(got))
		}
	})
}

func TestReportOfHostPorts(t *testing.T) {
	t.Parallel()
	task := testTask("a", 1)
	task.NetworkMode = networkHost
	task.Containers[0].PortMappings = []*dispatchpb.PortMapping{{ContainerPort: 80, HostPort: 80, Protocol: "tcp"}}
	p := &progress{Containers: []containerProgress{{}}}
	if st := report(task, p); len(st.Containers[0].NetworkBindings) != 0 || st.LastStatus != statusActivating {
		t.Fatalf("before the start: %v", st)
	}
	p.Containers[0].Started, p.Containers[0].StartedAt = true, time.Now()
	if st := report(task, p); len(st.Containers[0].NetworkBindings) != 1 || st.Containers[0].RuntimeId == "" {
		t.Fatalf("after the start: %v", st)
	}
}
