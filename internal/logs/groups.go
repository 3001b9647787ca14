package logs

import (
	"context"
	"encoding/base64"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/store"
)

// retentions are the days that PutRetentionPolicy takes, as its reference lists them.
var retentions = []int32{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

// CreateLogGroup makes a group.
func (s *Service) CreateLogGroup(ctx context.Context, in *logs.CreateLogGroupInput) (*logs.CreateLogGroupOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	name := api.Value(in.LogGroupName)
	if strings.HasPrefix(name, "aws/") {
		return nil, invalid("Log groups starting with AWS/ are reserved for AWS.")
	}
	if in.KmsKeyId != nil {
		return nil, invalid("Berth does not encrypt log groups with keys of KMS.")
	}
	g := &Group{Name: name, Class: in.LogGroupClass, CreatedAt: now(), Tags: in.Tags, Protected: api.Value(in.DeletionProtectionEnabled)}
	switch g.Class {
	case "":
		g.Class = logs.LogGroupClassStandard
	case logs.LogGroupClassDelivery:
		return nil, invalid("Berth has no deliveries, and so no log groups of class DELIVERY.")
	}
	if err := checkTags(nil, in.Tags); err != nil {
		return nil, err
	}
	key := store.K(sc, name)
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		if _, ok := Groups.Get(tx, key); ok {
			return &logs.ResourceAlreadyExistsException{Message: "The specified log group already exists"}
		}
		Groups.Put(tx, key, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &logs.CreateLogGroupOutput{}, nil
}

// DeleteLogGroup removes a group with everything it holds.
func (s *Service) DeleteLogGroup(ctx context.Context, in *logs.DeleteLogGroupInput) (*logs.DeleteLogGroupOutput, error) {
	g, err := s.group(ctx, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	if err := s.remove(ctx, g.Key, false); err != nil {
		return nil, err
	}
	return &logs.DeleteLogGroupOutput{}, nil
}

// remove deletes a group. Its events go before its row: one who makes a group of that name again, be it
// after a crash between the two, finds nothing of the old one in it. Nobody puts meanwhile.
func (s *Service) remove(ctx context.Context, key store.Key, force bool) error {
	if g, err := findGroup(s.store.Snapshot(), key.Scope, key.ID); err != nil {
		return err
	} else if g.Value.Protected && !force {
		return &logs.ValidationException{Message: "Log group " + key.ID + " has deletion protection enabled. Disable it before you delete the log group."}
	}
	return s.streams.removeAll(ctx, inSegments(key), func() error {
		_, err := s.store.Update(ctx, func(tx *store.Tx) error {
			if _, err := findGroup(tx, key.Scope, key.ID); err != nil {
				return err
			}
			for row := range MetricFilters.List(tx, key.Scope, key.ID+":") {
				MetricFilters.Delete(tx, row.Key)
			}
			Groups.Delete(tx, key)
			return nil
		})
		return err
	})
}

// describeGroup is a group as the API shows it.
func (s *Service) describeGroup(ctx context.Context, v store.View, g store.Row[Group]) (logs.LogGroup, error) {
	stored := int64(0)
	infos, err := s.segments.Streams(ctx, inSegments(g.Key))
	if err != nil {
		return logs.LogGroup{}, fromSegments(err)
	}
	for _, i := range infos {
		stored += i.Bytes
	}
	arn := groupARN(g.Key)
	out := logs.LogGroup{
		Arn: api.Ptr(arn + ":*"), LogGroupArn: &arn, LogGroupName: &g.Value.Name, LogGroupClass: g.Value.Class,
		CreationTime: &g.Value.CreatedAt, StoredBytes: &stored, DeletionProtectionEnabled: &g.Value.Protected,
		MetricFilterCount: api.Ptr(int32(MetricFilters.Count(v, g.Scope, g.ID+":"))),
	}
	if g.Value.Retention > 0 {
		out.RetentionInDays = &g.Value.Retention
	}
	return out, nil
}

// DescribeLogGroups describes groups by name.
func (s *Service) DescribeLogGroups(ctx context.Context, in *logs.DescribeLogGroupsInput) (*logs.DescribeLogGroupsOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if in.LogGroupNamePrefix != nil && in.LogGroupNamePattern != nil {
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	var named []string
	for _, ref := range in.LogGroupIdentifiers {
		name, ok := groupRef(sc, ref)
		if !ok {
			return nil, invalid("Invalid logGroupIdentifier: %s", ref)
		}
		named = append(named, name)
	}
	elsewhere := len(in.AccountIdentifiers) > 0 && !slices.Contains(in.AccountIdentifiers, sc.Account)
	snap := s.store.Snapshot()
	rows, next, err := page(in.NextToken, in.Limit, 50, func(from string) iter.Seq2[string, store.Row[Group]] {
		return func(yield func(string, store.Row[Group]) bool) {
			if elsewhere {
				return
			}
			for g := range Groups.ListFrom(snap, sc, api.Value(in.LogGroupNamePrefix), from) {
				if !strings.Contains(g.ID, api.Value(in.LogGroupNamePattern)) || in.LogGroupClass != "" && in.LogGroupClass != g.Value.Class ||
					named != nil && !slices.Contains(named, g.ID) {
					continue
				}
				if !yield(g.ID, g) {
					return
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	out := &logs.DescribeLogGroupsOutput{LogGroups: []logs.LogGroup{}, NextToken: next}
	for _, g := range rows {
		d, err := s.describeGroup(ctx, snap, g)
		if err != nil {
			return nil, err
		}
		out.LogGroups = append(out.LogGroups, d)
	}
	return out, nil
}

// ListLogGroups lists groups whose names match one of up to five parts of names, each at the beginning of
// the name if it has a caret.
func (s *Service) ListLogGroups(ctx context.Context, in *logs.ListLogGroupsInput) (*logs.ListLogGroupsOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if len(in.DataSources) > 0 || len(in.FieldIndexNames) > 0 || len(in.LogGroupTags) > 0 {
		return nil, invalid("Berth lists log groups by name and class alone.")
	}
	var name *regexp.Regexp
	if p := api.Value(in.LogGroupNamePattern); p != "" {
		if name, err = regexp.Compile(strings.ReplaceAll(p, ".", `\.`)); err != nil {
			return nil, invalid("Invalid logGroupNamePattern: %s", p)
		}
	}
	snap := s.store.Snapshot()
	rows, next, err := page(in.NextToken, in.Limit, 1000, func(from string) iter.Seq2[string, logs.LogGroupSummary] {
		return func(yield func(string, logs.LogGroupSummary) bool) {
			for g := range Groups.ListFrom(snap, sc, "", from) {
				if name != nil && !name.MatchString(g.ID) || in.LogGroupClass != "" && in.LogGroupClass != g.Value.Class {
					continue
				}
				if !yield(g.ID, logs.LogGroupSummary{LogGroupArn: api.Ptr(groupARN(g.Key)), LogGroupName: &g.Value.Name, LogGroupClass: g.Value.Class}) {
					return
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return &logs.ListLogGroupsOutput{LogGroups: rows, NextToken: next}, nil
}

// change changes a group's row, and answers its key.
func (s *Service) change(ctx context.Context, name *string, f func(g *Group) error) (store.Key, error) {
	sc, err := scope(ctx)
	if err != nil {
		return store.Key{}, err
	}
	key := store.K(sc, api.Value(name))
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := findGroup(tx, sc, key.ID)
		if err != nil {
			return err
		}
		g := *row.Value
		if err := f(&g); err != nil {
			return err
		}
		Groups.Put(tx, key, &g)
		return nil
	})
	return key, err
}

// PutRetentionPolicy says how long a group's events are kept.
func (s *Service) PutRetentionPolicy(ctx context.Context, in *logs.PutRetentionPolicyInput) (*logs.PutRetentionPolicyOutput, error) {
	days := api.Value(in.RetentionInDays)
	if !slices.Contains(retentions, days) {
		return nil, invalid("1 validation error detected: Value '%d' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653]", days)
	}
	if err := s.setRetention(ctx, in.LogGroupName, days); err != nil {
		return nil, err
	}
	return &logs.PutRetentionPolicyOutput{}, nil
}

// DeleteRetentionPolicy keeps a group's events for good.
func (s *Service) DeleteRetentionPolicy(ctx context.Context, in *logs.DeleteRetentionPolicyInput) (*logs.DeleteRetentionPolicyOutput, error) {
	if err := s.setRetention(ctx, in.LogGroupName, 0); err != nil {
		return nil, err
	}
	return &logs.DeleteRetentionPolicyOutput{}, nil
}

// setRetention sets it in the row, by which events are put and read, and then in the segments, which hide
// and remove by it. A crash between the two leaves a call that was not answered, and that can be made again.
func (s *Service) setRetention(ctx context.Context, name *string, days int32) error {
	sc, err := scope(ctx)
	if err != nil {
		return err
	}
	return s.streams.exclusive(segmentGroup(sc, api.Value(name)), func() error {
		key, err := s.change(ctx, name, func(g *Group) error { g.Retention = days; return nil })
		if err != nil {
			return err
		}
		return fromSegments(s.segments.SetRetention(ctx, inSegments(key), int(days)))
	})
}

// PutLogGroupDeletionProtection protects a group from DeleteLogGroup, or no longer.
func (s *Service) PutLogGroupDeletionProtection(ctx context.Context, in *logs.PutLogGroupDeletionProtectionInput) (*logs.PutLogGroupDeletionProtectionOutput, error) {
	g, err := s.identified(ctx, nil, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	if _, err := s.change(ctx, &g.ID, func(g *Group) error { g.Protected = *in.DeletionProtectionEnabled; return nil }); err != nil {
		return nil, err
	}
	return &logs.PutLogGroupDeletionProtectionOutput{}, nil
}

// tokenMark begins every token of a listing, so that what only looks like one is refused.
const tokenMark = "after:"

func listToken(last string) *string {
	return api.Ptr(base64.RawURLEncoding.EncodeToString([]byte(tokenMark + last)))
}

func readListToken(token *string) (after string, err error) {
	if token == nil {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(*token)
	after, ours := strings.CutPrefix(string(raw), tokenMark)
	if err != nil || !ours || after == "" {
		return "", invalid("The specified nextToken is invalid.")
	}
	return after, nil
}

// page cuts a listing in the order of its keys, of which rows begins at one or before. A token is the last
// key of the page before, so that a page stays right when rows come and go between two calls.
func page[T any](token *string, limit *int32, most int32, rows func(from string) iter.Seq2[string, T]) (items []T, next *string, err error) {
	after, err := readListToken(token)
	if err != nil {
		return nil, nil, err
	}
	if limit != nil {
		most = min(most, *limit)
	}
	items = []T{}
	last := ""
	for key, item := range rows(after) {
		if key <= after && after != "" {
			continue
		}
		if len(items) == int(most) {
			return items, listToken(last), nil
		}
		items, last = append(items, item), key
	}
	return items, nil, nil
}
