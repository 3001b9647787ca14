package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

// Retention is how long events are kept. They are forgotten earlier when they take more than maxBytes.
const Retention = 7 * 24 * time.Hour

const (
	maxBytes = 512 << 20
	// keptRecords are in memory, for readers that keep up.
	keptRecords = 1024
)

// Sink takes in events. It returns when they are durable; an error means that they may not be.
type Sink interface {
	Publish(ctx context.Context, events ...Event) error
}

// Record is an event's place in the log.
type Record struct {
	Seq   int64 `json:"seq"` // from 1, without gaps
	Event Event `json:"event"`
}

// Log is the durable sequence of events. Only one process has a blob store's log open.
type Log struct {
	blob blob.Store
	log  *slog.Logger

	writing sync.Mutex // of whoever appends

	mu       sync.Mutex
	segments []segment // in order, without overlaps
	revision int64     // of the store, up to which the log is complete
	last     int64     // sequence number of the newest record
	recent   []Record  // the newest, up to keptRecords
	moved    chan struct{}
}

var _ Sink = (*Log)(nil)

// Open reads which segments there are.
func Open(ctx context.Context, b blob.Store, log *slog.Logger) (*Log, error) {
	l := &Log{blob: b, log: log, moved: make(chan struct{})}
	var all []segment
	for info, err := range b.List(ctx, segmentPrefix, "") {
		if err != nil {
			return nil, fmt.Errorf("open the log of events: %w", err)
		}
		s, err := parseSegment(info)
		if err != nil {
			// Readers are told of the gap. Its numbers are not given again.
			log.Error("a part of the log of events is damaged and is left out", "error", err)
			l.last = max(l.last, s.last)
			continue
		}
		all = append(all, s)
	}
	// A merged segment begins like the first of those it replaces, which a crash may have left there.
	slices.SortFunc(all, func(a, b segment) int {
		if a.first != b.first {
			return int(a.first - b.first)
		}
		return int(b.last - a.last)
	})
	var covered int64
	for _, s := range all {
		if s.last <= covered {
			if err := b.Delete(ctx, s.key); err != nil {
				return nil, fmt.Errorf("open the log of events: remove what was merged: %w", err)
			}
			continue
		}
		l.segments = append(l.segments, s)
		covered, l.revision = s.last, s.revision
	}
	l.last = max(l.last, covered)
	return l, nil
}

// Revision is the store's revision up to which the log is complete.
func (l *Log) Revision() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision
}

// Last is the newest record's sequence number; 0: there is none.
func (l *Log) Last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Publish implements Sink.
func (l *Log) Publish(ctx context.Context, events ...Event) error {
	return l.append(ctx, l.Revision, events)
}

// AppendThrough appends the events of the store's changes up to a revision.
func (l *Log) AppendThrough(ctx context.Context, revision int64, events []Event) error {
	return l.append(ctx, func() int64 { return revision }, events)
}

func (l *Log) append(ctx context.Context, revision func() int64, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	records := make([]Record, len(events))
	next := l.Last() + 1
	for i, e := range events {
		records[i] = Record{Seq: next + int64(i), Event: e}
	}
	s, err := writeSegment(ctx, l.blob, records, revision(), time.Now().UTC())
	if err != nil {
		return fmt.Errorf("append %d events to the log: %w", len(events), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = append(l.segments, s)
	l.last, l.revision = s.last, s.revision
	l.recent = append(l.recent, records...)
	if over := len(l.recent) - keptRecords; over > 0 {
		l.recent = slices.Clone(l.recent[over:])
	}
	close(l.moved)
	l.moved = make(chan struct{})
	return nil
}

// Find answers where to follow the log from to read every event since then. What it names comes at most
// as many events earlier as one segment holds.
func (l *Log) Find(since time.Time) (after int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if !s.until.Before(since) {
			return s.first - 1
		}
	}
	return l.last
}

// Follow reads the records after a sequence number. 0: all that there are.
func (l *Log) Follow(after int64) *Reader { return &Reader{log: l, at: after} }

// Reader reads the log from one place on. It belongs to one goroutine and holds nothing, so it need not
// be closed; one that reads slowly slows nobody.
type Reader struct {
	log *Log
	at  int64 // of the last record read
}

// MissedError says that records a reader was to get next are no longer kept. The reader goes on with the
// first that is.
type MissedError struct{ From, To int64 }

func (e *MissedError) Error() string {
	return fmt.Sprintf("events %d to %d are no longer kept", e.From, e.To)
}

// Next waits for records and answers some, in order. A *MissedError tells of a gap, once; any other error
// changes nothing, and Next may be called again.
func (r *Reader) Next(ctx context.Context) ([]Record, error) {
	l := r.log
	for {
		l.mu.Lock()
		moved, last := l.moved, l.last
		recent, first, part := l.find(r.at + 1)
		l.mu.Unlock()
		switch {
		case r.at >= last:
			select {
			case <-moved:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case first > r.at+1:
			missed := &MissedError{From: r.at + 1, To: first - 1}
			r.at = first - 1
			return nil, missed
		case recent == nil:
			records, err := readSegment(ctx, l.blob, part.key)
			if err != nil && l.replaced(part.key) {
				continue // merged or forgotten meanwhile
			}
			if errors.Is(err, blob.ErrCorrupt) {
				missed := &MissedError{From: r.at + 1, To: part.last}
				r.at = part.last
				return nil, missed
			}
			if err != nil {
				return nil, err
			}
			recent = slices.DeleteFunc(records, func(rec Record) bool { return rec.Seq <= r.at })
			if len(recent) == 0 {
				return nil, fmt.Errorf("segment %s of the log of events lacks event %d", part.key, r.at+1)
			}
		}
		r.at = recent[len(recent)-1].Seq
		return recent, nil
	}
}

// Pending tells whether Next would answer at once.
func (r *Reader) Pending() bool { return r.at < r.log.Last() }

// find finds the record, in memory or in which segment; first is the first record from there on that is
// kept.
func (l *Log) find(seq int64) (recent []Record, first int64, part segment) {
	if n := len(l.recent); n > 0 && seq >= l.recent[0].Seq && seq <= l.last {
		return slices.Clone(l.recent[seq-l.recent[0].Seq:]), seq, part
	}
	for _, s := range l.segments {
		if seq <= s.last {
			return nil, max(seq, s.first), s
		}
	}
	return nil, l.last + 1, part
}

func (l *Log) replaced(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.ContainsFunc(l.segments, func(s segment) bool { return s.key == key })
}

// parseSegment reads what a segment's key and metadata say of it.
func parseSegment(info blob.Info) (segment, error) {
	s := segment{key: info.Key, size: info.Size, until: info.ModifiedAt}
	first, last, ok := strings.Cut(strings.TrimPrefix(info.Key, segmentPrefix), "-")
	var err, err2 error
	s.first, err = strconv.ParseInt(first, 10, 64)
	s.last, err2 = strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || err2 != nil || s.first < 1 || s.last < s.first {
		return s, fmt.Errorf("%q is not a segment's key", info.Key)
	}
	if s.revision, err = strconv.ParseInt(info.Metadata[metaRevision], 10, 64); err != nil {
		return s, fmt.Errorf("segment %s: revision: %w", info.Key, err)
	}
	if t := info.Metadata[metaUntil]; t != "" {
		if s.until, err = time.Parse(time.RFC3339Nano, t); err != nil {
			return s, fmt.Errorf("segment %s: %w", info.Key, err)
		}
	}
	return s, nil
}
