package ecs

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// maxTags is ECS's limit for one resource.
const maxTags = 50

func checkTags(tags []ecs.Tag) error {
	if len(tags) > maxTags {
		return invalid("Too many tags: a resource can have at most %d.", maxTags)
	}
	seen := map[string]bool{}
	for _, t := range tags {
		key := api.Value(t.Key)
		switch {
		case key == "":
			return invalid("Tag key can not be blank.")
		case utf8.RuneCountInString(key) > 128 || utf8.RuneCountInString(api.Value(t.Value)) > 256:
			return invalid("Tag keys can have at most 128 characters and values at most 256.")
		case managed(key):
			return invalid("Tag keys starting with 'aws:' are reserved for AWS.")
		case seen[key]:
			return invalid("Duplicate tag key: %s", key)
		}
		seen[key] = true
	}
	return nil
}

// managed tells keys that only ECS itself may set.
func managed(key string) bool { return strings.HasPrefix(strings.ToLower(key), "aws:") }

func putTags(tx *store.Tx, sc store.Scope, arn string, tags []ecs.Tag) {
	if len(tags) > 0 {
		state.Tags.Put(tx, store.K(sc, arn), &state.ResourceTags{Tags: tags})
	}
}

func tagsOf(v store.View, sc store.Scope, arn string) []ecs.Tag {
	if row, ok := state.Tags.Get(v, store.K(sc, arn)); ok {
		return row.Value.Tags
	}
	return []ecs.Tag{}
}

// taggable finds the resource that an ARN names, and answers the ARN it is tagged under.
func (s *Service) taggable(v store.View, sc store.Scope, ref *string) (string, error) {
	p, err := state.ParseARN(api.Value(ref))
	if err != nil || p.Scope != sc {
		return "", invalid("Invalid arn: %s", api.Value(ref))
	}
	name := strings.Join(p.Path, "/")
	found := false
	switch p.Type {
	case "cluster":
		row, ok := state.Clusters.Get(v, store.K(sc, name))
		if !ok || *row.Value.Status != active {
			return "", &ecs.ClusterNotFoundException{Message: "Cluster not found."}
		}
		found = true
	case "task-definition":
		row, err := s.definition(v, sc, api.Value(ref))
		if err != nil {
			return "", err
		}
		return *row.Value.TaskDefinitionArn, nil
	case "task":
		_, found = state.Specs.Get(v, store.K(sc, name))
	case "container-instance":
		row, ok := state.ContainerInstances.Get(v, store.K(sc, name))
		found = ok && row.Value.Status != inactive
	case "capacity-provider":
		found = activeProvider(v, sc, name)
	case "service", "task-set": // there are none yet
	default:
		return "", invalid("Invalid arn: %s", *ref)
	}
	if !found {
		return "", &ecs.ResourceNotFoundException{Message: "The specified resource does not exist."}
	}
	return *ref, nil
}

// ListTagsForResource lists a resource's tags.
func (s *Service) ListTagsForResource(ctx context.Context, in *ecs.ListTagsForResourceInput) (*ecs.ListTagsForResourceOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	arn, err := s.taggable(snap, sc, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	return &ecs.ListTagsForResourceOutput{Tags: tagsOf(snap, sc, arn)}, nil
}

// TagResource sets tags; those of other keys stay.
func (s *Service) TagResource(ctx context.Context, in *ecs.TagResourceInput) (*ecs.TagResourceOutput, error) {
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	err := s.changeTags(ctx, in.ResourceArn, func(tags []ecs.Tag) ([]ecs.Tag, error) {
		for _, t := range in.Tags {
			i := slices.IndexFunc(tags, func(have ecs.Tag) bool { return *have.Key == *t.Key })
			if i < 0 {
				tags = append(tags, t)
			} else {
				tags[i] = t
			}
		}
		// Managed tags do not count.
		return tags, checkTags(slices.DeleteFunc(slices.Clone(tags), func(t ecs.Tag) bool { return managed(*t.Key) }))
	})
	return &ecs.TagResourceOutput{}, err
}

// UntagResource removes tags by their keys.
func (s *Service) UntagResource(ctx context.Context, in *ecs.UntagResourceInput) (*ecs.UntagResourceOutput, error) {
	if slices.ContainsFunc(in.TagKeys, managed) {
		return nil, invalid("Tag keys starting with 'aws:' are reserved for AWS.")
	}
	err := s.changeTags(ctx, in.ResourceArn, func(tags []ecs.Tag) ([]ecs.Tag, error) {
		return slices.DeleteFunc(tags, func(t ecs.Tag) bool { return slices.Contains(in.TagKeys, *t.Key) }), nil
	})
	return &ecs.UntagResourceOutput{}, err
}

func (s *Service) changeTags(ctx context.Context, ref *string, change func([]ecs.Tag) ([]ecs.Tag, error)) error {
	sc, err := scope(ctx)
	if err != nil {
		return err
	}
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		arn, err := s.taggable(tx, sc, ref)
		if err != nil {
			return err
		}
		tags, err := change(slices.Clone(tagsOf(tx, sc, arn)))
		if err != nil {
			return err
		}
		key := store.K(sc, arn)
		if len(tags) == 0 {
			state.Tags.Delete(tx, key)
		} else {
			state.Tags.Put(tx, key, &state.ResourceTags{Tags: tags})
		}
		return nil
	})
	return err
}
