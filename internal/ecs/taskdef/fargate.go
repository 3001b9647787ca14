package taskdef

import (
	"slices"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// maxFargateTimeout bounds startTimeout and stopTimeout on Fargate, in seconds.
const maxFargateTimeout = 120

// fargateSizes are the task sizes Fargate has: CPU units, and MiB from, to and in steps of.
var fargateSizes = []struct{ cpu, from, to, step int64 }{
	{512, 1024, 4096, 1024},
	{1024, 2048, 8192, 1024},
	{2048, 4096, 16384, 1024},
	{4096, 8192, 30720, 1024},
	{8192, 16384, 61440, 4096},
	{16384, 32768, 122880, 8192},
}

func fargateSize(cpu, memory int64) bool {
	if cpu == 256 {
		return memory == 512 || memory == 1024 || memory == 2048
	}
	for _, s := range fargateSizes {
		if s.cpu == cpu {
			return memory >= s.from && memory <= s.to && (memory-s.from)%s.step == 0
		}
	}
	return false
}

func wantsFargate(def *ecs.RegisterTaskDefinitionInput) bool {
	return slices.Contains(def.RequiresCompatibilities, ecs.CompatibilityFargate)
}

// fargateProblem is why an otherwise valid definition cannot be used with Fargate; nil: it can. The
// quotation marks of two texts are ECS's.
func fargateProblem(def *ecs.RegisterTaskDefinitionInput) error {
	if def.NetworkMode != ecs.NetworkModeAwsvpc {
		return clientError("Fargate only supports network mode ‘awsvpc’.")
	}
	if err := checkFargateSize(def); err != nil {
		return err
	}
	switch {
	case def.PidMode != "" && def.PidMode != ecs.PidModeTask:
		return clientError("Tasks using the Fargate launch type do not support pidMode '%s'. The supported value for pidMode is 'task'.", string(def.PidMode))
	case def.IpcMode != "":
		return errNotOnFargate("ipcMode")
	case len(def.PlacementConstraints) > 0:
		return errNotOnFargate("constraints")
	case len(def.InferenceAccelerators) > 0:
		return errNotOnFargate("inferenceAccelerators")
	}
	for _, v := range def.Volumes {
		switch {
		case v.Host != nil && v.Host.SourcePath != nil:
			return errNotOnFargate("sourcePath")
		case v.DockerVolumeConfiguration != nil:
			return errNotOnFargate("dockerVolumeConfiguration")
		}
	}
	for i := range def.ContainerDefinitions {
		if err := fargateContainerProblem(def, &def.ContainerDefinitions[i]); err != nil {
			return err
		}
	}
	return nil
}

func checkFargateSize(def *ecs.RegisterTaskDefinitionInput) error {
	switch {
	case def.Cpu == nil:
		return clientError("Fargate requires that 'cpu' be defined at the task level.")
	case def.Memory == nil:
		return clientError("Fargate requires that 'memory' be defined at the task level.")
	}
	cpu, _ := ParseCPU(*def.Cpu)
	memory, _ := ParseMemory(*def.Memory)
	if !fargateSize(cpu, memory) {
		return clientError("No Fargate configuration exists for given values: %d CPU, %d memory. See the Amazon ECS documentation for the valid values.", cpu, memory)
	}
	return nil
}

func fargateContainerProblem(def *ecs.RegisterTaskDefinitionInput, c *ecs.ContainerDefinition) error {
	hasRole := api.Value(def.ExecutionRoleArn) != ""
	switch {
	case api.Value(c.Privileged):
		return clientError("Fargate requires that the ‘privileged’ setting be ‘false’ at the container level.")
	case len(c.DockerSecurityOptions) > 0:
		return errNotOnFargate("dockerSecurityOptions")
	case slices.ContainsFunc(c.ResourceRequirements, func(r ecs.ResourceRequirement) bool { return r.Type == ecs.ResourceTypeGpu }):
		return clientError("Tasks using the Fargate launch type do not support GPU resource requirements.")
	case api.Value(c.StartTimeout) > maxFargateTimeout:
		return clientError("Tasks using the Fargate launch type must have a container start timeout of less than %d seconds.", maxFargateTimeout)
	case api.Value(c.StopTimeout) > maxFargateTimeout:
		return clientError("Tasks using the Fargate launch type must have a container stop timeout of less than %d seconds.", maxFargateTimeout)
	case isECR(api.Value(c.Image)) && !hasRole:
		return clientError("Fargate requires task definition to have execution role ARN to support ECR images.")
	case c.FirelensConfiguration != nil && c.FirelensConfiguration.Options["config-file-type"] == "s3":
		return clientError("Fargate launch type does not support FirelensConfiguration config file from 's3'")
	}
	if l := c.LinuxParameters; l != nil {
		switch {
		case len(l.Devices) > 0:
			return errNotOnFargate("devices")
		case l.SharedMemorySize != nil:
			return errNotOnFargate("sharedMemorySize")
		case l.MaxSwap != nil:
			return errNotOnFargate("maxSwap")
		case l.Swappiness != nil:
			return errNotOnFargate("swappiness")
		}
		if l.Capabilities != nil {
			for _, capability := range l.Capabilities.Add {
				if capability != "SYS_PTRACE" {
					return clientError("%s is not allowed on Fargate.", capability)
				}
			}
		}
	}
	if l := c.LogConfiguration; l != nil {
		if err := checkLogDriver(l.LogDriver, fargateLogDrivers); err != nil {
			return err
		}
		if l.LogDriver == ecs.LogDriverAwslogs {
			switch {
			case l.Options["awslogs-stream-prefix"] == "":
				return clientError("Fargate requires log configuration options to include awslogs-stream-prefix to support log driver awslogs.")
			case !hasRole:
				return clientError("Fargate requires task definition to have execution role ARN to support log driver awslogs.")
			}
		}
	}
	return nil
}

func errNotOnFargate(member string) error {
	return clientError("Fargate compatible task definitions do not support %s", member)
}
