package ecs

import (
	"errors"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/wire"
)

func TestInvalidAnswersAsECSDoes(t *testing.T) {
	t.Parallel()
	register, run := ecs.Descriptor.Operation("RegisterTaskDefinition"), ecs.Descriptor.Operation("RunTask")

	// What a task definition lacks is taskdef's to say, in ECS's own words.
	if err := Invalid(register, wire.Validate(register.Input, &ecs.RegisterTaskDefinitionInput{})); err != nil {
		t.Errorf("an empty definition: %v", err)
	}
	var param *ecs.InvalidParameterException
	if err := Invalid(run, wire.Validate(run.Input, &ecs.RunTaskInput{})); !errors.As(err, &param) {
		t.Errorf("RunTask without a definition: %v; want InvalidParameterException", err)
	}
	// A setting that the API has and the model lacks.
	put := ecs.Descriptor.Operation("PutAccountSetting")
	for name, refused := range map[ecs.SettingName]bool{settingDualStack: false, "nothing": true} {
		err := Invalid(put, wire.Validate(put.Input, &ecs.PutAccountSettingInput{Name: name, Value: api.Ptr("enabled")}))
		if (err != nil) != refused {
			t.Errorf("setting %s: %v", name, err)
		}
	}
	var client *ecs.ClientException
	bad := &ecs.RegisterTaskDefinitionInput{Family: api.Ptr("f"), NetworkMode: "token-ring", ContainerDefinitions: []ecs.ContainerDefinition{}}
	if err := Invalid(register, wire.Validate(register.Input, bad)); !errors.As(err, &client) {
		t.Errorf("an unknown network mode: %v; want ClientException", err)
	}
}
