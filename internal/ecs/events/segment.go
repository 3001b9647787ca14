package events

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

// A segment is an object of records, one JSON object a line, compressed. Its key tells which:
// ecs/events/<first>-<last>. Segments are written small, as events come, and merged later.
const (
	segmentPrefix = "ecs/events/"
	metaRevision  = "revision" // up to which the log is complete with this segment
	metaUntil     = "until"    // when its newest record was written

	mergeCount     = 64      // so many small segments in a row are merged
	smallSegment   = 1 << 20 // bytes, compressed: a larger one is not merged again
	maintainPeriod = time.Minute
)

type segment struct {
	key         string
	first, last int64 // sequence numbers
	revision    int64
	until       time.Time
	size        int64 // bytes
}

func segmentKey(first, last int64) string {
	return fmt.Sprintf("%s%020d-%020d", segmentPrefix, first, last)
}

func writeSegment(ctx context.Context, b blob.Store, records []Record, revision int64, until time.Time) (segment, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	enc := json.NewEncoder(z)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return segment{}, fmt.Errorf("encode event %s: %w", r.Event.ID, err)
		}
	}
	if err := z.Close(); err != nil {
		return segment{}, fmt.Errorf("compress events: %w", err)
	}
	s := segment{
		first: records[0].Seq, last: records[len(records)-1].Seq, revision: revision, until: until, size: int64(buf.Len()),
	}
	s.key = segmentKey(s.first, s.last)
	_, err := b.Put(ctx, s.key, &buf, blob.PutOptions{ContentType: "application/jsonl+gzip", Metadata: map[string]string{
		metaRevision: strconv.FormatInt(revision, 10), metaUntil: until.Format(time.RFC3339Nano),
	}})
	if err != nil {
		return segment{}, fmt.Errorf("write segment %s: %w", s.key, err)
	}
	return s, nil
}

func readSegment(ctx context.Context, b blob.Store, key string) ([]Record, error) {
	r, err := b.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read segment %s: %w", key, err)
	}
	defer r.Close()
	z, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return nil, fmt.Errorf("read segment %s: %w", key, err)
	}
	var out []Record
	for dec := json.NewDecoder(z); ; {
		var rec Record
		if err := dec.Decode(&rec); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("read segment %s: %w", key, err)
		}
		out = append(out, rec)
	}
}

// Run merges small segments and forgets old ones until ctx ends.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(maintainPeriod)
	defer tick.Stop()
	for {
		if err := l.maintain(ctx, time.Now()); err != nil && ctx.Err() == nil {
			l.log.Warn("the log of events was not tidied; trying again later", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Log) maintain(ctx context.Context, now time.Time) error {
	if err := l.prune(ctx, now); err != nil {
		return err
	}
	for {
		run := l.mergeable()
		if len(run) == 0 {
			return nil
		}
		if err := l.merge(ctx, run); err != nil {
			return err
		}
	}
}

// prune forgets segments that are too old, and the oldest of those that are too many.
func (l *Log) prune(ctx context.Context, now time.Time) error {
	l.mu.Lock()
	var total int64
	for _, s := range l.segments {
		total += s.size
	}
	n := 0
	// The newest stays: it tells how far the log has come.
	for n < len(l.segments)-1 && (now.Sub(l.segments[n].until) > Retention || total > maxBytes) {
		total -= l.segments[n].size
		n++
	}
	old := slices.Clone(l.segments[:n])
	l.segments = slices.Clone(l.segments[n:])
	l.mu.Unlock()
	for _, s := range old {
		if err := l.blob.Delete(ctx, s.key); err != nil {
			return fmt.Errorf("forget segment %s: %w", s.key, err)
		}
	}
	return nil
}

// mergeable answers small segments in a row, if there are enough.
func (l *Log) mergeable() []segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	var run []segment
	var size int64
	for _, s := range l.segments {
		if s.size >= smallSegment {
			run, size = nil, 0
			continue
		}
		run = append(run, s)
		if size += s.size; len(run) > mergeCount || size >= smallSegment && len(run) > 1 {
			return run
		}
	}
	return nil
}

// merge writes the records of segments as one, and then deletes them.
func (l *Log) merge(ctx context.Context, run []segment) error {
	var records []Record
	for _, s := range run {
		some, err := readSegment(ctx, l.blob, s.key)
		if err != nil {
			return err
		}
		records = append(records, some...)
	}
	end := run[len(run)-1]
	merged, err := writeSegment(ctx, l.blob, records, end.revision, end.until)
	if err != nil {
		return err
	}
	l.mu.Lock()
	i := slices.IndexFunc(l.segments, func(s segment) bool { return s.key == run[0].key })
	l.segments = slices.Concat(l.segments[:i], []segment{merged}, l.segments[i+len(run):])
	l.mu.Unlock()
	for _, s := range run {
		if err := l.blob.Delete(ctx, s.key); err != nil {
			return fmt.Errorf("remove segment %s, which is merged: %w", s.key, err)
		}
	}
	return nil
}
