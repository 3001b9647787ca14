package taskdef

import (
	"errors"
	"fmt"
	"slices"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// MaxOverrides bounds a task's overrides, in bytes of their JSON.
const MaxOverrides = 8192

// Resolve answers the definition a task really runs: def with what RunTask or StartTask overrides.
// The result shares with def what is not overridden; neither argument is changed. What a client did
// wrong is an *ecs.InvalidParameterException.
func Resolve(def *ecs.TaskDefinition, overrides *ecs.TaskOverride) (*ecs.TaskDefinition, error) {
	if overrides == nil {
		return def, nil
	}
	raw, err := encodeJSON(overrides)
	if err != nil {
		return nil, fmt.Errorf("encode the overrides: %w", err)
	}
	if len(raw) > MaxOverrides {
		return nil, invalidParameter("Container Overrides length must be at most %d", MaxOverrides)
	}
	out := *def
	if err := overrideTask(&out, overrides); err != nil {
		return nil, err
	}
	out.ContainerDefinitions = slices.Clone(def.ContainerDefinitions)
	for i := range overrides.ContainerOverrides {
		o := &overrides.ContainerOverrides[i]
		name := api.Value(o.Name)
		c := findContainer(out.ContainerDefinitions, name)
		if c == nil {
			return nil, invalidParameter("Override for container named %s is not a container in the TaskDefinition.", name)
		}
		if err := overrideContainer(c, o); err != nil {
			return nil, err
		}
	}
	return &out, checkSizes(&out)
}

func overrideTask(def *ecs.TaskDefinition, o *ecs.TaskOverride) error {
	if o.Cpu != nil {
		units, ok := ParseCPU(*o.Cpu)
		if !ok {
			return invalidParameter("Invalid 'cpu' setting for task.")
		}
		def.Cpu = api.Ptr(fmt.Sprint(units))
	}
	if o.Memory != nil {
		mib, ok := ParseMemory(*o.Memory)
		if !ok {
			return invalidParameter("Invalid 'memory' setting for task.")
		}
		def.Memory = api.Ptr(fmt.Sprint(mib))
	}
	for _, role := range []struct{ from, to **string }{
		{&o.TaskRoleArn, &def.TaskRoleArn}, {&o.ExecutionRoleArn, &def.ExecutionRoleArn},
	} {
		if api.Value(*role.from) == "" {
			continue
		}
		if !rolePattern.MatchString(**role.from) {
			return invalidParameter("Role is not valid")
		}
		*role.to = *role.from
	}
	if o.EphemeralStorage != nil {
		if err := validateStorage(o.EphemeralStorage); err != nil {
			return asInvalidParameter(err)
		}
		def.EphemeralStorage = o.EphemeralStorage
	}
	for _, a := range o.InferenceAcceleratorOverrides {
		name := api.Value(a.DeviceName)
		//lint:ignore SA1019 still accepted by the API, of what the definition has
		if !slices.ContainsFunc(def.InferenceAccelerators, func(have ecs.InferenceAccelerator) bool { return api.Value(have.DeviceName) == name }) {
			return invalidParameter("Override for inference accelerator named %s is not an inference accelerator in the TaskDefinition.", name)
		}
	}
	return nil
}

// overrideContainer writes an override into a container. Variables are merged by name; everything
// else replaces what the definition has. An empty list overrides nothing: consoles and SDKs send one
// where the user said nothing.
func overrideContainer(c *ecs.ContainerDefinition, o *ecs.ContainerOverride) error {
	if len(o.Command) > 0 {
		c.Command = o.Command
	}
	if len(o.Environment) > 0 {
		c.Environment = slices.Clone(c.Environment)
	}
	for _, e := range o.Environment {
		if api.Value(e.Name) == "" {
			return invalidParameter("Invalid 'environment' setting for container '%s'.", api.Value(c.Name))
		}
		same := func(have ecs.KeyValuePair) bool { return api.Value(have.Name) == *e.Name }
		if i := slices.IndexFunc(c.Environment, same); i >= 0 {
			c.Environment[i] = e
		} else {
			c.Environment = append(c.Environment, e)
		}
	}
	if len(o.EnvironmentFiles) > 0 {
		if err := validateEnvironmentFiles(o.EnvironmentFiles); err != nil {
			return asInvalidParameter(err)
		}
		c.EnvironmentFiles = o.EnvironmentFiles
	}
	if len(o.ResourceRequirements) > 0 {
		if err := validateRequirements(o.ResourceRequirements, api.Value(c.Name)); err != nil {
			return asInvalidParameter(err)
		}
		c.ResourceRequirements = o.ResourceRequirements
	}
	if o.Cpu != nil {
		if *o.Cpu < 0 {
			return invalidParameter("Invalid 'cpu' setting for container '%s'.", api.Value(c.Name))
		}
		c.Cpu = o.Cpu
	}
	if o.Memory != nil {
		c.Memory = o.Memory
	}
	if o.MemoryReservation != nil {
		c.MemoryReservation = o.MemoryReservation
	}
	return nil
}

// checkSizes holds the result to what a definition is held to.
func checkSizes(def *ecs.TaskDefinition) error {
	sizes := &ecs.RegisterTaskDefinitionInput{
		ContainerDefinitions: def.ContainerDefinitions, Cpu: def.Cpu, Memory: def.Memory,
		RequiresCompatibilities: def.RequiresCompatibilities,
	}
	return asInvalidParameter(firstError(
		func() error { return validateSizes(sizes) },
		func() error {
			if wantsFargate(sizes) {
				return checkFargateSize(sizes)
			}
			return nil
		},
	))
}

// asInvalidParameter gives a definition's error the type that RunTask's errors have.
func asInvalidParameter(err error) error {
	var wrong *ecs.ClientException
	if errors.As(err, &wrong) {
		return &ecs.InvalidParameterException{Message: wrong.Message}
	}
	return err
}

// Requirements is what a task takes from its host.
type Requirements struct {
	CPUUnits  int64
	MemoryMiB int64
	// Ports are fixed ports of the host; none in network mode awsvpc, where the task has its own, nor
	// those that the host chooses.
	Ports []Port
	// Address: the task has an address of its own (network mode awsvpc).
	Address bool
	// Attributes the host must have, by name.
	Attributes []string
}

// Port is a port of the host.
type Port struct {
	Number   uint16
	Protocol ecs.TransportProtocol
}

// RequirementsOf answers what a task of this definition, overrides resolved, takes: the task's own
// CPU and memory where it sets them; otherwise the sum over its containers, of each the memory it
// reserves or else its limit.
func RequirementsOf(def *ecs.TaskDefinition) (Requirements, error) {
	r := Requirements{Address: def.NetworkMode == ecs.NetworkModeAwsvpc}
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		r.CPUUnits += int64(api.Value(c.Cpu))
		if c.MemoryReservation != nil {
			r.MemoryMiB += int64(*c.MemoryReservation)
		} else {
			r.MemoryMiB += int64(api.Value(c.Memory))
		}
		if r.Address || def.NetworkMode == ecs.NetworkModeNone {
			continue
		}
		for _, m := range c.PortMappings {
			if port := api.Value(m.HostPort); port > 0 && port <= 65535 {
				r.Ports = append(r.Ports, Port{Number: uint16(port), Protocol: m.Protocol})
			}
		}
	}
	var ok bool
	if def.Cpu != nil {
		if r.CPUUnits, ok = ParseCPU(*def.Cpu); !ok {
			return Requirements{}, errTaskSetting("cpu")
		}
	}
	if def.Memory != nil {
		if r.MemoryMiB, ok = ParseMemory(*def.Memory); !ok {
			return Requirements{}, errTaskSetting("memory")
		}
	}
	for _, a := range def.RequiresAttributes {
		r.Attributes = append(r.Attributes, api.Value(a.Name))
	}
	return r, nil
}
