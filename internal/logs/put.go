package logs

import (
	"context"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/logs/segment"
)

// Limits of PutLogEvents, as its reference has them.
const (
	maxBatch      = 1 << 20 // bytes, with eventOverhead for each event
	eventOverhead = 26
	maxSpan       = 24 * time.Hour      // between the first event and the last
	maxAge        = 14 * 24 * time.Hour // events that are older are refused
	maxAhead      = 2 * time.Hour       // and those later than this
)

// PutLogEvents stores a batch of events of a stream. When it answers, they survive a crash.
func (s *Service) PutLogEvents(ctx context.Context, in *logs.PutLogEventsInput) (*logs.PutLogEventsOutput, error) {
	g, err := s.group(ctx, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	if err := checkBatch(in.LogEvents); err != nil {
		return nil, err
	}
	kept, rejected := accept(in.LogEvents, time.Now(), g.Value.Retention)
	entries := make([]segment.Entry, len(kept))
	for i, e := range kept {
		entries[i] = segment.Entry{Timestamp: *e.Timestamp, Message: []byte(*e.Message)}
	}
	done := segment.Appended{IngestedAt: now()}
	err = s.streams.shared(ctx, inSegments(g.Key), func(created map[string]int64) error {
		// Under the lock: the group may have been deleted since.
		if _, err := s.group(ctx, in.LogGroupName); err != nil {
			return err
		}
		if _, ok := created[*in.LogStreamName]; !ok {
			return noStream()
		}
		if len(entries) == 0 {
			return nil
		}
		done, err = s.segments.Append(ctx, inSegments(g.Key), *in.LogStreamName, entries)
		return fromSegments(err)
	})
	if err != nil {
		return nil, err
	}
	return &logs.PutLogEventsOutput{NextSequenceToken: sequenceToken(done.IngestedAt), RejectedLogEventsInfo: rejected}, nil
}

// checkBatch judges what refuses the batch as a whole.
func checkBatch(events []logs.InputLogEvent) error {
	size := 0
	for i := range events {
		size += len(*events[i].Message) + eventOverhead
		if i > 0 && *events[i].Timestamp < *events[i-1].Timestamp {
			return invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	switch {
	case size > maxBatch:
		return invalid("Upload too large: %d bytes exceeds limit of %d", size, maxBatch)
	case len(events) > 0 && *events[len(events)-1].Timestamp-*events[0].Timestamp > maxSpan.Milliseconds():
		return invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	return nil
}

// accept cuts from a batch, which is in order, what is too old at its beginning and what is too new at
// its end. The old are those past the group's retention, in days (0: none), and those past maxAge.
func accept(events []logs.InputLogEvent, at time.Time, retention int32) ([]logs.InputLogEvent, *logs.RejectedLogEventsInfo) {
	oldest := at.Add(-maxAge).UnixMilli()
	expiry := int64(0)
	if retention > 0 {
		expiry = at.Add(-days(retention)).UnixMilli()
	}
	newest := at.Add(maxAhead).UnixMilli()
	expired, old, upTo := 0, 0, len(events)
	for i := range events {
		switch t := *events[i].Timestamp; {
		case t < expiry:
			expired = i + 1
		case t < oldest:
			old = i + 1
		case t > newest && upTo == len(events):
			upTo = i
		}
	}
	if expired == 0 && old == 0 && upTo == len(events) {
		return events, nil
	}
	info := &logs.RejectedLogEventsInfo{}
	if expired > 0 {
		info.ExpiredLogEventEndIndex = api.Ptr(int32(expired))
	}
	if old > 0 {
		info.TooOldLogEventEndIndex = api.Ptr(int32(old))
	}
	if upTo < len(events) {
		info.TooNewLogEventStartIndex = api.Ptr(int32(upTo))
	}
	return events[max(expired, old):upTo], info
}
