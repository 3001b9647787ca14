package taskdef

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// The names are those that Amazon's agent registers for what it can do; the older ones have the
// longer prefix.
const (
	oldCapability = "com.amazonaws.ecs.capability."
	capability    = "ecs.capability."
	dockerAPI     = oldCapability + "docker-remote-api."
)

var ecrPattern = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9-]+\.(amazonaws\.com|on\.aws)`)

func isECR(image string) bool { return ecrPattern.MatchString(image) }

// requiredAttributes are the attributes an instance must have for the definition to run on it, by
// name. Which version of Docker's API goes with which member follows echoes of the real service.
func requiredAttributes(def *ecs.RegisterTaskDefinitionInput) []ecs.Attribute {
	set := attributeSet{}
	hasRole := api.Value(def.ExecutionRoleArn) != ""
	if api.Value(def.TaskRoleArn) != "" {
		set.add(oldCapability + "task-iam-role")
		if def.NetworkMode == ecs.NetworkModeHost {
			set.add(oldCapability + "task-iam-role-network-host")
		}
	}
	if def.NetworkMode == ecs.NetworkModeAwsvpc {
		set.add(capability+"task-eni", dockerAPI+"1.18")
	}
	if def.PidMode != "" || def.IpcMode != "" {
		set.add(capability + "pid-ipc-namespace-sharing")
	}
	if def.ProxyConfiguration != nil {
		set.add(capability + "aws-appmesh")
	}
	if len(def.InferenceAccelerators) > 0 {
		set.add(capability + "task-eia")
	}
	if api.Value(def.EnableFaultInjection) {
		set.add(capability + "fault-injection")
	}
	for i := range def.Volumes {
		set.addVolume(&def.Volumes[i])
	}
	for i := range def.ContainerDefinitions {
		set.addContainer(&def.ContainerDefinitions[i], hasRole)
	}
	attributes := make([]ecs.Attribute, 0, len(set))
	for _, name := range slices.Sorted(maps.Keys(set)) {
		attributes = append(attributes, ecs.Attribute{Name: &name})
	}
	return attributes
}

type attributeSet map[string]struct{}

func (s attributeSet) add(names ...string) {
	for _, name := range names {
		s[name] = struct{}{}
	}
}

func (s attributeSet) addVolume(v *ecs.Volume) {
	if d := v.DockerVolumeConfiguration; d != nil {
		s.add(dockerAPI + "1.25")
		if driver := api.Value(d.Driver); driver != "" && driver != "local" {
			s.add(capability + "docker-plugin." + driver)
		}
	}
	if e := v.EfsVolumeConfiguration; e != nil {
		s.add(capability+"efs", dockerAPI+"1.25")
		if e.AuthorizationConfig != nil || e.TransitEncryption == ecs.EFSTransitEncryptionEnabled {
			s.add(capability + "efsAuth")
		}
	}
	if v.FsxWindowsFileServerVolumeConfiguration != nil {
		s.add(capability + "fsxWindowsFileServer")
	}
	if v.S3filesVolumeConfiguration != nil {
		s.add(capability + "storage.s3-files")
	}
	if api.Value(v.ConfiguredAtLaunch) {
		s.add(capability + "storage.ebs-task-volume-attach")
	}
}

func (s attributeSet) addContainer(c *ecs.ContainerDefinition, hasRole bool) {
	if isECR(api.Value(c.Image)) {
		s.add(oldCapability + "ecr-auth")
		if hasRole {
			s.add(capability + "execution-role-ecr-pull")
		}
	}
	if c.RepositoryCredentials != nil {
		s.add(capability + "private-registry-authentication.secretsmanager")
	}
	if api.Value(c.Privileged) {
		s.add(oldCapability + "privileged-container")
	}
	if len(c.Environment) > 0 || api.Value(c.User) != "" || api.Value(c.ReadonlyRootFilesystem) {
		s.add(dockerAPI + "1.17")
	}
	if len(c.Ulimits) > 0 || len(c.DockerLabels) > 0 {
		s.add(dockerAPI + "1.18")
	}
	if c.MemoryReservation != nil {
		s.add(dockerAPI + "1.21")
	}
	if len(c.SystemControls) > 0 {
		s.add(dockerAPI + "1.24")
	}
	if c.HealthCheck != nil {
		s.add(capability+"container-health-check", dockerAPI+"1.24")
		if api.Value(c.HealthCheck.StartPeriod) > 0 {
			s.add(dockerAPI + "1.29")
		}
	}
	if len(c.DependsOn) > 0 || c.StartTimeout != nil || c.StopTimeout != nil {
		s.add(capability + "container-ordering")
	}
	if c.RestartPolicy != nil && api.Value(c.RestartPolicy.Enabled) {
		s.add(capability + "container-restart-policy")
	}
	if len(c.EnvironmentFiles) > 0 {
		s.add(capability + "env-files.s3")
	}
	if slices.ContainsFunc(c.PortMappings, func(m ecs.PortMapping) bool { return m.ContainerPortRange != nil }) {
		s.add(capability + "network.container-port-range")
	}
	for _, option := range c.DockerSecurityOptions {
		switch {
		case strings.HasPrefix(option, "label:"):
			s.add(oldCapability + "selinux")
		case strings.HasPrefix(option, "apparmor:"):
			s.add(oldCapability + "apparmor")
		case strings.HasPrefix(option, "credentialspec:"):
			s.add(capability + "gmsa")
		}
	}
	if len(c.CredentialSpecs) > 0 {
		s.add(capability + "gmsa")
	}
	if l := c.LinuxParameters; l != nil {
		if l.SharedMemorySize != nil || len(l.Tmpfs) > 0 {
			s.add(dockerAPI + "1.22")
		}
		if api.Value(l.InitProcessEnabled) {
			s.add(dockerAPI + "1.25")
		}
	}
	s.addSecrets(c.Secrets, "environment-variables")
	s.addLogging(c, hasRole)
}

// addSecrets tells where secrets come from: Secrets Manager by its ARNs, Systems Manager otherwise.
func (s attributeSet) addSecrets(secrets []ecs.Secret, use string) {
	for _, secret := range secrets {
		store := "ssm"
		if parts := strings.SplitN(api.Value(secret.ValueFrom), ":", 4); len(parts) == 4 && parts[2] == "secretsmanager" {
			store = "asm"
		}
		s.add(capability + "secrets." + store + "." + use)
	}
}

// logDriverAPI is the version of Docker's API that first had a log driver.
var logDriverAPI = map[ecs.LogDriver]string{
	ecs.LogDriverAwslogs: "1.19", ecs.LogDriverAwsfirelens: "1.19",
	ecs.LogDriverGelf: "1.20", ecs.LogDriverFluentd: "1.20", ecs.LogDriverSplunk: "1.22",
}

func (s attributeSet) addLogging(c *ecs.ContainerDefinition, hasRole bool) {
	if f := c.FirelensConfiguration; f != nil {
		s.add(capability + "firelens." + string(f.Type))
		if from := f.Options["config-file-type"]; from != "" {
			s.add(capability + "firelens.options.config." + from)
		}
	}
	l := c.LogConfiguration
	if l == nil {
		return
	}
	s.add(oldCapability + "logging-driver." + string(l.LogDriver))
	version, ok := logDriverAPI[l.LogDriver]
	if !ok {
		version = "1.18"
	}
	s.add(dockerAPI + version)
	if l.LogDriver == ecs.LogDriverAwslogs {
		if hasRole {
			s.add(capability + "execution-role-awslogs")
		}
		if l.Options["awslogs-create-group"] != "" {
			s.add(dockerAPI + "1.29")
		}
		if l.Options["mode"] != "" || l.Options["max-buffer-size"] != "" {
			s.add(dockerAPI + "1.28")
		}
	}
	s.addSecrets(l.SecretOptions, "bootstrap.log-driver")
}
