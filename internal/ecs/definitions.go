package ecs

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/ecs/taskdef"
	"github.com/berthhq/berth/internal/store"
)

// RegisterTaskDefinition stores the next revision of a family.
func (s *Service) RegisterTaskDefinition(ctx context.Context, in *ecs.RegisterTaskDefinitionInput) (*ecs.RegisterTaskDefinitionOutput, error) {
	p, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	sc := store.Scope{Account: p.AccountID, Region: p.Region}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	def, err := taskdef.Register(in)
	if err != nil {
		return nil, err
	}
	family := *def.Family
	now := time.Now().UTC()
	var out ecs.TaskDefinition
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		next := state.Family{Latest: 1}
		if row, ok := state.Families.Get(tx, store.K(sc, family)); ok {
			next.Latest = row.Value.Latest + 1
		}
		out = *def
		out.Revision = &next.Latest
		out.TaskDefinitionArn = api.Ptr(definitionARN(sc, family, next.Latest))
		out.RegisteredAt, out.RegisteredBy = &now, &p.ARN
		stored := out
		state.Families.Put(tx, store.K(sc, family), &next)
		state.TaskDefinitions.Put(tx, state.DefinitionKey(sc, family, next.Latest), &stored)
		putTags(tx, sc, *out.TaskDefinitionArn, in.Tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.RegisterTaskDefinitionOutput{TaskDefinition: &out, Tags: in.Tags}, nil
}

func definitionARN(sc store.Scope, family string, revision int32) string {
	return state.ARN(sc, "task-definition", taskdef.Reference{Family: family, Revision: revision}.String())
}

// definition finds the revision that family, family:revision or an ARN means; a family alone means its
// newest active revision. What it does not find is an error without a message of the caller's call.
func (s *Service) definition(v store.View, sc store.Scope, ref string) (store.Row[ecs.TaskDefinition], error) {
	none := store.Row[ecs.TaskDefinition]{}
	r, err := taskdef.ParseReference(ref)
	if err != nil {
		return none, err
	}
	if r.Account != "" && (r.Account != sc.Account || r.Region != sc.Region) {
		return none, errNoDefinition
	}
	if r.Revision > 0 {
		row, ok := state.TaskDefinitions.Get(v, state.DefinitionKey(sc, r.Family, r.Revision))
		if !ok {
			return none, errNoDefinition
		}
		return row, nil
	}
	family, ok := state.Families.Get(v, store.K(sc, r.Family))
	if !ok {
		return none, errNoDefinition
	}
	// From the newest on: it nearly always is the one.
	for revision := family.Value.Latest; revision > 0; revision-- {
		row, ok := state.TaskDefinitions.Get(v, state.DefinitionKey(sc, r.Family, revision))
		if ok && row.Value.Status == ecs.TaskDefinitionStatusActive {
			return row, nil
		}
	}
	return none, errNoDefinition
}

var errNoDefinition = clientError("Unable to describe task definition.")

// DescribeTaskDefinition describes a revision, inactive ones too when they are named.
func (s *Service) DescribeTaskDefinition(ctx context.Context, in *ecs.DescribeTaskDefinitionInput) (*ecs.DescribeTaskDefinitionOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	row, err := s.definition(snap, sc, api.Value(in.TaskDefinition))
	if err != nil {
		return nil, err
	}
	out := &ecs.DescribeTaskDefinitionOutput{TaskDefinition: row.Value}
	if slices.Contains(in.Include, ecs.TaskDefinitionFieldTags) {
		out.Tags = tagsOf(snap, sc, *row.Value.TaskDefinitionArn)
	}
	return out, nil
}

// DeregisterTaskDefinition makes a revision INACTIVE: no new tasks, the old ones go on.
func (s *Service) DeregisterTaskDefinition(ctx context.Context, in *ecs.DeregisterTaskDefinitionInput) (*ecs.DeregisterTaskDefinitionOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	r, err := taskdef.ParseReference(api.Value(in.TaskDefinition))
	if err != nil {
		return nil, err
	}
	if r.Revision == 0 {
		return nil, invalid("Invalid revision number. Number: null")
	}
	var out ecs.TaskDefinition
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := s.definition(tx, sc, api.Value(in.TaskDefinition))
		if err != nil {
			return clientError("The specified task definition does not exist. Specify a valid account, family, revision and try again.")
		}
		out = *row.Value
		switch out.Status {
		case ecs.TaskDefinitionStatusInactive:
			return nil
		case ecs.TaskDefinitionStatusDeleteInProgress:
			return clientError("The specified task definition is being deleted.")
		}
		out.Status, out.DeregisteredAt = ecs.TaskDefinitionStatusInactive, api.Ptr(time.Now().UTC())
		stored := out
		state.TaskDefinitions.Put(tx, row.Key, &stored)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeregisterTaskDefinitionOutput{TaskDefinition: &out}, nil
}

// DeleteTaskDefinitions marks inactive revisions for deletion. They stay describable while tasks refer
// to them.
func (s *Service) DeleteTaskDefinitions(ctx context.Context, in *ecs.DeleteTaskDefinitionsInput) (*ecs.DeleteTaskDefinitionsOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(in.TaskDefinitions); n == 0 || n > 10 {
		return nil, invalid("The number of task definitions must be between 1 and 10.")
	}
	out := &ecs.DeleteTaskDefinitionsOutput{}
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		out.TaskDefinitions, out.Failures = []ecs.TaskDefinition{}, []ecs.Failure{}
		for _, ref := range in.TaskDefinitions {
			row, err := s.definition(tx, sc, ref)
			if r, perr := taskdef.ParseReference(ref); err != nil || perr != nil || r.Revision == 0 {
				f := missing(ref)
				f.Detail = api.Ptr("The specified task definition does not exist. Specify a valid account, family, revision and try again.")
				out.Failures = append(out.Failures, f)
				continue
			}
			def := *row.Value
			if def.Status == ecs.TaskDefinitionStatusActive {
				f := failure(*def.TaskDefinitionArn, "The specified task definition is still in ACTIVE status. Please deregister the target and try again.")
				out.Failures = append(out.Failures, f)
				continue
			}
			if def.Status == ecs.TaskDefinitionStatusInactive {
				def.Status, def.DeleteRequestedAt = ecs.TaskDefinitionStatusDeleteInProgress, api.Ptr(time.Now().UTC())
				state.TaskDefinitions.Put(tx, row.Key, &def)
			}
			out.TaskDefinitions = append(out.TaskDefinitions, def)
		}
		return nil
	})
	return out, err
}

// ListTaskDefinitions lists ARNs by family and revision.
func (s *Service) ListTaskDefinitions(ctx context.Context, in *ecs.ListTaskDefinitionsInput) (*ecs.ListTaskDefinitionsOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	status := in.Status
	switch status {
	case "":
		status = ecs.TaskDefinitionStatusActive
	case ecs.TaskDefinitionStatusActive, ecs.TaskDefinitionStatusInactive, ecs.TaskDefinitionStatusDeleteInProgress:
	default:
		return nil, invalid("Invalid status: %s", status)
	}
	var defs []*ecs.TaskDefinition
	for row := range state.TaskDefinitions.List(s.store.Snapshot(), sc, "") {
		def := row.Value
		if def.Status != status || in.FamilyPrefix != nil && *in.FamilyPrefix != "" && *def.Family != *in.FamilyPrefix {
			continue
		}
		defs = append(defs, def)
	}
	// Keys are in another order where one family's name begins with another's.
	slices.SortFunc(defs, func(a, b *ecs.TaskDefinition) int {
		return cmp.Or(cmp.Compare(*a.Family, *b.Family), cmp.Compare(*a.Revision, *b.Revision))
	})
	switch in.Sort {
	case ecs.SortOrderDesc:
		slices.Reverse(defs)
	case "", ecs.SortOrderAsc:
	default:
		return nil, invalid("Invalid sort order: %s", in.Sort)
	}
	arns, next, err := page(keyed(defs, in.Sort == ecs.SortOrderDesc), in.MaxResults, 100, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &ecs.ListTaskDefinitionsOutput{TaskDefinitionArns: arns, NextToken: next}, nil
}

// keyed gives each ARN a key in whose order the list is: by family and revision, forward or backward.
func keyed(defs []*ecs.TaskDefinition, backward bool) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, def := range defs {
			key := []byte(fmt.Sprintf("%s\x00%010d", *def.Family, *def.Revision))
			if backward {
				for i := range key {
					key[i] = ^key[i]
				}
			}
			if !yield(string(key), *def.TaskDefinitionArn) {
				return
			}
		}
	}
}

// ListTaskDefinitionFamilies lists families that have a revision of the wanted status.
func (s *Service) ListTaskDefinitionFamilies(ctx context.Context, in *ecs.ListTaskDefinitionFamiliesInput) (*ecs.ListTaskDefinitionFamiliesOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	hasActive := map[string]bool{}
	for row := range state.TaskDefinitions.List(s.store.Snapshot(), sc, api.Value(in.FamilyPrefix)) {
		family := *row.Value.Family
		hasActive[family] = hasActive[family] || row.Value.Status == ecs.TaskDefinitionStatusActive
	}
	want := func(isActive bool) bool { return true }
	switch in.Status {
	case ecs.TaskDefinitionFamilyStatusActive:
		want = func(isActive bool) bool { return isActive }
	case ecs.TaskDefinitionFamilyStatusInactive:
		want = func(isActive bool) bool { return !isActive }
	case "", ecs.TaskDefinitionFamilyStatusAll:
	default:
		return nil, invalid("Invalid status: %s", in.Status)
	}
	var names []string
	for family, isActive := range hasActive {
		if want(isActive) && strings.HasPrefix(family, api.Value(in.FamilyPrefix)) {
			names = append(names, family)
		}
	}
	slices.Sort(names)
	families, next, err := page(func(yield func(string, string) bool) {
		for _, n := range names {
			if !yield(n, n) {
				return
			}
		}
	}, in.MaxResults, 100, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &ecs.ListTaskDefinitionFamiliesOutput{Families: families, NextToken: next}, nil
}
