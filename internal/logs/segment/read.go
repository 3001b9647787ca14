package segment

import (
	"bytes"
	"context"
	"slices"
)

// ReadOptions say which events of a stream are wanted.
type ReadOptions struct {
	From, To int64 // timestamps: From is included, To is not; To 0: no bound
	// After and Before are positions: only events after, or before, are read. Zero: no bound.
	After, Before ID
	// Forward reads the first events that are wanted, otherwise it reads the last ones. Both are
	// answered in ascending order.
	Forward  bool
	Limit    int // of events; 0: no bound
	MaxBytes int // of messages; 0: no bound. One event is always answered
	Gap      func(Gap)
}

// Page is a part of a stream.
type Page struct {
	Events []Event
	// Next is the position to read on After, forward; Previous that to read on Before, backward. Past an
	// end a position stays as it was given, so that reading goes on when events have come.
	Next, Previous ID
}

// Read reads a stream in the order of IDs. An event that is ingested later with an earlier timestamp
// than a position is not read from there on.
func (s *Store) Read(ctx context.Context, g Group, stream string, o ReadOptions) (Page, error) {
	q := newQuery(g, ScanOptions{Streams: []string{stream}, From: o.From, To: o.To, Reverse: !o.Forward})
	if o.After.Compare(q.from) > 0 {
		q.from = o.After
	}
	if o.Before != (ID{}) && o.Before.Compare(q.to) < 0 {
		q.to = o.Before
	}
	report := o.Gap
	if report == nil {
		report = s.logGap
	}
	var p Page
	size := 0
	err := s.scan(ctx, q, report, func(it *item) bool {
		if size += len(it.message); o.MaxBytes > 0 && size > o.MaxBytes && len(p.Events) > 0 {
			return false
		}
		p.Events = append(p.Events, Event{g, it.stream, it.id, it.ingestedAt, bytes.Clone(it.message)})
		return o.Limit == 0 || len(p.Events) < o.Limit
	})
	if err != nil {
		return Page{}, err
	}
	if !o.Forward {
		slices.Reverse(p.Events)
	}
	if len(p.Events) > 0 {
		p.Next, p.Previous = p.Events[len(p.Events)-1].ID, p.Events[0].ID
		return p, nil
	}
	// Nothing is there: both ends are where reading was to begin.
	switch {
	case o.Forward || o.Before == (ID{}):
		p.Next = q.from
		p.Previous = ID{q.from.Timestamp, q.from.Seq + 1}
	default:
		p.Previous = o.Before
		p.Next = ID{o.Before.Timestamp, max(o.Before.Seq, 1) - 1}
	}
	return p, nil
}
