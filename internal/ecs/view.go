package ecs

import (
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// ContainerInstance is a container instance as DescribeContainerInstances shows it at a snapshot, but
// for its tags; false: there is none of that key.
func (s *Service) ContainerInstance(v store.View, instance store.Key) (ecs.ContainerInstance, bool) {
	row, ok := state.ContainerInstances.Get(v, instance)
	if !ok {
		return ecs.ContainerInstance{}, false
	}
	return s.describeInstance(v, row), true
}
