package logdriver

import (
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/berthhq/berth/internal/agent/logger/spool"
)

// event is one thing to deliver.
type event struct {
	time    time.Time
	stream  spool.Stream
	text    []byte
	partial bool // the line goes on in the next event of its stream
	// after is where to go on reading once this event, and all before it, are delivered.
	after spool.Cursor
}

// shape is how a driver makes events of lines.
type shape struct {
	line     int            // bytes of the longest line read in one piece
	boundary *regexp.Regexp // a line that matches begins an event; nil: each line is one
	limit    int            // bytes of the longest event, as UTF-8; 0: lines stay as they are
}

// collector makes events of lines. It is pure.
type collector struct {
	shape
	events []event

	group     []byte // the event begun, with a boundary only
	groupAt   time.Time
	groupGrew time.Time // when its last line was taken, by the caller's clock

	at   spool.Cursor // where the reader is
	done spool.Cursor // resume here once all events are delivered
}

// add takes the next line, behind which the reader is at after.
func (c *collector) add(l spool.Line, after spool.Cursor, now time.Time) {
	before := c.at
	c.at = after
	switch {
	case l.Lost > 0:
		c.endGroup(before)
		c.emit(l.Stream, l.Text, l.Time, false, after)
	case c.boundary == nil:
		c.emit(l.Stream, l.Text, l.Time, l.Partial, after)
	default:
		size := encodedLen(l.Text)
		if c.boundary.Match(l.Text) || encodedLen(c.group)+size > c.limit {
			c.endGroup(before)
		}
		if len(c.group) == 0 {
			c.groupAt = l.Time
		}
		c.group = append(c.group, l.Text...)
		if size < c.limit && !l.Partial {
			c.group = append(c.group, '\n')
		}
		c.groupGrew = now
	}
}

// endGroup ends the event begun, whose last line ends at after.
func (c *collector) endGroup(after spool.Cursor) {
	if len(c.group) > 0 {
		c.emit(spool.Stdout, c.group, c.groupAt, false, after)
		c.group = nil
	}
}

// flush ends the event begun.
func (c *collector) flush() { c.endGroup(c.at) }

// emit appends an event, in as many as its size needs. Only behind the last of them can be resumed.
func (c *collector) emit(s spool.Stream, text []byte, at time.Time, partial bool, after spool.Cursor) {
	if c.limit == 0 {
		c.events = append(c.events, event{time: at, stream: s, text: text, partial: partial, after: after})
		c.done = after
		return
	}
	for len(text) > 0 {
		n := splitAt(text, c.limit)
		e := event{time: at, stream: s, text: validUTF8(text[:n]), partial: partial || n < len(text), after: c.done}
		if text = text[n:]; len(text) == 0 {
			e.after = after
		}
		c.events = append(c.events, e)
	}
	c.done = after
}

// encodedLen is the length of b once each byte that is not UTF-8 is U+FFFD, which takes three.
func encodedLen(b []byte) int {
	if utf8.Valid(b) {
		return len(b)
	}
	n := 0
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		n += utf8.RuneLen(r)
		b = b[size:]
	}
	return n
}

// splitAt is how many bytes of b, at least one character, encode to at most limit bytes.
func splitAt(b []byte, limit int) int {
	if len(b) <= limit && encodedLen(b) <= limit {
		return len(b)
	}
	at, n := 0, 0
	for at < len(b) {
		r, size := utf8.DecodeRune(b[at:])
		if n += utf8.RuneLen(r); n > limit && at > 0 {
			break
		}
		at += size
	}
	return at
}

// validUTF8 replaces each byte that is not UTF-8 by U+FFFD, as Docker's driver does.
func validUTF8(b []byte) []byte {
	if utf8.Valid(b) {
		return b
	}
	out := make([]byte, 0, encodedLen(b))
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		out = utf8.AppendRune(out, r)
		b = b[size:]
	}
	return out
}
