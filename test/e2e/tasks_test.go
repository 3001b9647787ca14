package e2e

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

func TestTaskFromRunToStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(nil, w.app("print", "3"))
	task := w.run(definition)
	if s := aws.ToString(task.DesiredStatus); s != "RUNNING" {
		t.Errorf("desiredStatus %s", s)
	}
	if want := "arn:aws:ecs:us-east-1:000000000000:task/" + w.cluster + "/"; !strings.HasPrefix(*task.TaskArn, want) || len(id(task)) != 32 {
		t.Errorf("taskArn %s", *task.TaskArn)
	}
	if aws.ToString(task.TaskDefinitionArn) != definition || aws.ToString(task.ContainerInstanceArn) == "" || !strings.HasPrefix(aws.ToString(task.Group), "family:") {
		t.Errorf("task is %s", show(task))
	}
	done := w.stopped(task)
	if code := exitCode(t, done, "app"); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if done.StopCode != types.TaskStopCodeEssentialContainerExited || aws.ToString(done.StoppedReason) != "Essential container in task exited" {
		t.Errorf("stopCode %s, reason %q", done.StopCode, aws.ToString(done.StoppedReason))
	}
	if done.StartedAt == nil || done.StoppedAt == nil || done.StoppingAt == nil || done.ExecutionStoppedAt == nil || done.PullStartedAt == nil || done.PullStoppedAt == nil {
		t.Errorf("a time is missing: %s", show(done))
	}
	if done.Version <= task.Version {
		t.Errorf("version %d did not grow from %d", done.Version, task.Version)
	}
	if d := aws.ToString(done.Containers[0].ImageDigest); !strings.HasPrefix(d, "sha256:") {
		t.Errorf("imageDigest %q", d)
	}
	lines := w.logs(task, func(l []string) bool { return len(l) >= 3 })
	if want := []string{"00000001", "00000002", "00000003"}; !slices.Equal(lines, want) {
		t.Errorf("output %q, want %q", lines, want)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	tasks := map[int]types.Task{}
	for _, code := range []int{0, 1, 42, 255} {
		tasks[code] = w.runApp("exit", strconv.Itoa(code))
	}
	for code, task := range tasks {
		if got := exitCode(t, w.stopped(task), "app"); got != int32(code) {
			t.Errorf("exit code %d, want %d", got, code)
		}
	}
}

func TestWaiters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	task := w.runApp("wait")
	in := &ecs.DescribeTasksInput{Cluster: &w.cluster, Tasks: []string{*task.TaskArn}}
	if err := ecs.NewTasksRunningWaiter(w.ecs).Wait(ctx(t), in, time.Minute, func(o *ecs.TasksRunningWaiterOptions) { o.MinDelay, o.MaxDelay = time.Second, time.Second }); err != nil {
		t.Fatalf("tasks running: %v", err)
	}
	w.stop(task, "")
	if err := ecs.NewTasksStoppedWaiter(w.ecs).Wait(ctx(t), in, time.Minute, func(o *ecs.TasksStoppedWaiterOptions) { o.MinDelay, o.MaxDelay = time.Second, time.Second }); err != nil {
		t.Fatalf("tasks stopped: %v", err)
	}
}

func TestStopIsPolite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	task := w.runApp("term", "7")
	w.running(task)
	w.logs(task, contains("waiting"))
	w.stop(task, "the test says so")
	done := w.stopped(task)
	if code := exitCode(t, done, "app"); code != 7 {
		t.Errorf("exit code %d, want the container's own 7", code)
	}
	if done.StopCode != types.TaskStopCodeUserInitiated || aws.ToString(done.StoppedReason) != "the test says so" {
		t.Errorf("stopCode %s, reason %q", done.StopCode, aws.ToString(done.StoppedReason))
	}
	w.logs(task, contains("got SIGTERM"))
}

func TestStopIsFirm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	app := w.app("stubborn")
	app.StopTimeout = aws.Int32(2)
	task := w.run(w.define(nil, app))
	w.running(task)
	w.logs(task, contains("ignoring"))
	asked := time.Now()
	w.stop(task, "")
	done := w.stopped(task)
	if code := exitCode(t, done, "app"); code != 137 {
		t.Errorf("exit code %d, want 137 of SIGKILL", code)
	}
	if took := time.Since(asked); took < 2*time.Second {
		t.Errorf("killed after %s, stopTimeout is 2 s", took)
	}
	if r := aws.ToString(done.StoppedReason); r != "Task stopped by user" {
		t.Errorf("reason %q", r)
	}
}

func TestStopSignalOfTheImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	app := types.ContainerDefinition{
		Name: aws.String("app"), Image: &w.busybox, Memory: aws.Int32(64), StopTimeout: aws.Int32(10),
		EntryPoint: []string{"/bin/sh", "-c"}, Command: []string{"trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"},
	}
	task := w.run(w.define(nil, app))
	w.running(task)
	w.logs(task, contains("up"))
	w.stop(task, "")
	if code := exitCode(t, w.stopped(task), "app"); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	w.logs(task, contains("bye"))
}

func TestChildrenDieWithTheirContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	token := "token-" + label(t)
	task := w.runApp("spawn", token)
	w.running(task)
	w.logs(task, contains("ignoring"))
	w.stop(task, "")
	w.stopped(task)
	harness.Poll(t, 10*time.Second, "the container's child to be gone", func() bool {
		_, alive := harness.FindProcess(token)
		return !alive
	})
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	app := w.app("eat", "256")
	app.Memory = aws.Int32(32)
	done := w.stopped(w.run(w.define(nil, app)))
	if code := exitCode(t, done, "app"); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
	if r := containerReason(done); !strings.HasPrefix(r, "OutOfMemoryError: Container killed due to memory usage") {
		t.Errorf("container's reason %q", r)
	}
}

func TestOutOfMemoryOfAChildIsSurvived(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	app := w.app("eatchild", "256")
	app.Memory = aws.Int32(48)
	task := w.run(w.define(nil, app))
	w.running(task)
	w.logs(task, contains("child: signal: killed"))
	if now := w.describe(task); aws.ToString(now.LastStatus) != "RUNNING" {
		t.Errorf("the task is %s; only a child of its container died", aws.ToString(now.LastStatus))
	}
}

func TestLimitsAreInTheCgroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	token := "token-" + label(t)
	app := w.app("wait", token)
	app.Memory, app.Cpu = aws.Int32(100), 256
	task := w.run(w.define(nil, app))
	w.running(task)
	p, ok := harness.FindProcess(token)
	if !ok {
		t.Fatal("the container's process is not to be found")
	}
	memory, err := p.CgroupFile("memory", "memory.limit_in_bytes", "memory.max")
	if err != nil || memory != strconv.Itoa(100<<20) {
		t.Errorf("memory limit %q, want 100 MiB: %v", memory, err)
	}
	if shares, err := p.CgroupFile("cpu", "cpu.shares", "cpu.weight"); err != nil || shares != "256" && shares != "10" {
		t.Errorf("cpu shares %q, want 256 (or weight 10): %v", shares, err)
	}
}

func TestTaskCPUIsAHardLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	token := "token-" + label(t)
	task := w.run(w.define(func(in *ecs.RegisterTaskDefinitionInput) { in.Cpu, in.Memory = aws.String("256"), aws.String("128") }, w.app("burn", token)))
	w.running(task)
	w.logs(task, contains("burning"))
	p, ok := harness.FindProcess(token)
	if !ok {
		t.Fatal("the container's process is not to be found")
	}
	before, _ := p.CPUTicks()
	const span = 3 * time.Second
	time.Sleep(span) // what is measured is a rate
	after, err := p.CPUTicks()
	if err != nil {
		t.Fatal(err)
	}
	if share := float64(after-before) / 100 / span.Seconds(); share > 0.35 {
		t.Errorf("the container used %.2f of a core, its task's limit is 0.25", share)
	}
}

func TestWhatAContainerIsGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	environment := w.app("env")
	environment.Environment = []types.KeyValuePair{{Name: aws.String("COLOUR"), Value: aws.String("sea=green")}}
	identity := w.app("id")
	identity.User, identity.WorkingDirectory = aws.String("1000:1001"), aws.String("/tmp")
	readonly := types.ContainerDefinition{
		Name: aws.String("app"), Image: &w.busybox, Memory: aws.Int32(32), ReadonlyRootFilesystem: aws.Bool(true),
		Command: []string{"/bin/sh", "-c", "touch /x 2>&1; test -e /x || echo read-only"},
	}
	for _, c := range []struct {
		about string
		app   types.ContainerDefinition
		want  []string
	}{
		{"environment", environment, []string{"COLOUR=sea=green", "FROM_IMAGE=yes", "AWS_EXECUTION_ENV=AWS_ECS_EC2"}},
		{"identity", identity, []string{"uid=1000 gid=1001", "dir=/tmp"}},
		{"read-only root", readonly, []string{"read-only"}},
		{"arguments", w.app("args", "a b", "$HOME"), []string{"args a b $HOME"}},
	} {
		task := w.run(w.define(nil, c.app))
		w.stopped(task)
		for _, want := range c.want {
			w.logs(task, contains(want))
		}
	}
}

func TestSeveralContainersShareATask(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	first, helper := w.app("wait"), w.app("exit", "5")
	helper.Name, helper.Essential = aws.String("helper"), aws.Bool(false)
	task := w.run(w.define(nil, first, helper))
	w.running(task)
	harness.Poll(t, 20*time.Second, "the helper's exit to be told", func() bool {
		for _, c := range w.describe(task).Containers {
			if aws.ToString(c.Name) == "helper" && aws.ToInt32(c.ExitCode) == 5 {
				return true
			}
		}
		return false
	})
	if s := aws.ToString(w.describe(task).LastStatus); s != "RUNNING" {
		t.Errorf("the task is %s though its essential container runs", s)
	}
	w.stop(task, "")
	w.stopped(task)
}

func TestClientToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(nil, w.app("wait"))
	in := &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, ClientToken: aws.String(label(t)), Count: aws.Int32(2)}
	first, err := w.ecs.RunTask(ctx(t), in)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.ecs.RunTask(ctx(t), in)
	if err != nil {
		t.Fatal(err)
	}
	arns := func(out *ecs.RunTaskOutput) (all []string) {
		for _, task := range out.Tasks {
			all = append(all, *task.TaskArn)
		}
		slices.Sort(all)
		return all
	}
	if !slices.Equal(arns(first), arns(second)) || len(first.Tasks) != 2 {
		t.Errorf("the same token ran %v and %v", arns(first), arns(second))
	}
	other := *in
	other.Count = aws.Int32(1)
	_, err = w.ecs.RunTask(ctx(t), &other)
	wantError(t, err, "ConflictException")
	list, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster})
	if err != nil || len(list.TaskArns) != 2 {
		t.Errorf("%d tasks, want 2: %v", len(list.TaskArns), err)
	}
}

func TestNoRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	port := harness.FreePort(t)
	number, _ := strconv.Atoi(port)
	holds := func() types.ContainerDefinition {
		app := w.app("wait")
		app.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(int32(number)), HostPort: aws.Int32(int32(number))}}
		return app
	}
	hostMode := func(in *ecs.RegisterTaskDefinitionInput) { in.NetworkMode = types.NetworkModeHost }
	holder := w.define(hostMode, holds())
	w.running(w.run(holder))

	huge, wide := w.app("wait"), w.app("wait")
	huge.Memory = aws.Int32(100 << 20)
	wide.Cpu = 1 << 20
	for reason, definition := range map[string]string{
		"RESOURCE:MEMORY": w.define(nil, huge),
		"RESOURCE:CPU":    w.define(nil, wide),
		"RESOURCE:PORTS":  holder,
	} {
		out, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition})
		if err != nil {
			t.Errorf("%s: %v", reason, err)
			continue
		}
		if len(out.Tasks) != 0 || len(out.Failures) != 1 || aws.ToString(out.Failures[0].Reason) != reason {
			t.Errorf("want the failure %s, got %d tasks and %s", reason, len(out.Tasks), show(out.Failures))
		}
	}
}

func TestPortTakenByAStranger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	stranger, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	port := int32(stranger.Addr().(*net.TCPAddr).Port)
	app := w.app("http", fmt.Sprintf(":%d", port))
	app.PortMappings = []types.PortMapping{{ContainerPort: &port, HostPort: &port}}
	done := w.stopped(w.run(w.define(func(in *ecs.RegisterTaskDefinitionInput) { in.NetworkMode = types.NetworkModeHost }, app)))
	if all := aws.ToString(done.StoppedReason) + containerReason(done); !strings.Contains(all, "CannotStartContainerError") || !strings.Contains(all, strconv.Itoa(int(port))) {
		t.Errorf("stopCode %s, reason %q, containers %s", done.StopCode, aws.ToString(done.StoppedReason), show(done.Containers))
	}
	if done.StopCode != types.TaskStopCodeTaskFailedToStart {
		t.Errorf("stopCode %s, want TaskFailedToStart", done.StopCode)
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	nobody := strings.Repeat("0", 32)
	out, err := w.ecs.DescribeTasks(ctx(t), &ecs.DescribeTasksInput{Cluster: &w.cluster, Tasks: []string{nobody}})
	if err != nil || len(out.Failures) != 1 || aws.ToString(out.Failures[0].Reason) != "MISSING" || !strings.HasPrefix(aws.ToString(out.Failures[0].Arn), "arn:aws:ecs:") {
		t.Errorf("an unknown task is the failure MISSING with its ARN: %v %s", err, show(out))
	}
	_, err = w.ecs.StopTask(ctx(t), &ecs.StopTaskInput{Cluster: &w.cluster, Task: &nobody})
	wantError(t, err, "InvalidParameterException", "not found")
	_, err = w.ecs.DescribeTaskDefinition(ctx(t), &ecs.DescribeTaskDefinitionInput{TaskDefinition: aws.String("nothing:1")})
	wantError(t, err, "ClientException")
	_, err = w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: aws.String("nowhere")})
	wantError(t, err, "ClusterNotFoundException")
}

func TestListTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(nil, w.app("wait"))
	out, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, Count: aws.Int32(3), StartedBy: aws.String("tester")})
	if err != nil || len(out.Tasks) != 3 {
		t.Fatalf("RunTask: %v %s", err, show(out))
	}
	w.stop(out.Tasks[0], "")
	w.stopped(out.Tasks[0])
	family := strings.TrimPrefix(aws.ToString(out.Tasks[0].Group), "family:")
	for about, c := range map[string]struct {
		in   *ecs.ListTasksInput
		want int
	}{
		"running":            {&ecs.ListTasksInput{}, 2},
		"stopped":            {&ecs.ListTasksInput{DesiredStatus: types.DesiredStatusStopped}, 1},
		"family":             {&ecs.ListTasksInput{Family: &family}, 2},
		"startedBy":          {&ecs.ListTasksInput{StartedBy: aws.String("tester")}, 2},
		"other startedBy":    {&ecs.ListTasksInput{StartedBy: aws.String("nobody")}, 0},
		"container instance": {&ecs.ListTasksInput{ContainerInstance: out.Tasks[0].ContainerInstanceArn}, 2},
	} {
		c.in.Cluster = &w.cluster
		list, err := w.ecs.ListTasks(ctx(t), c.in)
		if err != nil || len(list.TaskArns) != c.want {
			t.Errorf("%s: %v, %d tasks, want %d", about, err, len(list.TaskArns), c.want)
		}
	}
	instances, err := w.ecs.ListContainerInstances(ctx(t), &ecs.ListContainerInstancesInput{Cluster: &w.cluster})
	if err != nil || len(instances.ContainerInstanceArns) != 1 {
		t.Fatalf("one machine is one container instance: %v %s", err, show(instances))
	}
	seen, err := w.ecs.DescribeContainerInstances(ctx(t), &ecs.DescribeContainerInstancesInput{Cluster: &w.cluster, ContainerInstances: instances.ContainerInstanceArns})
	if err != nil || len(seen.ContainerInstances) != 1 {
		t.Fatalf("DescribeContainerInstances: %v %s", err, show(seen))
	}
	ci := seen.ContainerInstances[0]
	if aws.ToString(ci.Status) != "ACTIVE" || !ci.AgentConnected || ci.RunningTasksCount+ci.PendingTasksCount != 2 {
		t.Errorf("container instance: status %s, connected %v, %d running, %d pending", aws.ToString(ci.Status), ci.AgentConnected, ci.RunningTasksCount, ci.PendingTasksCount)
	}
}

func TestAwsvpc(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	awsvpc := func(in *ecs.RegisterTaskDefinitionInput) {
		in.NetworkMode, in.Cpu, in.Memory = types.NetworkModeAwsvpc, aws.String("256"), aws.String("128")
	}
	serve := w.app("http", ":80", "hello from awsvpc")
	serve.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80)}}
	// Containers of a task share its interface, and so its loopback.
	neighbour := w.app("wait")
	neighbour.Name = aws.String("neighbour")
	definition := w.define(awsvpc, serve, neighbour)
	out, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, Count: aws.Int32(2), NetworkConfiguration: subnet})
	if err != nil || len(out.Tasks) != 2 {
		t.Fatalf("RunTask: %v %s", err, show(out))
	}
	addresses := map[string]bool{}
	for _, task := range out.Tasks {
		task = w.running(task)
		if len(task.Attachments) != 1 || aws.ToString(task.Attachments[0].Type) != "ElasticNetworkInterface" || aws.ToString(task.Attachments[0].Status) != "ATTACHED" {
			t.Fatalf("attachments %s", show(task.Attachments))
		}
		details := map[string]string{}
		for _, d := range task.Attachments[0].Details {
			details[aws.ToString(d.Name)] = aws.ToString(d.Value)
		}
		for _, name := range []string{"subnetId", "networkInterfaceId", "macAddress", "privateDnsName", "privateIPv4Address"} {
			if details[name] == "" {
				t.Errorf("the attachment has no %s: %v", name, details)
			}
		}
		address := details["privateIPv4Address"]
		if addresses[address] {
			t.Errorf("two tasks have the address %s", address)
		}
		addresses[address] = true
		if nics := task.Containers[0].NetworkInterfaces; len(nics) != 1 || aws.ToString(nics[0].PrivateIpv4Address) != address {
			t.Errorf("the container's networkInterfaces %s", show(nics))
		}
		if body := fetch(t, "http://"+address+"/"); body != "hello from awsvpc\n" {
			t.Errorf("the task answers %q", body)
		}
		// From a second task to the first, by address.
		caller := w.run(w.define(awsvpc, w.app("get", "http://"+address+"/")))
		w.stopped(caller)
		w.logs(caller, contains("hello from awsvpc"))
	}
	w.stop(out.Tasks[0], "")
	done := w.stopped(out.Tasks[0])
	if len(done.Attachments) != 1 || aws.ToString(done.Attachments[0].Status) != "DELETED" {
		t.Errorf("a stopped task keeps its attachment as DELETED: %s", show(done.Attachments))
	}
}

func TestHostNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	port, _ := strconv.Atoi(harness.FreePort(t))
	app := w.app("http", fmt.Sprintf("127.0.0.1:%d", port), "hello from the host")
	app.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(int32(port))}}
	task := w.running(w.run(w.define(func(in *ecs.RegisterTaskDefinitionInput) { in.NetworkMode = types.NetworkModeHost }, app)))
	if body := fetch(t, fmt.Sprintf("http://127.0.0.1:%d/", port)); body != "hello from the host\n" {
		t.Errorf("the task answers %q", body)
	}
	if b := task.Containers[0].NetworkBindings; len(b) != 1 || aws.ToInt32(b[0].HostPort) != int32(port) {
		t.Errorf("networkBindings %s", show(b))
	}
	none := w.runApp("get", fmt.Sprintf("http://127.0.0.1:%d/", port))
	if code := exitCode(t, w.stopped(none), "app"); code != 99 {
		t.Errorf("a task of network mode none reached the host's loopback: exit code %d", code)
	}
}

// fetch gets a page, waiting for the server to listen.
func fetch(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{Proxy: nil}}
	defer client.CloseIdleConnections()
	var body string
	harness.Poll(t, 20*time.Second, "an answer from "+url, func() bool {
		resp, err := client.Get(url)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b := make([]byte, 4096)
		n, _ := resp.Body.Read(b)
		body = string(b[:n])
		return resp.StatusCode == http.StatusOK
	})
	return body
}
