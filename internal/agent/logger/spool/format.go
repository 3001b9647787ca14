package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// MaxChunk is the most data that one chunk holds, in bytes.
const MaxChunk = 64 << 10

// Stream tells which of a container's outputs bytes came from.
type Stream uint8

const (
	Stdout Stream = 1
	Stderr Stream = 2
)

func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return fmt.Sprintf("stream %d", uint8(s))
}

func (s Stream) valid() bool { return s == Stdout || s == Stderr }

const (
	segmentMagic      = "BERTHSPL"
	segmentVersion    = 1
	segmentHeaderSize = 64
	chunkHeaderSize   = 32
)

// ErrNewer is the error for a segment that a newer version wrote.
var ErrNewer = errors.New("spool segment was written by a newer version")

var errSegmentHeader = errors.New("spool segment header is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentHeader begins a segment. All integers are little-endian:
//
//	 0 magic   8 version u32  12 zero u32  16 seq u64  24 base u64  32 created i64
//	40 boot [16]byte          56 salt u32  60 crc u32 of what precedes
type segmentHeader struct {
	seq     uint64   // its number in the directory; grows by one
	base    uint64   // position of the first chunk
	created int64    // ns since 1970; no chunk is older
	boot    [16]byte // the kernel's boot ID
	salt    uint32   // begins each chunk
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], segmentVersion)
	binary.LittleEndian.PutUint64(b[16:], h.seq)
	binary.LittleEndian.PutUint64(b[24:], h.base)
	binary.LittleEndian.PutUint64(b[32:], uint64(h.created))
	copy(b[40:], h.boot[:])
	binary.LittleEndian.PutUint32(b[56:], h.salt)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

func parseSegmentHeader(b []byte) (segmentHeader, error) {
	if len(b) < segmentHeaderSize || string(b[:8]) != segmentMagic ||
		binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return segmentHeader{}, errSegmentHeader
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != segmentVersion {
		return segmentHeader{}, fmt.Errorf("%w (format %d, this one knows %d)", ErrNewer, v, segmentVersion)
	}
	h := segmentHeader{
		seq:     binary.LittleEndian.Uint64(b[16:]),
		base:    binary.LittleEndian.Uint64(b[24:]),
		created: int64(binary.LittleEndian.Uint64(b[32:])),
		salt:    binary.LittleEndian.Uint32(b[56:]),
	}
	copy(h.boot[:], b[40:56])
	return h, nil
}

const (
	stateOpen  = 1 // data is being moved behind this header; its length is not known yet
	stateFinal = 2

	flagDiskFull = 1 // the loss before this chunk is due to a full disk
)

// chunk is the header of one chunk; its data follows it:
//
//	0 salt u32  4 length u32  8 time i64  16 position u64  24 stream u8  25 state u8  26 flags u8  27 zero
//	28 crc u32 of what precedes and, in a final chunk, of the data
type chunk struct {
	length uint32
	time   int64
	pos    uint64
	stream Stream
	state  uint8
	flags  uint8
}

func (c chunk) encode(dst []byte, salt uint32, data []byte) {
	binary.LittleEndian.PutUint32(dst[0:], salt)
	binary.LittleEndian.PutUint32(dst[4:], c.length)
	binary.LittleEndian.PutUint64(dst[8:], uint64(c.time))
	binary.LittleEndian.PutUint64(dst[16:], c.pos)
	dst[24], dst[25], dst[26], dst[27] = uint8(c.stream), c.state, c.flags, 0
	crc := crc32.Checksum(dst[:28], castagnoli)
	binary.LittleEndian.PutUint32(dst[28:], crc32.Update(crc, castagnoli, data))
}

// parseChunk reads the chunk that b begins with; ok is false if there is no whole and sound one.
func parseChunk(b []byte, salt uint32) (c chunk, data []byte, ok bool) {
	if len(b) < chunkHeaderSize || binary.LittleEndian.Uint32(b) != salt {
		return chunk{}, nil, false
	}
	c = chunk{
		length: binary.LittleEndian.Uint32(b[4:]),
		time:   int64(binary.LittleEndian.Uint64(b[8:])),
		pos:    binary.LittleEndian.Uint64(b[16:]),
		stream: Stream(b[24]),
		state:  b[25],
		flags:  b[26],
	}
	if !c.stream.valid() || c.length > MaxChunk {
		return chunk{}, nil, false
	}
	switch c.state {
	case stateOpen:
		if c.length != 0 {
			return chunk{}, nil, false
		}
	case stateFinal:
		if uint64(len(b)-chunkHeaderSize) < uint64(c.length) {
			return chunk{}, nil, false
		}
		data = b[chunkHeaderSize : chunkHeaderSize+int(c.length)]
	default:
		return chunk{}, nil, false
	}
	crc := crc32.Checksum(b[:28], castagnoli)
	if crc32.Update(crc, castagnoli, data) != binary.LittleEndian.Uint32(b[28:]) {
		return chunk{}, nil, false
	}
	return c, data, true
}

// window is how much a scanner reads at a time: any chunk fits in it.
const window = 2 * (chunkHeaderSize + MaxChunk)

// scanner walks over the final chunks of one segment.
type scanner struct {
	r    io.ReaderAt
	salt uint32
	off  int64 // where the next chunk begins

	buf  []byte // the file's bytes from base on
	base int64
}

func newScanner(r io.ReaderAt, salt uint32) *scanner {
	return &scanner{r: r, salt: salt, off: segmentHeaderSize, buf: make([]byte, 0, window)}
}

// next returns the first final chunk at or behind off that ends within size, and moves off behind
// it. damaged tells that bytes were skipped. Without one it returns io.EOF and leaves off where it
// was, because more may come. data is valid until the next call.
//
// The caller takes size before the call; a chunk that the writer closes meanwhile lies behind it, so
// a chunk still being written is never mistaken for a damaged one.
func (s *scanner) next(size int64) (c chunk, data []byte, damaged bool, err error) {
	cached := len(s.buf) > 0
	for at := s.off; at+chunkHeaderSize <= size; {
		b, err := s.peek(at, size)
		if err != nil {
			return chunk{}, nil, false, err
		}
		if c, data, ok := parseChunk(b, s.salt); ok && c.state == stateFinal {
			damaged = at != s.off
			s.off = at + chunkHeaderSize + int64(c.length)
			return c, data, damaged, nil
		}
		if cached {
			// It may have been open when the buffer was filled, and be final now.
			cached, s.buf = false, s.buf[:0]
			continue
		}
		var mark [4]byte
		binary.LittleEndian.PutUint32(mark[:], s.salt)
		if i := bytes.Index(b[1:], mark[:]); i >= 0 {
			at += 1 + int64(i)
		} else {
			at += int64(len(b)) - 3 // the salt may straddle the end of b
		}
	}
	s.buf = s.buf[:0] // what is there now may be written again before the next call
	return chunk{}, nil, false, io.EOF
}

// peek returns at least one chunk's worth of bytes from at on, unless the file ends before.
func (s *scanner) peek(at, size int64) ([]byte, error) {
	want := min(size-at, chunkHeaderSize+MaxChunk)
	if have := s.base + int64(len(s.buf)); at >= s.base && at+want <= have {
		return s.buf[at-s.base:], nil
	}
	n, err := s.r.ReadAt(s.buf[:min(size-at, window)], at)
	if err != nil && err != io.EOF {
		return nil, err
	}
	s.buf, s.base = s.buf[:n], at
	if int64(n) < chunkHeaderSize { // the file shrank under us: a tail was cut
		return nil, io.EOF
	}
	return s.buf, nil
}
