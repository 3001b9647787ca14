package logdriver

import "time"

// limits bound a batch.
type limits struct {
	bytes    int // of all events, each with overhead
	events   int
	overhead int           // counted for each event beside its text
	span     time.Duration // between its first and its last event; 0: any
}

// batch is events that are delivered together.
type batch struct {
	events []event
	bytes  int
}

// add appends e, if it fits. A first event always does.
func (b *batch) add(e event, l limits) bool {
	size := len(e.text) + l.overhead
	if len(b.events) > 0 && (b.bytes+size > l.bytes || len(b.events) >= l.events ||
		l.span > 0 && e.time.Sub(b.events[0].time) >= l.span) {
		return false
	}
	b.events = append(b.events, e)
	b.bytes += size
	return true
}

func (b *batch) reset() {
	clear(b.events)
	b.events, b.bytes = b.events[:0], 0
	if cap(b.events) > 1024 {
		b.events = nil // a burst's
	}
}
