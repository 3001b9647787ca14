package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// MaxLine is the longest text of one [Line], in bytes; what is longer comes in parts.
const MaxLine = 16 << 10

// Line is a line of output, a part of one, or the news that some was lost.
type Line struct {
	// Time is when the logger took the bytes that end this line. It never goes back in one spool.
	Time   time.Time
	Stream Stream
	Text   []byte // without the newline
	// Partial says that the line goes on in the next Line of this stream.
	Partial bool
	// Lost, if not zero, is how many bytes are missing here. Text then says why, for people.
	Lost uint64
}

// Cursor is a place in one container's spool: how far each stream has been read, as positions (see
// the package comment). The zero Cursor is the beginning.
type Cursor struct {
	Stdout uint64 `json:"stdout"`
	Stderr uint64 `json:"stderr"`
}

func (c *Cursor) of(s Stream) *uint64 {
	if s == Stdout {
		return &c.Stdout
	}
	return &c.Stderr
}

// A Reader reads one container's spool, also while it is being written and while it does not exist
// yet. It is not safe for concurrent use.
type Reader struct {
	dir  string
	from Cursor // bytes before it are skipped
	max  int    // bytes of a Line's text

	f  *os.File
	sc *scanner
	id uint64 // number of the open segment, or of the last one left

	pos   uint64 // expected of the next chunk
	rest  []byte // of the current chunk, not yet given out
	cur   chunk  // the current chunk
	begun [2]begun
	held  *held // read, and not yet taken up
}

// begun is a line of one stream whose end has not been read.
type begun struct {
	text  []byte // without what was given out in parts
	start uint64 // position of text
}

type held struct {
	chunk
	data    []byte
	damaged bool // bytes were skipped before it
}

// NewReader returns a Reader that begins at c.
func NewReader(dir string, c Cursor) *Reader { return NewReaderSize(dir, c, MaxLine) }

// NewReaderSize is NewReader with another limit than MaxLine.
func NewReaderSize(dir string, c Cursor, maxLine int) *Reader {
	return &Reader{dir: dir, from: c, max: maxLine, pos: min(c.Stdout, c.Stderr)}
}

// Close releases the Reader's file.
func (r *Reader) Close() error {
	if r.f == nil {
		return nil
	}
	f := r.f
	r.f = nil
	return f.Close()
}

// Next returns the next whole line, or a part of MaxLine bytes. Its Text is the caller's. io.EOF says
// that there is no more now; later there may be.
func (r *Reader) Next() (Line, error) {
	for {
		if l, ok := r.split(); ok {
			return l, nil
		}
		if r.held == nil {
			c, data, damaged, err := r.chunk()
			if err != nil {
				return Line{}, err
			}
			r.held = &held{c, data, damaged}
		}
		if r.held.pos > r.pos { // what was begun has lost its end
			for _, s := range streams {
				if l, ok := r.Flush(s, true); ok {
					return l, nil
				}
			}
		}
		h := r.held
		r.held = nil
		if lost := r.takeUp(h); lost > 0 {
			return Line{Time: time.Unix(0, h.time), Stream: Stderr, Lost: lost, Text: fmt.Appendf(nil,
				"[berth: %d bytes of output are missing here: %s]", lost, h.why())}, nil
		}
	}
}

var streams = [...]Stream{Stdout, Stderr}

// takeUp makes h the current chunk and tells how many bytes are missing before it.
func (r *Reader) takeUp(h *held) (lost uint64) {
	if h.pos > r.pos {
		lost = h.pos - r.pos
	}
	data := h.data
	if skip := *r.from.of(h.stream); skip > h.pos {
		data = data[min(skip-h.pos, uint64(len(data))):]
	}
	r.pos = max(r.pos, h.pos+uint64(h.length))
	r.cur, r.rest = h.chunk, data
	return lost
}

func (h *held) why() string {
	switch {
	case h.flags&flagDiskFull != 0:
		return "the disk was full"
	case h.damaged:
		return "the log spool is damaged"
	}
	return "the log spool holds no more"
}

// split takes a line off the current chunk.
func (r *Reader) split() (Line, bool) {
	if len(r.rest) == 0 {
		return Line{}, false
	}
	p := &r.begun[r.cur.stream-1]
	if len(p.text) == 0 {
		p.start = r.restPos()
	}
	room := r.max - len(p.text)
	l := Line{Time: time.Unix(0, r.cur.time), Stream: r.cur.stream}
	switch i := bytes.IndexByte(r.rest[:min(len(r.rest), room+1)], '\n'); {
	case i >= 0:
		l.Text = append(p.text, r.rest[:i]...)
		r.rest = r.rest[i+1:]
	case len(r.rest) > room:
		l.Text, l.Partial = append(p.text, r.rest[:room]...), true
		r.rest = r.rest[room:]
	default:
		p.text = append(p.text, r.rest...)
		r.rest = nil
		return Line{}, false
	}
	p.text = nil
	return l, true
}

// restPos is the position of the first byte not yet given out.
func (r *Reader) restPos() uint64 {
	return r.cur.pos + uint64(r.cur.length) - uint64(len(r.rest))
}

// Flush gives out the begun line of a stream, if there is one: as a part, or as a whole line if the
// container writes no more (done). ok is false when nothing was begun.
func (r *Reader) Flush(s Stream, done bool) (l Line, ok bool) {
	p := &r.begun[s-1]
	if len(p.text) == 0 {
		return Line{}, false
	}
	l = Line{Time: time.Unix(0, r.cur.time), Stream: s, Text: p.text, Partial: !done}
	p.text = nil
	return l, true
}

// Begun tells whether Flush has something to give.
func (r *Reader) Begun() bool { return len(r.begun[0].text)+len(r.begun[1].text) > 0 }

// Progress is a number that grows with what has been read.
func (r *Reader) Progress() uint64 { return r.pos }

// end is the position up to which all chunks have been taken up.
func (r *Reader) end() uint64 {
	if len(r.rest) > 0 {
		return r.restPos()
	}
	return r.pos
}

// Cursor returns where a new Reader goes on after the last Line returned.
func (r *Reader) Cursor() Cursor {
	c := Cursor{Stdout: r.end(), Stderr: r.end()}
	for _, s := range streams {
		if p := &r.begun[s-1]; len(p.text) > 0 {
			*c.of(s) = p.start
		}
		*c.of(s) = max(*c.of(s), *r.from.of(s))
	}
	return c
}

// chunk returns the next chunk, going from segment to segment.
func (r *Reader) chunk() (chunk, []byte, bool, error) {
	for {
		if r.f != nil {
			c, data, damaged, err := r.inSegment()
			if err != io.EOF {
				return c, data, damaged, err
			}
		}
		segs, err := segments(r.dir)
		if err != nil {
			return chunk{}, nil, false, err
		}
		if r.f == nil {
			segs = r.skipTo(segs)
		}
		at, _ := slices.BinarySearch(segs, r.id+1)
		if at == len(segs) {
			return chunk{}, nil, false, io.EOF
		}
		if r.f != nil {
			// The segment was closed before the later one was made, and now surely is: look once more.
			if c, data, damaged, err := r.inSegment(); err != io.EOF {
				return c, data, damaged, err
			}
		}
		if err := r.open(segs[at:]); err != nil {
			return chunk{}, nil, false, err
		}
	}
}

func (r *Reader) inSegment() (chunk, []byte, bool, error) {
	st, err := r.f.Stat()
	if err != nil {
		return chunk{}, nil, false, fmt.Errorf("read spool: %w", err)
	}
	c, data, damaged, err := r.sc.next(st.Size())
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read spool: %w", err)
	}
	return c, data, damaged, err
}

// open opens the first segment of segs that can be. The last one's header may not be written yet.
func (r *Reader) open(segs []uint64) error {
	for _, seq := range segs {
		f, head, err := openSegment(r.dir, seq, os.O_RDONLY)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errSegmentHeader) {
			continue // dropped meanwhile, or being made, or damaged: then the positions tell
		}
		if err != nil {
			return fmt.Errorf("read spool: %w", err)
		}
		r.Close()
		r.f, r.id, r.sc = f, seq, newScanner(f, head.salt)
		return nil
	}
	return io.EOF
}

// skipTo drops the segments that lie before the Reader's position.
func (r *Reader) skipTo(segs []uint64) []uint64 {
	for i := len(segs) - 1; i > 0; i-- {
		f, head, err := openSegment(r.dir, segs[i], os.O_RDONLY)
		if err != nil {
			continue
		}
		f.Close()
		if head.base <= r.pos {
			return segs[i:]
		}
	}
	return segs
}
