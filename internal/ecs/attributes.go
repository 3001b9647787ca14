package ecs

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Limits of attributes, from the API reference.
const (
	maxAttributes     = 10 // custom ones of one resource
	maxAttributeCall  = 10 // in one call
	builtInAttributes = "ecs."
)

var (
	attributeName  = regexp.MustCompile(`^[a-zA-Z0-9_./\\-]{1,128}$`)
	attributeValue = regexp.MustCompile(`^[a-zA-Z0-9_.@/\\:-]([a-zA-Z0-9_.@/\\: -]{0,126}[a-zA-Z0-9_.@/\\:-])?$`)
)

// PutAttributes gives container instances attributes. One that has a value already gets the new one.
func (s *Service) PutAttributes(ctx context.Context, in *ecs.PutAttributesInput) (*ecs.PutAttributesOutput, error) {
	for _, a := range in.Attributes {
		if v := api.Value(a.Value); v != "" && !attributeValue.MatchString(v) {
			return nil, invalid("Invalid attribute value '%s': values have 1 to 128 letters, numbers, hyphens, underscores, periods, at signs, slashes, back slashes, colons or spaces, and neither begin nor end with a space.", v)
		}
	}
	done, err := s.changeAttributes(ctx, in.Cluster, in.Attributes, func(have map[string]string, a ecs.Attribute) error {
		have[*a.Name] = api.Value(a.Value)
		if len(have) > maxAttributes {
			return &ecs.AttributeLimitExceededException{Message: "You can apply up to 10 custom attributes for each resource."}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.PutAttributesOutput{Attributes: done}, nil
}

// DeleteAttributes takes attributes from container instances. One that is not there is no error.
func (s *Service) DeleteAttributes(ctx context.Context, in *ecs.DeleteAttributesInput) (*ecs.DeleteAttributesOutput, error) {
	done, err := s.changeAttributes(ctx, in.Cluster, in.Attributes, func(have map[string]string, a ecs.Attribute) error {
		delete(have, *a.Name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeleteAttributesOutput{Attributes: done}, nil
}

// changeAttributes applies each attribute of a call to the attributes of its target, all or none, and
// answers them with their targets' ARNs.
func (s *Service) changeAttributes(ctx context.Context, cluster *string, attributes []ecs.Attribute, change func(have map[string]string, a ecs.Attribute) error) ([]ecs.Attribute, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	switch n := len(attributes); {
	case n == 0:
		return nil, invalid("Attributes cannot be empty.")
	case n > maxAttributeCall:
		return nil, invalid("Attributes cannot have more than %d elements.", maxAttributeCall)
	}
	for _, a := range attributes {
		if err := checkAttribute(a); err != nil {
			return nil, err
		}
	}
	var done []ecs.Attribute
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		c, err := s.cluster(tx, sc, cluster)
		if err != nil {
			return err
		}
		done = []ecs.Attribute{}
		for _, a := range attributes {
			row, err := attributeTarget(tx, c.Key, a)
			if err != nil {
				return err
			}
			ci := *row.Value
			if ci.Attributes = maps.Clone(ci.Attributes); ci.Attributes == nil {
				ci.Attributes = map[string]string{}
			}
			if err := change(ci.Attributes, a); err != nil {
				return err
			}
			if !maps.Equal(ci.Attributes, row.Value.Attributes) {
				ci.Changes++
				state.ContainerInstances.Put(tx, row.Key, &ci)
			}
			a.TargetId, a.TargetType = &ci.ARN, ecs.TargetTypeContainerInstance
			done = append(done, a)
		}
		return nil
	})
	return done, err
}

// checkAttribute judges what can be judged of an attribute without its target.
func checkAttribute(a ecs.Attribute) error {
	name, target := api.Value(a.Name), api.Value(a.TargetId)
	switch {
	case !attributeName.MatchString(name):
		return invalid("Invalid attribute name '%s': names have 1 to 128 letters, numbers, hyphens, underscores, slashes, back slashes or periods.", name)
	case strings.HasPrefix(strings.ToLower(name), builtInAttributes):
		return invalid("Invalid attribute name '%s': names that begin with 'ecs.' are reserved.", name)
	case target == "":
		return invalid("Attribute targetId can not be blank.")
	case a.TargetType != "" && a.TargetType != ecs.TargetTypeContainerInstance:
		return invalid("Invalid targetType: %s", a.TargetType)
	case a.TargetType == "" && !strings.HasPrefix(target, "arn:"):
		return invalid("targetType must be specified when targetId is not an ARN.")
	}
	return nil
}

func attributeTarget(v store.View, cluster store.Key, a ecs.Attribute) (store.Row[state.ContainerInstance], error) {
	row, ok := findInstance(v, cluster, *a.TargetId)
	if !ok || row.Value.Status == inactive {
		return row, &ecs.TargetNotFoundException{Message: "The specified target wasn't found. You can view your available container instances with ListContainerInstances."}
	}
	return row, nil
}

// ListAttributes lists attributes, built-in ones too, of the container instances of a cluster.
func (s *Service) ListAttributes(ctx context.Context, in *ecs.ListAttributesInput) (*ecs.ListAttributesOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case in.TargetType != ecs.TargetTypeContainerInstance:
		return nil, invalid("Invalid targetType: %s", in.TargetType)
	case api.Value(in.AttributeName) == "" && api.Value(in.AttributeValue) != "":
		return nil, invalid("attributeName must be specified with attributeValue.")
	}
	snap := s.store.Snapshot()
	cluster, err := s.cluster(snap, sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	list, next, err := page(func(yield func(string, ecs.Attribute) bool) {
		for row := range state.ContainerInstances.List(snap, sc, cluster.ID+"/") {
			if row.Value.Status == inactive {
				continue
			}
			for _, a := range attributesOf(snap, row.Value) {
				if want := api.Value(in.AttributeName); want != "" && *a.Name != want ||
					in.AttributeValue != nil && api.Value(a.Value) != *in.AttributeValue {
					continue
				}
				a.TargetId, a.TargetType = &row.Value.ARN, ecs.TargetTypeContainerInstance
				// No name has this byte, so keys are in the order of the instances, then of the names.
				if !yield(row.ID+"\x00"+*a.Name, a) {
					return
				}
			}
		}
	}, in.MaxResults, 100, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &ecs.ListAttributesOutput{Attributes: list, NextToken: next}, nil
}

// attributesOf are all attributes of a container instance, in the order of their names: its host's, and
// those that clients gave it, under names that the host does not have.
func attributesOf(v store.View, ci *state.ContainerInstance) []ecs.Attribute {
	all := map[string]string{}
	maps.Copy(all, ci.Attributes)
	if host, ok := state.Hosts.Get(v, state.HostKey(ci.HostID)); ok {
		maps.Copy(all, host.Value.Attributes)
		all["ecs.availability-zone"] = regionOf(ci.ARN) + host.Value.ZoneSuffix
	}
	out := []ecs.Attribute{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a := ecs.Attribute{Name: &name}
		if value := all[name]; value != "" {
			a.Value = &value
		}
		out = append(out, a)
	}
	return out
}

func regionOf(arn string) string {
	p, err := state.ParseARN(arn)
	if err != nil {
		return ""
	}
	return p.Scope.Region
}
