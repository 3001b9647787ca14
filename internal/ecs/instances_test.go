package ecs_test

import (
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func (w *world) setState(status ecs.ContainerInstanceStatus, arns ...string) *ecs.UpdateContainerInstancesStateOutput {
	w.Helper()
	out, err := w.ecs.UpdateContainerInstancesState(w.ctx, &ecs.UpdateContainerInstancesStateInput{Cluster: api.Ptr("demo"), ContainerInstances: arns, Status: status})
	if err != nil {
		w.Fatalf("UpdateContainerInstancesState: %v", err)
	}
	return out
}

func TestADrainingInstanceGetsNoTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	w.connect("h2", 4)
	def := w.register("web", nil)
	arns := w.instances("demo")
	stays := *w.run("demo", def, 1).Tasks[0].TaskArn
	for _, arn := range arns {
		out := w.setState(ecs.ContainerInstanceStatusDraining, arn)
		if len(out.ContainerInstances) != 1 || *out.ContainerInstances[0].Status != "DRAINING" || out.Failures == nil {
			t.Fatalf("draining: %+v", out)
		}
		if arn == arns[0] {
			for _, task := range w.run("demo", def, 4).Tasks {
				if *task.ContainerInstanceArn == arn {
					t.Errorf("a draining instance got task %s", *task.TaskArn)
				}
			}
		}
	}
	_, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def})
	wantError(t, err, "InvalidParameterException", "No Container Instances were found in your cluster.")
	if got := w.describe(stays); *got.DesiredStatus != "RUNNING" {
		t.Errorf("a task of no service is %s", *got.DesiredStatus)
	}
	for status, want := range map[ecs.ContainerInstanceStatus]int{"DRAINING": 2, "ACTIVE": 0, "": 2} {
		out, err := w.ecs.ListContainerInstances(w.ctx, &ecs.ListContainerInstancesInput{Cluster: api.Ptr("demo"), Status: status})
		if err != nil || len(out.ContainerInstanceArns) != want {
			t.Errorf("%q: %v %+v", status, err, out)
		}
	}
	out := w.setState(ecs.ContainerInstanceStatusActive, arns[0], arns[0], strings.Repeat("0", 32))
	if len(out.ContainerInstances) != 2 || len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
		t.Errorf("back: %+v", out)
	}
	if tasks := w.run("demo", def, 1).Tasks; len(tasks) != 1 || *tasks[0].ContainerInstanceArn != arns[0] {
		t.Errorf("after draining: %+v", tasks)
	}
}

// What a call reads of an instance's tasks does not count against what a transaction can hold.
func TestAnInstanceOfManyTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 64)
	w.createProvider("web")
	if _, err := w.associate("demo", []ecs.CapacityProviderStrategyItem{item("web", 0, 1)}, "web"); err != nil {
		t.Fatal(err)
	}
	arn := w.instances("demo")[0]
	w.put("demo", attribute("berth.capacity-provider", "web", arn))
	def := w.register("web", nil)
	for range 15 {
		for _, task := range w.run("demo", def, 10).Tasks {
			w.report(*task.TaskArn, "RUNNING", nil)
		}
	}
	if out := w.setState("DRAINING", arn); *out.ContainerInstances[0].RunningTasksCount != 150 {
		t.Errorf("%d tasks", *out.ContainerInstances[0].RunningTasksCount)
	}
	in := &ecs.DeregisterContainerInstanceInput{Cluster: api.Ptr("demo"), ContainerInstance: &arn, Force: api.Ptr(true)}
	if _, err := w.ecs.DeregisterContainerInstance(w.ctx, in); err != nil {
		t.Fatal(err)
	}
	list := &ecs.ListTasksInput{Cluster: api.Ptr("demo"), DesiredStatus: "STOPPED", ContainerInstance: &arn}
	for stopped := 0; ; {
		out, err := w.ecs.ListTasks(w.ctx, list)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range out.TaskArns {
			w.report(task, "STOPPED", nil)
		}
		stopped += len(out.TaskArns)
		if list.NextToken = out.NextToken; list.NextToken == nil {
			if stopped != 150 {
				t.Errorf("%d tasks asked to stop", stopped)
			}
			break
		}
	}
	if _, err := w.associate("demo", nil, "FARGATE"); err != nil {
		t.Errorf("a provider of stopped tasks: %v", err)
	}
}

func TestDeregistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	def := w.register("web", nil)
	task := *w.run("demo", def, 1).Tasks[0].TaskArn
	arn := w.instances("demo")[0]
	in := &ecs.DeregisterContainerInstanceInput{Cluster: api.Ptr("demo"), ContainerInstance: &arn}
	_, err := w.ecs.DeregisterContainerInstance(w.ctx, in)
	wantError(t, err, "InvalidParameterException", "Found running tasks on the instance.")
	if got := w.describe(task); *got.DesiredStatus != "RUNNING" {
		t.Errorf("a refused call stopped the task")
	}
	in.Force = api.Ptr(true)
	out, err := w.ecs.DeregisterContainerInstance(w.ctx, in)
	if err != nil || *out.ContainerInstance.Status != "INACTIVE" || *out.ContainerInstance.AgentConnected {
		t.Fatalf("DeregisterContainerInstance: %v %+v", err, out)
	}
	w.report(task, "STOPPED", nil)
	if got := w.describe(task); *got.StoppedReason != "Container instance deregistration forced by user" || *got.ContainerInstanceArn != arn {
		t.Errorf("the task: %+v", got)
	}
	// To look at the cluster does not bring it back.
	if left := w.instances("demo"); len(left) != 0 {
		t.Errorf("listed: %v", left)
	}
	if got := w.instance("demo", arn); *got.Status != "INACTIVE" {
		t.Errorf("described: %+v", got)
	}
	clusters, err := w.ecs.DescribeClusters(w.ctx, &ecs.DescribeClustersInput{Clusters: []string{"demo"}})
	if err != nil || *clusters.Clusters[0].RegisteredContainerInstancesCount != 0 {
		t.Errorf("the cluster: %v %+v", err, clusters)
	}
	if got := w.setState(ecs.ContainerInstanceStatusActive, arn); len(got.Failures) != 1 || *got.Failures[0].Reason != "INACTIVE" {
		t.Errorf("activated: %+v", got)
	}
	_, err = w.ecs.DeregisterContainerInstance(w.ctx, in)
	wantError(t, err, "ClientException", "not found")
	_, err = w.ecs.TagResource(w.ctx, &ecs.TagResourceInput{ResourceArn: &arn, Tags: []ecs.Tag{{Key: api.Ptr("k"), Value: api.Ptr("v")}}})
	wantError(t, err, "ResourceNotFoundException", "")

	started, err := w.ecs.StartTask(w.ctx, &ecs.StartTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, ContainerInstances: []string{arn}})
	if err != nil || len(started.Tasks) != 0 || len(started.Failures) != 1 || *started.Failures[0].Reason != "INACTIVE" {
		t.Errorf("StartTask: %v %+v", err, started)
	}

	// A task does, as another instance.
	again := w.run("demo", def, 1).Tasks
	if len(again) != 1 || *again[0].ContainerInstanceArn == arn {
		t.Fatalf("after: %+v", again)
	}
	if now := w.instances("demo"); len(now) != 1 || now[0] != *again[0].ContainerInstanceArn {
		t.Errorf("instances %v, want that of %s", now, *again[0].ContainerInstanceArn)
	}
	for _, ref := range []string{strings.Repeat("0", 32), "arn:aws:ecs:eu-west-1:123456789012:container-instance/other/1"} {
		_, err = w.ecs.DeregisterContainerInstance(w.ctx, &ecs.DeregisterContainerInstanceInput{Cluster: api.Ptr("demo"), ContainerInstance: &ref})
		wantError(t, err, "ClientException", "not found")
	}
}

func TestAContainerInstanceIsDescribed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	arn := w.instances("demo")[0]
	def := w.register("web", withPort(8080))
	w.report(*w.run("demo", def, 1).Tasks[0].TaskArn, "RUNNING", nil)
	w.run("demo", w.register("other", nil), 2)
	ci := w.instance("demo", arn, ecs.ContainerInstanceFieldTags, ecs.ContainerInstanceFieldContainerInstanceHealth)
	if *ci.RunningTasksCount != 1 || *ci.PendingTasksCount != 2 || !*ci.AgentConnected || *ci.VersionInfo.AgentVersion != "1" {
		t.Errorf("%+v", ci)
	}
	if ci.HealthStatus.OverallStatus != "OK" || ci.HealthStatus.Details[0].Type != "CONTAINER_RUNTIME" || ci.HealthStatus.Details[0].LastUpdated == nil {
		t.Errorf("health: %+v", ci.HealthStatus)
	}
	left := map[string]ecs.Resource{}
	for _, r := range ci.RemainingResources {
		left[*r.Name] = r
	}
	if *left["CPU"].IntegerValue != 4096-3*256 || *left["MEMORY"].IntegerValue != 4096-3*128 || strings.Join(left["PORTS"].StringSetValue, ",") != "22,8080" {
		t.Errorf("remaining: %+v", ci.RemainingResources)
	}
	if len(ci.RegisteredResources) != 4 {
		t.Errorf("registered: %+v", ci.RegisteredResources)
	}
	w.orch.HostDisconnected(w.ctx, "h1")
	if ci = w.instance("demo", arn, ecs.ContainerInstanceFieldContainerInstanceHealth); *ci.AgentConnected || ci.HealthStatus.OverallStatus != "INSUFFICIENT_DATA" {
		t.Errorf("away: %+v", ci)
	}
}

func TestInstancesByQuery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	w.connect("h2", 4)
	arns := w.instances("demo")
	w.put("demo", attribute("stack", "prod", arns[0]))
	def := w.register("web", nil)
	out, err := w.ecs.StartTask(w.ctx, &ecs.StartTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, ContainerInstances: arns[1:], Group: api.Ptr("batch")})
	if err != nil || len(out.Tasks) != 1 {
		t.Fatalf("StartTask: %v %+v", err, out)
	}
	w.report(*out.Tasks[0].TaskArn, "RUNNING", nil)
	for text, want := range map[string]string{
		"attribute:stack == prod":                         arns[0],
		"attribute:stack !exists":                         arns[1],
		"task:group == batch":                             arns[1],
		"runningTasksCount > 0":                           arns[1],
		"attribute:ecs.availability-zone in [eu-west-1a]": strings.Join(arns, " "),
		"agentConnected == false":                         "",
		"attribute:stack == prod or (agentVersion == 1 and not runningTasksCount == 0)": strings.Join(arns, " "),
	} {
		got, err := w.ecs.ListContainerInstances(w.ctx, &ecs.ListContainerInstancesInput{Cluster: api.Ptr("demo"), Filter: &text})
		if err != nil || strings.Join(got.ContainerInstanceArns, " ") != want {
			t.Errorf("%s: %v %v, want %s", text, err, got, want)
		}
	}
	_, err = w.ecs.ListContainerInstances(w.ctx, &ecs.ListContainerInstancesInput{Cluster: api.Ptr("demo"), Filter: api.Ptr("attribute:stack ==")})
	wantError(t, err, "InvalidParameterException", "Invalid filter")
}

func TestInstanceCallsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	arn := w.instances("demo")[0]
	for _, c := range []struct {
		message string
		change  func(*ecs.UpdateContainerInstancesStateInput)
	}{
		{"cannot be empty", func(in *ecs.UpdateContainerInstancesStateInput) { in.ContainerInstances = nil }},
		{"more than 10", func(in *ecs.UpdateContainerInstancesStateInput) { in.ContainerInstances = make([]string, 11) }},
		{"[ACTIVE,DRAINING]", func(in *ecs.UpdateContainerInstancesStateInput) { in.Status = "REGISTERING" }},
		{"[ACTIVE,DRAINING]", func(in *ecs.UpdateContainerInstancesStateInput) { in.Status = "" }},
	} {
		in := &ecs.UpdateContainerInstancesStateInput{Cluster: api.Ptr("demo"), ContainerInstances: []string{arn}, Status: "ACTIVE"}
		c.change(in)
		_, err := w.ecs.UpdateContainerInstancesState(w.ctx, in)
		wantError(t, err, "InvalidParameterException", c.message)
	}
	_, err := w.ecs.ListContainerInstances(w.ctx, &ecs.ListContainerInstancesInput{Cluster: api.Ptr("demo"), Status: "SLEEPING"})
	wantError(t, err, "InvalidParameterException", "Invalid status")
	_, err = w.ecs.DeregisterContainerInstance(w.ctx, &ecs.DeregisterContainerInstanceInput{Cluster: api.Ptr("demo")})
	wantError(t, err, "InvalidParameterException", "blank")
}

// What Amazon's agent asks is answered, or refused in a way that it understands.
func TestCallsOfAmazonsAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	arn := w.instances("demo")[0]
	cluster, nobody := api.Ptr("demo"), api.Ptr(strings.Repeat("0", 32))
	_, err := w.ecs.RegisterContainerInstance(w.ctx, &ecs.RegisterContainerInstanceInput{Cluster: cluster})
	wantError(t, err, "ClientException", "register themselves")
	_, err = w.ecs.RegisterContainerInstance(w.ctx, &ecs.RegisterContainerInstanceInput{Cluster: cluster, ContainerInstanceArn: nobody})
	wantError(t, err, "ClientException", "not registered")
	out, err := w.ecs.RegisterContainerInstance(w.ctx, &ecs.RegisterContainerInstanceInput{Cluster: cluster, ContainerInstanceArn: &arn})
	if err != nil || *out.ContainerInstance.ContainerInstanceArn != arn {
		t.Errorf("again: %v %+v", err, out)
	}
	_, err = w.ecs.DiscoverPollEndpoint(w.ctx, &ecs.DiscoverPollEndpointInput{Cluster: cluster})
	wantError(t, err, "ClientException", "no endpoint")
	_, err = w.ecs.UpdateContainerAgent(w.ctx, &ecs.UpdateContainerAgentInput{Cluster: cluster, ContainerInstance: &arn})
	wantError(t, err, "NoUpdateAvailableException", "no update")
	_, err = w.ecs.UpdateContainerAgent(w.ctx, &ecs.UpdateContainerAgentInput{Cluster: cluster, ContainerInstance: nobody})
	wantError(t, err, "ClientException", "not found")
}

func TestSubmitAttachmentStateChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	def := w.register("web", func(in *ecs.RegisterTaskDefinitionInput) { in.NetworkMode = ecs.NetworkModeAwsvpc })
	out, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, NetworkConfiguration: &ecs.NetworkConfiguration{
		AwsvpcConfiguration: &ecs.AwsVpcConfiguration{Subnets: []string{"subnet-1"}}}})
	if err != nil || len(out.Tasks) != 1 {
		t.Fatalf("RunTask: %v %+v", err, out)
	}
	task := out.Tasks[0]
	submit := func(arn, status string) error {
		ack, err := w.ecs.SubmitAttachmentStateChanges(w.ctx, &ecs.SubmitAttachmentStateChangesInput{
			Cluster: api.Ptr("demo"), Attachments: []ecs.AttachmentStateChange{{AttachmentArn: &arn, Status: &status}}})
		if err == nil && *ack.Acknowledgment != "ACK" {
			t.Errorf("acknowledged with %q", *ack.Acknowledgment)
		}
		return err
	}
	arn := "arn:aws:ecs:eu-west-1:123456789012:attachment/" + *task.Attachments[0].Id
	if err := submit(arn, "ATTACHED"); err != nil {
		t.Fatal(err)
	}
	if got := w.describe(*task.TaskArn); *got.Attachments[0].Status != "ATTACHED" || *got.LastStatus == "RUNNING" {
		t.Errorf("the task: %+v", got.Attachments)
	}
	wantError(t, submit(arn+"0", "ATTACHED"), "InvalidParameterException", "not found")
	wantError(t, submit(arn, "GLUED"), "InvalidParameterException", "Invalid status")
	_, err = w.ecs.SubmitAttachmentStateChanges(w.ctx, &ecs.SubmitAttachmentStateChangesInput{Cluster: api.Ptr("demo")})
	wantError(t, err, "InvalidParameterException", "empty")
}
