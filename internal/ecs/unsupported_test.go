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
		"secrets": {"container app: secrets", func(in *ecs.RegisterTaskDefinitionInput) {
			in.ExecutionRoleArn = api.Ptr("arn:aws:iam::123456789012:role/x")
			in.ContainerDefinitions[0].Secrets = []ecs.Secret{{Name: api.Ptr("S"), ValueFrom: api.Ptr("arn:aws:ssm:eu-west-1:123456789012:parameter/x")}}
		}},
		"router": {"container app: firelensConfiguration", func(in *ecs.RegisterTaskDefinitionInput) {
			in.ContainerDefinitions[0].FirelensConfiguration = &ecs.FirelensConfiguration{Type: ecs.FirelensConfigurationTypeFluentbit}
		}},
		"faults": {"enableFaultInjection", func(in *ecs.RegisterTaskDefinitionInput) { in.EnableFaultInjection = api.Ptr(true) }},
		"ebs": {"volume data: configuredAtLaunch", func(in *ecs.RegisterTaskDefinitionInput) {
			in.Volumes = []ecs.Volume{{Name: api.Ptr("data"), ConfiguredAtLaunch: api.Ptr(true)}}
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
