package ecs

import (
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/placement/query"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/ecs/taskdef"
)

// rulesOf checks what a call and its definition, overrides resolved, ask of the hosts beside room.
func rulesOf(in *ecs.RunTaskInput, def *ecs.TaskDefinition, need taskdef.Requirements, launchType ecs.LaunchType) (placement.Rules, error) {
	var rules placement.Rules
	if launchType == ecs.LaunchTypeFargate {
		switch {
		case len(in.PlacementConstraints) > 0:
			return rules, invalid("Placement constraints are not supported with FARGATE launch type.")
		case len(in.PlacementStrategy) > 0:
			return rules, invalid("Placement strategies are not supported with FARGATE launch type.")
		}
	}
	if len(in.PlacementConstraints)+len(def.PlacementConstraints) > placement.MaxConstraints {
		return rules, invalid("A maximum of %d placement constraints can be specified.", placement.MaxConstraints)
	}
	for _, c := range def.PlacementConstraints {
		if err := addConstraint(&rules, string(c.Type), c.Expression); err != nil {
			return rules, err
		}
	}
	for _, c := range in.PlacementConstraints {
		if err := addConstraint(&rules, string(c.Type), c.Expression); err != nil {
			return rules, err
		}
	}
	if len(in.PlacementStrategy) > placement.MaxStrategies {
		return rules, invalid("A maximum of %d placement strategies can be specified.", placement.MaxStrategies)
	}
	for _, s := range in.PlacementStrategy {
		strategy, ok := placement.NewStrategy(string(s.Type), api.Value(s.Field))
		if !ok {
			return rules, invalid("Invalid placement strategy: type '%s' with field '%s'.", string(s.Type), api.Value(s.Field))
		}
		rules.Strategies = append(rules.Strategies, strategy)
	}
	rules.Attributes = attributesNeeded(def, need)
	return rules, nil
}

// addConstraint adds a constraint to the rules; an empty expression that is given is one.
func addConstraint(rules *placement.Rules, kind string, expression *string) error {
	switch ecs.PlacementConstraintType(kind) {
	case ecs.PlacementConstraintTypeDistinctInstance:
		if expression != nil {
			return invalid("distinctInstance expression should not be specified.")
		}
		rules.Distinct = true
		return nil
	case ecs.PlacementConstraintTypeMemberOf:
		if api.Value(expression) == "" {
			return invalid("memberOf expression should be specified.")
		}
		parsed, err := query.Parse(*expression)
		if err != nil {
			return invalid("Invalid placement constraint expression: %s", err)
		}
		rules.Members = append(rules.Members, parsed)
		return nil
	}
	return invalid("Invalid placement constraint type: %s", kind)
}

// attributesNeeded are those that the definition requires, and those of the platform it is for.
func attributesNeeded(def *ecs.TaskDefinition, need taskdef.Requirements) map[string]string {
	attributes := make(map[string]string, len(need.Attributes)+2)
	for _, name := range need.Attributes {
		attributes[name] = ""
	}
	if p := def.RuntimePlatform; p != nil {
		if p.CpuArchitecture != "" {
			attributes[state.AttributeArchitecture] = strings.ToLower(string(p.CpuArchitecture))
		}
		if p.OperatingSystemFamily != "" {
			attributes["ecs.os-family"] = string(p.OperatingSystemFamily)
		}
	}
	return attributes
}

// gpus is how many GPUs all of a definition's containers ask for.
func gpus(def *ecs.TaskDefinition) int {
	n := 0
	for i := range def.ContainerDefinitions {
		n += taskdef.GPUs(&def.ContainerDefinitions[i])
	}
	return n
}
