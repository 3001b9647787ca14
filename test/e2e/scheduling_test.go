package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// instance is the cluster's one container instance.
func (w *world) instance() types.ContainerInstance {
	w.Helper()
	list, err := w.ecs.ListContainerInstances(ctx(w.T), &ecs.ListContainerInstancesInput{Cluster: &w.cluster})
	if err != nil || len(list.ContainerInstanceArns) != 1 {
		w.Fatalf("ListContainerInstances: %v, %s", err, show(list))
	}
	return w.describeInstance(list.ContainerInstanceArns[0])
}

func (w *world) describeInstance(arn string) types.ContainerInstance {
	w.Helper()
	seen, err := w.ecs.DescribeContainerInstances(ctx(w.T), &ecs.DescribeContainerInstancesInput{
		Cluster: &w.cluster, ContainerInstances: []string{arn}, Include: []types.ContainerInstanceField{types.ContainerInstanceFieldTags},
	})
	if err != nil || len(seen.ContainerInstances) != 1 {
		w.Fatalf("DescribeContainerInstances: %v, %s", err, show(seen))
	}
	return seen.ContainerInstances[0]
}

// places runs a definition with changes to the call, expects so many tasks, and failures of these reasons.
func (w *world) places(definition string, tasks int, reasons []string, change func(*ecs.RunTaskInput)) []types.Task {
	w.Helper()
	in := &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition}
	change(in)
	out, err := w.ecs.RunTask(ctx(w.T), in)
	if err != nil {
		w.Fatalf("RunTask: %v", err)
	}
	var got []string
	for _, f := range out.Failures {
		got = append(got, aws.ToString(f.Reason))
		if aws.ToString(f.Arn) == "" {
			w.Errorf("a failure without an ARN: %s", show(f))
		}
	}
	if len(out.Tasks) != tasks || !slices.Equal(got, reasons) {
		w.Errorf("%d tasks and the failures %q, not %d and %q", len(out.Tasks), got, tasks, reasons)
	}
	return out.Tasks
}

func memberOf(expression string) func(*ecs.RunTaskInput) {
	return func(in *ecs.RunTaskInput) {
		in.PlacementConstraints = []types.PlacementConstraint{{Type: types.PlacementConstraintTypeMemberOf, Expression: &expression}}
	}
}

const notMember = "MemberOf placement constraint unsatisfied."

// TestCustomAttributes: what is put on a container instance is listed, decides where tasks go, and is
// gone when it is deleted.
func TestCustomAttributes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	before := w.instance()
	arn := before.ContainerInstanceArn
	put := func(name, value string) types.Attribute {
		a := types.Attribute{Name: &name, TargetId: arn}
		if value != "" {
			a.Value = &value
		}
		return a
	}
	out, err := w.ecs.PutAttributes(ctx(t), &ecs.PutAttributesInput{Cluster: &w.cluster, Attributes: []types.Attribute{
		put("stack", "blue"), put("rank", "7"), put("bare", ""),
	}})
	if err != nil || len(out.Attributes) != 3 || out.Attributes[0].TargetType != types.TargetTypeContainerInstance {
		t.Fatalf("PutAttributes: %v, %s", err, show(out))
	}
	if now := w.instance(); now.Version <= before.Version {
		t.Errorf("the container instance's version was %d and is %d", before.Version, now.Version)
	}
	listed := func(name, value string) (names []string) {
		in := &ecs.ListAttributesInput{Cluster: &w.cluster, TargetType: types.TargetTypeContainerInstance, MaxResults: aws.Int32(2)}
		if name != "" {
			in.AttributeName = &name
		}
		if value != "" {
			in.AttributeValue = &value
		}
		for pages := ecs.NewListAttributesPaginator(w.ecs, in); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx(t))
			if err != nil || len(page.Attributes) > 2 {
				t.Fatalf("ListAttributes: %v, %d on a page of two", err, len(page.Attributes))
			}
			for _, a := range page.Attributes {
				names = append(names, aws.ToString(a.Name)+"="+aws.ToString(a.Value))
			}
		}
		return names
	}
	all := listed("", "")
	for _, want := range []string{"stack=blue", "rank=7", "bare=", "ecs.os-type=linux"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is not among the attributes %q", want, all)
		}
	}
	if got := listed("stack", "blue"); !slices.Equal(got, []string{"stack=blue"}) {
		t.Errorf("by name and value: %q", got)
	}
	if got := listed("stack", "red"); got != nil {
		t.Errorf("by another value: %q", got)
	}

	done := w.define(nil, w.app("exit", "0"))
	for expression, fits := range map[string]bool{
		"attribute:stack == blue": true, "attribute:stack == red": false, "attribute:stack exists": true,
		"attribute:bare exists": true, "attribute:absent exists": false, "attribute:absent !exists": true,
		"attribute:stack in [red, blue]": true, "attribute:stack =~ bl.*": true, "attribute:stack !~ bl.*": false,
		"not(attribute:stack == blue)": false, "attribute:rank == 7 and attribute:ecs.os-type == linux": true,
		"attribute:stack == red or (attribute:rank == 7 && agentConnected == true)": true,
		"runningTasksCount > 1000": false,
	} {
		if fits {
			w.places(done, 1, nil, memberOf(expression))
		} else {
			w.places(done, 0, []string{notMember}, memberOf(expression))
		}
		instances, err := w.ecs.ListContainerInstances(ctx(t), &ecs.ListContainerInstancesInput{Cluster: &w.cluster, Filter: &expression})
		if err != nil || len(instances.ContainerInstanceArns) == 1 != fits {
			t.Errorf("ListContainerInstances with the filter %s: %v, %v", expression, instances.ContainerInstanceArns, err)
		}
	}
	// A definition's own constraint holds beside the call's.
	constrained := w.define(func(in *taskDefinition) {
		in.PlacementConstraints = []types.TaskDefinitionPlacementConstraint{{Type: types.TaskDefinitionPlacementConstraintTypeMemberOf, Expression: aws.String("attribute:stack == blue")}}
	}, w.app("exit", "0"))
	w.places(constrained, 1, nil, memberOf("attribute:rank == 7"))
	w.places(constrained, 0, []string{notMember}, memberOf("attribute:rank == 8"))

	if _, err := w.ecs.PutAttributes(ctx(t), &ecs.PutAttributesInput{Cluster: &w.cluster, Attributes: []types.Attribute{put("stack", "red")}}); err != nil {
		t.Fatalf("PutAttributes: %v", err)
	}
	w.places(constrained, 0, []string{notMember}, memberOf("attribute:rank == 7"))
	if _, err := w.ecs.DeleteAttributes(ctx(t), &ecs.DeleteAttributesInput{Cluster: &w.cluster, Attributes: []types.Attribute{put("stack", ""), put("rank", ""), put("absent", "")}}); err != nil {
		t.Fatalf("DeleteAttributes: %v", err)
	}
	w.places(done, 0, []string{notMember}, memberOf("attribute:stack exists"))
	if now := listed("", ""); len(now) != len(all)-2 {
		t.Errorf("the attributes were %q and are %q", all, now)
	}
}

// TestDistinctInstance: one host takes one task of a group.
func TestDistinctInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(nil, w.app("wait"))
	distinct := func(count int32, group string) func(*ecs.RunTaskInput) {
		return func(in *ecs.RunTaskInput) {
			in.Count, in.Group = &count, &group
			in.PlacementConstraints = []types.PlacementConstraint{{Type: types.PlacementConstraintTypeDistinctInstance}}
		}
	}
	const no = "DistinctInstance placement constraint unsatisfied."
	first := w.places(definition, 1, []string{no}, distinct(2, "one"))
	w.places(definition, 0, []string{no}, distinct(1, "one"))
	w.places(definition, 1, nil, distinct(1, "another"))
	w.places(definition, 0, []string{notMember}, memberOf("not(task:group == one)"))
	w.stop(first[0], "")
	w.stopped(first[0])
	w.places(definition, 1, nil, distinct(1, "one"))
}

// TestPlacementStrategies: each is accepted, alone and in a chain.
func TestPlacementStrategies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(nil, w.app("exit", "0"))
	strategy := func(typ types.PlacementStrategyType, field string) types.PlacementStrategy {
		s := types.PlacementStrategy{Type: typ}
		if field != "" {
			s.Field = &field
		}
		return s
	}
	spread, binpack, random := types.PlacementStrategyTypeSpread, types.PlacementStrategyTypeBinpack, types.PlacementStrategyTypeRandom
	for _, chain := range [][]types.PlacementStrategy{
		{strategy(spread, "instanceId")}, {strategy(spread, "host")}, {strategy(spread, "attribute:ecs.availability-zone")},
		{strategy(binpack, "cpu")}, {strategy(binpack, "memory")}, {strategy(random, "")},
		{strategy(spread, "attribute:ecs.availability-zone"), strategy(spread, "attribute:rack"), strategy(binpack, "memory"), strategy(binpack, "cpu"), strategy(random, "")},
	} {
		w.places(definition, 1, nil, func(in *ecs.RunTaskInput) { in.PlacementStrategy = chain })
	}
}

// TestDraining: a draining container instance takes no new tasks, keeps what it runs, and takes tasks again
// once it is ACTIVE.
func TestDraining(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(nil, w.app("wait"))
	task := w.running(w.run(definition))
	turn := func(status types.ContainerInstanceStatus) {
		t.Helper()
		out, err := w.ecs.UpdateContainerInstancesState(ctx(t), &ecs.UpdateContainerInstancesStateInput{
			Cluster: &w.cluster, ContainerInstances: []string{*task.ContainerInstanceArn, "0123456789abcdef0123456789abcdef"}, Status: status,
		})
		if err != nil || len(out.ContainerInstances) != 1 || aws.ToString(out.ContainerInstances[0].Status) != string(status) {
			t.Fatalf("UpdateContainerInstancesState: %v, %s", err, show(out))
		}
		if len(out.Failures) != 1 || aws.ToString(out.Failures[0].Reason) != "MISSING" {
			t.Errorf("the unknown one is the failure MISSING: %s", show(out.Failures))
		}
	}
	listed := func(status types.ContainerInstanceStatus) int {
		out, err := w.ecs.ListContainerInstances(ctx(t), &ecs.ListContainerInstancesInput{Cluster: &w.cluster, Status: status})
		if err != nil {
			t.Fatal(err)
		}
		return len(out.ContainerInstanceArns)
	}
	turn(types.ContainerInstanceStatusDraining)
	if listed("DRAINING") != 1 || listed("ACTIVE") != 0 {
		t.Errorf("%d draining, %d active", listed("DRAINING"), listed("ACTIVE"))
	}
	if out, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition}); err == nil {
		if len(out.Tasks) != 0 || len(out.Failures) == 0 {
			t.Errorf("a draining instance takes a task: %s", show(out))
		}
	} else {
		wantError(t, err, "InvalidParameterException", "No Container Instances were found in your cluster.")
	}
	if s := aws.ToString(w.describe(task).LastStatus); s != "RUNNING" {
		t.Errorf("the task that was there is %s", s)
	}
	if ci := w.describeInstance(*task.ContainerInstanceArn); ci.RunningTasksCount != 1 {
		t.Errorf("%d running tasks", ci.RunningTasksCount)
	}
	turn(types.ContainerInstanceStatusActive)
	w.running(w.run(definition))
}

// TestDeregisterContainerInstance: not without force while tasks run; with force they stop, and the host
// comes back as another instance with the next task.
func TestDeregisterContainerInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(nil, w.app("wait"))
	task := w.running(w.run(definition))
	old := task.ContainerInstanceArn
	_, err := w.ecs.DeregisterContainerInstance(ctx(t), &ecs.DeregisterContainerInstanceInput{Cluster: &w.cluster, ContainerInstance: old})
	wantError(t, err, "InvalidParameterException", "Found running tasks on the instance.")
	out, err := w.ecs.DeregisterContainerInstance(ctx(t), &ecs.DeregisterContainerInstanceInput{Cluster: &w.cluster, ContainerInstance: old, Force: aws.Bool(true)})
	if err != nil || aws.ToString(out.ContainerInstance.Status) != "INACTIVE" || out.ContainerInstance.AgentConnected {
		t.Fatalf("DeregisterContainerInstance: %v, %s", err, show(out))
	}
	done := w.stopped(task)
	if aws.ToString(done.StoppedReason) != "Container instance deregistration forced by user" || done.StopCode != types.TaskStopCodeUserInitiated {
		t.Errorf("its task stopped with %s: %s", done.StopCode, aws.ToString(done.StoppedReason))
	}
	again := w.running(w.run(definition))
	if aws.ToString(again.ContainerInstanceArn) == *old {
		t.Errorf("the host came back as the instance that was deregistered, %s", *old)
	}
	if s := aws.ToString(w.describeInstance(*again.ContainerInstanceArn).Status); s != "ACTIVE" {
		t.Errorf("the new instance is %s", s)
	}
	started, err := w.ecs.StartTask(ctx(t), &ecs.StartTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, ContainerInstances: []string{*old}})
	if err != nil || len(started.Tasks) != 0 || len(started.Failures) != 1 {
		t.Errorf("StartTask on an instance that is gone: %v, %s", err, show(started))
	}
}

// TestCapacityProviderStrategies: the base first, the rest by weight; a provider without hosts says so.
func TestCapacityProviderStrategies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dev(t))
	item := func(name string, base, weight int32) types.CapacityProviderStrategyItem {
		return types.CapacityProviderStrategyItem{CapacityProvider: &name, Base: base, Weight: weight}
	}
	provider := "harbour-" + strings.ToLower(label(t))
	made, err := w.ecs.CreateCapacityProvider(ctx(t), &ecs.CreateCapacityProviderInput{Name: &provider, AutoScalingGroupProvider: &types.AutoScalingGroupProvider{
		AutoScalingGroupArn: aws.String("arn:aws:autoscaling:us-east-1:000000000000:autoScalingGroup:00000000-0000-0000-0000-000000000000:autoScalingGroupName/" + provider),
	}})
	if err != nil || made.CapacityProvider.Status != types.CapacityProviderStatusActive {
		t.Fatalf("CreateCapacityProvider: %v, %s", err, show(made))
	}
	given, err := w.ecs.PutClusterCapacityProviders(ctx(t), &ecs.PutClusterCapacityProvidersInput{
		Cluster: &w.cluster, CapacityProviders: []string{"FARGATE", "FARGATE_SPOT", provider},
		DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{item("FARGATE", 1, 1), item("FARGATE_SPOT", 0, 3)},
	})
	if err != nil || len(given.Cluster.CapacityProviders) != 3 || len(given.Cluster.DefaultCapacityProviderStrategy) != 2 {
		t.Fatalf("PutClusterCapacityProviders: %v, %s", err, show(given))
	}
	fargate := w.define(func(in *taskDefinition) {
		in.NetworkMode, in.Cpu, in.Memory = types.NetworkModeAwsvpc, aws.String("256"), aws.String("512")
		in.RequiresCompatibilities = []types.Compatibility{types.CompatibilityFargate, types.CompatibilityEc2}
	}, w.shell("true"))
	split := func(want map[string]int, change func(*ecs.RunTaskInput)) {
		t.Helper()
		got, total := map[string]int{}, 0
		for _, n := range want {
			total += n
		}
		for _, task := range w.places(fargate, total, nil, func(in *ecs.RunTaskInput) {
			in.Count, in.NetworkConfiguration = aws.Int32(int32(total)), subnet
			change(in)
		}) {
			got[aws.ToString(task.CapacityProviderName)]++
			if task.LaunchType != types.LaunchTypeFargate {
				t.Errorf("a task of %s has launch type %s", aws.ToString(task.CapacityProviderName), task.LaunchType)
			}
			w.stop(task, "")
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the tasks went to %v, not %v", got, want)
		}
	}
	split(map[string]int{"FARGATE": 2, "FARGATE_SPOT": 3}, func(*ecs.RunTaskInput) {}) // the cluster's: 1, then 1:3 of 4
	split(map[string]int{"FARGATE_SPOT": 2}, func(in *ecs.RunTaskInput) {
		in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{item("FARGATE", 0, 0), item("FARGATE_SPOT", 0, 1)}
	})

	ofHarbour := func(in *ecs.RunTaskInput) {
		in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{item(provider, 0, 1)}
		in.NetworkConfiguration = subnet
	}
	in := &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &fargate}
	ofHarbour(in)
	if out, err := w.ecs.RunTask(ctx(t), in); err == nil {
		if len(out.Tasks) != 0 || len(out.Failures) != 1 || aws.ToString(out.Failures[0].Reason) != "EMPTY CAPACITY PROVIDER" {
			t.Errorf("a provider without hosts: %s", show(out))
		}
	} else {
		wantError(t, err, "InvalidParameterException", "No Container Instances were found in your capacity provider.")
	}
	ci := w.instance()
	if _, err := w.ecs.PutAttributes(ctx(t), &ecs.PutAttributesInput{Cluster: &w.cluster, Attributes: []types.Attribute{{Name: aws.String("berth.capacity-provider"), Value: &provider, TargetId: ci.ContainerInstanceArn}}}); err != nil {
		t.Fatalf("PutAttributes: %v", err)
	}
	for _, task := range w.places(fargate, 1, nil, ofHarbour) {
		if aws.ToString(task.CapacityProviderName) != provider || task.LaunchType != types.LaunchTypeEc2 {
			t.Errorf("the task's provider is %s, its launch type %s", aws.ToString(task.CapacityProviderName), task.LaunchType)
		}
		if now := w.describeInstance(*task.ContainerInstanceArn); aws.ToString(now.CapacityProviderName) != provider {
			t.Errorf("the instance's provider is %s", aws.ToString(now.CapacityProviderName))
		}
		w.stopped(task)
	}
	// In use by a cluster, it stays; out of it, it goes.
	kept, err := w.ecs.DeleteCapacityProvider(ctx(t), &ecs.DeleteCapacityProviderInput{CapacityProvider: &provider})
	if err != nil || kept.CapacityProvider.UpdateStatus != types.CapacityProviderUpdateStatusDeleteFailed {
		t.Errorf("DeleteCapacityProvider of a cluster's: %v, %s", err, show(kept))
	}
	if _, err := w.ecs.PutClusterCapacityProviders(ctx(t), &ecs.PutClusterCapacityProvidersInput{Cluster: &w.cluster, CapacityProviders: []string{}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}}); err != nil {
		// Tasks of FARGATE may still be stopping.
		wantError(t, err, "ResourceInUseException")
		w.stopEverything()
		_, err = w.ecs.PutClusterCapacityProviders(ctx(t), &ecs.PutClusterCapacityProvidersInput{Cluster: &w.cluster, CapacityProviders: []string{}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}})
		if err != nil {
			t.Fatalf("PutClusterCapacityProviders: %v", err)
		}
	}
	gone, err := w.ecs.DeleteCapacityProvider(ctx(t), &ecs.DeleteCapacityProviderInput{CapacityProvider: made.CapacityProvider.CapacityProviderArn})
	if err != nil || gone.CapacityProvider.Status != types.CapacityProviderStatusInactive {
		t.Errorf("DeleteCapacityProvider: %v, %s", err, show(gone))
	}
}

// stopEverything waits until no task of the cluster is left that has not stopped.
func (w *world) stopEverything() {
	w.Helper()
	for _, status := range []types.DesiredStatus{types.DesiredStatusRunning, types.DesiredStatusStopped} {
		list, err := w.ecs.ListTasks(ctx(w.T), &ecs.ListTasksInput{Cluster: &w.cluster, DesiredStatus: status})
		if err != nil {
			w.Fatalf("ListTasks: %v", err)
		}
		for _, arn := range list.TaskArns {
			task := types.Task{TaskArn: &arn}
			if status == types.DesiredStatusRunning {
				w.stop(task, "")
			}
			w.stopped(task)
		}
	}
}

// TestAccountSettings: a principal's own, and what they do to the clusters it makes.
func TestAccountSettings(t *testing.T) {
	t.Parallel()
	b := plain(t)
	// A role's, so that nobody else's clusters change.
	assumed, err := b.STS().AssumeRole(ctx(t), &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::000000000000:role/" + label(t)), RoleSessionName: aws.String("tester")})
	if err != nil {
		t.Fatal(err)
	}
	config := b.Config()
	config.Credentials = aws.CredentialsProviderFunc(fixed(assumed))
	client := ecs.NewFromConfig(config)
	insights := func(in *ecs.CreateClusterInput) string {
		t.Helper()
		in.ClusterName = aws.String(label(t))
		out, err := client.CreateCluster(ctx(t), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range out.Cluster.Settings {
			if s.Name == types.ClusterSettingNameContainerInsights {
				return aws.ToString(s.Value)
			}
		}
		return ""
	}
	if v := insights(&ecs.CreateClusterInput{}); v != "disabled" {
		t.Errorf("a cluster starts with containerInsights %q", v)
	}
	set, err := client.PutAccountSetting(ctx(t), &ecs.PutAccountSettingInput{Name: types.SettingNameContainerInsights, Value: aws.String("enhanced")})
	if err != nil || aws.ToString(set.Setting.Value) != "enhanced" || !strings.Contains(aws.ToString(set.Setting.PrincipalArn), ":role/") {
		t.Fatalf("PutAccountSetting: %v, %s", err, show(set))
	}
	if v := insights(&ecs.CreateClusterInput{}); v != "enhanced" {
		t.Errorf("with the setting, a cluster starts with containerInsights %q", v)
	}
	own := &ecs.CreateClusterInput{Settings: []types.ClusterSetting{{Name: types.ClusterSettingNameContainerInsights, Value: aws.String("enabled")}}}
	if v := insights(own); v != "enabled" {
		t.Errorf("a cluster's own setting is %q", v)
	}
	updated, err := client.UpdateClusterSettings(ctx(t), &ecs.UpdateClusterSettingsInput{Cluster: own.ClusterName, Settings: []types.ClusterSetting{{Name: types.ClusterSettingNameContainerInsights, Value: aws.String("disabled")}}})
	if err != nil || aws.ToString(updated.Cluster.Settings[0].Value) != "disabled" {
		t.Errorf("UpdateClusterSettings: %v, %s", err, show(updated))
	}
	for _, name := range types.SettingName("").Values() {
		out, err := client.ListAccountSettings(ctx(t), &ecs.ListAccountSettingsInput{Name: name, EffectiveSettings: true})
		if err != nil || len(out.Settings) != 1 || aws.ToString(out.Settings[0].Value) == "" {
			t.Errorf("the effective setting %s: %v, %s", name, err, show(out))
		}
	}
	var effective int
	for pages := ecs.NewListAccountSettingsPaginator(client, &ecs.ListAccountSettingsInput{EffectiveSettings: true, MaxResults: 5}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx(t))
		if err != nil || len(page.Settings) > 5 {
			t.Fatalf("ListAccountSettings: %v, %s", err, show(page))
		}
		effective += len(page.Settings)
	}
	if effective < len(types.SettingName("").Values()) {
		t.Errorf("%d effective settings of %d", effective, len(types.SettingName("").Values()))
	}
	mine, err := client.ListAccountSettings(ctx(t), &ecs.ListAccountSettingsInput{})
	if err != nil || len(mine.Settings) != 1 {
		t.Errorf("its own settings: %v, %s", err, show(mine))
	}
	if _, err := client.DeleteAccountSetting(ctx(t), &ecs.DeleteAccountSettingInput{Name: types.SettingNameContainerInsights}); err != nil {
		t.Fatalf("DeleteAccountSetting: %v", err)
	}
	if v := insights(&ecs.CreateClusterInput{}); v != "disabled" {
		t.Errorf("without the setting, a cluster starts with containerInsights %q", v)
	}
}

// TestTags: on every resource, from the definition or the call, and ECS's own.
func TestTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	tag := func(k, v string) types.Tag { return types.Tag{Key: &k, Value: &v} }
	definition := w.define(func(in *taskDefinition) { in.Tags = []types.Tag{tag("team", "blue"), tag("only", "definition")} }, w.app("wait"))
	tagsOf := func(tags []types.Tag) string {
		var out []string
		for _, t := range tags {
			out = append(out, aws.ToString(t.Key)+"="+aws.ToString(t.Value))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		change func(*ecs.RunTaskInput)
		want   string
	}{
		{func(*ecs.RunTaskInput) {}, ""},
		{func(in *ecs.RunTaskInput) { in.Tags = []types.Tag{tag("team", "call")} }, "team=call"},
		{func(in *ecs.RunTaskInput) { in.PropagateTags = types.PropagateTagsTaskDefinition }, "only=definition team=blue"},
		{func(in *ecs.RunTaskInput) {
			in.PropagateTags, in.Tags = types.PropagateTagsTaskDefinition, []types.Tag{tag("team", "call")}
		}, "only=definition team=call"},
		{func(in *ecs.RunTaskInput) { in.EnableECSManagedTags = true }, "aws:ecs:clusterName=" + w.cluster},
	} {
		task := w.runWith(definition, c.change)
		seen, err := w.ecs.DescribeTasks(ctx(t), &ecs.DescribeTasksInput{Cluster: &w.cluster, Tasks: []string{*task.TaskArn}, Include: []types.TaskField{types.TaskFieldTags}})
		if err != nil || tagsOf(seen.Tasks[0].Tags) != c.want || tagsOf(task.Tags) != c.want {
			t.Errorf("the task's tags are %q, and in RunTask's answer %q, not %q: %v", tagsOf(seen.Tasks[0].Tags), tagsOf(task.Tags), c.want, err)
		}
		if bare := w.describe(task); len(bare.Tags) != 0 {
			t.Errorf("tags that were not asked for: %s", show(bare.Tags))
		}
		w.stop(task, "")
	}
	ci := w.instance()
	clusters, err := w.ecs.DescribeClusters(ctx(t), &ecs.DescribeClustersInput{Clusters: []string{w.cluster}})
	if err != nil {
		t.Fatal(err)
	}
	for _, arn := range []*string{clusters.Clusters[0].ClusterArn, ci.ContainerInstanceArn, &definition} {
		if _, err := w.ecs.TagResource(ctx(t), &ecs.TagResourceInput{ResourceArn: arn, Tags: []types.Tag{tag("team", "green"), tag("n", "")}}); err != nil {
			t.Fatalf("TagResource %s: %v", *arn, err)
		}
		if _, err := w.ecs.UntagResource(ctx(t), &ecs.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"n", "only"}}); err != nil {
			t.Fatalf("UntagResource %s: %v", *arn, err)
		}
		out, err := w.ecs.ListTagsForResource(ctx(t), &ecs.ListTagsForResourceInput{ResourceArn: arn})
		if err != nil || tagsOf(out.Tags) != "team=green" {
			t.Errorf("the tags of %s are %q: %v", *arn, tagsOf(out.Tags), err)
		}
	}
	if now := w.instance(); tagsOf(now.Tags) != "team=green" {
		t.Errorf("the instance's tags are %q", tagsOf(now.Tags))
	}
}

// TestRunTaskOfTen: as many as one call may ask for, with what tells them apart, listed by every filter and
// in pages.
func TestRunTaskOfTen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	app := w.app("wait")
	app.Memory = aws.Int32(16)
	definition := w.define(nil, app)
	in := &ecs.RunTaskInput{
		Cluster: &w.cluster, TaskDefinition: &definition, Count: aws.Int32(10), Group: aws.String("batch/night"), StartedBy: aws.String("cron"),
		ReferenceId: aws.String("order-17"), ClientToken: aws.String(label(t)), EnableExecuteCommand: false,
	}
	out, err := w.ecs.RunTask(ctx(t), in)
	if err != nil || len(out.Tasks) != 10 || len(out.Failures) != 0 {
		t.Fatalf("RunTask: %v, %d tasks, %s", err, len(out.Tasks), show(out.Failures))
	}
	again, err := w.ecs.RunTask(ctx(t), in)
	if err != nil || len(again.Tasks) != 10 {
		t.Fatalf("the same call again: %v, %d tasks", err, len(again.Tasks))
	}
	var ran []string
	for i, task := range out.Tasks {
		ran = append(ran, *task.TaskArn)
		if aws.ToString(task.Group) != "batch/night" || aws.ToString(task.StartedBy) != "cron" {
			t.Errorf("group %q, startedBy %q", aws.ToString(task.Group), aws.ToString(task.StartedBy))
		}
		if aws.ToString(again.Tasks[i].TaskArn) != *task.TaskArn && !slices.ContainsFunc(again.Tasks, func(o types.Task) bool { return *o.TaskArn == *task.TaskArn }) {
			t.Errorf("the call repeated did not answer %s", *task.TaskArn)
		}
	}
	slices.Sort(ran)
	changed := *in
	changed.Group = aws.String("batch/day")
	_, err = w.ecs.RunTask(ctx(t), &changed)
	wantError(t, err, "ConflictException")

	other := w.define(nil, w.app("wait"))
	instance := out.Tasks[0].ContainerInstanceArn
	started, err := w.ecs.StartTask(ctx(t), &ecs.StartTaskInput{
		Cluster: &w.cluster, TaskDefinition: &other, ContainerInstances: []string{*instance, strings.Repeat("0", 32)}, Group: aws.String("started"), StartedBy: aws.String("hand"),
	})
	if err != nil || len(started.Tasks) != 1 || len(started.Failures) != 1 || aws.ToString(started.Failures[0].Reason) != "MISSING" {
		t.Fatalf("StartTask: %v, %s", err, show(started))
	}
	family := label(t)
	for about, c := range map[string]struct {
		in   ecs.ListTasksInput
		want int
	}{
		"all":               {ecs.ListTasksInput{}, 11},
		"startedBy":         {ecs.ListTasksInput{StartedBy: aws.String("cron")}, 10},
		"started by hand":   {ecs.ListTasksInput{StartedBy: aws.String("hand")}, 1},
		"instance":          {ecs.ListTasksInput{ContainerInstance: instance}, 11},
		"instance by ID":    {ecs.ListTasksInput{ContainerInstance: aws.String((*instance)[strings.LastIndexByte(*instance, '/')+1:])}, 11},
		"launch type":       {ecs.ListTasksInput{LaunchType: types.LaunchTypeEc2}, 11},
		"other launch type": {ecs.ListTasksInput{LaunchType: types.LaunchTypeFargate}, 0},
		"other family":      {ecs.ListTasksInput{Family: &family}, 0},
	} {
		c.in.Cluster, c.in.MaxResults = &w.cluster, aws.Int32(4)
		var listed []string
		pages := 0
		for p := ecs.NewListTasksPaginator(w.ecs, &c.in); p.HasMorePages(); pages++ {
			page, err := p.NextPage(ctx(t))
			if err != nil || len(page.TaskArns) > 4 {
				t.Fatalf("%s: %v, %d on a page of four", about, err, len(page.TaskArns))
			}
			listed = append(listed, page.TaskArns...)
		}
		slices.Sort(listed)
		if distinct := slices.Compact(slices.Clone(listed)); len(distinct) != len(listed) || len(listed) != c.want || pages != max(1, (c.want+3)/4) {
			t.Errorf("%s: %d tasks, %d of them different, on %d pages; want %d", about, len(listed), len(distinct), pages, c.want)
		}
		if about == "startedBy" && !slices.Equal(listed, ran) {
			t.Errorf("startedBy lists %v, not %v", listed, ran)
		}
	}
}

// TestDefinitionsComeAndGo: a definition that is deregistered runs nothing new and keeps what runs; one
// that is deleted is on its way out.
func TestDefinitionsComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	family := label(t)
	in := func(d *taskDefinition) { d.Family = &family }
	var arns []string
	for range 5 {
		arns = append(arns, w.define(in, w.app("wait")))
	}
	task := w.running(w.run(arns[4]))
	list := func(status types.TaskDefinitionStatus, sort types.SortOrder) (out []string) {
		t.Helper()
		for p := ecs.NewListTaskDefinitionsPaginator(w.ecs, &ecs.ListTaskDefinitionsInput{FamilyPrefix: &family, Status: status, Sort: sort, MaxResults: aws.Int32(2)}); p.HasMorePages(); {
			page, err := p.NextPage(ctx(t))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, page.TaskDefinitionArns...)
		}
		return out
	}
	if got := list("", ""); !slices.Equal(got, arns) {
		t.Errorf("listed are %v, not %v", got, arns)
	}
	backward := slices.Clone(arns)
	slices.Reverse(backward)
	if got := list("ACTIVE", types.SortOrderDesc); !slices.Equal(got, backward) {
		t.Errorf("listed backward are %v, not %v", got, backward)
	}
	tooEarly, err := w.ecs.DeleteTaskDefinitions(ctx(t), &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: []string{arns[4], family + ":99"}})
	if err != nil || len(tooEarly.TaskDefinitions) != 0 || len(tooEarly.Failures) != 2 || aws.ToString(tooEarly.Failures[0].Reason) != "The specified task definition is still in ACTIVE status. Please deregister the target and try again." || aws.ToString(tooEarly.Failures[1].Reason) != "MISSING" {
		t.Errorf("DeleteTaskDefinitions of an active and an unknown one: %v, %s", err, show(tooEarly))
	}
	off, err := w.ecs.DeregisterTaskDefinition(ctx(t), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &arns[4]})
	if err != nil || off.TaskDefinition.Status != types.TaskDefinitionStatusInactive || off.TaskDefinition.DeregisteredAt == nil {
		t.Fatalf("DeregisterTaskDefinition: %v, %s", err, show(off))
	}
	_, err = w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &arns[4]})
	wantError(t, err, "ClientException", "TaskDefinition is inactive")
	newest, err := w.ecs.DescribeTaskDefinition(ctx(t), &ecs.DescribeTaskDefinitionInput{TaskDefinition: &family})
	if err != nil || aws.ToString(newest.TaskDefinition.TaskDefinitionArn) != arns[3] {
		t.Errorf("the family's newest is now %s: %v", show(newest), err)
	}
	if got := list("INACTIVE", ""); !slices.Equal(got, arns[4:]) {
		t.Errorf("inactive are %v", got)
	}
	gone, err := w.ecs.DeleteTaskDefinitions(ctx(t), &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: arns[4:]})
	if err != nil || len(gone.TaskDefinitions) != 1 || gone.TaskDefinitions[0].Status != types.TaskDefinitionStatusDeleteInProgress {
		t.Fatalf("DeleteTaskDefinitions: %v, %s", err, show(gone))
	}
	if s := aws.ToString(w.describe(task).LastStatus); s != "RUNNING" {
		t.Errorf("the task of the deleted definition is %s", s)
	}
	// Its number is not used again.
	if next := w.define(in, w.app("wait")); !strings.HasSuffix(next, ":6") {
		t.Errorf("the next revision is %s", next)
	}
	families, err := w.ecs.ListTaskDefinitionFamilies(ctx(t), &ecs.ListTaskDefinitionFamiliesInput{FamilyPrefix: &family, Status: types.TaskDefinitionFamilyStatusActive})
	if err != nil || !slices.Equal(families.Families, []string{family}) {
		t.Errorf("families: %v, %s", err, show(families))
	}
}

// fixed provides the credentials of a session.
func fixed(out *sts.AssumeRoleOutput) func(context.Context) (aws.Credentials, error) {
	return func(context.Context) (aws.Credentials, error) {
		c := out.Credentials
		return aws.Credentials{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken}, nil
	}
}
