package taskdef

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// MaxSize bounds a definition, in bytes of its JSON, without tags.
const MaxSize = 64 << 10

// Register checks a definition and answers it as ECS stores and echoes it: with defaults written in,
// CPU and memory in plain units, status ACTIVE, and the compatibilities and attributes that follow
// from it. ARN, revision, registeredAt and registeredBy are the caller's to add; so are tags, of which
// only an empty list is refused here, as ECS refuses it.
//
// An error is a *ecs.ClientException or *ecs.InvalidParameterException.
func Register(in *ecs.RegisterTaskDefinitionInput) (*ecs.TaskDefinition, error) {
	if in.Tags != nil && len(in.Tags) == 0 {
		return nil, invalidParameter("Tags can not be empty.")
	}
	def, err := clone(in)
	if err != nil {
		return nil, err
	}
	if err := normalize(def); err != nil {
		return nil, err
	}
	if err := validate(def); err != nil {
		return nil, err
	}
	// Once more with the defaults, so that what was accepted can be registered again as it reads.
	if _, err := measure(def); err != nil {
		return nil, err
	}
	return &ecs.TaskDefinition{
		Family:                  def.Family,
		ContainerDefinitions:    def.ContainerDefinitions,
		TaskRoleArn:             def.TaskRoleArn,
		ExecutionRoleArn:        def.ExecutionRoleArn,
		NetworkMode:             def.NetworkMode,
		Volumes:                 def.Volumes,
		PlacementConstraints:    def.PlacementConstraints,
		RequiresCompatibilities: def.RequiresCompatibilities,
		Cpu:                     def.Cpu,
		Memory:                  def.Memory,
		PidMode:                 def.PidMode,
		IpcMode:                 def.IpcMode,
		ProxyConfiguration:      def.ProxyConfiguration,
		InferenceAccelerators:   def.InferenceAccelerators,
		EphemeralStorage:        def.EphemeralStorage,
		RuntimePlatform:         def.RuntimePlatform,
		EnableFaultInjection:    def.EnableFaultInjection,
		Status:                  ecs.TaskDefinitionStatusActive,
		Compatibilities:         compatibilities(def),
		RequiresAttributes:      requiredAttributes(def),
	}, nil
}

// clone copies the input, without its tags, through JSON: what is stored is JSON too, and its size is
// what ECS limits.
func clone(in *ecs.RegisterTaskDefinitionInput) (*ecs.RegisterTaskDefinitionInput, error) {
	untagged := *in
	untagged.Tags = nil
	raw, err := measure(&untagged)
	if err != nil {
		return nil, err
	}
	var out ecs.RegisterTaskDefinitionInput
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("copy the definition: %w", err)
	}
	return &out, nil
}

func measure(in *ecs.RegisterTaskDefinitionInput) ([]byte, error) {
	raw, err := encodeJSON(in)
	if err != nil {
		return nil, fmt.Errorf("encode the definition: %w", err)
	}
	if len(raw) > MaxSize {
		return nil, clientError("Actual length: '%d'. Max allowed length is '%d' bytes.", len(raw), MaxSize)
	}
	return raw, nil
}

// encodeJSON is json.Marshal without its escapes for HTML, which would count "<" as six bytes.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// normalize writes in what ECS adds to every definition. It touches nothing that is invalid, so that
// validate sees it as it was sent.
func normalize(def *ecs.RegisterTaskDefinitionInput) error {
	if def.Cpu != nil {
		units, ok := ParseCPU(*def.Cpu)
		if !ok {
			return errTaskSetting("cpu")
		}
		def.Cpu = api.Ptr(fmt.Sprint(units))
	}
	if def.Memory != nil {
		mib, ok := ParseMemory(*def.Memory)
		if !ok {
			return errTaskSetting("memory")
		}
		def.Memory = api.Ptr(fmt.Sprint(mib))
	}
	def.Volumes = orEmpty(def.Volumes)
	def.PlacementConstraints = orEmpty(def.PlacementConstraints)
	for i := range def.Volumes {
		normalizeVolume(&def.Volumes[i])
	}
	for i := range def.ContainerDefinitions {
		normalizeContainer(&def.ContainerDefinitions[i], def.NetworkMode)
	}
	return nil
}

func normalizeContainer(c *ecs.ContainerDefinition, mode ecs.NetworkMode) {
	c.Cpu = orDefault(c.Cpu, 0)
	c.Essential = orDefault(c.Essential, true)
	c.Environment = orEmpty(c.Environment)
	c.MountPoints = orEmpty(c.MountPoints)
	c.VolumesFrom = orEmpty(c.VolumesFrom)
	c.PortMappings = orEmpty(c.PortMappings)
	c.SystemControls = orEmpty(c.SystemControls)
	for i := range c.PortMappings {
		m := &c.PortMappings[i]
		if m.Protocol == "" {
			m.Protocol = ecs.TransportProtocolTcp
		}
		if m.ContainerPortRange != nil || m.ContainerPort == nil {
			continue
		}
		// 0 or nothing is "any port" in bridge mode. The other modes have no choice to make.
		switch {
		case mode == ecs.NetworkModeAwsvpc || mode == ecs.NetworkModeHost:
			if m.HostPort == nil || *m.HostPort == 0 {
				m.HostPort = api.Ptr(*m.ContainerPort)
			}
		default:
			m.HostPort = orDefault(m.HostPort, 0)
		}
	}
	if h := c.HealthCheck; h != nil {
		h.Interval = orDefault(h.Interval, 30)
		h.Timeout = orDefault(h.Timeout, 5)
		h.Retries = orDefault(h.Retries, 3)
	}
}

func normalizeVolume(v *ecs.Volume) {
	switch {
	case v.EfsVolumeConfiguration != nil:
		v.EfsVolumeConfiguration.RootDirectory = orDefault(v.EfsVolumeConfiguration.RootDirectory, "/")
	case v.DockerVolumeConfiguration != nil:
		if v.DockerVolumeConfiguration.Scope == "" {
			v.DockerVolumeConfiguration.Scope = ecs.ScopeTask
		}
	case v.Host == nil && v.FsxWindowsFileServerVolumeConfiguration == nil && v.S3filesVolumeConfiguration == nil && !api.Value(v.ConfiguredAtLaunch):
		v.Host = &ecs.HostVolumeProperties{}
	}
}

// compatibilities are the launch types a definition could be used with. ECS names EXTERNAL for a
// definition that asks for nothing else, and never without EC2.
func compatibilities(def *ecs.RegisterTaskDefinitionInput) []ecs.Compatibility {
	if def.NetworkMode == ecs.NetworkModeAwsvpc {
		if fargateProblem(def) == nil {
			return []ecs.Compatibility{ecs.CompatibilityEc2, ecs.CompatibilityFargate}
		}
		return []ecs.Compatibility{ecs.CompatibilityEc2}
	}
	wants := def.RequiresCompatibilities
	if len(wants) == 0 || slices.Contains(wants, ecs.CompatibilityExternal) {
		return []ecs.Compatibility{ecs.CompatibilityExternal, ecs.CompatibilityEc2}
	}
	return []ecs.Compatibility{ecs.CompatibilityEc2}
}

func orDefault[T any](p *T, v T) *T {
	if p != nil {
		return p
	}
	return &v
}

// orEmpty makes an absent list an empty one, which JSON tells apart.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
