package ecs

import (
	"maps"
	"slices"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// capacity settles how the tasks of a RunTask call are launched: by the type it names, else by its
// strategy, else by the cluster's default one. It answers the call with its launch type, and with a
// strategy the provider of each task.
func capacity(in *ecs.RunTaskInput, cluster *ecs.Cluster, count int) (*ecs.RunTaskInput, []string, error) {
	strategy := in.CapacityProviderStrategy
	switch {
	case in.LaunchType != "" && len(strategy) > 0:
		return nil, nil, invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	case in.LaunchType != "":
		return in, nil, nil
	case len(strategy) == 0:
		strategy = cluster.DefaultCapacityProviderStrategy
	}
	if len(strategy) == 0 {
		return in, nil, nil
	}
	if err := checkStrategy(strategy, func(name string) bool { return slices.Contains(cluster.CapacityProviders, name) }); err != nil {
		return nil, nil, err
	}
	if err := usable(strategy); err != nil {
		return nil, nil, err
	}
	var providers []string
	for i, n := range split(strategy, count) {
		for range n {
			providers = append(providers, *strategy[i].CapacityProvider)
		}
	}
	settled := *in
	settled.LaunchType = ecs.LaunchTypeEc2
	if isFargate(providers[0]) {
		settled.LaunchType = ecs.LaunchTypeFargate
	}
	return &settled, providers, nil
}

// emptyProviders names the capacity providers of a Run, in ECS's words, that have no host to consider and
// whose tasks therefore have no place. Those whose hosts cannot take a task are among the other failures.
func emptyProviders(placed orchestrator.Placed, run orchestrator.Run) []ecs.Failure {
	lacking := map[string]bool{}
	for _, spec := range run.Tasks {
		lacking[spec.CapacityProvider] = true
	}
	mine := len(placed.TaskIDs) == 0
	for _, spec := range run.Tasks {
		if slices.Contains(placed.TaskIDs, spec.ID) {
			delete(lacking, spec.CapacityProvider)
			mine = true
		}
	}
	if !mine { // a repeated call is answered with the tasks of the first
		return nil
	}
	var out []ecs.Failure
	for _, name := range slices.Sorted(maps.Keys(lacking)) {
		members, open := providerHosts(placed.Snapshot, run.Cluster, name)
		arn := state.ARN(run.Cluster.Scope, "capacity-provider", name)
		switch {
		case members == 0:
			out = append(out, failure(arn, "EMPTY CAPACITY PROVIDER"))
		case open == 0:
			out = append(out, failure(arn, "NO ACTIVE INSTANCES"))
		}
	}
	return out
}

func errEmptyProvider() error {
	return invalid("No Container Instances were found in your capacity provider.")
}

// providerHosts counts the hosts of a capacity provider in a cluster, and those of them that take tasks.
func providerHosts(v store.View, cluster store.Key, name string) (members, open int) {
	instances := map[string]*state.ContainerInstance{} // by host
	for ci := range state.ContainerInstances.List(v, cluster.Scope, cluster.ID+"/") {
		if ci.Value.Status != inactive {
			instances[ci.Value.HostID] = ci.Value
		}
	}
	for host := range state.Hosts.All(v) {
		ci := instances[host.Value.ID]
		if claimed(host.Value, ci) != name {
			continue
		}
		members++
		if ci == nil || ci.Status == active {
			open++
		}
	}
	return members, open
}

// providerOf names the capacity provider that a container instance belongs to, if the cluster has it.
func providerOf(v store.View, cluster *ecs.Cluster, ci *state.ContainerInstance) string {
	host, ok := state.Hosts.Get(v, state.HostKey(ci.HostID))
	if !ok {
		return ""
	}
	name := claimed(host.Value, ci)
	if slices.Contains(cluster.CapacityProviders, name) {
		return name
	}
	return ""
}

// claimed is the provider that a host, or its container instance if it has one, says it belongs to.
func claimed(host *state.Host, ci *state.ContainerInstance) string {
	if name, ok := host.Attributes[orchestrator.ProviderAttribute]; ok {
		return name
	}
	if ci != nil {
		return ci.Attributes[orchestrator.ProviderAttribute]
	}
	return ""
}
