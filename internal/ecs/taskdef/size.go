package taskdef

import (
	"math"
	"strconv"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// ParseCPU reads a task's cpu: CPU units ("1024") or vCPUs ("1 vCPU", ".25 vcpu"). It answers CPU
// units, 1,024 a vCPU.
func ParseCPU(s string) (units int64, ok bool) {
	return parseAmount(s, "vcpu")
}

// ParseMemory reads a task's memory: MiB ("512") or GB ("0.5 GB", "1gb"). It answers MiB; ECS's GB is
// 1,024 of them.
func ParseMemory(s string) (mib int64, ok bool) {
	return parseAmount(s, "gb")
}

// parseAmount reads a number of units, or of 1,024 units when it is followed by the large unit's name.
func parseAmount(s, large string) (int64, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	number, isLarge := strings.CutSuffix(s, large)
	number = strings.TrimSpace(number)
	// Before ParseFloat, which also reads exponents, hexadecimals, infinities and underscores.
	if number == "" || len(number) > 12 || strings.Trim(number, "0123456789.") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, false
	}
	if isLarge {
		n *= 1024
	}
	if n <= 0 || n > math.MaxInt32 || n != math.Trunc(n) {
		return 0, false
	}
	return int64(n), true
}

func errTaskSetting(member string) error {
	return clientError("Invalid '%s' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.", member)
}

// The CPU a task on one's own hosts may ask for: an eighth of a vCPU up to 192.
const (
	minTaskCPU = 128
	maxTaskCPU = 192 * 1024
)

// minContainerMemory is the least MiB a container can be given.
const minContainerMemory = 6

// validateSizes checks what the containers ask for against each other and against the task.
func validateSizes(def *ecs.RegisterTaskDefinitionInput) error {
	var taskCPU, taskMemory int64
	if def.Cpu != nil {
		taskCPU, _ = ParseCPU(*def.Cpu)
		if !wantsFargate(def) && (taskCPU < minTaskCPU || taskCPU > maxTaskCPU) {
			return errTaskSetting("cpu")
		}
	}
	if def.Memory != nil {
		taskMemory, _ = ParseMemory(*def.Memory)
		if taskMemory < minContainerMemory {
			return errTaskSetting("memory")
		}
	}
	var cpu int64
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		if err := validateMemory(c, taskMemory); err != nil {
			return err
		}
		if api.Value(c.Cpu) < 0 {
			return invalidSetting("cpu", api.Value(c.Name))
		}
		cpu += int64(api.Value(c.Cpu))
	}
	if def.Cpu != nil && cpu > taskCPU {
		return clientError("The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.")
	}
	return nil
}

// validateMemory checks one container; taskMemory is in MiB, 0: not set.
func validateMemory(c *ecs.ContainerDefinition, taskMemory int64) error {
	name := api.Value(c.Name)
	if c.Memory == nil && c.MemoryReservation == nil && taskMemory == 0 {
		return clientError("Invalid setting for container '%s'. At least one of 'memory' or 'memoryReservation' must be specified.", name)
	}
	for _, p := range []*int32{c.Memory, c.MemoryReservation} {
		if p != nil && *p < minContainerMemory {
			return clientError("Invalid setting for container '%s'. 'memory' and 'memoryReservation' must be at least %d MiB.", name, minContainerMemory)
		}
	}
	if c.Memory != nil && c.MemoryReservation != nil && *c.Memory < *c.MemoryReservation {
		return clientError("Invalid setting for container '%s'. 'memory' must be greater than or equal to 'memoryReservation'.", name)
	}
	member, most := "memory", c.Memory
	if most == nil {
		member, most = "memoryReservation", c.MemoryReservation
	}
	if taskMemory > 0 && most != nil && int64(*most) > taskMemory {
		return clientError("The '%s' setting for container '%s' is greater than for the task.", member, name)
	}
	return nil
}
