package e2e

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// cgroupFile prints a file of the container's own cgroup: version 2's, or version 1's under its
// controller.
func cgroupFile(two, controller, one string) string {
	return "cat /sys/fs/cgroup/" + two + " 2>/dev/null || cat /sys/fs/cgroup/" + controller + "/" + one
}

// resourceMembers bound what containers may use.
var resourceMembers = []member{
	{of("cpu"), acts, "the container's share of the CPU's time", func(w *world) {
		done := w.stopped(w.run(w.define(nil, w.shell(cgroupFile("cpu.weight", "cpu", "cpu.shares"), func(c *container) { c.Cpu = 512 }))))
		if lines := w.b.Logs(id(done), "app"); len(lines) != 1 || lines[0] != "512" && lines[0] != "59" { // as runc converts shares to weights
			w.Errorf("the share is %q", lines)
		}
	}},
	{of("memory"), acts, "the hard limit; beyond it the container is killed, and says so", func(w *world) {
		done := w.stopped(w.run(w.define(nil, w.app("eat", "100"))))
		if exitCode(w.T, done, "app") != 137 || containerReason(done) != "OutOfMemoryError: Container killed due to memory usage" {
			w.Errorf("it ended with %s", show(done.Containers))
		}
	}},
	{of("memoryReservation"), acts, "the soft limit, and what placement reserves", func(w *world) {
		w.says(nil, []string{"33554432"}, w.shell(cgroupFile("memory.low", "memory", "memory.soft_limit_in_bytes"), func(c *container) {
			c.MemoryReservation = aws.Int32(32)
		}))
	}},
	{of("linuxParameters.maxSwap"), acts, "memory and swap together are the limit", func(w *world) {
		done := w.stopped(w.run(w.define(nil, w.shell(cgroupFile("memory.swap.max", "memory", "memory.memsw.limit_in_bytes"), linux(types.LinuxParameters{MaxSwap: aws.Int32(16)})))))
		if lines := w.b.Logs(id(done), "app"); len(lines) != 1 || lines[0] != "16777216" && lines[0] != "83886080" {
			w.Errorf("the limit is %q: %s", lines, containerReason(done))
		}
	}},
	{of("linuxParameters.swappiness"), acts, "the cgroup's swappiness; version 2 of cgroups has none", func(w *world) {
		done := w.stopped(w.run(w.define(nil, w.shell("cat /sys/fs/cgroup/memory/memory.swappiness 2>/dev/null || echo none", linux(types.LinuxParameters{MaxSwap: aws.Int32(16), Swappiness: aws.Int32(7)})))))
		if lines := w.b.Logs(id(done), "app"); len(lines) != 1 || lines[0] != "7" && lines[0] != "none" {
			w.Errorf("swappiness is %q", lines)
		}
	}},
	{[]string{"cpu"}, acts, "a hard limit for all containers of the task", func(w *world) {
		done := w.stopped(w.run(w.define(func(in *taskDefinition) { in.Cpu = aws.String("256") },
			w.shell(`grep -o 'cpu[^ ]*:.*' /proc/self/cgroup >/dev/null; burnt=$(busybox timeout 3 sh -c 'while :; do :; done'; busybox awk '{print $14+$15}' /proc/self/stat); busybox awk '/cpu /{print "ok"}' /proc/stat`))))
		if aws.ToString(done.Cpu) != "256" {
			w.Errorf("the task's cpu is %q", aws.ToString(done.Cpu))
		}
		// A loop of three seconds within a quarter of a CPU gets three quarters of a second.
		burnt := w.stopped(w.run(w.define(func(in *taskDefinition) { in.Cpu = aws.String("256") },
			w.shell(`busybox time -f '%U %S' busybox timeout 3 sh -c 'while :; do :; done' 2>&1 | busybox awk 'NF==2 {print ($1+$2 < 1.2) ? "bounded" : $0}'`))))
		if lines := w.b.Logs(id(burnt), "app"); len(lines) == 0 || lines[len(lines)-1] != "bounded" {
			w.Errorf("three seconds of work in a task of a quarter CPU: %q", lines)
		}
	}},
	{[]string{"memory"}, acts, "a hard limit for all containers of the task together", func(w *world) {
		eat := w.app("eat", "100")
		eat.Memory = nil
		done := w.stopped(w.run(w.define(func(in *taskDefinition) { in.Memory = aws.String("64") }, eat)))
		if exitCode(w.T, done, "app") != 137 {
			w.Errorf("it ended with %s", show(done.Containers))
		}
	}},
	{of("resourceRequirements[].type", "resourceRequirements[].value"), acts, "a task that wants more GPUs than a host has is not placed: RESOURCE:GPU (with GPUs: `internal/agent/runtime`, with a made CDI specification)", func(w *world) {
		definition := w.define(nil, w.shell("true", func(c *container) {
			c.ResourceRequirements = []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: aws.String("8")}}
		}))
		if reason := w.notPlaced(definition); reason != "RESOURCE:GPU" {
			w.Errorf("it was not placed because of %q", reason)
		}
	}},
	{of("resourceRequirements[].sharingStrategy"), kept, "GPUs are given whole", func(w *world) {
		_ = w // unknown input is tolerated; sharing GPUs is not offered
		definition := w.define(nil, w.shell("true", func(c *container) {
			c.ResourceRequirements = []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: aws.String("1")}}
		}))
		if definition == "" {
			w.Error("not registered")
		}
	}},
	{[]string{"ephemeralStorage.sizeInGiB"}, kept, "recorded and shown; the size is not enforced, and the use is reported by the metadata endpoint", func(w *world) {
		w.echoes(func(d *taskDefinition) {
			d.NetworkMode, d.Cpu, d.Memory = types.NetworkModeAwsvpc, aws.String("256"), aws.String("512")
			d.RequiresCompatibilities = []types.Compatibility{types.CompatibilityFargate}
			d.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 30}
		}, func(d *types.TaskDefinition) any { return d.EphemeralStorage.SizeInGiB }, int32(30))
	}},
	{[]string{"inferenceAccelerators[].deviceName", "inferenceAccelerators[].deviceType"}, refused, "Elastic Inference has ended", func(w *world) {
		w.refuses(func(in *taskDefinition) {
			//lint:ignore SA1019 that it has ended is what the case is about
			in.InferenceAccelerators = []types.InferenceAccelerator{{DeviceName: aws.String("d"), DeviceType: aws.String("eia1.medium")}}
		}, "UnsupportedFeatureException", "inferenceAccelerators")
	}},
	{of("versionConsistency"), kept, "a task's digest is that of its own pull; services, which have versions to keep consistent, come later", func(w *world) {
		w.echoes(func(in *taskDefinition) {
			in.ContainerDefinitions[0].VersionConsistency = types.VersionConsistencyDisabled
		},
			func(d *types.TaskDefinition) any { return d.ContainerDefinitions[0].VersionConsistency }, types.VersionConsistencyDisabled)
	}},
}

// notPlaced runs a task that no host can take and answers why.
func (w *world) notPlaced(definition string) string {
	w.Helper()
	out, err := w.tryRun(definition)
	if err != nil {
		w.Fatalf("RunTask: %v", err)
	}
	if len(out.Failures) == 0 {
		w.Fatalf("RunTask placed it: %s", show(out.Tasks))
	}
	return strings.TrimSpace(aws.ToString(out.Failures[0].Reason))
}
