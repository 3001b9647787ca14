package ecs_test

import (
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/state"
)

// What a definition asks for and cannot be had is refused when it is run, and named.
func TestUnsupportedMembersAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	for family, c := range map[string]struct {
		names  string
		change func(*ecs.RegisterTaskDefinitionInput)
	}{
		"pid": {"pidMode", func(in *ecs.RegisterTaskDefinitionInput) { in.PidMode = ecs.PidModeHost }},
		"ipc": {"ipcMode", func(in *ecs.RegisterTaskDefinitionInput) { in.IpcMode = ecs.IpcModeHost }},
		"secrets": {"container app: secrets", func(in *ecs.RegisterTaskDefinitionInput) {
			in.ExecutionRoleArn = api.Ptr("arn:aws:iam::123456789012:role/x")
			in.ContainerDefinitions[0].Secrets = []ecs.Secret{{Name: api.Ptr("S"), ValueFrom: api.Ptr("arn:aws:ssm:eu-west-1:123456789012:parameter/x")}}
		}},
		"swap": {"linuxParameters.maxSwap", func(in *ecs.RegisterTaskDefinitionInput) {
			in.ContainerDefinitions[0].LinuxParameters = &ecs.LinuxParameters{MaxSwap: api.Ptr(int32(64))}
		}},
		"depends": {"container two: dependsOn", func(in *ecs.RegisterTaskDefinitionInput) {
			two := in.ContainerDefinitions[0]
			two.Name = api.Ptr("two")
			two.DependsOn = []ecs.ContainerDependency{{ContainerName: api.Ptr("app"), Condition: ecs.ContainerConditionStart}}
			in.ContainerDefinitions = append(in.ContainerDefinitions, two)
		}},
		"bridge": {"port mappings", func(in *ecs.RegisterTaskDefinitionInput) {
			in.NetworkMode = ecs.NetworkModeBridge
			withPort(80)(in)
		}},
	} {
		def := w.register(family, c.change)
		_, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def})
		wantError(t, err, "UnsupportedFeatureException", c.names)
	}
	if n := state.Specs.Len(w.store.Snapshot()); n != 0 {
		t.Errorf("%d tasks were made", n)
	}
}
