package e2e

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// explanation is what `berth explain --json` prints, as far as scripts read it.
type explanation struct {
	Kind, ID, ARN, Cluster, Definition, LaunchType, Host, State, Desired, StopCode, StoppedReason, Why, Needs string
	At                                                                                                        time.Time
	Hints, Notes                                                                                              []string
	Waiting                                                                                                   []struct {
		Container, For, Then string
		Since, Deadline      time.Time
	}
	Timeline []struct {
		At                         time.Time
		Container, What, Cause, By string
	}
	Containers []struct {
		Name, Status, ExitMeaning, Reason, Health, HealthOutput string
		ExitCode                                                *int32
		Essential, OutOfMemory                                  bool
		Output                                                  []struct{ Stream, Text string }
	}
	Verdicts []struct {
		HostID, Hostname, Reason string
		Checks                   []struct {
			Filter, Detail string
			OK             bool
		}
	}
}

func (w *world) explain(ref string) explanation {
	w.Helper()
	out := w.b.Run("explain", "--json", ref)
	var e explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		w.Fatalf("explain --json %s: %v: %s", ref, err, out)
	}
	return e
}

// TestExplainStopped makes tasks fail in every way, and asks why. Afterwards everything of them that
// the API knew is removed, and asked again.
func TestExplainStopped(t *testing.T) {
	t.Parallel()
	b := harness.Start(t, harness.Options{Dev: true}) // whose account can be reset
	w := newWorld(t, b)
	takePort := func() int32 {
		taken, err := net.Listen("tcp", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { taken.Close() })
		return int32(taken.Addr().(*net.TCPAddr).Port)
	}
	port, mapped := takePort(), takePort()
	missing := harness.NewRegistry(t).Host + "/nothing/here:7"
	with := func(c container, change func(*container)) container { change(&c); return c }
	failures := map[string]struct {
		change     func(*taskDefinition)
		containers []container
		code       types.TaskStopCode
		why, hint  []string
		check      func(e explanation) bool
	}{
		"an exit code": {
			nil, []container{w.shell("echo about to fail; exit 41")}, types.TaskStopCodeEssentialContainerExited,
			[]string{`container "app" exited with 41`, "last output: about to fail"}, nil,
			func(e explanation) bool {
				c := e.Containers[0]
				return *c.ExitCode == 41 && c.Essential && len(c.Output) == 1 && c.Output[0].Text == "about to fail" && c.Output[0].Stream == "stdout"
			},
		},
		"a signal": {
			nil, []container{w.shell("(busybox sleep 0.1; busybox kill -9 -1) & wait; busybox sleep 1; exec /testapp exit 139")}, types.TaskStopCodeEssentialContainerExited,
			[]string{"139", "SIGSEGV"}, nil, func(e explanation) bool { return strings.Contains(e.Containers[0].ExitMeaning, "SIGSEGV") },
		},
		"no memory": {
			nil, []container{w.app("eat", "300")}, types.TaskStopCodeEssentialContainerExited,
			[]string{"ran out of memory (its limit is 64 MiB)"}, []string{`Raise memory of container "app" (64 MiB)`},
			func(e explanation) bool { return e.Containers[0].OutOfMemory && *e.Containers[0].ExitCode == 137 },
		},
		"no image": {
			nil, []container{with(w.app("wait"), func(c *container) { c.Image = &missing })}, types.TaskStopCodeTaskFailedToStart,
			[]string{"it never started: CannotPullContainerError"}, []string{"berth image import --from-docker " + missing},
			func(e explanation) bool { return e.Containers[0].ExitCode == nil },
		},
		"no program": {
			nil, []container{with(w.app(), func(c *container) { c.EntryPoint = []string{"/no/such/program"} })}, types.TaskStopCodeTaskFailedToStart,
			[]string{"it never started: Cannot", "/no/such/program"}, []string{"The program to run is not in the image"}, nil,
		},
		"no right to run it": {
			nil, []container{with(w.shell(""), func(c *container) { c.EntryPoint = []string{"/etc/hosts"} })}, types.TaskStopCodeTaskFailedToStart,
			[]string{"it never started: Cannot"}, []string{"is not executable"}, nil,
		},
		"a port in use": {
			hosted, []container{with(w.app("wait"), func(c *container) { c.PortMappings = []types.PortMapping{{ContainerPort: &port, HostPort: &port}} })}, types.TaskStopCodeTaskFailedToStart,
			[]string{"it never started", strconv.Itoa(int(port))}, []string{"Something else on the host listens on that port"}, nil,
		},
		"a mapped port in use": {
			bridged, []container{with(w.app("wait"), func(c *container) {
				c.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80), HostPort: &mapped}}
			})}, types.TaskStopCodeTaskFailedToStart,
			[]string{"it never started", strconv.Itoa(int(mapped))}, []string{"Something else on the host listens on that port"}, nil,
		},
		"a dependency": {
			nil, []container{with(w.app("wait"), func(c *container) {
				c.DependsOn = []types.ContainerDependency{{ContainerName: aws.String("migrate"), Condition: types.ContainerConditionSuccess}}
			}), w.shell("echo no table; exit 3", named("migrate"), beside)}, types.TaskStopCodeTaskFailedToStart,
			[]string{`it never started: container "app" depends on container "migrate", which did not exit successfully (exit code 3); its last output: no table`}, nil,
			func(e explanation) bool {
				return *e.Containers[1].ExitCode == 3 && len(e.Containers[1].Output) == 1 && e.Containers[1].Output[0].Text == "no table"
			},
		},
		"an environment file": {
			nil, []container{with(w.app("wait"), func(c *container) {
				c.EnvironmentFiles = []types.EnvironmentFile{{Type: types.EnvironmentFileTypeS3, Value: aws.String("arn:aws:s3:::no-such-bucket/a.env")}}
			})}, types.TaskStopCodeTaskFailedToStart,
			[]string{"it never started: ResourceInitializationError", "no-such-bucket"}, []string{"environment files"}, nil,
		},
	}
	tasks := map[string]types.Task{}
	for name, f := range failures {
		tasks[name] = w.run(w.define(f.change, f.containers...))
	}
	asked := w.runApp("wait")
	w.running(asked)
	w.stop(asked, "the test has seen enough")
	w.stopped(asked)

	check := func(when string) {
		for name, f := range failures {
			what := when + ", " + name
			task := tasks[name]
			e := w.explain(id(task))
			if e.Kind != "task" || e.ID != id(task) || e.ARN != *task.TaskArn || e.Cluster != w.cluster || e.State != "STOPPED" || e.Desired != "STOPPED" ||
				e.StopCode != string(f.code) || e.StoppedReason == "" || e.At.IsZero() || e.Host == "" || e.LaunchType != "EC2" || len(e.Waiting) > 0 {
				t.Errorf("%s: %s", what, show(e))
			}
			for _, word := range f.why {
				if !strings.Contains(e.Why, word) {
					t.Errorf("%s: why does not say %q: %s", what, word, e.Why)
				}
			}
			for _, word := range f.hint {
				if !strings.Contains(strings.Join(e.Hints, "\n"), word) {
					t.Errorf("%s: the hints do not say %q: %q", what, word, e.Hints)
				}
			}
			if f.check != nil && !f.check(e) {
				t.Errorf("%s: the containers are %s", what, show(e.Containers))
			}
			if n := len(e.Timeline); n < 3 || e.Timeline[0].What != "CREATED" || e.Timeline[0].By == "" || e.Timeline[n-1].What != "STOPPED" {
				t.Errorf("%s: the timeline is %s", what, show(e.Timeline))
			}
			for i := 1; i < len(e.Timeline); i++ {
				if e.Timeline[i].At.Before(e.Timeline[i-1].At) {
					t.Errorf("%s: the timeline goes back at step %d: %s", what, i, show(e.Timeline))
				}
			}
			// The same by the beginning of the ID and by the ARN, and in words.
			for _, ref := range []string{id(task)[:12], *task.TaskArn} {
				if other := w.explain(ref); other.Why != e.Why || other.ID != e.ID {
					t.Errorf("%s: %s is explained as %s", what, ref, show(other))
				}
			}
			text := b.Run("explain", id(task))
			first, _, _ := strings.Cut(text, "\n\n")
			if words := strings.Join(strings.Fields(first), " "); words != strings.Join(strings.Fields("STOPPED: "+e.Why), " ") {
				t.Errorf("%s: in words it begins with %q", what, words)
			}
			for _, part := range []string{"TIMELINE", "CONTAINERS", id(task), string(f.code)} {
				if !strings.Contains(text, part) {
					t.Errorf("%s: in words there is no %s:\n%s", what, part, text)
				}
			}
		}
		e := w.explain(id(asked))
		if e.StopCode != "UserInitiated" || !strings.Contains(e.Why, "the test has seen enough") || !strings.Contains(e.Why, "stopped it") {
			t.Errorf("%s, a stop that was asked for: %s", when, show(e))
		}
		var all []explanation
		if err := json.Unmarshal([]byte(b.Run("explain", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		for name, task := range tasks {
			if !slices.ContainsFunc(all, func(e explanation) bool { return e.ID == id(task) && e.Why != "" }) {
				t.Errorf("%s: the newest failures are without %s", when, name)
			}
		}
		if slices.ContainsFunc(all, func(e explanation) bool { return e.ID == id(asked) }) {
			t.Errorf("%s: a stop that was asked for is among the failures", when)
		}
	}
	for _, task := range tasks {
		w.stopped(task)
	}
	harness.Poll(t, 30*time.Second, "the records to be written", func() bool {
		var all []explanation
		return json.Unmarshal([]byte(b.Run("explain", "--json")), &all) == nil && len(all) >= len(tasks)
	})
	check("at once")
	req, err := http.NewRequest(http.MethodPost, b.Endpoint()+"/_berth/reset", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := patient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("reset the account: %v %v", err, resp)
	}
	resp.Body.Close()
	if _, err := w.ecs.CreateCluster(ctx(t), &ecs.CreateClusterInput{ClusterName: &w.cluster}); err != nil { // for the cleanup
		t.Fatal(err)
	}
	if out, err := w.ecs.DescribeTasks(ctx(t), &ecs.DescribeTasksInput{Cluster: &w.cluster, Tasks: []string{*asked.TaskArn}}); err != nil || len(out.Tasks) > 0 {
		t.Fatalf("after the reset there are still tasks: %v %s", err, show(out))
	}
	check("after the rows have gone")
	if out, err := b.Try("explain", "0123456789abcdef"); err == nil || !strings.Contains(err.Error(), "there is no task and no run") {
		t.Errorf("what never was is explained: %s %v", out, err)
	}
}

// TestExplainRunning: what a task waits for this moment and until when, and that one is unhealthy.
func TestExplainRunning(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	healthy := &types.HealthCheck{Command: []string{"CMD-SHELL", "echo not yet; busybox test -e /never"}, Interval: aws.Int32(5), Retries: aws.Int32(1), StartPeriod: aws.Int32(200)}
	waiting := w.run(w.define(nil,
		w.shell("echo must not run", func(c *container) {
			c.DependsOn = []types.ContainerDependency{{ContainerName: aws.String("db"), Condition: types.ContainerConditionHealthy}}
		}),
		w.shell("sleep 1000", named("db"), func(c *container) { c.HealthCheck, c.StartTimeout = healthy, aws.Int32(100) })))
	ill := *healthy
	ill.StartPeriod = aws.Int32(0)
	unhealthy := w.run(w.define(nil, w.shell("sleep 1000", func(c *container) { c.HealthCheck = &ill })))
	stubborn := w.run(w.define(nil, w.shell("trap '' TERM; echo up; while :; do sleep 1; done", func(c *container) { c.StopTimeout = aws.Int32(60) })))
	w.logs(stubborn, contains("up"))
	w.running(stubborn)
	w.stop(stubborn, "in the test")

	var e explanation
	harness.Poll(t, 30*time.Second, "the task to wait for its dependency", func() bool {
		e = w.explain(id(waiting))
		return len(e.Waiting) == 1 && e.Waiting[0].Container == "app" && e.Containers[1].Status == "RUNNING"
	})
	got, now := e.Waiting[0], time.Now()
	if got.For != "db to become HEALTHY" || got.Then == "" || got.Since.IsZero() || !got.Deadline.After(now) || got.Deadline.After(now.Add(100*time.Second)) || e.State != "ACTIVATING" {
		t.Errorf("it waits: %s", show(e))
	}
	if text := w.b.Run("explain", id(waiting)); !strings.HasPrefix(text, `ACTIVATING: it waits: container "app", db to become HEALTHY`) || !strings.Contains(text, "more at most") {
		t.Errorf("in words:\n%s", text)
	}
	harness.Poll(t, 30*time.Second, "the stop to be explained", func() bool {
		e = w.explain(id(stubborn))
		return len(e.Waiting) == 1 && e.Waiting[0].For == "exiting after its stop signal"
	})
	if got := e.Waiting[0]; got.Then != "it is killed" || got.Deadline.Sub(got.Since) != 60*time.Second || e.Desired != "STOPPED" || !strings.Contains(e.Why, "it is being stopped") || !strings.Contains(e.Why, "in the test") {
		t.Errorf("it stops: %s", show(e))
	}
	harness.Poll(t, 60*time.Second, "the check to fail", func() bool {
		e = w.explain(id(unhealthy))
		return strings.Contains(e.Why, "is unhealthy")
	})
	if c := e.Containers[0]; e.State != "RUNNING" || c.Health != "UNHEALTHY" || !strings.Contains(c.HealthOutput, "not yet") || len(e.Hints) == 0 {
		t.Errorf("the unhealthy task: %s", show(e))
	}
}

// TestExplainNotPlaced: why a run found no place, by the ID of the request.
func TestExplainNotPlaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	c := w.app("wait")
	c.Memory = aws.Int32(100 << 20)
	definition := w.define(nil, c)
	out, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, Count: aws.Int32(2), StartedBy: aws.String("the-test")})
	if err != nil || len(out.Failures) == 0 || aws.ToString(out.Failures[0].Reason) != "RESOURCE:MEMORY" {
		t.Fatalf("RunTask: %v %s", err, show(out))
	}
	request, ok := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	if !ok || request == "" {
		t.Fatal("the answer has no request ID")
	}
	if d := aws.ToString(out.Failures[0].Detail); !strings.Contains(d, request) {
		t.Errorf("the failure's detail does not name the request %s: %q", request, d)
	}
	for _, ref := range []string{request, request[:13], strings.ToUpper(request)} {
		e := w.explain(ref)
		if e.Kind != "run" || e.ID != request || e.Cluster != w.cluster || e.State != "NOT PLACED" || len(e.Hints) == 0 || !strings.Contains(e.Needs, "104857600 MiB") || len(e.Verdicts) != 1 {
			t.Fatalf("%s: %s", ref, show(e))
		}
		v := e.Verdicts[0]
		if v.Reason != "RESOURCE:MEMORY" || v.Hostname == "" || len(v.Checks) < 2 {
			t.Errorf("the verdict is %s", show(v))
		}
		for _, c := range v.Checks {
			if c.OK == (c.Filter == "memory") || !c.OK && !strings.Contains(c.Detail, "104857600") {
				t.Errorf("the filter %s says %t, %q", c.Filter, c.OK, c.Detail)
			}
		}
	}
	if text := w.b.Run("explain", request); !strings.HasPrefix(text, "NOT PLACED: ") || !strings.Contains(text, "memory") {
		t.Errorf("in words:\n%s", text)
	}
}

// event is one of `berth events --json`.
type event struct {
	Version, ID, Source, Account, Region string
	DetailType                           string `json:"detail-type"`
	Time                                 time.Time
	Resources                            []string
	Detail                               fields
	raw                                  fields
}

func parseEvent(t *testing.T, line string) event {
	t.Helper()
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatalf("an event is no JSON: %v: %s", err, line)
	}
	if err := json.Unmarshal([]byte(line), &e.raw); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestEvents follows the events while a task lives and compares them with AWS's shapes, with
// DescribeTasks and with what is told afterwards.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	follow := w.b.Command(t.Context(), "events", "-f", "--since", "10m", "--json") // it may connect late
	stdout, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var live []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			mu.Lock()
			live = append(live, lines.Text())
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { follow.Process.Kill(); <-ended })

	app := w.app("term", "7")
	task := w.run(w.define(func(in *taskDefinition) { vpc(in); in.Cpu, in.Memory = aws.String("256"), aws.String("128") }, app))
	w.running(task)
	w.logs(task, contains("waiting"))
	w.stop(task, "seen enough")
	task = w.stopped(task)
	of := func(lines []string) (tasks, instances []event) {
		for _, line := range lines {
			if !strings.Contains(line, w.cluster) {
				continue
			}
			switch e := parseEvent(t, line); e.DetailType {
			case "ECS Task State Change":
				tasks = append(tasks, e)
			case "ECS Container Instance State Change":
				instances = append(instances, e)
			default:
				t.Errorf("an event of type %q: %s", e.DetailType, line)
			}
		}
		return tasks, instances
	}
	var tasks, instances []event
	harness.Poll(t, 30*time.Second, "the event of the task's end", func() bool {
		mu.Lock()
		lines := slices.Clone(live)
		mu.Unlock()
		tasks, instances = of(lines)
		return len(tasks) > 0 && tasks[len(tasks)-1].Detail["lastStatus"] == "STOPPED" && len(instances) > 0 &&
			instances[len(instances)-1].Detail.number("remainingResources.0.integerValue") == instances[len(instances)-1].Detail.number("registeredResources.0.integerValue")
	})
	order := []string{"PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"}
	var seen []string
	version, position, stopping := 0.0, 0, false
	ids := map[string]bool{}
	for _, e := range tasks {
		e.raw.expect(t, "the envelope", map[string]any{"version": "0", "source": "aws.ecs", "account": "000000000000", "region": "us-east-1", "resources": []string{*task.TaskArn}})
		if names := e.raw.names(); !slices.Equal(names, []string{"account", "detail", "detail-type", "id", "region", "resources", "source", "time", "version"}) {
			t.Errorf("the envelope has %q", names)
		}
		if at, _ := e.raw["time"].(string); len(at) != len("2026-01-02T15:04:05Z") || !strings.HasSuffix(at, "Z") || len(e.ID) != 36 || ids[e.ID] {
			t.Errorf("the event %s of %s", e.ID, at)
		}
		ids[e.ID] = true
		e.Detail.expect(t, "the detail", map[string]any{
			"taskArn": task.TaskArn, "clusterArn": task.ClusterArn, "taskDefinitionArn": task.TaskDefinitionArn, "containerInstanceArn": task.ContainerInstanceArn,
			"group": task.Group, "launchType": "EC2", "cpu": "256", "memory": "128", "availabilityZone": task.AvailabilityZone, "attachments.0.type": "eni",
			"containers.0.name": "app", "containers.0.containerArn": task.Containers[0].ContainerArn, "containers.0.taskArn": task.TaskArn, "containers.0.image": w.image,
			"tags": nil, "healthStatus": nil, "containers.0.healthStatus": nil, "overrides.containerOverrides.0.name": "app",
		})
		for _, name := range e.Detail.names() {
			if !slices.Contains(taskMembersOfEvents, name) {
				t.Errorf("the detail has a member that AWS's does not: %s", name)
			}
			if text, ok := e.Detail[name].(string); ok && strings.HasSuffix(name, "At") {
				if _, err := time.Parse("2006-01-02T15:04:05.999Z", text); err != nil {
					t.Errorf("%s is %s", name, text)
				}
			}
		}
		status, _ := e.Detail["lastStatus"].(string)
		at := slices.Index(order, status)
		if at < position || e.Detail.number("version") <= version || stopping && e.Detail["desiredStatus"] != "STOPPED" {
			t.Errorf("after %q of version %v comes %s of version %v, to be %v", seen, version, status, e.Detail["version"], e.Detail["desiredStatus"])
		}
		position, version, stopping = at, e.Detail.number("version"), e.Detail["desiredStatus"] == "STOPPED"
		seen = append(seen, status)
	}
	for _, status := range []string{"PROVISIONING", "ACTIVATING", "RUNNING", "DEPROVISIONING", "STOPPED"} {
		if !slices.Contains(seen, status) {
			t.Errorf("no event of %s: %q", status, seen)
		}
	}
	last := tasks[len(tasks)-1].Detail
	last.expect(t, "the last event", map[string]any{
		"version": task.Version, "stopCode": "UserInitiated", "stoppedReason": "seen enough", "containers.0.exitCode": 7, "containers.0.lastStatus": "STOPPED",
		"containers.0.imageDigest": task.Containers[0].ImageDigest, "containers.0.runtimeId": task.Containers[0].RuntimeId, "attachments.0.status": "DELETED",
	})
	for name, want := range map[string]*time.Time{
		"createdAt": task.CreatedAt, "pullStartedAt": task.PullStartedAt, "pullStoppedAt": task.PullStoppedAt, "startedAt": task.StartedAt, "stoppingAt": task.StoppingAt,
		"executionStoppedAt": task.ExecutionStoppedAt, "stoppedAt": task.StoppedAt, "connectivityAt": task.ConnectivityAt,
	} {
		text, _ := last[name].(string)
		if at, err := time.Parse(time.RFC3339Nano, text); err != nil || want == nil || at.Sub(*want).Abs() > 2*time.Millisecond {
			t.Errorf("%s is %q, in DescribeTasks %v", name, text, want)
		}
	}
	version = 0
	for _, e := range instances {
		e.Detail.expect(t, "the instance", map[string]any{"clusterArn": task.ClusterArn, "containerInstanceArn": task.ContainerInstanceArn, "agentConnected": true, "status": "ACTIVE"})
		if e.Detail.number("version") <= version {
			t.Errorf("the instance's version is %v after %v", e.Detail["version"], version)
		}
		version = e.Detail.number("version")
	}

	// What is told afterwards is the same, and in words a line each.
	kept, _ := of(strings.Split(strings.TrimSpace(w.b.Run("events", "--json")), "\n"))
	if len(kept) != len(tasks) {
		t.Errorf("afterwards there are %d events of the task, live there were %d", len(kept), len(tasks))
	}
	for i := range min(len(kept), len(tasks)) {
		if kept[i].ID != tasks[i].ID || show(kept[i].raw) != show(tasks[i].raw) {
			t.Errorf("event %d is told as %s and as %s", i, show(kept[i].raw), show(tasks[i].raw))
		}
	}
	var words []string
	for _, line := range strings.Split(w.b.Run("events", "--since", "10m"), "\n") {
		if strings.Contains(line, w.cluster+"/"+id(task)[:12]) {
			words = append(words, line)
		}
	}
	if len(words) != len(tasks) || !strings.Contains(words[len(words)-1], "STOPPED") || !strings.Contains(words[len(words)-1], "seen enough (app: 7)") {
		t.Errorf("in words:\n%s", strings.Join(words, "\n"))
	}
	// Ctrl-C is how following ends.
	if err := follow.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := follow.Wait(); err != nil {
		t.Errorf("events -f ended with %v", err)
	}
}

// taskMembersOfEvents are the members of AWS's Task State Change events, in its documentation and in
// events as they were seen.
var taskMembersOfEvents = []string{
	"attachments", "attributes", "availabilityZone", "capacityProviderName", "clusterArn", "connectivity", "connectivityAt", "containerInstanceArn", "containers",
	"cpu", "createdAt", "desiredStatus", "enableExecuteCommand", "ephemeralStorage", "executionStoppedAt", "group", "launchType", "lastStatus", "memory",
	"overrides", "platformVersion", "pullStartedAt", "pullStoppedAt", "startedAt", "startedBy", "stopCode", "stoppedAt", "stoppedReason", "stoppingAt", "taskArn",
	"taskDefinitionArn", "updatedAt", "version",
}
