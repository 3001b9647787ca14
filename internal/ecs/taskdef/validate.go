package taskdef

import (
	"regexp"
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

const (
	maxContainers  = 10
	maxConstraints = 10
	maxExpression  = 2000
)

var (
	namePattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,255}$`)
	// A role's ARN, or its name alone.
	rolePattern = regexp.MustCompile(`^(arn:aws[a-z-]*:iam::[0-9]{12}:role/)?[\w+=,.@/-]{1,512}$`)
)

// validate checks a normalized definition.
func validate(def *ecs.RegisterTaskDefinitionInput) error {
	return firstError(
		func() error { return validateNames(def) },
		func() error { return validateModes(def) },
		func() error { return validateVolumes(def) },
		func() error { return validateSizes(def) },
		func() error { return validatePorts(def) },
		func() error { return validateContainers(def) },
		func() error { return validateDependencies(def.ContainerDefinitions) },
		func() error { return validateLogging(def) },
		func() error { return validateTask(def) },
		func() error {
			if wantsFargate(def) {
				return fargateProblem(def)
			}
			return nil
		},
	)
}

func validateNames(def *ecs.RegisterTaskDefinitionInput) error {
	family := api.Value(def.Family)
	containers := def.ContainerDefinitions
	switch {
	case family == "":
		return clientError("Family should not be null or empty.")
	case !namePattern.MatchString(family):
		return clientError("Family contains invalid characters.")
	case len(containers) == 0:
		return clientError("Container list cannot be empty.")
	case len(containers) > maxContainers:
		return clientError("Too many containers.")
	}
	seen := map[string]bool{}
	essential := false
	for i := range containers {
		c := &containers[i]
		name, image := api.Value(c.Name), api.Value(c.Image)
		switch {
		case name == "":
			return clientError("Container.name should not be null or empty.")
		case !namePattern.MatchString(name):
			return clientError("Container.name contains invalid characters.")
		case image == "":
			return clientError("Container.image should not be null or empty.")
		case !validImage(image):
			return clientError("Container.image contains invalid characters.")
		case seen[name]:
			return clientError("Container names must be unique within a task definition.")
		}
		seen[name] = true
		essential = essential || api.Value(c.Essential)
	}
	if !essential {
		return clientError("Task definition doesn't have any essential container.")
	}
	return nil
}

var imagePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:@/+-]{0,254}$`)

// validImage checks what ECS does: the characters, not whether it is a reference. A bad reference is
// a CannotPullContainerError later.
func validImage(image string) bool { return imagePattern.MatchString(image) }

func validateModes(def *ecs.RegisterTaskDefinitionInput) error {
	checks := []error{
		oneOf("networkMode", def.NetworkMode, ecs.NetworkModeBridge, ecs.NetworkModeHost, ecs.NetworkModeAwsvpc, ecs.NetworkModeNone),
		oneOf("pidMode", def.PidMode, ecs.PidModeHost, ecs.PidModeTask),
		oneOf("ipcMode", def.IpcMode, ecs.IpcModeHost, ecs.IpcModeTask, ecs.IpcModeNone),
	}
	for _, c := range def.RequiresCompatibilities {
		checks = append(checks, oneOf("requiresCompatibilities", c,
			ecs.CompatibilityEc2, ecs.CompatibilityFargate, ecs.CompatibilityExternal, ecs.CompatibilityManagedInstances))
		if c == "" {
			checks = append(checks, clientError("requiresCompatibilities cannot contain an empty value."))
		}
	}
	if i := slices.IndexFunc(checks, func(err error) bool { return err != nil }); i >= 0 {
		return checks[i]
	}
	return nil
}

// oneOf checks an enum; absent is fine.
func oneOf[T ~string](member string, v T, allowed ...T) error {
	if v == "" || slices.Contains(allowed, v) {
		return nil
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	return clientError("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]",
		string(v), member, strings.Join(names, ", "))
}

func validateVolumes(def *ecs.RegisterTaskDefinitionInput) error {
	volumes := map[string]bool{}
	for i := range def.Volumes {
		v := &def.Volumes[i]
		name := api.Value(v.Name)
		switch {
		case name == "":
			return clientError("Volume.name should not be null or empty.")
		case !namePattern.MatchString(name):
			return clientError("Volume.name contains invalid characters.")
		case volumes[name]:
			return clientError("Volume names must be unique within a task definition.")
		}
		volumes[name] = true
		if err := validateVolume(v); err != nil {
			return err
		}
	}
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		paths := map[string]bool{}
		for _, m := range c.MountPoints {
			if m.SourceVolume == nil || !volumes[*m.SourceVolume] {
				source := "null"
				if m.SourceVolume != nil {
					source = *m.SourceVolume
				}
				return clientError("Unknown volume '%s'.", source)
			}
			path := api.Value(m.ContainerPath)
			switch {
			case path == "":
				return clientError("MountPoint.containerPath should not be null or empty.")
			case paths[path]:
				return clientError("Duplicate mount point '%s' for container '%s'.", path, api.Value(c.Name))
			}
			paths[path] = true
		}
		for _, from := range c.VolumesFrom {
			source := api.Value(from.SourceContainer)
			if source == api.Value(c.Name) || !hasContainer(def.ContainerDefinitions, source) {
				return clientError("Unknown source container '%s' in volumesFrom of container '%s'.", source, api.Value(c.Name))
			}
		}
	}
	return nil
}

func validateVolume(v *ecs.Volume) error {
	kinds := 0
	for _, set := range []bool{
		v.DockerVolumeConfiguration != nil, v.EfsVolumeConfiguration != nil, v.S3filesVolumeConfiguration != nil,
		v.FsxWindowsFileServerVolumeConfiguration != nil, v.Host != nil, api.Value(v.ConfiguredAtLaunch),
	} {
		if set {
			kinds++
		}
	}
	if kinds > 1 {
		return clientError("Only one volume configuration can be specified for volume '%s'.", *v.Name)
	}
	if v.Host != nil && v.Host.SourcePath != nil && *v.Host.SourcePath == "" {
		return clientError("host.sourcePath should not be blank.")
	}
	if d := v.DockerVolumeConfiguration; d != nil {
		if err := oneOf("dockerVolumeConfiguration.scope", d.Scope, ecs.ScopeTask, ecs.ScopeShared); err != nil {
			return err
		}
		if d.Autoprovision != nil && d.Scope != ecs.ScopeShared {
			return clientError("Autoprovision is only valid for volumes with scope 'shared'.")
		}
	}
	if e := v.EfsVolumeConfiguration; e != nil {
		encrypted := e.TransitEncryption == ecs.EFSTransitEncryptionEnabled
		auth := e.AuthorizationConfig
		switch {
		case api.Value(e.FileSystemId) == "":
			return clientError("EFSVolumeConfiguration.fileSystemId should not be null or empty.")
		case e.TransitEncryptionPort != nil && !encrypted:
			return clientError("TransitEncryptionPort requires that TransitEncryption is enabled.")
		case auth != nil && auth.Iam == ecs.EFSAuthorizationConfigIAMEnabled && !encrypted:
			return clientError("EFS IAM authorization requires TransitEncryption to be enabled.")
		case auth != nil && auth.AccessPointId != nil && !encrypted:
			return clientError("EFS access points require TransitEncryption to be enabled.")
		case auth != nil && auth.AccessPointId != nil && api.Value(e.RootDirectory) != "/":
			return clientError(`When using an EFS access point, the root directory must either be set to "/" or be omitted.`)
		}
	}
	return nil
}

func hasContainer(containers []ecs.ContainerDefinition, name string) bool {
	return findContainer(containers, name) != nil
}

func findContainer(containers []ecs.ContainerDefinition, name string) *ecs.ContainerDefinition {
	for i := range containers {
		if api.Value(containers[i].Name) == name {
			return &containers[i]
		}
	}
	return nil
}

// validateTask checks what belongs to the task as a whole.
func validateTask(def *ecs.RegisterTaskDefinitionInput) error {
	for _, role := range []*string{def.TaskRoleArn, def.ExecutionRoleArn} {
		if role != nil && *role != "" && !rolePattern.MatchString(*role) {
			return clientError("Role is not valid")
		}
	}
	if len(def.PlacementConstraints) > maxConstraints {
		return clientError("A maximum of %d placement constraints can be specified.", maxConstraints)
	}
	for _, p := range def.PlacementConstraints {
		switch expression := api.Value(p.Expression); {
		case p.Type != ecs.TaskDefinitionPlacementConstraintTypeMemberOf:
			return clientError("Placement constraint type '%s' is invalid.", string(p.Type))
		case expression == "":
			return clientError("Placement constraint expression should not be null or empty.")
		case len(expression) > maxExpression:
			return clientError("Placement constraint expression can have at most %d characters.", maxExpression)
		}
	}
	if p := def.ProxyConfiguration; p != nil {
		switch name := api.Value(p.ContainerName); {
		case def.NetworkMode != ecs.NetworkModeAwsvpc:
			return clientError("APPMESH proxy configuration is only supported in networkMode=awsvpc")
		case !hasContainer(def.ContainerDefinitions, name):
			return clientError("Proxy container [%s] does not exist.", name)
		}
	}
	if r := def.RuntimePlatform; r != nil {
		if err := oneOf("runtimePlatform.cpuArchitecture", r.CpuArchitecture, ecs.CPUArchitectureX8664, ecs.CPUArchitectureArm64); err != nil {
			return err
		}
		if os := string(r.OperatingSystemFamily); os != "" && os != "LINUX" && !strings.HasPrefix(os, "WINDOWS_SERVER_") {
			return clientError("Invalid operating system family '%s'.", os)
		}
	}
	if e := def.EphemeralStorage; e != nil {
		if err := validateStorage(e); err != nil {
			return err
		}
		if !wantsFargate(def) {
			return clientError("Tasks using the EC2 launch type do not support EphemeralStorage.")
		}
	}
	return nil
}

func validateStorage(e *ecs.EphemeralStorage) error {
	switch size := api.Value(e.SizeInGiB); {
	case size < 21:
		return clientError("EphemeralStorage size should be at least 21")
	case size > 200:
		return clientError("EphemeralStorage size should be at most 200")
	}
	return nil
}
