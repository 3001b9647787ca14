package segment

import (
	"bytes"
	"context"
	"strings"
	"sync"
)

// TailOptions say what a Tail wants.
type TailOptions struct {
	Groups  []Group
	Streams []string // of each group, these; nil: all, or those of Prefix
	Prefix  string
	// Events and Bytes bound what waits for Next; default 10,000 and 8 MiB.
	Events, Bytes int
}

// Tail is told the events that are appended, from when it was made. Those that come when its buffer is
// full are dropped, and counted.
type Tail struct {
	s       *Store
	o       TailOptions
	groups  map[Group]bool
	streams map[string]bool

	mu      sync.Mutex
	events  []Event
	bytes   int
	dropped int64
	err     error
	ready   chan struct{} // of one: something is there
}

// Tail subscribes. It must be closed.
func (s *Store) Tail(o TailOptions) *Tail {
	if o.Events == 0 {
		o.Events = 10_000
	}
	if o.Bytes == 0 {
		o.Bytes = 8 << 20
	}
	t := &Tail{s: s, o: o, groups: map[Group]bool{}, ready: make(chan struct{}, 1)}
	for _, g := range o.Groups {
		t.groups[g] = true
	}
	if o.Streams != nil {
		t.streams = map[string]bool{}
		for _, name := range o.Streams {
			t.streams[name] = true
		}
	}
	s.tailMu.Lock()
	defer s.tailMu.Unlock()
	select {
	case <-s.quit:
		t.end(ErrClosed)
	default:
		s.tails[t] = struct{}{}
	}
	return t
}

// Next waits for events and answers all that are there, in the order of ingestion, and how many were
// dropped since the last call, all of them later than these. Its error is ctx's, or ErrClosed.
func (t *Tail) Next(ctx context.Context) (events []Event, dropped int64, err error) {
	for {
		t.mu.Lock()
		events, dropped, err = t.events, t.dropped, t.err
		t.events, t.bytes, t.dropped = nil, 0, 0
		t.mu.Unlock()
		if len(events) > 0 || dropped > 0 {
			return events, dropped, nil
		}
		if err != nil {
			return nil, 0, err
		}
		select {
		case <-t.ready:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// Close ends the subscription.
func (t *Tail) Close() {
	t.s.tailMu.Lock()
	delete(t.s.tails, t)
	t.s.tailMu.Unlock()
	t.end(ErrClosed)
}

func (t *Tail) end(err error) {
	t.mu.Lock()
	t.err = err
	t.mu.Unlock()
	t.s.poke(t.ready)
}

// publish tells the tails what is stored.
func (s *Store) publish(records []*record) {
	s.tailMu.Lock()
	defer s.tailMu.Unlock()
	for t := range s.tails {
		for _, r := range records {
			if t.groups[r.group] && (t.streams == nil || t.streams[r.stream]) && strings.HasPrefix(r.stream, t.o.Prefix) {
				t.offer(r)
			}
		}
	}
}

func (t *Tail) offer(r *record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, at := range r.times {
		m := r.message(i)
		// Once something was dropped, so is all until Next was called: what it gets has no holes but one, at the end.
		if t.dropped > 0 || len(t.events) >= t.o.Events || t.bytes+len(m) > t.o.Bytes && len(t.events) > 0 {
			t.dropped += int64(len(r.times) - i)
			t.s.tailDropped.Add(int64(len(r.times) - i))
			break
		}
		t.bytes += len(m)
		t.events = append(t.events, Event{r.group, r.stream, ID{at, r.firstSeq + uint64(i)}, r.ingestedAt, bytes.Clone(m)})
	}
	t.s.poke(t.ready)
}
