package ecs

import (
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/wire"
)

// Invalid gives ECS's own errors for an input that breaks its model. For most operations that is an
// InvalidParameterException; a task definition is refused with a ClientException, and of what it lacks
// the service speaks itself ("Family should not be null or empty.").
func Invalid(op *api.Operation, vs []wire.Violation) error {
	vs = slices.DeleteFunc(vs, func(v wire.Violation) bool { // the model's list of names is short by one
		return v.Path == "name" && v.Value == string(settingDualStack) && strings.Contains(op.Name, "AccountSetting")
	})
	if op.Name != "RegisterTaskDefinition" {
		if len(vs) == 0 {
			return nil
		}
		return &ecs.InvalidParameterException{Message: wire.ViolationsMessage(vs)}
	}
	vs = slices.DeleteFunc(vs, func(v wire.Violation) bool { return v.Constraint == "Member must not be null" })
	if len(vs) == 0 {
		return nil
	}
	return &ecs.ClientException{Message: wire.ViolationsMessage(vs)}
}
