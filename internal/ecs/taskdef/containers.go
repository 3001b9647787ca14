package taskdef

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

const (
	maxEnvironmentFiles = 10
	maxIgnoredExitCodes = 50
	minTimeout          = 2 // seconds, of startTimeout and stopTimeout
)

func validateContainers(def *ecs.RegisterTaskDefinitionInput) error {
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		if err := firstError(
			func() error { return validateNetworking(def, c) },
			func() error { return validateTimeouts(c) },
			func() error { return validateHealthCheck(c) },
			func() error { return validateEnvironment(def, c) },
			func() error { return validateUlimits(c) },
			func() error { return validateLinux(c) },
			func() error { return validateResources(c) },
			func() error { return oneOf("versionConsistency", c.VersionConsistency, "enabled", "disabled") },
		); err != nil {
			return err
		}
	}
	return nil
}

// validateNetworking checks members of a container that its network mode rules out.
func validateNetworking(def *ecs.RegisterTaskDefinitionInput, c *ecs.ContainerDefinition) error {
	mode := def.NetworkMode
	if len(c.Links) > 0 && mode != "" && mode != ecs.NetworkModeBridge {
		return clientError("Links are not supported when networkMode=%s.", string(mode))
	}
	for _, link := range c.Links {
		target, _, _ := strings.Cut(link, ":")
		if target == api.Value(c.Name) || !hasContainer(def.ContainerDefinitions, target) {
			return clientError("Cannot link container '%s' to '%s' because it does not exist.", api.Value(c.Name), target)
		}
	}
	for _, h := range c.ExtraHosts {
		if api.Value(h.Hostname) == "" || api.Value(h.IpAddress) == "" {
			return invalidSetting("extraHosts", api.Value(c.Name))
		}
	}
	if mode != ecs.NetworkModeAwsvpc {
		return nil
	}
	const unsupported = " on container when networkMode=awsvpc."
	switch {
	case api.Value(c.Hostname) != "":
		return clientError("hostname is not supported" + unsupported)
	case len(c.DnsServers) > 0:
		return clientError("DNS servers are not supported" + unsupported)
	case len(c.DnsSearchDomains) > 0:
		return clientError("DNS search domains are not supported" + unsupported)
	case len(c.ExtraHosts) > 0:
		return clientError("Extra hosts are not supported" + unsupported)
	case api.Value(c.DisableNetworking):
		return clientError("Disable Networking is not supported" + unsupported)
	}
	return nil
}

func validateTimeouts(c *ecs.ContainerDefinition) error {
	name := api.Value(c.Name)
	switch {
	case c.StartTimeout != nil && *c.StartTimeout < minTimeout:
		return clientError("Granular start timeout on container '%s' must be at least %d seconds.", name, minTimeout)
	case c.StopTimeout != nil && *c.StopTimeout < minTimeout:
		return clientError("Granular stop timeout on container '%s' must be at least %d seconds.", name, minTimeout)
	}
	if p := c.RestartPolicy; p != nil {
		switch {
		case p.Enabled == nil:
			return clientError("The 'enabled' setting of the restart policy for container '%s' must be specified.", name)
		case p.RestartAttemptPeriod != nil && (*p.RestartAttemptPeriod < 60 || *p.RestartAttemptPeriod > 1800):
			return clientError("The 'restartAttemptPeriod' setting for container '%s' must be between 60 and 1800.", name)
		case len(p.IgnoredExitCodes) > maxIgnoredExitCodes:
			return clientError("The 'ignoredExitCodes' setting for container '%s' can have at most %d values.", name, maxIgnoredExitCodes)
		}
	}
	return nil
}

func validateHealthCheck(c *ecs.ContainerDefinition) error {
	h := c.HealthCheck
	if h == nil {
		return nil
	}
	name := api.Value(c.Name)
	if len(h.Command) == 0 || h.Command[0] == "" {
		return clientError("Health check command must not be empty for container '%s'", name)
	}
	for _, limit := range []struct {
		member          string
		value           *int32
		atLeast, atMost int32
	}{
		{"interval", h.Interval, 5, 300},
		{"timeout", h.Timeout, 2, 60},
		{"retries", h.Retries, 1, 10},
		{"startPeriod", h.StartPeriod, 0, 300},
	} {
		switch {
		case limit.value == nil:
		case *limit.value < limit.atLeast:
			return clientError("Health check %s must be greater than or equal to the minimum allowed value %d for container '%s'", limit.member, limit.atLeast, name)
		case *limit.value > limit.atMost:
			return clientError("Health check %s must be less than or equal to the maximum allowed value %d for container '%s'", limit.member, limit.atMost, name)
		}
	}
	return nil
}

var s3ObjectPattern = regexp.MustCompile(`^arn:aws[a-z-]*:s3:::[^/]+/.+$`)

func validateEnvironment(def *ecs.RegisterTaskDefinitionInput, c *ecs.ContainerDefinition) error {
	name := api.Value(c.Name)
	variables := map[string]bool{}
	for _, e := range c.Environment {
		if api.Value(e.Name) == "" || strings.ContainsAny(*e.Name, "=\x00") || strings.Contains(api.Value(e.Value), "\x00") {
			return invalidSetting("environment", name)
		}
		variables[*e.Name] = true
	}
	if err := validateEnvironmentFiles(c.EnvironmentFiles); err != nil {
		return err
	}
	secrets := map[string]bool{}
	for _, s := range c.Secrets {
		secret := api.Value(s.Name)
		switch {
		case secret == "" || api.Value(s.ValueFrom) == "":
			return invalidSetting("secrets", name)
		case secrets[secret]:
			return clientError("Duplicate secret names found: %s. Each secret name must be unique.", secret)
		case variables[secret]:
			return clientError("The secret name must be unique and not shared with any new or existing environment variables set on the container, such as '%s'.", secret)
		}
		secrets[secret] = true
	}
	if len(c.Secrets) > 0 && api.Value(def.ExecutionRoleArn) == "" {
		return clientError("When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.")
	}
	return nil
}

func validateEnvironmentFiles(files []ecs.EnvironmentFile) error {
	if len(files) > maxEnvironmentFiles {
		return clientError("The maximum number of environment files was exceeded. Specify ten or less and try again.")
	}
	for _, f := range files {
		if f.Type != ecs.EnvironmentFileTypeS3 {
			return clientError("Invalid environment file type '%s'. The supported type is 's3'.", string(f.Type))
		}
		if !s3ObjectPattern.MatchString(api.Value(f.Value)) {
			return clientError("Invalid arn syntax.")
		}
	}
	return nil
}

var ulimitNames = []ecs.UlimitName{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
	"rtprio", "rttime", "sigpending", "stack",
}

func validateUlimits(c *ecs.ContainerDefinition) error {
	var seen []ecs.UlimitName
	for _, u := range c.Ulimits {
		switch {
		case u.Name == "" || u.SoftLimit == nil || u.HardLimit == nil || slices.Contains(seen, u.Name):
			return invalidSetting("ulimits", api.Value(c.Name))
		case *u.HardLimit >= 0 && (*u.SoftLimit > *u.HardLimit || *u.SoftLimit < 0): // -1: no limit
			return clientError("Soft limit exceeds hard limit for ulimit %s", string(u.Name))
		}
		if err := oneOf("ulimits.name", u.Name, ulimitNames...); err != nil {
			return err
		}
		seen = append(seen, u.Name)
	}
	return nil
}

var capabilityNames = strings.Fields(`ALL AUDIT_CONTROL AUDIT_WRITE BLOCK_SUSPEND CHOWN DAC_OVERRIDE
	DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE
	MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_ADMIN
	SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME
	SYS_TTY_CONFIG SYSLOG WAKE_ALARM`)

func validateLinux(c *ecs.ContainerDefinition) error {
	l := c.LinuxParameters
	if l == nil {
		return nil
	}
	name := api.Value(c.Name)
	if l.Capabilities != nil {
		for _, capability := range slices.Concat(l.Capabilities.Add, l.Capabilities.Drop) {
			if !slices.Contains(capabilityNames, capability) {
				return clientError("Invalid capability '%s' for container '%s'.", capability, name)
			}
		}
	}
	for _, d := range l.Devices {
		if api.Value(d.HostPath) == "" {
			return invalidSetting("devices", name)
		}
		for _, p := range d.Permissions {
			if !slices.Contains([]ecs.DeviceCgroupPermission{"read", "write", "mknod"}, p) {
				return invalidSetting("devices", name)
			}
		}
	}
	for _, t := range l.Tmpfs {
		if !strings.HasPrefix(api.Value(t.ContainerPath), "/") || api.Value(t.Size) < 1 {
			return invalidSetting("tmpfs", name)
		}
	}
	switch {
	case l.SharedMemorySize != nil && *l.SharedMemorySize < 1:
		return invalidSetting("sharedMemorySize", name)
	case l.MaxSwap != nil && *l.MaxSwap < 0:
		return invalidSetting("maxSwap", name)
	case l.Swappiness != nil && (*l.Swappiness < 0 || *l.Swappiness > 100):
		return invalidSetting("swappiness", name)
	}
	return nil
}

func validateResources(c *ecs.ContainerDefinition) error {
	for _, s := range c.SystemControls {
		if api.Value(s.Namespace) == "" || s.Value == nil {
			return invalidSetting("systemControls", api.Value(c.Name))
		}
	}
	return validateRequirements(c.ResourceRequirements, api.Value(c.Name))
}

func validateRequirements(requirements []ecs.ResourceRequirement, container string) error {
	for _, r := range requirements {
		switch r.Type {
		case ecs.ResourceTypeGpu:
			if n, err := strconv.Atoi(api.Value(r.Value)); err != nil || n < 1 {
				return invalidSetting("resourceRequirements", container)
			}
		case ecs.ResourceTypeInferenceAccelerator:
		default:
			return invalidSetting("resourceRequirements", container)
		}
	}
	return nil
}

// validateDependencies checks dependsOn: targets that exist, conditions they can meet, no circle.
func validateDependencies(containers []ecs.ContainerDefinition) error {
	for i := range containers {
		for _, d := range containers[i].DependsOn {
			target := findContainer(containers, api.Value(d.ContainerName))
			if target == nil {
				return clientError("Cannot depend on container + '%s' because it does not exist", api.Value(d.ContainerName))
			}
			switch d.Condition {
			case ecs.ContainerConditionStart:
			case ecs.ContainerConditionComplete, ecs.ContainerConditionSuccess:
				if api.Value(target.Essential) {
					return clientError("A dependency container with SUCCESS or COMPLETE condition cannot be an essential container")
				}
			case ecs.ContainerConditionHealthy:
				if target.HealthCheck == nil {
					return clientError("A dependency container with HEALTHY condition must have health check configured")
				}
			default:
				return clientError("Invalid dependency condition '%s'. The supported conditions are START, COMPLETE, SUCCESS and HEALTHY.", string(d.Condition))
			}
		}
	}
	// What depends on nothing that is left can start; if nothing can, the rest is a circle.
	left := slices.Clone(containers)
	for len(left) > 0 {
		rest := slices.DeleteFunc(slices.Clone(left), func(c ecs.ContainerDefinition) bool {
			return !slices.ContainsFunc(c.DependsOn, func(d ecs.ContainerDependency) bool {
				return hasContainer(left, api.Value(d.ContainerName))
			})
		})
		if len(rest) == len(left) {
			return clientError("Container '%s' has a cyclic dependency", api.Value(left[0].Name))
		}
		left = rest
	}
	return nil
}
