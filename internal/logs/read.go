package logs

import (
	"context"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/logs/pattern"
	"github.com/berthhq/berth/internal/logs/segment"
)

// Limits of an answer with events.
const (
	maxEvents     = 10_000
	maxEventBytes = 1 << 20
	// searchTime is how long FilterLogEvents searches before it answers what it has, and a token.
	searchTime = 10 * time.Second
)

// GetLogEvents reads a stream, from its end unless it is told otherwise. Its tokens are positions: one
// with f reads on behind it, one with b before it, and past an end they stay as they are.
func (s *Service) GetLogEvents(ctx context.Context, in *logs.GetLogEventsInput) (*logs.GetLogEventsOutput, error) {
	g, err := s.identified(ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	if ok, err := s.streams.has(ctx, inSegments(g.Key), *in.LogStreamName); err != nil {
		return nil, err
	} else if !ok {
		return nil, noStream()
	}
	o := segment.ReadOptions{From: g.Value.from(in.StartTime), Forward: api.Value(in.StartFromHead), Limit: maxEvents, MaxBytes: maxEventBytes}
	if in.Limit != nil {
		o.Limit = int(*in.Limit)
	}
	if token := in.NextToken; token != nil {
		forward, at, err := readPosition(*token)
		if err != nil {
			return nil, err
		}
		if o.Forward = forward; forward {
			o.After = at
		} else {
			o.Before = at
		}
	}
	out := &logs.GetLogEventsOutput{Events: []logs.OutputLogEvent{}}
	if in.EndTime != nil {
		// Not included. Zero, or one before the beginning, leaves nothing.
		if o.To = *in.EndTime; o.To <= o.From {
			at := segment.ID{Timestamp: o.From}
			out.NextForwardToken, out.NextBackwardToken = position("f", at), position("b", at)
			if in.NextToken != nil {
				out.NextForwardToken, out.NextBackwardToken = in.NextToken, in.NextToken
			}
			return out, nil
		}
	}
	p, err := s.segments.Read(ctx, inSegments(g.Key), *in.LogStreamName, o)
	if err != nil {
		return nil, fromSegments(err)
	}
	for i := range p.Events {
		e := &p.Events[i]
		out.Events = append(out.Events, logs.OutputLogEvent{Timestamp: &e.ID.Timestamp, IngestionTime: &e.IngestedAt, Message: api.Ptr(string(e.Message))})
	}
	out.NextForwardToken, out.NextBackwardToken = position("f", p.Next), position("b", p.Previous)
	return out, nil
}

func position(direction string, id segment.ID) *string {
	return api.Ptr(direction + "/" + id.String() + "/s")
}

func readPosition(token string) (forward bool, id segment.ID, err error) {
	part := strings.Split(token, "/")
	if len(part) == 3 && part[2] == "s" && (part[0] == "f" || part[0] == "b") {
		if id, err = segment.ParseID(part[1]); err == nil {
			return part[0] == "f", id, nil
		}
	}
	return false, segment.ID{}, invalid("The specified nextToken is invalid.")
}

// FilterLogEvents searches a group, in the order of time.
func (s *Service) FilterLogEvents(ctx context.Context, in *logs.FilterLogEventsInput) (*logs.FilterLogEventsOutput, error) {
	g, err := s.identified(ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	if in.LogStreamNames != nil && in.LogStreamNamePrefix != nil {
		return nil, invalid("LogStreamNames and LogStreamNamePrefix are mutually exclusive parameters.")
	}
	filter, err := parsePattern(api.Value(in.FilterPattern))
	if err != nil {
		return nil, err
	}
	o := segment.ScanOptions{Streams: in.LogStreamNames, Prefix: api.Value(in.LogStreamNamePrefix), From: g.Value.from(in.StartTime)}
	for _, stream := range in.LogStreamNames {
		if ok, err := s.streams.has(ctx, inSegments(g.Key), stream); err != nil {
			return nil, err
		} else if !ok {
			return nil, noStream()
		}
	}
	for _, term := range filter.Terms() {
		o.Terms = append(o.Terms, segment.Term{Text: term})
	}
	after, err := readListToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	if after != "" {
		if o.After, err = segment.ParseID(after); err != nil {
			return nil, invalid("The specified nextToken is invalid.")
		}
	}
	limit := maxEvents
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	// Which streams were searched is not told any more, says its reference.
	out := &logs.FilterLogEventsOutput{Events: []logs.FilteredLogEvent{}, SearchedLogStreams: []logs.SearchedLogStream{}}
	if in.EndTime != nil {
		o.To = *in.EndTime + 1 // included here, other than in GetLogEvents
	}
	size, until, seen := 0, time.Now().Add(searchTime), o.After
	err = s.segments.Scan(ctx, inSegments(g.Key), o, func(e segment.Event) bool {
		message := string(e.Message)
		if _, ok := filter.Match(message); ok {
			if size += len(message); len(out.Events) == limit || size > maxEventBytes && len(out.Events) > 0 {
				out.NextToken = listToken(seen.String())
				return false
			}
			out.Events = append(out.Events, logs.FilteredLogEvent{
				EventId: api.Ptr(e.ID.String()), LogStreamName: &e.Stream, Message: &message,
				Timestamp: &e.ID.Timestamp, IngestionTime: &e.IngestedAt,
			})
		}
		if seen = e.ID; time.Now().After(until) {
			out.NextToken = listToken(seen.String())
			return false
		}
		return true
	})
	if err != nil {
		return nil, fromSegments(err)
	}
	return out, nil
}

func parsePattern(text string) (*pattern.Pattern, error) {
	p, err := pattern.Parse(text)
	if err != nil {
		return nil, invalid("%s", err.Error())
	}
	return p, nil
}
