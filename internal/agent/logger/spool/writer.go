package spool

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options bound a spool.
type Options struct {
	SegmentBytes int64    // a segment is closed at this size; default 8 MiB
	LimitBytes   int64    // the oldest segment goes when all together exceed this; default 64 MiB
	Boot         [16]byte // the kernel's boot ID
	// OnFull is given each segment that is full; it syncs and closes it. Default: both at once.
	OnFull func(*os.File)
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 8 << 20
	}
	if o.LimitBytes <= 0 {
		o.LimitBytes = 64 << 20
	}
	if o.OnFull == nil {
		o.OnFull = func(f *os.File) { f.Sync(); f.Close() }
	}
	return o
}

// A Writer appends to one container's spool. There must be one Writer only; the logger process holds
// a lock for that. It is not safe for concurrent use.
type Writer struct {
	dir  string
	o    Options
	f    *os.File
	head segmentHeader
	off  int64 // where the next chunk begins
	pos  uint64
	last int64 // time of the last chunk: times never go back

	lost     bool   // bytes were lost to a full disk since the last chunk
	unsealed *chunk // data is in the file, but its final header could not be written
	buf      []byte
	noSplice bool // the file system cannot
}

// OpenWriter opens or makes the spool in dir and repairs its end.
func OpenWriter(dir string, o Options) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool directory: %w", err)
	}
	w := &Writer{dir: dir, o: o.withDefaults(), buf: make([]byte, chunkHeaderSize+8<<10)}
	segs, err := segments(dir)
	if err != nil {
		return nil, err
	}
	// A segment without a sound header is one whose making was interrupted, so it holds nothing; were
	// it an older one that rotted, readers skip it and report the loss. Here it only yields its number.
	var seq uint64
	for i := len(segs) - 1; i >= 0; i-- {
		seq = max(seq, segs[i])
		found, err := w.recover(segs[i])
		if err != nil {
			return nil, err
		}
		if found {
			break
		}
	}
	if w.f != nil && w.head.boot == o.Boot && w.head.seq == seq {
		return w, nil
	}
	if w.f != nil {
		w.f.Close()
		w.f = nil
	}
	if err := w.create(seq + 1); err != nil {
		return nil, err
	}
	return w, nil
}

// recover opens segment seq and cuts or closes what is unfinished at its end. found is false if the
// segment's header is damaged.
func (w *Writer) recover(seq uint64) (found bool, err error) {
	f, head, err := openSegment(w.dir, seq, os.O_RDWR)
	if errors.Is(err, errSegmentHeader) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open spool segment: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("open spool segment: %w", err)
	}
	w.head, w.pos, w.last = head, head.base, head.created
	sc := newScanner(f, head.salt)
	for {
		c, _, _, err := sc.next(st.Size())
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, fmt.Errorf("scan spool segment: %w", err)
		}
		w.pos, w.last = c.pos+uint64(c.length), max(w.last, c.time)
	}
	w.f, w.off = f, sc.off
	if open, n, ok := openChunk(f, head.salt, w.off, st.Size()); ok && head.boot == w.o.Boot && n > 0 {
		open.length, open.state = uint32(n), stateFinal
		w.pos = open.pos
		w.unsealed = &open
		if err := w.seal(); err != nil {
			return false, fmt.Errorf("close the last chunk of the spool: %w", err)
		}
	}
	if err := f.Truncate(w.off); err != nil {
		return false, fmt.Errorf("cut the torn end of the spool: %w", err)
	}
	return true, nil
}

// openChunk reads the open chunk at off, which reaches to the end of the file.
func openChunk(r io.ReaderAt, salt uint32, off, size int64) (c chunk, n int64, ok bool) {
	b := make([]byte, chunkHeaderSize)
	if _, err := r.ReadAt(b, off); err != nil {
		return chunk{}, 0, false
	}
	c, _, ok = parseChunk(b, salt)
	n = size - off - chunkHeaderSize
	return c, n, ok && c.state == stateOpen && n <= MaxChunk
}

func (w *Writer) create(seq uint64) error {
	var salt [4]byte
	rand.Read(salt[:])
	head := segmentHeader{seq: seq, base: w.pos, created: w.last, boot: w.o.Boot,
		salt: binary.LittleEndian.Uint32(salt[:])}
	path := filepath.Join(w.dir, segmentName(seq))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make spool segment: %w", err)
	}
	if _, err := f.WriteAt(head.encode(), 0); err != nil {
		f.Close()
		os.Remove(path)
		return fmt.Errorf("make spool segment: %w", err)
	}
	if w.f != nil {
		w.o.OnFull(w.f)
	}
	w.f, w.head, w.off = f, head, segmentHeaderSize
	return nil
}

// Splice moves at most n bytes of the pipe fd, which must not block, into the spool and returns how
// many. Whatever the error, a byte is in exactly one of the two. unix.EAGAIN: the pipe is empty.
func (w *Writer) Splice(fd int, s Stream, n int, now time.Time) (int, error) {
	return w.add(s, min(n, MaxChunk), now, func(off int64, n int) (int, error) {
		if !w.noSplice {
			moved, err := unix.Splice(fd, nil, int(w.f.Fd()), &off, n, unix.SPLICE_F_NONBLOCK)
			if err != unix.EINVAL {
				return int(moved), err
			}
			w.noSplice = true
		}
		// Few file systems cannot splice; there a kill between these two calls loses one chunk.
		b := make([]byte, n)
		got, err := unix.Read(fd, b)
		if err != nil || got <= 0 {
			return 0, err
		}
		return w.f.WriteAt(b[:got], off)
	})
}

// Append adds bytes from memory.
func (w *Writer) Append(s Stream, data []byte, now time.Time) error {
	for len(data) > 0 {
		n, err := w.add(s, min(len(data), MaxChunk), now, func(off int64, n int) (int, error) {
			return w.f.WriteAt(data[:n], off)
		})
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func (w *Writer) add(s Stream, n int, now time.Time, move func(off int64, n int) (int, error)) (int, error) {
	if err := w.prepare(int64(n)); err != nil {
		return 0, err
	}
	w.last = max(w.last, now.UnixNano())
	c := chunk{time: w.last, pos: w.pos, stream: s, state: stateOpen}
	if w.lost {
		c.flags = flagDiskFull
	}
	head := w.buf[:chunkHeaderSize]
	c.encode(head, w.head.salt, nil)
	if _, err := w.f.WriteAt(head, w.off); err != nil {
		w.f.Truncate(w.off)
		return 0, fmt.Errorf("write to the spool: %w", err)
	}
	moved, err := move(w.off+chunkHeaderSize, n)
	if moved <= 0 {
		w.f.Truncate(w.off)
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	c.length, c.state = uint32(moved), stateFinal
	w.unsealed = &c
	w.lost = false
	w.seal() // if it fails, the next call tries again; the data is safe
	return moved, nil
}

// prepare makes room for n more bytes behind a sealed chunk.
func (w *Writer) prepare(n int64) error {
	if err := w.seal(); err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	if w.off > segmentHeaderSize && w.off+chunkHeaderSize+n > w.o.SegmentBytes {
		if err := w.create(w.head.seq + 1); err != nil {
			return err
		}
		w.dropOldest()
	}
	return nil
}

// seal writes the final header of the chunk whose data is in the file.
func (w *Writer) seal() error {
	if w.unsealed == nil {
		return nil
	}
	c := *w.unsealed
	head := w.buf[:chunkHeaderSize]
	c.encode(head, w.head.salt, nil)
	crc := binary.LittleEndian.Uint32(head[28:])
	at, end := w.off+chunkHeaderSize, w.off+chunkHeaderSize+int64(c.length)
	for at < end {
		part := w.buf[chunkHeaderSize:]
		part = part[:min(int64(len(part)), end-at)]
		if _, err := w.f.ReadAt(part, at); err != nil {
			return err
		}
		crc = crc32.Update(crc, castagnoli, part)
		at += int64(len(part))
	}
	binary.LittleEndian.PutUint32(head[28:], crc)
	if _, err := w.f.WriteAt(head, w.off); err != nil {
		return err
	}
	w.unsealed = nil
	w.off += chunkHeaderSize + int64(c.length)
	w.pos = c.pos + uint64(c.length)
	return nil
}

// Lose counts n bytes that could not be stored because the disk is full.
func (w *Writer) Lose(n int) {
	if w.unsealed != nil {
		// Its length is not yet in pos; it is when it gets sealed, and the loss comes after it. Until
		// then the disk is so full that not even 32 bytes can be overwritten: give that chunk up too.
		w.pos += uint64(w.unsealed.length)
		w.unsealed = nil
		w.f.Truncate(w.off)
	}
	w.pos += uint64(n)
	w.lost = true
}

// Flush seals what is written and, if bytes were lost after the last chunk, says so in the spool.
func (w *Writer) Flush(now time.Time) error {
	if err := w.prepare(0); err != nil {
		return err
	}
	if !w.lost {
		return nil
	}
	w.last = max(w.last, now.UnixNano())
	c := chunk{time: w.last, pos: w.pos, stream: Stderr, state: stateFinal, flags: flagDiskFull}
	head := w.buf[:chunkHeaderSize]
	c.encode(head, w.head.salt, nil)
	if _, err := w.f.WriteAt(head, w.off); err != nil {
		w.f.Truncate(w.off)
		return fmt.Errorf("write to the spool: %w", err)
	}
	w.off += chunkHeaderSize
	w.lost = false
	return nil
}

// Take ends the Writer and hands out its file, to be synced and closed.
func (w *Writer) Take() *os.File {
	f := w.f
	w.f = nil
	return f
}

// Duplicate returns another descriptor of the file being written, to be synced and closed; nil if
// there can be none.
func (w *Writer) Duplicate() *os.File {
	fd, err := unix.FcntlInt(w.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), w.f.Name())
}

// Close syncs and closes the spool.
func (w *Writer) Close() error {
	f := w.Take()
	return errors.Join(f.Sync(), f.Close())
}

func (w *Writer) dropOldest() {
	segs, err := segments(w.dir)
	if err != nil {
		return // the next rotation tries again
	}
	var total int64
	sizes := make([]int64, len(segs))
	for i, seq := range segs {
		if st, err := os.Stat(filepath.Join(w.dir, segmentName(seq))); err == nil {
			sizes[i] = st.Size()
		}
		total += sizes[i]
	}
	total += w.o.SegmentBytes // what the new one will grow to
	for i, seq := range segs {
		if total <= w.o.LimitBytes || seq == w.head.seq {
			return
		}
		os.Remove(filepath.Join(w.dir, segmentName(seq)))
		total -= sizes[i]
	}
}

func segmentName(seq uint64) string { return fmt.Sprintf("%016x.seg", seq) }

// segments lists the numbers of the segments in dir, ascending. A missing directory has none.
func segments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list spool: %w", err)
	}
	var segs []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".seg")
		if !ok || len(name) != 16 {
			continue
		}
		if seq, err := strconv.ParseUint(name, 16, 64); err == nil {
			segs = append(segs, seq)
		}
	}
	slices.Sort(segs)
	return segs, nil
}

func openSegment(dir string, seq uint64, flag int) (*os.File, segmentHeader, error) {
	f, err := os.OpenFile(filepath.Join(dir, segmentName(seq)), flag, 0)
	if err != nil {
		return nil, segmentHeader{}, err
	}
	b := make([]byte, segmentHeaderSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		f.Close()
		return nil, segmentHeader{}, err
	}
	head, err := parseSegmentHeader(b[:n])
	if err != nil {
		f.Close()
		return nil, segmentHeader{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return f, head, nil
}
