package ecs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/state"
)

func memberOf(expression string) ecs.PlacementConstraint {
	return ecs.PlacementConstraint{Type: ecs.PlacementConstraintTypeMemberOf, Expression: &expression}
}

func strategy(kind ecs.PlacementStrategyType, field string) ecs.PlacementStrategy {
	return ecs.PlacementStrategy{Type: kind, Field: &field}
}

// placedOn counts a call's tasks by host.
func (w *world) placedOn(out *ecs.RunTaskOutput) map[string]int {
	w.Helper()
	on := map[string]int{}
	for _, task := range out.Tasks {
		key, err := state.ParseTaskARN(*task.TaskArn)
		if err != nil {
			w.Fatalf("%v", err)
		}
		pl, _ := state.Placements.Get(w.store.Snapshot(), key)
		on[pl.Value.HostID]++
	}
	return on
}

func TestRulesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	def := w.register("web", nil)
	limited := w.register("limited", func(in *ecs.RegisterTaskDefinitionInput) {
		in.PlacementConstraints = slices.Repeat([]ecs.TaskDefinitionPlacementConstraint{{
			Type: ecs.TaskDefinitionPlacementConstraintTypeMemberOf, Expression: api.Ptr("attribute:a exists"),
		}}, 6)
	})
	for name, c := range map[string]struct {
		message string
		change  func(*ecs.RunTaskInput)
	}{
		"distinct with expression": {"distinctInstance expression should not be specified.", func(in *ecs.RunTaskInput) {
			in.PlacementConstraints = []ecs.PlacementConstraint{{Type: ecs.PlacementConstraintTypeDistinctInstance, Expression: api.Ptr("")}}
		}},
		"nothing to be member of": {"memberOf expression should be specified.", func(in *ecs.RunTaskInput) {
			in.PlacementConstraints = []ecs.PlacementConstraint{{Type: ecs.PlacementConstraintTypeMemberOf}}
		}},
		"bad expression": {"Invalid placement constraint expression", func(in *ecs.RunTaskInput) { in.PlacementConstraints = []ecs.PlacementConstraint{memberOf("a ==")} }},
		"Java's pattern": {"pattern", func(in *ecs.RunTaskInput) {
			in.PlacementConstraints = []ecs.PlacementConstraint{memberOf("attribute:a =~ '(?=x)'")}
		}},
		"another kind": {"Invalid placement constraint type: near", func(in *ecs.RunTaskInput) { in.PlacementConstraints = []ecs.PlacementConstraint{{Type: "near"}} }},
		"eleven": {"A maximum of 10 placement constraints", func(in *ecs.RunTaskInput) {
			in.PlacementConstraints = slices.Repeat([]ecs.PlacementConstraint{memberOf("attribute:a exists")}, 11)
		}},
		"six and five": {"A maximum of 10 placement constraints", func(in *ecs.RunTaskInput) {
			in.TaskDefinition = &limited
			in.PlacementConstraints = slices.Repeat([]ecs.PlacementConstraint{memberOf("attribute:a exists")}, 5)
		}},
		"six strategies": {"A maximum of 5 placement strategies", func(in *ecs.RunTaskInput) {
			in.PlacementStrategy = slices.Repeat([]ecs.PlacementStrategy{{Type: "random"}}, 6)
		}},
		"binpack by host": {"Invalid placement strategy", func(in *ecs.RunTaskInput) {
			in.PlacementStrategy = []ecs.PlacementStrategy{strategy("binpack", "host")}
		}},
		"spread by cpu":  {"Invalid placement strategy", func(in *ecs.RunTaskInput) { in.PlacementStrategy = []ecs.PlacementStrategy{strategy("spread", "cpu")} }},
		"long reference": {"referenceId", func(in *ecs.RunTaskInput) { in.ReferenceId = api.Ptr(strings.Repeat("x", 1025)) }},
	} {
		in := &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def}
		c.change(in)
		_, err := w.ecs.RunTask(w.ctx, in)
		t.Log(name)
		wantError(t, err, "InvalidParameterException", c.message)
	}
	if n := state.Specs.Len(w.store.Snapshot()); n != 0 {
		t.Errorf("%d tasks were made", n)
	}
}

func TestStrategiesAndConstraints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	for i, zone := range []string{"a", "a", "a", "b"} {
		w.connectAs(fmt.Sprint("h", i), 8, func(h *dispatchpb.Hello) {
			h.AvailabilityZoneSuffix = zone
			h.Attributes["rack"] = fmt.Sprint("r", i)
		})
	}
	def := w.register("web", nil)
	run := func(count int32, change func(*ecs.RunTaskInput)) *ecs.RunTaskOutput {
		t.Helper()
		in := &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, Count: &count}
		change(in)
		out, err := w.ecs.RunTask(w.ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	on := w.placedOn(run(8, func(in *ecs.RunTaskInput) {
		in.PlacementStrategy = []ecs.PlacementStrategy{strategy("spread", "attribute:ecs.availability-zone"), strategy("binpack", "MEMORY")}
	}))
	if on["h3"] != 4 || on["h0"]+on["h1"]+on["h2"] != 4 || len(on) != 2 {
		t.Errorf("spread over zones, packed within: %v", on)
	}
	on = w.placedOn(run(4, func(in *ecs.RunTaskInput) {
		in.Group = api.Ptr("other") // whose tasks are spread by themselves
		in.PlacementStrategy = []ecs.PlacementStrategy{strategy("spread", "host")}
	}))
	if len(on) != 4 {
		t.Errorf("spread over hosts: %v", on)
	}

	// The two hosts without a task of the first call's group take one each.
	out := run(3, func(in *ecs.RunTaskInput) {
		in.PlacementConstraints = []ecs.PlacementConstraint{{Type: ecs.PlacementConstraintTypeDistinctInstance}}
	})
	if on = w.placedOn(out); len(on) != 2 || len(out.Failures) != 4 || *out.Failures[0].Reason != "DistinctInstance placement constraint unsatisfied." {
		t.Errorf("distinct: %v, %+v", on, out.Failures)
	}
	out = run(2, func(in *ecs.RunTaskInput) {
		in.PlacementConstraints = []ecs.PlacementConstraint{memberOf("attribute:rack =~ r[12]"), memberOf("not attribute:rack == r1")}
	})
	if on = w.placedOn(out); on["h2"] != 2 {
		t.Errorf("members: %v, %+v", on, out.Failures)
	}
	out = run(1, func(in *ecs.RunTaskInput) {
		in.PlacementConstraints = []ecs.PlacementConstraint{memberOf("task:group == other and attribute:ecs.availability-zone == eu-west-1c")}
	})
	if len(out.Tasks) != 0 || len(out.Failures) != 4 || *out.Failures[0].Reason != "MemberOf placement constraint unsatisfied." {
		t.Errorf("members of nothing: %+v", out)
	}

	bound := w.register("bound", func(in *ecs.RegisterTaskDefinitionInput) {
		in.PlacementConstraints = []ecs.TaskDefinitionPlacementConstraint{{
			Type: ecs.TaskDefinitionPlacementConstraintTypeMemberOf, Expression: api.Ptr("attribute:rack == r3"),
		}}
	})
	if on = w.placedOn(w.run("demo", bound, 2)); on["h3"] != 2 {
		t.Errorf("the definition's constraint: %v", on)
	}
	// StartTask takes the instance that it is told.
	for ci := range state.ContainerInstances.All(w.store.Snapshot()) {
		if ci.Value.HostID != "h0" {
			continue
		}
		started, err := w.ecs.StartTask(w.ctx, &ecs.StartTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &bound, ContainerInstances: []string{ci.Value.ARN}})
		if err != nil || len(started.Tasks) != 1 {
			t.Errorf("StartTask: %+v, %v", started, err)
		}
	}

	// What a definition requires, and the platform it is for, the host must offer.
	arm := w.register("arm", func(in *ecs.RegisterTaskDefinitionInput) {
		in.RuntimePlatform = &ecs.RuntimePlatform{CpuArchitecture: ecs.CPUArchitectureArm64, OperatingSystemFamily: ecs.OSFamilyLinux}
	})
	swarm := w.register("labels", func(in *ecs.RegisterTaskDefinitionInput) {
		in.ContainerDefinitions[0].Privileged = api.Ptr(true)
	})
	for _, d := range []string{arm, swarm} {
		if out := w.run("demo", d, 1); len(out.Failures) != 4 || *out.Failures[0].Reason != "ATTRIBUTE" {
			t.Errorf("%s: %+v", d, out)
		}
	}
}

func TestGPUs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h0", 8)
	w.connectAs("h1", 8, func(h *dispatchpb.Hello) { h.GpuIds = []string{"GPU-a", "GPU-b", "GPU-c"} })
	def := w.register("train", func(in *ecs.RegisterTaskDefinitionInput) {
		in.ContainerDefinitions[0].ResourceRequirements = []ecs.ResourceRequirement{{Type: ecs.ResourceTypeGpu, Value: api.Ptr("2")}}
	})
	out := w.run("demo", def, 2)
	if len(out.Tasks) != 1 || len(out.Failures) != 2 || *out.Failures[0].Reason != "RESOURCE:GPU" {
		t.Fatalf("two GPUs of three: %d tasks, %+v", len(out.Tasks), out.Failures)
	}
	if got := w.describe(*out.Tasks[0].TaskArn).Containers[0].GpuIds; !slices.Equal(got, []string{"GPU-a", "GPU-b"}) {
		t.Errorf("the container shows GPUs %v", got)
	}
	host := w.follow("h1")
	defer host.stream.Close()
	p, err := host.stream.Next(w.ctx)
	if err != nil || len(p.Tasks) != 1 || !slices.Equal(p.Tasks[0].Containers[0].GpuIds, []string{"GPU-a", "GPU-b"}) {
		t.Fatalf("the host is told %v, %v", p, err)
	}
	if usage, _ := w.orch.UsageOf(w.store.Snapshot(), "h1"); len(usage.GPUIDs) != 2 || len(usage.Host.GPUIDs) != 3 {
		t.Errorf("usage %+v", usage)
	}
	w.report(*out.Tasks[0].TaskArn, "STOPPED", nil)
	if out = w.run("demo", def, 1); len(out.Tasks) != 1 {
		t.Errorf("with the GPUs free again: %+v", out.Failures)
	}
}
