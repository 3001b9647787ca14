package ecs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func groupARN(name string) string {
	return "arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:a1b2c3d4-5678-90ab-cdef-000000000000:autoScalingGroupName/" + name
}

func (w *world) createProvider(name string) *ecs.CapacityProvider {
	w.Helper()
	out, err := w.ecs.CreateCapacityProvider(w.ctx, &ecs.CreateCapacityProviderInput{
		Name: &name, AutoScalingGroupProvider: &ecs.AutoScalingGroupProvider{AutoScalingGroupArn: api.Ptr(groupARN(name))},
		Tags: []ecs.Tag{{Key: api.Ptr("k"), Value: api.Ptr("v")}},
	})
	if err != nil {
		w.Fatalf("CreateCapacityProvider: %v", err)
	}
	return out.CapacityProvider
}

func (w *world) associate(cluster string, strategy []ecs.CapacityProviderStrategyItem, names ...string) (*ecs.Cluster, error) {
	if strategy == nil {
		strategy = []ecs.CapacityProviderStrategyItem{}
	}
	if names == nil {
		names = []string{}
	}
	out, err := w.ecs.PutClusterCapacityProviders(w.ctx, &ecs.PutClusterCapacityProvidersInput{Cluster: &cluster, CapacityProviders: names, DefaultCapacityProviderStrategy: strategy})
	if err != nil {
		return nil, err
	}
	return out.Cluster, nil
}

func item(name string, base, weight int32) ecs.CapacityProviderStrategyItem {
	return ecs.CapacityProviderStrategyItem{CapacityProvider: &name, Base: &base, Weight: &weight}
}

func (w *world) provider(ref string) ecs.CapacityProvider {
	w.Helper()
	out, err := w.ecs.DescribeCapacityProviders(w.ctx, &ecs.DescribeCapacityProvidersInput{CapacityProviders: []string{ref}, Include: []ecs.CapacityProviderField{ecs.CapacityProviderFieldTags}})
	if err != nil || len(out.CapacityProviders) != 1 {
		w.Fatalf("DescribeCapacityProviders of %s: %v %+v", ref, err, out)
	}
	return out.CapacityProviders[0]
}

func TestACapacityProviderFromCreationToCreationAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	made := w.createProvider("web")
	g := made.AutoScalingGroupProvider
	if *made.CapacityProviderArn != "arn:aws:ecs:eu-west-1:123456789012:capacity-provider/web" || made.Status != "ACTIVE" || len(made.Tags) != 1 ||
		g.ManagedScaling.Status != "DISABLED" || *g.ManagedScaling.TargetCapacity != 100 || *g.ManagedScaling.MaximumScalingStepSize != 10000 ||
		*g.ManagedScaling.MinimumScalingStepSize != 1 || *g.ManagedScaling.InstanceWarmupPeriod != 300 ||
		g.ManagedTerminationProtection != "DISABLED" || g.ManagedDraining != "ENABLED" {
		t.Errorf("made: %+v %+v", made, g.ManagedScaling)
	}
	if got := w.provider(*made.CapacityProviderArn); *got.Name != "web" || len(got.Tags) != 1 {
		t.Errorf("described: %+v", got)
	}
	updated, err := w.ecs.UpdateCapacityProvider(w.ctx, &ecs.UpdateCapacityProviderInput{Name: api.Ptr("web"), AutoScalingGroupProvider: &ecs.AutoScalingGroupProviderUpdate{
		ManagedScaling: &ecs.ManagedScaling{Status: "ENABLED", TargetCapacity: api.Ptr(int32(80))}, ManagedTerminationProtection: "ENABLED",
	}})
	if err != nil {
		t.Fatal(err)
	}
	g = updated.CapacityProvider.AutoScalingGroupProvider
	if updated.CapacityProvider.UpdateStatus != "UPDATE_COMPLETE" || *g.ManagedScaling.TargetCapacity != 80 || *g.ManagedScaling.MaximumScalingStepSize != 10000 || g.ManagedTerminationProtection != "ENABLED" {
		t.Errorf("updated: %+v", updated.CapacityProvider)
	}

	c, err := w.associate("demo", []ecs.CapacityProviderStrategyItem{item("web", 1, 2)}, "web", "FARGATE")
	if err != nil || !slices.Equal(c.CapacityProviders, []string{"web", "FARGATE"}) || *c.DefaultCapacityProviderStrategy[0].Weight != 2 || *c.AttachmentsStatus != "UPDATE_COMPLETE" {
		t.Fatalf("PutClusterCapacityProviders: %v %+v", err, c)
	}
	kept, err := w.ecs.DeleteCapacityProvider(w.ctx, &ecs.DeleteCapacityProviderInput{CapacityProvider: api.Ptr("web")})
	if err != nil || kept.CapacityProvider.UpdateStatus != "DELETE_FAILED" || kept.CapacityProvider.Status != "ACTIVE" || !strings.Contains(*kept.CapacityProvider.UpdateStatusReason, "cluster: demo") {
		t.Fatalf("deletion of one in use: %v %+v", err, kept)
	}
	of, err := w.ecs.DescribeCapacityProviders(w.ctx, &ecs.DescribeCapacityProvidersInput{Cluster: api.Ptr("demo")})
	if err != nil || len(of.CapacityProviders) != 2 {
		t.Errorf("of the cluster: %v %+v", err, of)
	}
	if _, err = w.associate("demo", nil, "FARGATE"); err != nil {
		t.Fatal(err)
	}
	gone, err := w.ecs.DeleteCapacityProvider(w.ctx, &ecs.DeleteCapacityProviderInput{CapacityProvider: made.CapacityProviderArn})
	if err != nil || gone.CapacityProvider.UpdateStatus != "DELETE_COMPLETE" || gone.CapacityProvider.Status != "INACTIVE" || gone.CapacityProvider.UpdateStatusReason != nil {
		t.Fatalf("deletion: %v %+v", err, gone)
	}
	if got := w.provider("web"); got.Status != "INACTIVE" || len(got.Tags) != 0 {
		t.Errorf("after: %+v", got)
	}
	_, err = w.ecs.DeleteCapacityProvider(w.ctx, &ecs.DeleteCapacityProviderInput{CapacityProvider: api.Ptr("web")})
	wantError(t, err, "ClientException", "does not exist. Specify a valid name or ARN and try again.")
	if again := w.createProvider("web"); again.Status != "ACTIVE" || again.UpdateStatus != "" {
		t.Errorf("again: %+v", again)
	}
}

func TestCapacityProvidersInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 12 {
		w.createProvider(fmt.Sprintf("p%02d", i))
	}
	var names []string
	in := &ecs.DescribeCapacityProvidersInput{}
	for {
		out, err := w.ecs.DescribeCapacityProviders(w.ctx, in)
		if err != nil || len(out.CapacityProviders) > 10 {
			t.Fatalf("a page: %v, %d", err, len(out.CapacityProviders))
		}
		for _, p := range out.CapacityProviders {
			names = append(names, *p.Name)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if len(names) != 14 || !slices.Contains(names, "FARGATE_SPOT") || !slices.IsSorted(names) {
		t.Errorf("all: %v", names)
	}
	out, err := w.ecs.DescribeCapacityProviders(w.ctx, &ecs.DescribeCapacityProvidersInput{CapacityProviders: []string{"FARGATE", "none", "p01"}})
	if err != nil || len(out.CapacityProviders) != 2 || out.CapacityProviders[0].Type != "FARGATE" || len(out.Failures) != 1 ||
		*out.Failures[0].Reason != "MISSING" || *out.Failures[0].Arn != "arn:aws:ecs:eu-west-1:123456789012:capacity-provider/none" {
		t.Errorf("by name: %v %+v", err, out)
	}
}

func TestCapacityProvidersAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.createProvider("web")
	n := func(v int32) *int32 { return &v }
	for name, c := range map[string]struct {
		code, message string
		change        func(*ecs.CreateCapacityProviderInput)
	}{
		"a reserved name":  {"InvalidParameterException", "name is invalid", func(in *ecs.CreateCapacityProviderInput) { in.Name = api.Ptr("Fargate-2") }},
		"a bad name":       {"InvalidParameterException", "name is invalid", func(in *ecs.CreateCapacityProviderInput) { in.Name = api.Ptr("a b") }},
		"no name":          {"InvalidParameterException", "name is invalid", func(in *ecs.CreateCapacityProviderInput) { in.Name = nil }},
		"no group":         {"InvalidParameterException", "Auto Scaling group provider", func(in *ecs.CreateCapacityProviderInput) { in.AutoScalingGroupProvider = nil }},
		"an existing name": {"ClientException", "already exists", func(in *ecs.CreateCapacityProviderInput) { in.Name = api.Ptr("web") }},
		"a used group": {"ClientException", "already being used by another capacity provider", func(in *ecs.CreateCapacityProviderInput) {
			in.AutoScalingGroupProvider.AutoScalingGroupArn = api.Ptr(groupARN("web"))
		}},
		"a bad ARN": {"ClientException", "ARN is invalid", func(in *ecs.CreateCapacityProviderInput) {
			in.AutoScalingGroupProvider.AutoScalingGroupArn = api.Ptr("arn:aws:ec2:x")
		}},
		"no percentage": {"InvalidParameterException", "target capacity", func(in *ecs.CreateCapacityProviderInput) {
			in.AutoScalingGroupProvider.ManagedScaling = &ecs.ManagedScaling{TargetCapacity: n(101)}
		}},
		"steps the wrong way": {"InvalidParameterException", "scaling step size value is invalid", func(in *ecs.CreateCapacityProviderInput) {
			in.AutoScalingGroupProvider.ManagedScaling = &ecs.ManagedScaling{MinimumScalingStepSize: n(3), MaximumScalingStepSize: n(2)}
		}},
		"protection without scaling": {"InvalidParameterException", "managed termination protection", func(in *ecs.CreateCapacityProviderInput) {
			in.AutoScalingGroupProvider.ManagedTerminationProtection = "ENABLED"
		}},
		"managed instances": {"UnsupportedFeatureException", "Managed Instances", func(in *ecs.CreateCapacityProviderInput) {
			in.ManagedInstancesProvider = &ecs.CreateManagedInstancesProviderConfiguration{}
		}},
	} {
		in := &ecs.CreateCapacityProviderInput{Name: api.Ptr("new"), AutoScalingGroupProvider: &ecs.AutoScalingGroupProvider{AutoScalingGroupArn: api.Ptr(groupARN("new"))}}
		c.change(in)
		_, err := w.ecs.CreateCapacityProvider(w.ctx, in)
		t.Log(name)
		wantError(t, err, c.code, c.message)
	}
	_, err := w.ecs.DeleteCapacityProvider(w.ctx, &ecs.DeleteCapacityProviderInput{CapacityProvider: api.Ptr("FARGATE")})
	wantError(t, err, "InvalidParameterException", "reserved")
	_, err = w.ecs.UpdateCapacityProvider(w.ctx, &ecs.UpdateCapacityProviderInput{Name: api.Ptr("none"), AutoScalingGroupProvider: &ecs.AutoScalingGroupProviderUpdate{}})
	wantError(t, err, "ClientException", "does not exist")
	for message, names := range map[string][]string{
		"capacity provider was not found": {"none"},
		"not associated with the cluster": {"FARGATE"},
	} {
		_, err = w.associate("demo", []ecs.CapacityProviderStrategyItem{item("web", 0, 1)}, names...)
		wantError(t, err, "InvalidParameterException", message)
	}
	_, err = w.ecs.PutClusterCapacityProviders(w.ctx, &ecs.PutClusterCapacityProvidersInput{Cluster: api.Ptr("demo"), CapacityProviders: []string{}})
	wantError(t, err, "InvalidParameterException", "Both capacityProviders and")
	_, err = w.ecs.CreateCluster(w.ctx, &ecs.CreateClusterInput{ClusterName: api.Ptr("other"), CapacityProviders: []string{"none"}})
	wantError(t, err, "InvalidParameterException", "capacity provider was not found")
	many := []string{}
	for i := range 21 {
		many = append(many, fmt.Sprint("p", i))
		w.createProvider(many[i])
	}
	_, err = w.associate("demo", nil, many...)
	wantError(t, err, "InvalidParameterException", "The maximum number of capacity providers per cluster has been exceeded.")
}

func TestRunTaskByStrategy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 16)
	w.connect("h2", 16)
	w.connect("h3", 16)
	w.createProvider("web")
	w.createProvider("batch")
	w.createProvider("empty")
	def := w.register("web", nil)
	run := func(count int32, strategy ...ecs.CapacityProviderStrategyItem) (*ecs.RunTaskOutput, error) {
		return w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, Count: &count, CapacityProviderStrategy: strategy})
	}
	_, err := run(1, item("web", 0, 1))
	wantError(t, err, "InvalidParameterException", "not associated with the cluster. Associate the capacity provider with the cluster and try again.")
	if _, err = w.associate("demo", []ecs.CapacityProviderStrategyItem{item("web", 0, 1)}, "web", "batch", "empty", "FARGATE"); err != nil {
		t.Fatal(err)
	}
	_, err = run(1, item("web", 0, 1))
	wantError(t, err, "InvalidParameterException", "No Container Instances were found in your capacity provider.")

	arns := w.instances("demo")
	w.put("demo", attribute("berth.capacity-provider", "web", arns[0]), attribute("berth.capacity-provider", "batch", arns[1]))
	if ci := w.instance("demo", arns[0]); api.Value(ci.CapacityProviderName) != "web" {
		t.Errorf("instance: %+v", ci)
	}
	if ci := w.instance("demo", arns[2]); ci.CapacityProviderName != nil {
		t.Errorf("an instance of none: %+v", ci)
	}
	on := map[string]string{"web": arns[0], "batch": arns[1]}
	out, err := run(10, item("web", 2, 1), item("batch", 0, 3))
	if err != nil || len(out.Tasks) != 10 || len(out.Failures) != 0 {
		t.Fatalf("RunTask: %v %+v", err, out)
	}
	counts := map[string]int{}
	for _, task := range out.Tasks {
		name := api.Value(task.CapacityProviderName)
		counts[name]++
		if *task.ContainerInstanceArn != on[name] || task.LaunchType != "EC2" {
			t.Errorf("a task of %s is on %s as %s", name, *task.ContainerInstanceArn, task.LaunchType)
		}
	}
	if counts["web"] != 4 || counts["batch"] != 6 {
		t.Errorf("counts: %v", counts)
	}
	// By the cluster's default, unless a launch type says otherwise.
	if out = w.run("demo", def, 1); api.Value(out.Tasks[0].CapacityProviderName) != "web" {
		t.Errorf("by default: %+v", out.Tasks[0])
	}
	out, err = w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, LaunchType: "EC2"})
	if err != nil || out.Tasks[0].CapacityProviderName != nil {
		t.Errorf("by launch type: %v %+v", err, out)
	}
	// A provider without room fails its own tasks, not the other's.
	big := w.register("big", func(in *ecs.RegisterTaskDefinitionInput) { in.ContainerDefinitions[0].Cpu = api.Ptr(int32(13 << 10)) })
	out, err = w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &big, Count: api.Ptr(int32(4)),
		CapacityProviderStrategy: []ecs.CapacityProviderStrategyItem{item("web", 0, 1), item("batch", 0, 1)}})
	if err != nil || len(out.Tasks) != 2 || len(out.Failures) != 2 || *out.Failures[0].Reason != "RESOURCE:CPU" {
		t.Errorf("without room: %v, %d tasks, %+v", err, len(out.Tasks), out.Failures)
	}
	// One without hosts says so, in ECS's words.
	for _, state := range []string{"EMPTY CAPACITY PROVIDER", "NO ACTIVE INSTANCES"} {
		if state == "NO ACTIVE INSTANCES" {
			w.put("demo", attribute("berth.capacity-provider", "empty", arns[2]))
			w.setState("DRAINING", arns[2])
		}
		in := &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, Count: api.Ptr(int32(2)), ClientToken: &state,
			CapacityProviderStrategy: []ecs.CapacityProviderStrategyItem{item("web", 0, 1), item("empty", 0, 1)}}
		out, err = w.ecs.RunTask(w.ctx, in)
		if err != nil || len(out.Tasks) != 1 || len(out.Failures) != 1 || *out.Failures[0].Reason != state || !strings.HasSuffix(*out.Failures[0].Arn, ":capacity-provider/empty") {
			t.Errorf("%s: %v %+v", state, err, out)
		}
		if again, err := w.ecs.RunTask(w.ctx, in); err != nil || len(again.Tasks) != 1 || len(again.Failures) != 0 {
			t.Errorf("%s, repeated: %v %+v", state, err, again)
		}
	}
	_, err = w.associate("demo", nil, "FARGATE")
	wantError(t, err, "ResourceInUseException", "The specified capacity provider is in use and cannot be removed.")

	for message, change := range map[string]func(*ecs.RunTaskInput){
		"both a launch type and capacity provider": func(in *ecs.RunTaskInput) { in.LaunchType = "EC2" },
		"a mix of capacity providers": func(in *ecs.RunTaskInput) {
			in.CapacityProviderStrategy = append(in.CapacityProviderStrategy, item("FARGATE", 0, 1))
		},
		"weight greater than 0": func(in *ecs.RunTaskInput) {
			in.CapacityProviderStrategy = []ecs.CapacityProviderStrategyItem{item("web", 0, 0), item("batch", 0, 0)}
		},
		"not associated":                  func(in *ecs.RunTaskInput) { in.CapacityProviderStrategy[0].CapacityProvider = api.Ptr("FARGATE_SPOT") },
		"more than 20 capacity providers": func(in *ecs.RunTaskInput) { in.CapacityProviderStrategy = make([]ecs.CapacityProviderStrategyItem, 21) },
		"in your capacity provider":       func(in *ecs.RunTaskInput) { in.CapacityProviderStrategy[0].CapacityProvider = api.Ptr("empty") },
		"does not support launch_type FARGATE": func(in *ecs.RunTaskInput) {
			in.CapacityProviderStrategy[0].CapacityProvider = api.Ptr("FARGATE")
		},
	} {
		in := &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, CapacityProviderStrategy: []ecs.CapacityProviderStrategyItem{item("web", 0, 1)}}
		change(in)
		_, err := w.ecs.RunTask(w.ctx, in)
		wantError(t, err, "InvalidParameterException", message)
	}
	for _, arn := range arns {
		w.setState("DRAINING", arn)
	}
	_, err = run(1, item("web", 0, 1))
	wantError(t, err, "InvalidParameterException", "No Container Instances were found in your capacity provider.")
}
