package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
	"github.com/berthhq/berth/test/image"
)

// lifeStates are a task's states in the order in which it goes through them; none is entered twice.
var lifeStates = []string{"PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"}

// moment is a task at some time, as DescribeTasks or an event shows it.
type moment struct {
	LastStatus, DesiredStatus string
	Version                   int64
	CreatedAt, PullStartedAt, PullStoppedAt, StartedAt, StoppingAt,
	ExecutionStoppedAt, StoppedAt *time.Time
}

// checkLife asserts that moments of one task go forward: states, version and times.
func checkLife(t *testing.T, source string, life []moment, strictly bool) {
	t.Helper()
	for i, m := range life {
		if !slices.Contains(lifeStates, m.LastStatus) {
			t.Errorf("%s: the status is %q", source, m.LastStatus)
		}
		times := []*time.Time{m.CreatedAt, m.PullStartedAt, m.PullStoppedAt, m.StartedAt, m.StoppingAt, m.ExecutionStoppedAt, m.StoppedAt}
		var last *time.Time
		for j, at := range times {
			if at != nil && last != nil && at.Before(*last) {
				t.Errorf("%s: time %d of %s is before the one before it", source, j, show(m))
			}
			if at != nil {
				last = at
			}
		}
		// A time is there exactly from the state on that it tells of.
		rank := slices.Index(lifeStates, m.LastStatus)
		for _, c := range []struct {
			at    *time.Time
			state string
			name  string
		}{{m.StartedAt, "RUNNING", "startedAt"}, {m.StoppedAt, "STOPPED", "stoppedAt"}} {
			if reached := rank >= slices.Index(lifeStates, c.state); c.at != nil && !reached || c.at == nil && reached {
				t.Errorf("%s: in %s, %s is %v", source, m.LastStatus, c.name, c.at)
			}
		}
		if i == 0 {
			continue
		}
		before := life[i-1]
		if rank < slices.Index(lifeStates, before.LastStatus) {
			t.Errorf("%s: %s comes after %s", source, m.LastStatus, before.LastStatus)
		}
		if before.DesiredStatus == "STOPPED" && m.DesiredStatus != "STOPPED" {
			t.Errorf("%s: desiredStatus went from STOPPED to %s", source, m.DesiredStatus)
		}
		if m.Version < before.Version || strictly && m.Version == before.Version {
			t.Errorf("%s: version %d comes after %d", source, m.Version, before.Version)
		}
		if m.LastStatus != before.LastStatus && m.Version == before.Version {
			t.Errorf("%s: %s and %s have the same version", source, before.LastStatus, m.LastStatus)
		}
	}
}

// events are a task's, oldest first.
func (w *world) events(task types.Task) (life []moment) {
	w.Helper()
	for line := range strings.Lines(w.b.Run("events", "--json")) {
		if !strings.Contains(line, id(task)) {
			continue
		}
		var e struct {
			DetailType string `json:"detail-type"`
			Resources  []string
			Detail     moment
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.DetailType != "ECS Task State Change" || !slices.Equal(e.Resources, []string{*task.TaskArn}) {
			w.Fatalf("event %s: %v", line, err)
		}
		life = append(life, e.Detail)
	}
	return life
}

// TestEveryState: a task seen as fast as it can be asked for, and through its events.
func TestEveryState(t *testing.T) {
	t.Parallel()
	for mode, states := range map[types.NetworkMode][]string{
		types.NetworkModeAwsvpc: {"PROVISIONING", "RUNNING", "DEPROVISIONING", "STOPPED"}, // with an interface to make
		types.NetworkModeNone:   {"PENDING", "RUNNING", "STOPPED"},
	} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			newWorld(t, plain(t)).everyState(mode, states)
		})
	}
}

// everyState follows a task from its start to its end, past states that the events must show.
func (w *world) everyState(mode types.NetworkMode, states []string) {
	task := w.run(w.define(func(in *taskDefinition) { in.NetworkMode = mode }, w.app("term", "7")))
	var life []moment
	harness.Poll(w, 60*time.Second, "the task to stop", func() bool {
		now := w.describe(task)
		life = append(life, moment{aws.ToString(now.LastStatus), aws.ToString(now.DesiredStatus), now.Version,
			now.CreatedAt, now.PullStartedAt, now.PullStoppedAt, now.StartedAt, now.StoppingAt, now.ExecutionStoppedAt, now.StoppedAt})
		if aws.ToString(now.LastStatus) == "RUNNING" && aws.ToString(now.DesiredStatus) == "RUNNING" {
			w.logs(task, contains("waiting"))
			w.stop(task, "")
		}
		return aws.ToString(now.LastStatus) == "STOPPED"
	})
	checkLife(w.T, "DescribeTasks", life, false)
	var events []moment
	harness.Poll(w, 20*time.Second, "the event of its end", func() bool {
		events = w.events(task)
		return len(events) > 0 && events[len(events)-1].LastStatus == "STOPPED"
	})
	checkLife(w.T, "events", events, true)
	for _, state := range states {
		if !slices.ContainsFunc(events, func(m moment) bool { return m.LastStatus == state }) {
			w.Errorf("no event says %s: %s", state, show(events))
		}
	}
	end := events[len(events)-1]
	if end.Version != life[len(life)-1].Version || end.StoppingAt == nil || end.ExecutionStoppedAt == nil || end.PullStartedAt == nil || end.PullStoppedAt == nil {
		w.Errorf("the last event is %s, DescribeTasks says %s", show(end), show(life[len(life)-1]))
	}
}

// TestStopReasons: stopCode, stoppedReason and the container's reason, to the letter where ECS has the letter.
func TestStopReasons(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	on := func(condition types.ContainerCondition) func(*container) {
		return func(c *container) {
			c.DependsOn = []types.ContainerDependency{{ContainerName: aws.String("needed"), Condition: condition}}
		}
	}
	of := func(file string) func(*container) {
		return func(c *container) {
			c.EnvironmentFiles = []types.EnvironmentFile{{Type: types.EnvironmentFileTypeS3, Value: aws.String("arn:aws:s3:::" + file)}}
		}
	}
	missing := w.image[:strings.LastIndexByte(w.image, ':')] + ":absent"
	long := strings.Repeat("because_", 31) + "so long" // 255 characters
	failed, essential, user := types.TaskStopCodeTaskFailedToStart, types.TaskStopCodeEssentialContainerExited, types.TaskStopCodeUserInitiated
	for about, c := range map[string]struct {
		containers []container
		stop       *string // how StopTask is called once it runs
		code       types.TaskStopCode
		reason     string // whole, or with … its beginning and end
		exit       *int32
	}{
		"exit 0":                  {[]container{w.shell("exit 0")}, nil, essential, "Essential container in task exited", aws.Int32(0)},
		"exit 255":                {[]container{w.shell("exit 255")}, nil, essential, "Essential container in task exited", aws.Int32(255)},
		"killed by a signal":      {[]container{w.shell(`sh -c 'kill -11 $$'; exit $?`)}, nil, essential, "Essential container in task exited", aws.Int32(139)},
		"stopped":                 {[]container{w.app("wait")}, aws.String(""), user, "Task stopped by user", aws.Int32(0)},
		"stopped for a reason":    {[]container{w.app("wait")}, aws.String("maintenance: “tonight”"), user, "maintenance: “tonight”", aws.Int32(0)},
		"stopped for a long one":  {[]container{w.app("wait")}, &long, user, long, aws.Int32(0)},
		"no such image":           {[]container{w.shell("x", func(c *container) { c.Image = &missing })}, nil, failed, "CannotPullContainerError: … not found", nil},
		"no such command":         {[]container{w.shell("x", func(c *container) { c.EntryPoint = []string{"/no/such"} })}, nil, failed, "CannotStartContainerError: … no such file or directory", nil},
		"no such user":            {[]container{w.shell("x", func(c *container) { c.User = aws.String("nobody-here") })}, nil, failed, "Cannot…", nil},
		"no such bucket":          {[]container{w.shell("x", of("no-such-bucket-"+strings.ToLower(label(t))+"/a.env"))}, nil, failed, "ResourceInitializationError: unable to download env file with key a.env from bucket …", nil},
		"dependency failed":       {[]container{w.shell("x", on("SUCCESS")), w.shell("exit 3", named("needed"), beside)}, nil, failed, "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency [needed(… as dependency did not exit successfully.", aws.Int32(143)},
		"dependency never starts": {[]container{w.shell("x", on("START")), w.shell("x", named("needed"), beside, func(c *container) { c.EntryPoint = []string{"/no/such"} })}, nil, failed, "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency [needed(… because dependency will never start", aws.Int32(143)},
		"dependency ends unhealthy": {[]container{w.shell("x", on("HEALTHY")), w.shell("exit 0", named("needed"), beside, func(c *container) {
			c.HealthCheck = &types.HealthCheck{Command: []string{"CMD", "/bin/false"}}
		})}, nil, failed, "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency [needed(… because dependency stopped before it was healthy", aws.Int32(143)},
		"startTimeout": {[]container{w.shell("x", on("COMPLETE")), w.shell("trap 'exit 0' TERM; sleep 1000 & wait", named("needed"), beside, func(c *container) { c.StartTimeout = aws.Int32(2) })}, nil, failed,
			"CannotStartContainerError: dependency graph: container ordering dependency [needed(… has timed out.", aws.Int32(143)},
	} {
		t.Run(about, func(t *testing.T) {
			t.Parallel()
			w := w.in(t)
			task := w.run(w.define(nil, c.containers...))
			if c.stop != nil {
				w.running(task)
				harness.Poll(t, 20*time.Second, "the container to wait", func() bool { return w.describe(task).StartedAt != nil })
				w.stop(task, *c.stop)
			}
			done := w.stopped(task)
			begin, end, open := strings.Cut(c.reason, "…")
			end = strings.TrimSpace(end)
			if got := aws.ToString(done.StoppedReason); !strings.HasPrefix(got, begin) || !strings.HasSuffix(got, end) || !open && got != c.reason || len(got) > 1024 {
				t.Errorf("stoppedReason is %q, not %q", got, c.reason)
			}
			if done.StopCode != c.code {
				t.Errorf("stopCode is %s, not %s", done.StopCode, c.code)
			}
			app := containerOf(done, "app")
			if show(app.ExitCode) != show(c.exit) && !(c.stop != nil && aws.ToInt32(app.ExitCode) == 143) {
				t.Errorf("exitCode is %s, not %s; reason %q", show(app.ExitCode), show(c.exit), aws.ToString(app.Reason))
			}
			if ran := c.code != failed; ran == (aws.ToString(app.Reason) != "") {
				t.Errorf("the container's reason is %q", aws.ToString(app.Reason))
			}
		})
	}
}

// TestStopSignalIsTheImages: a container is asked to stop with the signal that its image names.
func TestStopSignalIsTheImages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	registry := harness.NewRegistry(t)
	for _, signal := range []string{"SIGUSR1", "10", "USR1"} {
		ref := registry.Push(t, "berth/usr1:"+strings.ToLower(signal), harness.Image(t, image.Spec{
			Files: map[string]string{"/bin/busybox": "/bin/busybox"}, Links: map[string]string{"/bin/sh": "busybox", "/bin/sleep": "busybox"}, StopSignal: signal,
		}))
		task := w.run(w.define(nil, w.shell("trap 'echo terminated; exit 3' TERM; trap 'echo asked; exit 4' USR1; echo up; while :; do sleep 0.1; done", func(c *container) {
			c.Image, c.StopTimeout = &ref, aws.Int32(20)
		})))
		w.logs(w.running(task), contains("up"))
		w.stop(task, "")
		if code := exitCode(t, w.stopped(task), "app"); code != 4 {
			t.Errorf("STOPSIGNAL %s: exit code %d, want 4; it wrote %q", signal, code, w.b.Logs(id(task), "app"))
		}
	}
}

// clock prints a name and the machine's clock, in hundredths of a second.
func clock(name string) string { return `read up _ </proc/uptime; echo "` + name + ` $up"; ` }

// marks reads what clock printed, of every container of a task.
func (w *world) marks(task types.Task, containers ...string) map[string]float64 {
	w.Helper()
	out := map[string]float64{}
	for _, c := range containers {
		for _, line := range w.b.Logs(id(task), c) {
			name, at, ok := strings.Cut(line, " ")
			seconds, err := strconv.ParseFloat(at, 64)
			if !ok || err != nil {
				w.Fatalf("container %s wrote %q", c, line)
			}
			if _, twice := out[c+"."+name]; twice {
				w.Errorf("container %s said %s twice", c, name)
			}
			out[c+"."+name] = seconds
		}
	}
	return out
}

// ordered asserts that marks follow one another.
func ordered(t *testing.T, marks map[string]float64, names ...string) {
	t.Helper()
	for i, name := range names {
		at, ok := marks[name]
		if !ok {
			t.Errorf("no mark %s among %v", name, marks)
			return
		}
		if i > 0 && at < marks[names[i-1]] {
			t.Errorf("%s (%v) came before %s (%v)", name, at, names[i-1], marks[names[i-1]])
		}
	}
}

// TestChainOfTen: ten containers start one after the other, each when the one before it has, and stop in
// reverse, each after the one that needs it is gone.
func TestChainOfTen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	var chain []container
	var names, starts, stops []string
	for i := range 10 {
		name := fmt.Sprint("c", i)
		c := w.shell(`trap '`+clock("asked")+`sleep 0.1; `+clock("gone")+`exit 0' TERM; `+clock("up")+`while :; do sleep 0.05; done`, named(name))
		c.Memory, c.StopTimeout = aws.Int32(16), aws.Int32(30)
		if i > 0 {
			c.DependsOn = []types.ContainerDependency{{ContainerName: &names[i-1], Condition: types.ContainerConditionStart}}
		}
		chain, names = append(chain, c), append(names, name)
		starts = append(starts, name+".up")
		stops = append([]string{name + ".asked", name + ".gone"}, stops...)
	}
	task := w.run(w.define(nil, chain...))
	w.running(task)
	harness.Poll(t, 60*time.Second, "all to be up", func() bool { return len(w.marks(task, names...)) == len(names) })
	w.stop(task, "")
	done := w.stopped(task)
	marks := w.marks(task, names...)
	ordered(t, marks, stops...)
	for _, c := range done.Containers {
		if aws.ToInt32(c.ExitCode) != 0 || c.ExitCode == nil {
			t.Errorf("container %s ended with %s %s", *c.Name, show(c.ExitCode), aws.ToString(c.Reason))
		}
	}
	// START promises the start of the process; what the process does first is up to the host's scheduler,
	// so the chain is held to the order of first and last only.
	ordered(t, marks, starts[0], starts[len(starts)-1])
}

// TestRestartCount: a container that exits is started again in place, and the count is what it sees of
// itself, DescribeTasks goes on saying RUNNING, and `berth explain` tells of it.
func TestRestartCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	task := w.running(w.run(w.define(bridged, w.shell(
		`if test -e /ran; then /testapp get "$ECS_CONTAINER_METADATA_URI_V4" | grep -o '"RestartCount":[0-9]*'; trap 'exit 0' TERM; while :; do sleep 0.1; done; fi; touch /ran; sleep 61; exit 9`,
		func(c *container) {
			c.RestartPolicy = &types.ContainerRestartPolicy{Enabled: aws.Bool(true), RestartAttemptPeriod: aws.Int32(60)}
		}))))
	started := *task.StartedAt
	harness.Poll(t, 150*time.Second, "the second run to tell its count", func() bool {
		return slices.Contains(w.b.Logs(id(task), "app"), `"RestartCount":1`)
	})
	now := w.describe(task)
	if aws.ToString(now.LastStatus) != "RUNNING" || now.Containers[0].ExitCode != nil || !now.StartedAt.Equal(started) {
		t.Errorf("after a restart the task is %s, its container %s", aws.ToString(now.LastStatus), show(now.Containers))
	}
	if text := w.b.Run("explain", id(task)); !strings.Contains(text, "restart") {
		t.Errorf("the explanation does not tell of the restart:\n%s", text)
	}
}

// TestHealthOutlivesBerth: transitions of health while Berth is dead, or just after, are told; what was
// known before is not forgotten.
func TestHealthOutlivesBerth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Start(t, harness.Options{}))
	token := "token-" + label(t)
	task := w.run(w.define(nil, w.shell(`trap 'busybox rm /well' USR1; trap 'touch /well' USR2; trap 'exit 0' TERM; touch /well; while :; do sleep 0.1; done`, func(c *container) {
		c.Command = append(c.Command, token)
		c.HealthCheck = &types.HealthCheck{Command: []string{"CMD-SHELL", "busybox test -e /well"}, Interval: aws.Int32(5), Timeout: aws.Int32(5), Retries: aws.Int32(1)}
	})))
	health := func(want types.HealthStatus) {
		t.Helper()
		harness.Poll(t, 60*time.Second, "the task to be "+string(want), func() bool {
			now := w.describe(task)
			if now.HealthStatus != types.HealthStatusUnknown && now.HealthStatus != now.Containers[0].HealthStatus {
				t.Errorf("the task is %s, its one container %s", now.HealthStatus, now.Containers[0].HealthStatus)
			}
			return now.HealthStatus == want
		})
	}
	signal := func(s syscall.Signal) {
		t.Helper()
		p, ok := harness.FindProcess(token)
		if !ok {
			t.Fatal("the container's process is not to be found")
		}
		syscall.Kill(p.Pid, s)
	}
	health(types.HealthStatusHealthy)
	w.b.Kill()
	signal(syscall.SIGUSR1)
	w.b.Up()
	if now := w.describe(task); now.HealthStatus == types.HealthStatusUnknown || aws.ToString(now.LastStatus) != "RUNNING" {
		t.Errorf("after Berth's restart the task is %s and %s", aws.ToString(now.LastStatus), now.HealthStatus)
	}
	health(types.HealthStatusUnhealthy)
	w.b.Kill()
	w.b.Up()
	if now := w.describe(task); now.HealthStatus != types.HealthStatusUnhealthy {
		t.Errorf("it was UNHEALTHY, and after Berth's restart it is %s", now.HealthStatus)
	}
	signal(syscall.SIGUSR2)
	health(types.HealthStatusHealthy)
	// ECS does not stop a task of no service for its health.
	if s := aws.ToString(w.describe(task).LastStatus); s != "RUNNING" {
		t.Errorf("the task is %s", s)
	}
}

// TestDependenciesWhileBerthDies: Berth is killed at random moments while containers wait for one another;
// none starts before what it needs, none runs twice, and they stop in order.
func TestDependenciesWhileBerthDies(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	w := newWorld(t, harness.Start(t, harness.Options{}))
	on := func(name string, condition types.ContainerCondition) func(*container) {
		return func(c *container) {
			c.DependsOn = append(c.DependsOn, types.ContainerDependency{ContainerName: &name, Condition: condition})
		}
	}
	stays := func(more string) string {
		return `trap '` + clock("asked") + `sleep 0.2; ` + clock("gone") + `exit 0' TERM; ` + clock("up") + more + `while :; do sleep 0.05; done`
	}
	ready := func(c *container) {
		c.HealthCheck = &types.HealthCheck{Command: []string{"CMD-SHELL", "busybox test -e /ready"}, Interval: aws.Int32(5), StartPeriod: aws.Int32(30)}
	}
	patient := func(c *container) { c.StopTimeout = aws.Int32(30) }
	definition := w.define(nil,
		w.shell(stays(""), patient, on("migrate", types.ContainerConditionSuccess), on("warm", types.ContainerConditionComplete), on("db", types.ContainerConditionStart)),
		w.shell(clock("up")+"sleep 0.3; "+clock("done")+"exit 0", named("migrate"), beside, on("db", types.ContainerConditionHealthy)),
		w.shell(clock("up")+"sleep 0.2; "+clock("done")+"exit 6", named("warm"), beside, on("db", types.ContainerConditionStart)),
		w.shell(stays("sleep 0.3; touch /ready; "+clock("ready")), named("db"), ready, patient),
	)
	die := func(most int) {
		after := time.Duration(random.IntN(most)) * time.Millisecond
		time.Sleep(after) // the moment is what is random
		t.Logf("killed after %s", after)
		w.b.Kill()
		w.b.Up()
	}
	for round := range 3 {
		task := w.run(definition)
		die(1200)
		die(6000)
		w.running(task)
		harness.Poll(t, 30*time.Second, "the last to be up", func() bool { return len(w.b.Logs(id(task), "app")) > 0 })
		w.stop(task, "")
		die(600)
		done := w.stopped(task)
		marks := w.marks(task, "app", "migrate", "warm", "db")
		ordered(t, marks, "db.up", "db.ready", "migrate.up", "migrate.done", "app.up", "app.asked", "app.gone", "db.asked", "db.gone")
		ordered(t, marks, "db.up", "warm.up", "warm.done", "app.up")
		for name, code := range map[string]int32{"app": 0, "migrate": 0, "warm": 6, "db": 0} {
			if got := exitCode(t, done, name); got != code {
				t.Errorf("container %s ended with %d, not %d", name, got, code)
			}
		}
		if done.StopCode != types.TaskStopCodeUserInitiated {
			t.Errorf("stopCode %s: %s", done.StopCode, aws.ToString(done.StoppedReason))
		}
		if t.Failed() {
			t.Fatalf("round %d, seed %d: %s", round, seed, show(done.Containers))
		}
	}
	list, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster})
	if err != nil || len(list.TaskArns) != 0 {
		t.Errorf("tasks are left: %v, %v", list.TaskArns, err)
	}
}
