package taskdef

import (
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

var (
	logDrivers        = []ecs.LogDriver{"json-file", "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "awsfirelens"}
	fargateLogDrivers = []ecs.LogDriver{"awslogs", "splunk", "awsfirelens"}

	// awslogsRequired is in the order in which ECS names what is missing.
	awslogsRequired = []string{"awslogs-region", "awslogs-group"}
	awslogsOptions  = append([]string{
		"awslogs-stream-prefix", "awslogs-create-group", "awslogs-datetime-format", "awslogs-multiline-pattern",
		"awslogs-endpoint", "mode", "max-buffer-size",
	}, awslogsRequired...)
)

func validateLogging(def *ecs.RegisterTaskDefinitionInput) error {
	routers := 0
	forwards := false
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		if f := c.FirelensConfiguration; f != nil {
			routers++
			if f.Type == "" || oneOf("", f.Type, ecs.FirelensConfigurationTypeFluentd, ecs.FirelensConfigurationTypeFluentbit) != nil {
				return clientError("Invalid FireLens configuration type '%s'. The supported types are fluentd and fluentbit.", string(f.Type))
			}
		}
		l := c.LogConfiguration
		if l == nil {
			continue
		}
		if err := checkLogDriver(l.LogDriver, logDrivers); err != nil {
			return err
		}
		forwards = forwards || l.LogDriver == ecs.LogDriverAwsfirelens
		if l.LogDriver == ecs.LogDriverAwslogs {
			if err := validateAwslogs(l); err != nil {
				return err
			}
		}
		for _, s := range l.SecretOptions {
			if api.Value(s.Name) == "" || api.Value(s.ValueFrom) == "" {
				return invalidSetting("secretOptions", api.Value(c.Name))
			}
		}
	}
	switch {
	case routers > 1:
		return clientError("Only one container in a task definition can have a FireLens configuration.")
	case forwards && routers == 0:
		return clientError("When awsfirelens log driver is specified in log configuration, a firelens configuration object must be configured in one of the containers.")
	}
	return nil
}

func checkLogDriver(driver ecs.LogDriver, allowed []ecs.LogDriver) error {
	if slices.Contains(allowed, driver) {
		return nil
	}
	names := make([]string, len(allowed))
	for i, d := range allowed {
		names[i] = string(d)
	}
	return clientError("%s is not a valid log driver. Must be one of [%s]", string(driver), strings.Join(names, ","))
}

func validateAwslogs(l *ecs.LogConfiguration) error {
	var missing, unknown []string
	for _, option := range awslogsRequired {
		if l.Options[option] == "" {
			missing = append(missing, option)
		}
	}
	for option := range l.Options {
		if !slices.Contains(awslogsOptions, option) {
			unknown = append(unknown, option)
		}
	}
	slices.Sort(unknown)
	switch {
	case len(missing) > 0:
		return clientError("Log driver awslogs requires options: %s", strings.Join(missing, ", "))
	case len(unknown) > 0:
		return clientError("Log driver awslogs disallows options: %s", strings.Join(unknown, ", "))
	}
	return nil
}
