package logs

import (
	"context"
	"iter"
	"strconv"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/logs/pattern"
	"github.com/berthhq/berth/internal/store"
)

// Limits of metric filters, as the user guide's quotas and PutMetricFilter's reference have them.
const (
	maxMetricFilters = 100 // a group
	maxRegexFilters  = 5   // a group, of filters with regular expressions
	maxDimensions    = 3
)

// TestMetricFilter tells which messages a pattern matches, and the values of its fields.
func (s *Service) TestMetricFilter(_ context.Context, in *logs.TestMetricFilterInput) (*logs.TestMetricFilterOutput, error) {
	p, err := parsePattern(*in.FilterPattern)
	if err != nil {
		return nil, err
	}
	out := &logs.TestMetricFilterOutput{Matches: []logs.MetricFilterMatchRecord{}}
	for i, message := range in.LogEventMessages {
		if m, ok := p.Match(message); ok {
			values := m.Extracted()
			if values == nil {
				values = map[string]string{}
			}
			out.Matches = append(out.Matches, logs.MetricFilterMatchRecord{EventNumber: api.Ptr(int64(i + 1)), EventMessage: &message, ExtractedValues: values})
		}
	}
	return out, nil
}

// PutMetricFilter stores a metric filter, or replaces the one of its name.
func (s *Service) PutMetricFilter(ctx context.Context, in *logs.PutMetricFilterInput) (*logs.PutMetricFilterOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	p, err := parsePattern(*in.FilterPattern)
	if err != nil {
		return nil, err
	}
	if api.Value(in.ApplyOnTransformedLogs) || in.FieldSelectionCriteria != nil || len(in.EmitSystemFieldDimensions) > 0 {
		return nil, invalid("Berth has no transformed logs, and no metric filters that select or emit system fields.")
	}
	if err := checkTransformation(p, &in.MetricTransformations[0]); err != nil {
		return nil, err
	}
	row := &logs.MetricFilter{
		FilterName: in.FilterName, FilterPattern: in.FilterPattern, LogGroupName: in.LogGroupName,
		MetricTransformations: in.MetricTransformations, ApplyOnTransformedLogs: api.Ptr(false),
	}
	key := store.K(sc, *in.LogGroupName+":"+*in.FilterName)
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		g, err := findGroup(tx, sc, *in.LogGroupName)
		if err != nil {
			return err
		}
		if g.Value.Class != logs.LogGroupClassStandard {
			return &logs.InvalidOperationException{Message: "Metric filters are not supported by log groups of class " + string(g.Value.Class) + "."}
		}
		regexes := 0
		for old := range MetricFilters.List(tx, sc, g.ID+":") {
			if other, err := pattern.Parse(*old.Value.FilterPattern); err == nil && other.Regexes() > 0 && old.ID != key.ID {
				regexes++
			}
		}
		old, replaces := MetricFilters.Get(tx, key)
		if !replaces && MetricFilters.Count(tx, sc, g.ID+":") >= maxMetricFilters || p.Regexes() > 0 && regexes >= maxRegexFilters {
			return &logs.LimitExceededException{Message: "Resource limit exceeded."}
		}
		row.CreationTime = api.Ptr(now())
		if replaces {
			row.CreationTime = old.Value.CreationTime
		}
		// The group's row is put as it is: who deletes it at the same time takes its filters along.
		Groups.Put(tx, g.Key, g.Value)
		MetricFilters.Put(tx, key, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &logs.PutMetricFilterOutput{}, nil
}

// checkTransformation judges what a metric's value and dimensions refer to.
func checkTransformation(p *pattern.Pattern, t *logs.MetricTransformation) error {
	value := *t.MetricValue
	if strings.HasPrefix(value, "$") {
		if !p.Refers(value) {
			return invalid("Invalid metric transformation: the metric value refers to a field that is not in the filter pattern: %s", value)
		}
	} else if _, err := strconv.ParseFloat(value, 64); err != nil {
		return invalid("Invalid metric transformation: the metric value must be a number or refer to a field of the filter pattern: %s", value)
	}
	if len(t.Dimensions) > maxDimensions {
		return invalid("Invalid metric transformation: a metric filter can have up to %d dimensions.", maxDimensions)
	}
	if len(t.Dimensions) > 0 && t.DefaultValue != nil {
		return invalid("Invalid metric transformation: dimensions and default value are mutually exclusive properties.")
	}
	for name, ref := range t.Dimensions {
		if !p.Refers(ref) {
			return invalid("Invalid metric transformation: the dimension %s refers to a field that is not in the filter pattern: %s", name, ref)
		}
	}
	return nil
}

// DescribeMetricFilters describes metric filters, of a group or by their metric.
func (s *Service) DescribeMetricFilters(ctx context.Context, in *logs.DescribeMetricFiltersInput) (*logs.DescribeMetricFiltersOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if (in.MetricName == nil) != (in.MetricNamespace == nil) {
		return nil, invalid("metricName and metricNamespace must be given together.")
	}
	snap := s.store.Snapshot()
	prefix := ""
	if in.LogGroupName != nil {
		g, err := findGroup(snap, sc, *in.LogGroupName)
		if err != nil {
			return nil, err
		}
		prefix = g.ID + ":" + api.Value(in.FilterNamePrefix)
	}
	rows, next, err := page(in.NextToken, in.Limit, 50, func(from string) iter.Seq2[string, logs.MetricFilter] {
		return func(yield func(string, logs.MetricFilter) bool) {
			for f := range MetricFilters.ListFrom(snap, sc, prefix, from) {
				m := &f.Value.MetricTransformations[0]
				if !strings.HasPrefix(*f.Value.FilterName, api.Value(in.FilterNamePrefix)) ||
					in.MetricName != nil && (*in.MetricName != *m.MetricName || *in.MetricNamespace != *m.MetricNamespace) {
					continue
				}
				if !yield(f.ID, *f.Value) {
					return
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return &logs.DescribeMetricFiltersOutput{MetricFilters: rows, NextToken: next}, nil
}

// DeleteMetricFilter removes a metric filter.
func (s *Service) DeleteMetricFilter(ctx context.Context, in *logs.DeleteMetricFilterInput) (*logs.DeleteMetricFilterOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	key := store.K(sc, *in.LogGroupName+":"+*in.FilterName)
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := findGroup(tx, sc, *in.LogGroupName); err != nil {
			return err
		}
		if _, ok := MetricFilters.Get(tx, key); !ok {
			return &logs.ResourceNotFoundException{Message: "The specified metric filter does not exist."}
		}
		MetricFilters.Delete(tx, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &logs.DeleteMetricFilterOutput{}, nil
}
