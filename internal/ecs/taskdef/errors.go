package taskdef

import (
	"fmt"

	"github.com/berthhq/berth/api/ecs"
)

func clientError(format string, args ...any) error {
	return &ecs.ClientException{Message: fmt.Sprintf(format, args...)}
}

func invalidParameter(format string, args ...any) error {
	return &ecs.InvalidParameterException{Message: fmt.Sprintf(format, args...)}
}

// invalidSetting is the form of error ECS has for most members of a container.
func invalidSetting(member, container string) error {
	return clientError("Invalid '%s' setting for container '%s'.", member, container)
}

// firstError runs checks in order until one fails.
func firstError(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}
