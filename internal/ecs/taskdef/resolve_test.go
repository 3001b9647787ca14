package taskdef

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func override(t testing.TB, text string) *ecs.TaskOverride {
	t.Helper()
	var o ecs.TaskOverride
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return &o
}

func registered(t testing.TB, text string) *ecs.TaskDefinition {
	t.Helper()
	def, err := Register(input(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return def
}

func TestResolve(t *testing.T) {
	t.Parallel()
	def := registered(t, two("", `,"command":["serve"],"environment":[{"name":"A","value":"1"},{"name":"B","value":"2"}]`, ""))
	before := encode(t, def)
	got, err := Resolve(def, override(t, `{"cpu":"1 vCPU","memory":"1 GB","taskRoleArn":"arn:aws:iam::111122223333:role/r",
		"containerOverrides":[{"name":"a","command":["migrate","--all"],"cpu":10,"memory":128,"memoryReservation":32,
			"environment":[{"name":"B","value":"3"},{"name":"C","value":"4"}]},{"name":"b","command":[]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if encode(t, def) != before {
		t.Errorf("the definition became %s", encode(t, def))
	}
	a := got.ContainerDefinitions[0]
	if !reflect.DeepEqual(a.Command, []string{"migrate", "--all"}) || *a.Cpu != 10 || *a.Memory != 128 || *a.MemoryReservation != 32 {
		t.Errorf("container %s", encode(t, a))
	}
	if env := encode(t, a.Environment); env != `[{"name":"A","value":"1"},{"name":"B","value":"3"},{"name":"C","value":"4"}]` {
		t.Errorf("environment %s", env)
	}
	if *got.Cpu != "1024" || *got.Memory != "1024" || *got.TaskRoleArn != "arn:aws:iam::111122223333:role/r" {
		t.Errorf("task %s", encode(t, got))
	}
	if same, err := Resolve(def, nil); err != nil || same != def {
		t.Errorf("without overrides: %v", err)
	}
}

func TestResolveRefusals(t *testing.T) {
	t.Parallel()
	def := registered(t, one(`"memory":"128"`, ""))
	onFargate := registered(t, fargate("", ""))
	for _, c := range []struct {
		def      *ecs.TaskDefinition
		in, want string
	}{
		{def, `{"containerOverrides":[{"name":"django"}]}`, "Override for container named django is not a container in the TaskDefinition."},
		{def, `{"containerOverrides":[{"name":"a","command":["` + strings.Repeat("a", 9000) + `"]}]}`, "Container Overrides length must be at most 8192"},
		{def, `{"cpu":"x"}`, "Invalid 'cpu' setting for task."},
		{def, `{"containerOverrides":[{"name":"a","memory":256}]}`, "The 'memory' setting for container 'a' is greater than for the task."},
		{def, `{"containerOverrides":[{"name":"a","memoryReservation":65}]}`, "Invalid setting for container 'a'. 'memory' must be greater than or equal to 'memoryReservation'."},
		{def, `{"taskRoleArn":"arn:x"}`, "Role is not valid"},
		{onFargate, `{"memory":"768"}`, "No Fargate configuration exists for given values: 256 CPU, 768 memory. See the Amazon ECS documentation for the valid values."},
	} {
		_, err := Resolve(c.def, override(t, c.in))
		var e *ecs.InvalidParameterException
		if !errors.As(err, &e) || e.Message != c.want {
			t.Errorf("%.100s: %v, want %s", c.in, err, c.want)
		}
	}
}

func TestRequirements(t *testing.T) {
	t.Parallel()
	const ports = `,"portMappings":[{"containerPort":80,"hostPort":8080},{"containerPort":81},{"containerPort":53,"hostPort":53,"protocol":"udp"}]`
	for _, c := range []struct {
		in   string
		want Requirements
	}{
		{two("", `,"cpu":100,"memoryReservation":32`+ports, `,"cpu":28`), Requirements{
			CPUUnits: 128, MemoryMiB: 96,
			Ports: []Port{{8080, ecs.TransportProtocolTcp}, {53, ecs.TransportProtocolUdp}},
		}},
		{two(`"cpu":"1 vCPU","memory":"1 GB"`, `,"cpu":100`, ""), Requirements{CPUUnits: 1024, MemoryMiB: 1024}},
		{one(`"networkMode":"awsvpc"`, `"portMappings":[{"containerPort":80}]`), Requirements{MemoryMiB: 64, Address: true}},
		{one(`"networkMode":"host"`, `"portMappings":[{"containerPort":80}]`), Requirements{MemoryMiB: 64, Ports: []Port{{80, ecs.TransportProtocolTcp}}}},
	} {
		def := registered(t, c.in)
		for _, a := range def.RequiresAttributes {
			c.want.Attributes = append(c.want.Attributes, *a.Name)
		}
		if got, err := RequirementsOf(def); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n  got  %+v, %v\n  want %+v", c.in, got, err, c.want)
		}
	}
	broken := &ecs.TaskDefinition{Cpu: api.Ptr("x")}
	if _, err := RequirementsOf(broken); err == nil {
		t.Error("a cpu that is no number was taken")
	}
}
