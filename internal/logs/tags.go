package logs

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/logs"
)

// maxTags is how many a resource may have.
const maxTags = 50

// checkTags judges tags that are to be added to those that are there.
func checkTags(have, add map[string]string) error {
	for key := range add {
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return invalid("aws: prefixed tag key names are not allowed for external use.")
		}
	}
	n := len(have)
	for key := range add {
		if _, ok := have[key]; !ok {
			n++
		}
	}
	if n > maxTags {
		return &logs.TooManyTagsException{Message: "The maximum number of tags for a resource has been exceeded."}
	}
	return nil
}

func (s *Service) tag(ctx context.Context, name *string, add map[string]string) error {
	_, err := s.change(ctx, name, func(g *Group) error {
		if err := checkTags(g.Tags, add); err != nil {
			return err
		}
		tags := maps.Clone(g.Tags)
		if tags == nil {
			tags = map[string]string{}
		}
		maps.Copy(tags, add)
		g.Tags = tags
		return nil
	})
	return err
}

func (s *Service) untag(ctx context.Context, name *string, keys []string) error {
	_, err := s.change(ctx, name, func(g *Group) error {
		tags := maps.Clone(g.Tags)
		maps.DeleteFunc(tags, func(key, _ string) bool { return slices.Contains(keys, key) })
		g.Tags = tags
		return nil
	})
	return err
}

func (s *Service) tags(ctx context.Context, name *string) (map[string]string, error) {
	g, err := s.group(ctx, name)
	if err != nil {
		return nil, err
	}
	if g.Value.Tags == nil {
		return map[string]string{}, nil
	}
	return g.Value.Tags, nil
}

// tagged reads the group's name out of its ARN; groups are all that has tags here.
func (s *Service) tagged(ctx context.Context, arn *string) (*string, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	name, ok := groupRef(sc, api.Value(arn))
	if !ok || !strings.HasPrefix(*arn, "arn:") {
		return nil, &logs.ResourceNotFoundException{Message: "The specified resource does not exist."}
	}
	return &name, nil
}

// TagResource adds tags to a group.
func (s *Service) TagResource(ctx context.Context, in *logs.TagResourceInput) (*logs.TagResourceOutput, error) {
	name, err := s.tagged(ctx, in.ResourceArn)
	if err == nil {
		err = s.tag(ctx, name, in.Tags)
	}
	if err != nil {
		return nil, err
	}
	return &logs.TagResourceOutput{}, nil
}

// UntagResource takes tags from a group.
func (s *Service) UntagResource(ctx context.Context, in *logs.UntagResourceInput) (*logs.UntagResourceOutput, error) {
	name, err := s.tagged(ctx, in.ResourceArn)
	if err == nil {
		err = s.untag(ctx, name, in.TagKeys)
	}
	if err != nil {
		return nil, err
	}
	return &logs.UntagResourceOutput{}, nil
}

// ListTagsForResource lists a group's tags.
func (s *Service) ListTagsForResource(ctx context.Context, in *logs.ListTagsForResourceInput) (*logs.ListTagsForResourceOutput, error) {
	name, err := s.tagged(ctx, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	tags, err := s.tags(ctx, name)
	if err != nil {
		return nil, err
	}
	return &logs.ListTagsForResourceOutput{Tags: tags}, nil
}

// TagLogGroup is TagResource as it was.
//
//lint:ignore SA1019 older clients call it
func (s *Service) TagLogGroup(ctx context.Context, in *logs.TagLogGroupInput) (*logs.TagLogGroupOutput, error) {
	if err := s.tag(ctx, in.LogGroupName, in.Tags); err != nil {
		return nil, err
	}
	return &logs.TagLogGroupOutput{}, nil
}

// UntagLogGroup is UntagResource as it was.
//
//lint:ignore SA1019 likewise
func (s *Service) UntagLogGroup(ctx context.Context, in *logs.UntagLogGroupInput) (*logs.UntagLogGroupOutput, error) {
	if err := s.untag(ctx, in.LogGroupName, in.Tags); err != nil {
		return nil, err
	}
	return &logs.UntagLogGroupOutput{}, nil
}

// ListTagsLogGroup is ListTagsForResource as it was.
//
//lint:ignore SA1019 likewise
func (s *Service) ListTagsLogGroup(ctx context.Context, in *logs.ListTagsLogGroupInput) (*logs.ListTagsLogGroupOutput, error) {
	tags, err := s.tags(ctx, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 likewise
	return &logs.ListTagsLogGroupOutput{Tags: tags}, nil
}
