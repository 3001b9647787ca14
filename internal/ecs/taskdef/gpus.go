package taskdef

import (
	"strconv"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// GPUs is how many GPUs a valid container asks for with resourceRequirements.
func GPUs(c *ecs.ContainerDefinition) int {
	for _, r := range c.ResourceRequirements {
		if r.Type == ecs.ResourceTypeGpu {
			n, _ := strconv.Atoi(api.Value(r.Value)) // validated
			return max(n, 0)
		}
	}
	return 0
}
