package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// runWith runs one task of a definition with changes to the call.
func (w *world) runWith(definition string, change func(*ecs.RunTaskInput)) types.Task {
	w.Helper()
	in := &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition}
	change(in)
	out, err := w.ecs.RunTask(ctx(w.T), in)
	if err != nil || len(out.Tasks) != 1 || len(out.Failures) > 0 {
		w.Fatalf("RunTask: %v, %s", err, show(out))
	}
	return out.Tasks[0]
}

func overriding(o types.TaskOverride) func(*ecs.RunTaskInput) {
	return func(in *ecs.RunTaskInput) { in.Overrides = &o }
}

// ofApp is an override of the container "app".
func ofApp(o types.ContainerOverride) types.TaskOverride {
	o.Name = aws.String("app")
	return types.TaskOverride{ContainerOverrides: []types.ContainerOverride{o}}
}

// TestOverridesOfContainers: what a container is given at launch is what it has, and what DescribeTasks
// shows beside the definition.
func TestOverridesOfContainers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	bucket := "overrides-" + strings.ToLower(label(t))
	w.object(bucket, "base.env", "FILE=base\nBASE=yes\n")
	w.object(bucket, "over.env", "FILE=override\nOVER=yes\n")
	files := func(key string) []types.EnvironmentFile {
		return []types.EnvironmentFile{{Type: types.EnvironmentFileTypeS3, Value: aws.String("arn:aws:s3:::" + bucket + "/" + key)}}
	}
	definition := w.define(nil, w.shell("echo not overridden", func(c *container) {
		c.EntryPoint, c.Command = []string{"/bin/sh"}, []string{"-c", "echo not overridden"}
		c.Cpu, c.Memory, c.MemoryReservation = 128, aws.Int32(96), aws.Int32(64)
		c.Environment = []types.KeyValuePair{pair("KEPT", "definition"), pair("CHANGED", "definition")}
		c.EnvironmentFiles = files("base.env")
	}))
	script := func(s string) types.ContainerOverride { return types.ContainerOverride{Command: []string{"-c", s}} }
	with := func(o types.ContainerOverride, change func(*types.ContainerOverride)) types.ContainerOverride {
		change(&o)
		return o
	}
	// One run for each kind, so that each is seen to change nothing but itself.
	for _, c := range []struct {
		about string
		o     types.ContainerOverride
		want  [][]string // what it may write
	}{
		{"nothing", types.ContainerOverride{}, [][]string{{"not overridden"}}},
		{"command", script("echo overridden"), [][]string{{"overridden"}}},
		{"environment", with(script(`echo "$KEPT $CHANGED $NEW $FILE"`), func(o *types.ContainerOverride) {
			o.Environment = []types.KeyValuePair{pair("CHANGED", "override"), pair("NEW", "a=b c")}
		}), [][]string{{"definition override a=b c base"}}},
		{"environmentFiles", with(script(`echo "$FILE $OVER ${BASE-none} $KEPT"`), func(o *types.ContainerOverride) {
			o.EnvironmentFiles = files("over.env")
		}), [][]string{{"override yes none definition"}}},
		{"cpu", with(script(cgroupFile("cpu.weight", "cpu", "cpu.shares")), func(o *types.ContainerOverride) {
			o.Cpu = aws.Int32(512)
		}), [][]string{{"512"}, {"59"}}}, // as runc converts shares to weights
		{"memory", with(script(cgroupFile("memory.max", "memory", "memory.limit_in_bytes")), func(o *types.ContainerOverride) {
			o.Memory = aws.Int32(128)
		}), [][]string{{"134217728"}}},
		{"memoryReservation", with(script(cgroupFile("memory.low", "memory", "memory.soft_limit_in_bytes")), func(o *types.ContainerOverride) {
			o.MemoryReservation = aws.Int32(48)
		}), [][]string{{"50331648"}}},
	} {
		t.Run(c.about, func(t *testing.T) {
			t.Parallel()
			w := w.in(t)
			task := w.runWith(definition, overriding(ofApp(c.o)))
			shown := task.Overrides.ContainerOverrides
			c.o.Name = aws.String("app")
			if len(shown) != 1 || show(shown[0]) != show(c.o) {
				t.Errorf("the task shows the overrides %s, not %s", show(shown), show(c.o))
			}
			done := w.stopped(task)
			lines := w.b.Logs(id(task), "app")
			if !slices.ContainsFunc(c.want, func(want []string) bool { return slices.Equal(lines, want) }) {
				t.Errorf("the container wrote %q, not %q: %s %s", lines, c.want, aws.ToString(done.StoppedReason), containerReason(done))
			}
		})
	}
	t.Run("resourceRequirements", func(t *testing.T) {
		t.Parallel()
		o := ofApp(types.ContainerOverride{ResourceRequirements: []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: aws.String("8")}}})
		out, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, Overrides: &o})
		if err != nil || len(out.Tasks) != 0 || len(out.Failures) != 1 || aws.ToString(out.Failures[0].Reason) != "RESOURCE:GPU" {
			t.Errorf("a task that wants more GPUs than there are: %v, %s", err, show(out))
		}
	})
}

// TestOverridesOfTasks: limits and roles of the task as a whole.
func TestOverridesOfTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	token := "token-" + label(t)
	definition := w.define(func(in *taskDefinition) {
		in.Cpu, in.Memory = aws.String("512"), aws.String("256")
		in.TaskRoleArn = aws.String("arn:aws:iam::000000000000:role/definition")
	}, w.shell("testapp", func(c *container) {
		c.EntryPoint, c.Command, c.Memory = []string{"/testapp"}, []string{"wait", token}, nil
	}))
	role := "arn:aws:iam::000000000000:role/override"
	task := w.running(w.runWith(definition, overriding(types.TaskOverride{
		Cpu: aws.String(".25 vCPU"), Memory: aws.String("128"), TaskRoleArn: &role, ExecutionRoleArn: &role,
	})))
	if o := task.Overrides; aws.ToString(o.TaskRoleArn) != role || aws.ToString(o.ExecutionRoleArn) != role || aws.ToString(o.Memory) != "128" {
		t.Errorf("the task shows the overrides %s", show(o))
	}
	if aws.ToString(task.Cpu) != "256" || aws.ToString(task.Memory) != "128" {
		t.Errorf("the task shows cpu %s and memory %s", aws.ToString(task.Cpu), aws.ToString(task.Memory))
	}
	p, ok := harness.FindProcess(token)
	if !ok {
		t.Fatal("the container's process is not to be found")
	}
	if quota, err := p.CgroupFile("cpu", "../cpu.cfs_quota_us", "../cpu.max"); err != nil || quota != "25000" && quota != "25000 100000" {
		t.Errorf("the task's share of a CPU is %q, not a quarter: %v", quota, err)
	}
	if limit, err := p.CgroupFile("memory", "../memory.limit_in_bytes", "../memory.max"); err != nil || limit != "134217728" {
		t.Errorf("the task's memory limit is %q, not 128 MiB: %v", limit, err)
	}
	w.stop(task, "")

	// StartTask takes overrides too.
	started, err := w.ecs.StartTask(ctx(t), &ecs.StartTaskInput{
		Cluster: &w.cluster, TaskDefinition: &definition, ContainerInstances: []string{*task.ContainerInstanceArn},
		Overrides: &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: aws.String("app"), Command: []string{"exit", "9"}}}},
	})
	if err != nil || len(started.Tasks) != 1 {
		t.Fatalf("StartTask: %v, %s", err, show(started))
	}
	if code := exitCode(t, w.stopped(started.Tasks[0]), "app"); code != 9 {
		t.Errorf("the command of StartTask exits with 9, the container with %d", code)
	}
}

// TestOverriddenEphemeralStorage: FARGATE tasks alone have it, and show it.
func TestOverriddenEphemeralStorage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dev(t))
	definition := w.define(func(in *taskDefinition) {
		in.NetworkMode, in.Cpu, in.Memory = types.NetworkModeAwsvpc, aws.String("256"), aws.String("512")
		in.RequiresCompatibilities = []types.Compatibility{types.CompatibilityFargate}
	}, w.shell("true"))
	task := w.runWith(definition, func(in *ecs.RunTaskInput) {
		in.LaunchType, in.NetworkConfiguration = types.LaunchTypeFargate, subnet
		in.Overrides = &types.TaskOverride{EphemeralStorage: &types.EphemeralStorage{SizeInGiB: 42}}
	})
	if s := task.EphemeralStorage; s == nil || s.SizeInGiB != 42 || task.Overrides.EphemeralStorage == nil {
		t.Errorf("the task shows ephemeralStorage %s, overrides %s", show(s), show(task.Overrides))
	}
	w.stopped(task)
	for size, launch := range map[int32]types.LaunchType{5: types.LaunchTypeFargate, 201: types.LaunchTypeFargate, 30: types.LaunchTypeEc2} {
		_, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{
			Cluster: &w.cluster, TaskDefinition: &definition, LaunchType: launch, NetworkConfiguration: subnet,
			Overrides: &types.TaskOverride{EphemeralStorage: &types.EphemeralStorage{SizeInGiB: size}},
		})
		wantError(t, err, "InvalidParameterException", "EphemeralStorage")
	}
}

// TestWrongOverrides: each is refused in AWS's words, and no task comes of it.
func TestWrongOverrides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(func(in *taskDefinition) { in.Memory = aws.String("128") }, w.shell("true"))
	long := func(n int) []string { return []string{strings.Repeat("x", n)} }
	for about, c := range map[string]struct {
		o     types.TaskOverride
		words string
	}{
		"more than 8192 characters": {ofApp(types.ContainerOverride{Command: long(8192)}), "Container Overrides length must be at most 8192"},
		"an unknown container": {types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: aws.String("web"), Command: []string{"x"}}}},
			"Override for container named web is not a container in the TaskDefinition."},
		"a container without a name":         {types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Command: []string{"x"}}}}, "is not a container in the TaskDefinition."},
		"a variable without a name":          {ofApp(types.ContainerOverride{Environment: []types.KeyValuePair{pair("", "x")}}), "Invalid 'environment' setting for container 'app'."},
		"an environment file that is no ARN": {ofApp(types.ContainerOverride{EnvironmentFiles: []types.EnvironmentFile{{Type: "s3", Value: aws.String("bucket/x.env")}}}), "Invalid arn syntax."},
		"less than no CPU":                   {ofApp(types.ContainerOverride{Cpu: aws.Int32(-1)}), "Invalid 'cpu' setting for container 'app'."},
		"too little memory":                  {ofApp(types.ContainerOverride{Memory: aws.Int32(5)}), "must be at least 6 MiB"},
		"more reserved than the limit":       {ofApp(types.ContainerOverride{MemoryReservation: aws.Int32(65)}), "'memory' must be greater than or equal to 'memoryReservation'"},
		"a container beyond its task":        {ofApp(types.ContainerOverride{Memory: aws.Int32(129)}), "The 'memory' setting for container 'app' is greater than for the task."},
		"half a GPU":                         {ofApp(types.ContainerOverride{ResourceRequirements: []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: aws.String("0.5")}}}), "Invalid 'resourceRequirements' setting for container 'app'."},
		"a task's CPU that is none":          {types.TaskOverride{Cpu: aws.String("lots")}, "Invalid 'cpu' setting for task."},
		"a task's memory that is none":       {types.TaskOverride{Memory: aws.String("-1")}, "Invalid 'memory' setting for task."},
		"a task smaller than its container":  {types.TaskOverride{Memory: aws.String("32")}, "is greater than for the task."},
		"a role that is none":                {types.TaskOverride{TaskRoleArn: aws.String("arn:aws:s3:::role")}, "Role is not valid"},
		"an execution role that is none":     {types.TaskOverride{ExecutionRoleArn: aws.String("?")}, "Role is not valid"},
		//lint:ignore SA1019 that it has ended is what the case is about
		"an accelerator the task has not": {types.TaskOverride{InferenceAcceleratorOverrides: []types.InferenceAcceleratorOverride{{DeviceName: aws.String("d"), DeviceType: aws.String("eia1.medium")}}},
			"not an inference accelerator in the TaskDefinition"},
	} {
		_, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, Overrides: &c.o})
		t.Run(about, func(t *testing.T) { wantError(t, err, "InvalidParameterException", c.words) })
	}
	// Exactly at the limit it is taken: {"containerOverrides":[{"command":["…"],"name":"app"}]}
	rest := len(`{"containerOverrides":[{"command":[""],"name":"app"}]}`)
	task := w.runWith(definition, overriding(ofApp(types.ContainerOverride{Command: long(8192 - rest)})))
	w.stopped(task)
	for _, status := range []types.DesiredStatus{types.DesiredStatusRunning, types.DesiredStatusStopped} {
		list, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster, DesiredStatus: status})
		if err != nil || slices.ContainsFunc(list.TaskArns, func(arn string) bool { return arn != *task.TaskArn }) {
			t.Errorf("wrong requests left the tasks %v, %v", list.TaskArns, err)
		}
	}
}
