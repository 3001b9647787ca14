package ecs_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/state"
)

func withPort(port int32) func(*ecs.RegisterTaskDefinitionInput) {
	return func(in *ecs.RegisterTaskDefinitionInput) {
		in.ContainerDefinitions[0].PortMappings = []ecs.PortMapping{{ContainerPort: &port}}
	}
}

func TestATaskFromRunToStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	def := w.register("web", nil)
	host := w.follow("h1")
	defer host.stream.Close()

	out := w.run("demo", def, 2)
	if len(out.Tasks) != 2 || out.Failures == nil || len(out.Failures) != 0 {
		t.Fatalf("tasks %d, failures %v; want 2 and an empty list", len(out.Tasks), out.Failures)
	}
	task := *out.Tasks[0].TaskArn
	if !strings.HasPrefix(task, "arn:aws:ecs:eu-west-1:123456789012:task/demo/") || *out.Tasks[0].LastStatus != "PENDING" {
		t.Errorf("task %s is %s", task, *out.Tasks[0].LastStatus)
	}
	if a := out.Tasks[0].Attributes; len(a) != 1 || *a[0].Name != "ecs.cpu-architecture" || *a[0].Value != "x86_64" {
		t.Errorf("attributes of the task: %+v", a)
	}
	host.until(w, "two tasks", func(d map[string]string) bool { return len(d) == 2 })
	w.report(task, "RUNNING", nil)
	if got := w.describe(task); *got.LastStatus != "RUNNING" || got.StartedAt == nil || got.Connectivity != ecs.ConnectivityConnected {
		t.Errorf("running: %+v", got)
	}
	if _, err := w.ecs.StopTask(w.ctx, &ecs.StopTaskInput{Cluster: api.Ptr("demo"), Task: &task, Reason: api.Ptr("enough")}); err != nil {
		t.Fatal(err)
	}
	host.until(w, "the order to stop", func(d map[string]string) bool { return d[task] == "STOPPED" })
	w.report(task, "STOPPED", nil)
	if got := w.describe(task); *got.LastStatus != "STOPPED" || got.StopCode != ecs.TaskStopCodeUserInitiated || *got.StoppedReason != "enough" {
		t.Errorf("stopped: %+v", got)
	}
}

func TestRunTaskIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	def := w.register("web", nil)
	for _, c := range []struct {
		name, code, message string
		change              func(*ecs.RunTaskInput)
	}{
		{"unknown cluster", "ClusterNotFoundException", "Cluster not found.", func(in *ecs.RunTaskInput) { in.Cluster = api.Ptr("nowhere") }},
		{"no default cluster", "ClusterNotFoundException", "Cluster not found.", func(in *ecs.RunTaskInput) { in.Cluster = nil }},
		{"unknown definition", "ClientException", "TaskDefinition not found.", func(in *ecs.RunTaskInput) { in.TaskDefinition = api.Ptr("nothing") }},
		{"no definition", "InvalidParameterException", "can not be blank", func(in *ecs.RunTaskInput) { in.TaskDefinition = nil }},
		{"eleven", "InvalidParameterException", "Count", func(in *ecs.RunTaskInput) { in.Count = api.Ptr(int32(11)) }},
		{"none", "InvalidParameterException", "Count", func(in *ecs.RunTaskInput) { in.Count = api.Ptr(int32(0)) }},
		{"a service's group", "InvalidParameterException", "group", func(in *ecs.RunTaskInput) { in.Group = api.Ptr("service:x") }},
		{"platform of EC2", "InvalidParameterException", "platform version must be null", func(in *ecs.RunTaskInput) { in.PlatformVersion = api.Ptr("1.4.0") }},
		{"network of host", "InvalidParameterException", "Network Configuration is not valid", func(in *ecs.RunTaskInput) {
			in.NetworkConfiguration = &ecs.NetworkConfiguration{AwsvpcConfiguration: &ecs.AwsVpcConfiguration{Subnets: []string{"subnet-1"}}}
		}},
		{"Fargate", "InvalidParameterException", "FARGATE", func(in *ecs.RunTaskInput) { in.LaunchType = ecs.LaunchTypeFargate }},
	} {
		in := &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def}
		c.change(in)
		_, err := w.ecs.RunTask(w.ctx, in)
		t.Log(c.name)
		wantError(t, err, c.code, c.message)
	}
	if n := state.Specs.Len(w.store.Snapshot()); n != 0 {
		t.Errorf("%d tasks were made", n)
	}
}

func TestRunTaskWithoutRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	def := w.register("web", withPort(8080))
	_, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def})
	wantError(t, err, "InvalidParameterException", "No Container Instances were found in your cluster.")

	w.connect("h1", 1)
	out := w.run("demo", def, 3)
	if len(out.Tasks) != 1 || len(out.Failures) != 1 || *out.Failures[0].Reason != "RESOURCE:PORTS" || !strings.Contains(*out.Failures[0].Arn, ":container-instance/demo/") {
		t.Fatalf("tasks %d, failures %+v", len(out.Tasks), out.Failures)
	}
	// A place is free for whoever has seen the task stop.
	for range 20 {
		w.report(*out.Tasks[0].TaskArn, "STOPPED", nil)
		if out = w.run("demo", def, 1); len(out.Tasks) != 1 {
			t.Fatalf("after the stop: %+v", out.Failures)
		}
	}
	w.orch.HostDisconnected(w.ctx, "h1")
	if out = w.run("demo", def, 1); len(out.Failures) != 1 || *out.Failures[0].Reason != "AGENT" {
		t.Errorf("with the host away: %+v", out.Failures)
	}
	w.connect("h1", 1)
	if out = w.run("demo", w.register("small", nil), 1); len(out.Tasks) != 1 {
		t.Errorf("with the host back: %+v", out.Failures)
	}
}

func TestClientToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 64)
	def := w.register("web", nil)
	for round := range 5 {
		token := fmt.Sprint("token-", round)
		var all sync.WaitGroup
		var mu sync.Mutex
		arns := map[string]bool{}
		for range 16 {
			all.Go(func() {
				out, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, ClientToken: &token})
				if err != nil || len(out.Tasks) != 1 {
					t.Errorf("RunTask: %v", err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				arns[*out.Tasks[0].TaskArn] = true
			})
		}
		all.Wait()
		if len(arns) != 1 {
			t.Errorf("one token, %d tasks", len(arns))
		}
	}
	if n := state.Specs.Len(w.store.Snapshot()); n != 5 {
		t.Errorf("%d tasks, want 5", n)
	}
	_, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, ClientToken: api.Ptr("token-0"), Count: api.Ptr(int32(2))})
	wantError(t, err, "ConflictException", "clientToken")
}

func TestPlacementFromManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	const hosts, each = 8, 4 // 16 tasks of 256 units fit each host
	for i := range hosts {
		w.connect(hostName(i), each)
	}
	def := w.register("web", func(in *ecs.RegisterTaskDefinitionInput) { in.NetworkMode = ecs.NetworkModeNone })
	var all sync.WaitGroup
	var mu sync.Mutex
	placed := 0
	for range 32 {
		all.Go(func() {
			for range 2 {
				out, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, Count: api.Ptr(int32(3))})
				if err != nil {
					t.Errorf("RunTask: %v", err)
					return
				}
				mu.Lock()
				placed += len(out.Tasks)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if placed != hosts*each*4 { // 192 were asked for
		t.Errorf("%d tasks placed, room for %d", placed, hosts*each*4)
	}
	snap := w.store.Snapshot()
	if n := state.Specs.Len(snap); n != placed {
		t.Errorf("%d tasks acknowledged, %d exist", placed, n)
	}
	for i := range hosts {
		if u, _ := w.orch.UsageOf(snap, hostName(i)); u.CPUFree < 0 || u.MemFree < 0 {
			t.Errorf("host %d is over capacity: %+v", i, u)
		}
	}
	if n := state.ContainerInstances.Len(snap); n != hosts {
		t.Errorf("%d container instances of %d hosts", n, hosts)
	}
}

func TestStartTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 1)
	w.connect("h2", 1)
	def := w.register("web", withPort(80))
	list, err := w.ecs.ListContainerInstances(w.ctx, &ecs.ListContainerInstancesInput{Cluster: api.Ptr("demo")})
	if err != nil || len(list.ContainerInstanceArns) != 2 {
		t.Fatalf("ListContainerInstances: %v %+v", err, list)
	}
	nobody := strings.Repeat("0", 32)
	in := &ecs.StartTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, ContainerInstances: append([]string{nobody}, list.ContainerInstanceArns...)}
	out, err := w.ecs.StartTask(w.ctx, in)
	if err != nil || len(out.Tasks) != 2 || len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
		t.Fatalf("StartTask: %v %+v", err, out)
	}
	if a, b := *out.Tasks[0].ContainerInstanceArn, *out.Tasks[1].ContainerInstanceArn; a != list.ContainerInstanceArns[0] || b != list.ContainerInstanceArns[1] {
		t.Errorf("on %s and %s, want %v", a, b, list.ContainerInstanceArns)
	}
	if out, err = w.ecs.StartTask(w.ctx, in); err != nil || len(out.Tasks) != 0 || len(out.Failures) != 3 || *out.Failures[1].Reason != "RESOURCE:PORTS" {
		t.Errorf("again: %v %+v", err, out)
	}
	_, err = w.ecs.StartTask(w.ctx, &ecs.StartTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def})
	wantError(t, err, "InvalidParameterException", "Container instances")
}

func TestIdentifiersOfTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	uuid := "0cc43cdb-3bee-4407-9c26-c0e6ea5bee84"
	for _, c := range []struct{ ref, failure, message string }{
		{strings.Repeat("0", 32), "arn:aws:ecs:eu-west-1:123456789012:task/demo/" + strings.Repeat("0", 32), ""},
		{uuid, "arn:aws:ecs:eu-west-1:123456789012:task/demo/" + uuid, ""},
		{"arn:aws:ecs:eu-west-1:123456789012:task/" + uuid, "arn:aws:ecs:eu-west-1:123456789012:task/" + uuid, ""},
		{"short", "", "taskId length should be one of [32,36]"},
		{"arn:aws:ecs:eu-west-1:123456789012:task/other/" + uuid, "", "Invalid identifier: Identifier is for cluster other. Your cluster is demo"},
	} {
		out, err := w.ecs.DescribeTasks(w.ctx, &ecs.DescribeTasksInput{Cluster: api.Ptr("demo"), Tasks: []string{c.ref}})
		if c.message != "" {
			wantError(t, err, "InvalidParameterException", c.message)
			continue
		}
		if err != nil || len(out.Failures) != 1 || *out.Failures[0].Arn != c.failure || *out.Failures[0].Reason != "MISSING" {
			t.Errorf("%s: %v %+v", c.ref, err, out)
		}
	}
	_, err := w.ecs.StopTask(w.ctx, &ecs.StopTaskInput{Cluster: api.Ptr("demo"), Task: &uuid})
	wantError(t, err, "InvalidParameterException", "The referenced task was not found.")
}

func TestListTasksInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.createCluster("demo-2")
	w.connect("h1", 64)
	def := w.register("web", nil)
	want := map[string]bool{}
	for range 3 {
		for _, task := range w.run("demo", def, 5).Tasks {
			want[*task.TaskArn] = true
		}
	}
	w.run("demo-2", def, 2)
	in := &ecs.ListTasksInput{Cluster: api.Ptr("demo"), MaxResults: api.Ptr(int32(4))}
	for pages := 1; ; pages++ {
		out, err := w.ecs.ListTasks(w.ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, arn := range out.TaskArns {
			if !want[arn] {
				t.Errorf("%s is not one, or came twice", arn)
			}
			delete(want, arn)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			if pages != 4 {
				t.Errorf("%d pages", pages)
			}
			break
		}
	}
	if len(want) != 0 {
		t.Errorf("not listed: %v", want)
	}
	_, err := w.ecs.ListTasks(w.ctx, &ecs.ListTasksInput{Cluster: api.Ptr("demo"), NextToken: api.Ptr("!")})
	wantError(t, err, "InvalidParameterException", "token")
	elsewhere, err := w.ecs.ListClusters(as(account, "us-east-1"), &ecs.ListClustersInput{})
	if err != nil || len(elsewhere.ClusterArns) != 0 {
		t.Errorf("another region sees %v, %v", elsewhere, err)
	}
	_, err = w.ecs.DescribeTasks(as("999999999999", region), &ecs.DescribeTasksInput{Cluster: api.Ptr("demo"), Tasks: []string{strings.Repeat("0", 32)}})
	wantError(t, err, "ClusterNotFoundException", "")
}

// A host that comes back with a task that was given up is told to stop it.
func TestAHostIsToldOfATaskGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	task := *w.run("demo", w.register("web", nil), 1).Tasks[0].TaskArn
	w.report(task, "STOPPED", func(in *ecs.SubmitTaskStateChangeInput) { in.Reason = api.Ptr("TaskFailedToStart: AGENT") })
	host := w.follow("h1")
	defer host.stream.Close()
	host.until(w, "the full payload", func(map[string]string) bool { return host.sequence > 0 })
	if len(host.desired) != 0 {
		t.Fatalf("a stopped task in the full payload: %v", host.desired)
	}
	w.report(task, "RUNNING", nil)
	host.until(w, "the order to stop", func(d map[string]string) bool { return d[task] == "STOPPED" })
	if got := w.describe(task); *got.LastStatus != "STOPPED" || got.StoppedAt.After(time.Now()) {
		t.Errorf("now %s", *got.LastStatus)
	}
}
