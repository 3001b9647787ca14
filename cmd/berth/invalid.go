package main

import (
	"slices"

	"github.com/berthhq/berth/api"
	ecsapi "github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/wire"
)

// ecsInvalid gives ECS's own errors for an input that breaks its model. For most operations that is an
// InvalidParameterException; a task definition is refused with a ClientException, and of what it lacks
// the service speaks itself ("Family should not be null or empty.").
func ecsInvalid(op *api.Operation, vs []wire.Violation) error {
	if op.Name != "RegisterTaskDefinition" {
		return &ecsapi.InvalidParameterException{Message: wire.ViolationsMessage(vs)}
	}
	vs = slices.DeleteFunc(vs, func(v wire.Violation) bool { return v.Constraint == "Member must not be null" })
	if len(vs) == 0 {
		return nil
	}
	return &ecsapi.ClientException{Message: wire.ViolationsMessage(vs)}
}
