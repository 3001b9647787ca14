package ecs

import (
	"slices"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// Limits of a capacity provider strategy, from the API reference.
const (
	maxStrategy = 20
	maxBase     = 100_000
	maxWeight   = 1000
)

// The providers that every account has.
const (
	fargate     = "FARGATE"
	fargateSpot = "FARGATE_SPOT"
)

func isFargate(provider string) bool { return provider == fargate || provider == fargateSpot }

// checkStrategy judges a capacity provider strategy by itself; associated tells whether the cluster has
// a provider. The strings are ECS's where it is known what it says.
func checkStrategy(strategy []ecs.CapacityProviderStrategyItem, associated func(name string) bool) error {
	if len(strategy) > maxStrategy {
		return invalid("The specified capacity provider strategy cannot contain more than %d capacity providers. Specify a valid strategy and try again.", maxStrategy)
	}
	bases, ofFargate := 0, 0
	seen := map[string]bool{}
	for _, item := range strategy {
		name, base, weight := api.Value(item.CapacityProvider), api.Value(item.Base), api.Value(item.Weight)
		switch {
		case name == "":
			return invalid("Capacity provider can not be blank.")
		case seen[name]:
			return invalid("The specified capacity provider strategy cannot contain duplicate capacity providers. Remove the duplicates and try again.")
		case base < 0 || base > maxBase:
			return invalid("Invalid base for capacity provider %s: must be between 0 and %d.", name, maxBase)
		case weight < 0 || weight > maxWeight:
			return invalid("Invalid weight for capacity provider %s: must be between 0 and %d.", name, maxWeight)
		case !associated(name):
			return invalid("The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. Associate the capacity provider with the cluster and try again.")
		}
		seen[name] = true
		if base > 0 {
			bases++
		}
		if isFargate(name) {
			ofFargate++
		}
	}
	switch {
	case bases > 1:
		return invalid("The specified capacity provider strategy contains multiple capacity providers with a base value defined. Only one capacity provider in a strategy can have a base value defined.")
	case ofFargate > 0 && ofFargate < len(strategy):
		return invalid("A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and Fargate providers. Specify one or the other and try again.")
	}
	return nil
}

// usable tells whether a strategy can place tasks: of several providers one must have a weight.
func usable(strategy []ecs.CapacityProviderStrategyItem) error {
	if len(strategy) > 1 && !slices.ContainsFunc(strategy, func(i ecs.CapacityProviderStrategyItem) bool { return api.Value(i.Weight) > 0 }) {
		return invalid("The specified capacity provider strategy must contain at least one capacity provider with a weight greater than 0.")
	}
	return nil
}

// split says how many of count tasks each provider of a strategy gets, in the strategy's order: first
// the base, then the rest in proportion to the weights. What proportion leaves over goes, one each, to
// those that it leaves shortest; of equals, to the first. A lone provider gets everything, whatever its
// weight. The strategy must have passed checkStrategy and usable.
func split(strategy []ecs.CapacityProviderStrategyItem, count int) []int {
	out := make([]int, len(strategy))
	if len(strategy) == 1 {
		out[0] = count
		return out
	}
	total := 0
	for i, item := range strategy {
		total += int(api.Value(item.Weight))
		if base := min(int(api.Value(item.Base)), count); base > 0 {
			out[i], count = base, count-base
		}
	}
	left := count
	short := make([]int, len(strategy)) // what is owed beyond whole tasks, in 1/total
	order := make([]int, len(strategy))
	for i, item := range strategy {
		share := count * int(api.Value(item.Weight))
		out[i] += share / total
		left -= share / total
		short[i], order[i] = share%total, i
	}
	slices.SortStableFunc(order, func(a, b int) int { return short[b] - short[a] })
	for _, i := range order[:left] {
		out[i]++
	}
	return out
}
