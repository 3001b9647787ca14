package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var epoch = time.Unix(1_800_000_000, 0)

func mustWriter(t rapid.TB, dir string, o Options) *Writer {
	t.Helper()
	w, err := OpenWriter(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// readAll reads to the end and flushes what was begun.
func readAll(t rapid.TB, r *Reader) []Line {
	t.Helper()
	var lines []Line
	for {
		l, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	for _, s := range streams {
		if l, ok := r.Flush(s, false); ok {
			lines = append(lines, l)
		}
	}
	return lines
}

// text joins one stream's lines to what was written.
func text(lines []Line, s Stream) []byte {
	var b []byte
	for _, l := range lines {
		if l.Stream != s || l.Lost > 0 {
			continue
		}
		b = append(b, l.Text...)
		if !l.Partial {
			b = append(b, '\n')
		}
	}
	return b
}

// Whatever is written, and wherever the file is cut, what is read is a prefix of what was written;
// and writing goes on from there.
func TestCrashLeavesPrefix(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		opts := Options{SegmentBytes: int64(rapid.IntRange(100, 4000).Draw(rt, "segment"))}
		written := map[Stream][]byte{}
		w := mustWriter(rt, dir, opts)
		for round := range rapid.IntRange(1, 3).Draw(rt, "crashes") {
			for i := range rapid.IntRange(0, 20).Draw(rt, "writes") {
				s := rapid.SampledFrom(streams[:]).Draw(rt, "stream")
				data := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n\x00")), 1, 300).Draw(rt, "data")
				if err := w.Append(s, data, epoch.Add(time.Duration(round*100+i))); err != nil {
					rt.Fatal(err)
				}
				written[s] = append(written[s], data...)
			}
			w.Take().Close()
			segs, _ := segments(dir)
			last := filepath.Join(dir, segmentName(segs[len(segs)-1]))
			st, _ := os.Stat(last)
			os.Truncate(last, rapid.Int64Range(0, st.Size()).Draw(rt, "cut"))

			w = mustWriter(rt, dir, opts)
			r := NewReader(dir, Cursor{})
			lines := readAll(rt, r)
			r.Close()
			for _, s := range streams {
				got := text(lines, s)
				if !bytes.HasPrefix(written[s], got) {
					rt.Fatalf("%v: read %q, which is no prefix of %q", s, got, written[s])
				}
				written[s] = slices.Clone(got)
			}
			for _, l := range lines {
				if l.Lost > 0 {
					rt.Fatalf("a cut tail was reported as %q", l.Text)
				}
			}
		}
		w.Take().Close()
	})
}

// A Reader that stops at any line and goes on from its Cursor misses and repeats nothing.
func TestCursorResumes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		w := mustWriter(rt, dir, Options{SegmentBytes: 500})
		defer func() { w.Take().Close() }()
		r := NewReader(dir, Cursor{})
		written, got := map[Stream][]byte{}, []Line{}
		for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			s := rapid.SampledFrom(streams[:]).Draw(rt, "stream")
			data := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n")), 1, 60).Draw(rt, "data")
			if err := w.Append(s, data, epoch.Add(time.Duration(i))); err != nil {
				rt.Fatal(err)
			}
			written[s] = append(written[s], data...)
			for range rapid.IntRange(0, 5).Draw(rt, "reads") {
				l, err := r.Next()
				if err == io.EOF {
					break
				}
				got = append(got, l)
			}
			if rapid.Bool().Draw(rt, "resume") {
				c := r.Cursor()
				r.Close()
				r = NewReader(dir, c)
			}
		}
		got = append(got, readAll(rt, r)...)
		r.Close()
		for _, s := range streams {
			if g := text(got, s); !bytes.Equal(g, written[s]) {
				rt.Fatalf("%v: read %q of %q", s, g, written[s])
			}
		}
	})
}

func TestTail(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 3, 99, 100, 500} {
		dir := t.TempDir()
		w := mustWriter(t, dir, Options{SegmentBytes: 300})
		for i := range 99 {
			w.Append(streams[i%2], fmt.Appendf(nil, "line %d\n", i), epoch)
		}
		w.Append(Stdout, []byte("line 99, begun"), epoch)
		w.Close()
		c, err := TailCursor(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(dir, c)
		lines := readAll(t, r)
		r.Close()
		if len(lines) != min(n, 100) {
			t.Fatalf("tail %d gave %d lines", n, len(lines))
		}
		if n > 0 {
			if want := fmt.Sprintf("line %d", 100-min(n, 100)); !strings.HasPrefix(string(lines[0].Text), want) {
				t.Errorf("tail %d begins with %q, not with %q", n, lines[0].Text, want)
			}
		}
	}
}

func TestLongLinesComeInParts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, Options{})
	defer w.Close()
	long := bytes.Repeat([]byte{0xff, 0}, MaxLine) // binary, two lines' worth
	w.Append(Stdout, append(slices.Clone(long), '\n'), epoch)
	w.Append(Stdout, append(long[:MaxLine:MaxLine], '\n'), epoch) // exactly one
	r := NewReader(dir, Cursor{})
	defer r.Close()
	lines := readAll(t, r)
	if len(lines) != 3 || !lines[0].Partial || lines[1].Partial || lines[2].Partial {
		t.Fatalf("got %d lines", len(lines))
	}
	if !bytes.Equal(append(lines[0].Text, lines[1].Text...), long) || !bytes.Equal(lines[2].Text, long[:MaxLine]) {
		t.Error("the text is not what was written")
	}
}

func TestOldestSegmentGoesAndReadersAreTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, Options{SegmentBytes: 4 << 10, LimitBytes: 16 << 10})
	defer w.Close()
	slow := NewReader(dir, Cursor{})
	defer slow.Close()
	total := 0
	for i := range 2000 {
		b := fmt.Appendf(nil, "line %06d\n", i)
		w.Append(Stdout, b, epoch)
		total += len(b)
		if i == 10 {
			if _, err := slow.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var size int64
	segs, _ := segments(dir)
	for _, s := range segs {
		st, _ := os.Stat(filepath.Join(dir, segmentName(s)))
		size += st.Size()
	}
	if size > 16<<10 || size < 8<<10 {
		t.Errorf("the spool has %d bytes of at most %d", size, 16<<10)
	}
	for _, r := range []*Reader{NewReader(dir, Cursor{}), slow} {
		var lost uint64
		read := 0
		for _, l := range readAll(t, r) {
			lost += l.Lost
			if l.Lost == 0 {
				read += len(l.Text) + 1
			}
		}
		if r == slow {
			read += len("line 000000\n") // before the loop
		}
		if read+int(lost) != total || lost == 0 {
			t.Errorf("read %d, lost %d, of %d", read, lost, total)
		}
		r.Close()
	}
}

func TestDamagedChunkCostsItselfAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, Options{})
	for i := range 5 {
		w.Append(Stdout, fmt.Appendf(nil, "line %d\n", i), epoch)
	}
	w.Close()
	path := filepath.Join(dir, segmentName(1))
	one := int64(chunkHeaderSize + len("line 0\n"))
	for _, at := range []int64{0, 5, 27, chunkHeaderSize + 2} { // salt, length, padding, data
		clean, _ := os.ReadFile(path)
		f, _ := os.OpenFile(path, os.O_RDWR, 0)
		f.WriteAt([]byte{0xee}, segmentHeaderSize+2*one+at)
		f.Close()
		r := NewReader(dir, Cursor{})
		var got []string
		for _, l := range readAll(t, r) {
			got = append(got, fmt.Sprintf("%d %s", l.Lost, l.Text))
		}
		r.Close()
		want := []string{"0 line 0", "0 line 1", "7 [berth: 7 bytes of output are missing here: the log spool is damaged]", "0 line 3", "0 line 4"}
		if !slices.Equal(got, want) {
			t.Errorf("damage at %d: read %q", at, got)
		}
		os.WriteFile(path, clean, 0o600)
	}
}

// Output that contains a copy of the spool's own bytes must not be taken for chunks.
func TestSpoolWithinASpool(t *testing.T) {
	t.Parallel()
	dir, inner := t.TempDir(), t.TempDir()
	w := mustWriter(t, inner, Options{})
	w.Append(Stderr, []byte("forged\n"), epoch)
	w.Close()
	evil, _ := os.ReadFile(filepath.Join(inner, segmentName(1)))

	w = mustWriter(t, dir, Options{})
	w.Append(Stdout, evil, epoch)
	w.Append(Stdout, []byte("\nafter\n"), epoch)
	w.Close()
	path := filepath.Join(dir, segmentName(1))
	f, _ := os.OpenFile(path, os.O_RDWR, 0)
	f.WriteAt([]byte{0xee}, segmentHeaderSize+5)
	f.Close()
	r := NewReader(dir, Cursor{})
	defer r.Close()
	for _, l := range readAll(t, r) {
		if l.Stream == Stderr && l.Lost == 0 {
			t.Errorf("the container forged %q", l.Text)
		}
	}
}

func TestSplice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	w := mustWriter(t, dir, Options{SegmentBytes: 10_000})
	if _, err := w.Splice(p[0], Stdout, 100, epoch); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("an empty pipe gave %v", err)
	}
	var want []byte
	for i := range 500 {
		b := bytes.Repeat([]byte{byte('a' + i%26)}, rand.IntN(200))
		b = append(b, '\n')
		unix.Write(p[1], b)
		want = append(want, b...)
		for n := len(b); n > 0; {
			moved, err := w.Splice(p[0], Stdout, 1+rand.IntN(n), epoch)
			if err != nil {
				t.Fatal(err)
			}
			n -= moved
		}
	}
	w.Close()
	r := NewReader(dir, Cursor{})
	defer r.Close()
	if got := text(readAll(t, r), Stdout); !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, wrote %d", len(got), len(want))
	}
}

// The chunk that a killed writer left open holds bytes that are nowhere else.
func TestOpenChunkIsKept(t *testing.T) {
	t.Parallel()
	for _, sameBoot := range []bool{true, false} {
		dir := t.TempDir()
		w := mustWriter(t, dir, Options{})
		w.Append(Stdout, []byte("first\n"), epoch)
		open := chunk{time: epoch.UnixNano(), pos: w.pos, stream: Stderr, state: stateOpen}
		b := make([]byte, chunkHeaderSize)
		open.encode(b, w.head.salt, nil)
		w.f.WriteAt(append(b, "half"...), w.off)
		w.Close()

		boot := [16]byte{}
		if !sameBoot {
			boot[0] = 1 // after a crash of the machine such bytes may never have reached the disk
		}
		w = mustWriter(t, dir, Options{Boot: boot})
		w.Append(Stdout, []byte("second\n"), epoch)
		w.Close()
		r := NewReader(dir, Cursor{})
		lines := readAll(t, r)
		r.Close()
		if got := string(text(lines, Stderr)); (got == "half") != sameBoot {
			t.Errorf("same boot %v: stderr is %q", sameBoot, got)
		}
		if got := string(text(lines, Stdout)); got != "first\nsecond\n" {
			t.Errorf("same boot %v: stdout is %q", sameBoot, got)
		}
	}
}

func TestLossIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, Options{})
	w.Append(Stdout, []byte("before, begun"), epoch)
	w.Lose(10)
	w.Append(Stdout, []byte("after\n"), epoch)
	w.Lose(7)
	if err := w.Flush(epoch); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r := NewReader(dir, Cursor{})
	defer r.Close()
	var got []string
	for _, l := range readAll(t, r) {
		got = append(got, string(l.Text))
	}
	want := []string{"before, begun", "[berth: 10 bytes of output are missing here: the disk was full]", "after",
		"[berth: 7 bytes of output are missing here: the disk was full]"}
	if !slices.Equal(got, want) {
		t.Errorf("read %q", got)
	}
}

func TestNewerSegmentIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := segmentHeader{seq: 1}.encode()
	b[8] = 9
	fixCRC(b)
	os.WriteFile(filepath.Join(dir, segmentName(1)), b, 0o600)
	if _, err := OpenWriter(dir, Options{}); !errors.Is(err, ErrNewer) {
		t.Errorf("writer: %v", err)
	}
	r := NewReader(dir, Cursor{})
	defer r.Close()
	if _, err := r.Next(); !errors.Is(err, ErrNewer) {
		t.Errorf("reader: %v", err)
	}
}

func TestCursorFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cursor")
	if c, err := LoadCursor(path); err != nil || c != (Cursor{}) {
		t.Fatalf("without a file: %v, %v", c, err)
	}
	for _, c := range []Cursor{{1, 2}, {1 << 63, 3}} {
		if err := SaveCursor(path, c); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadCursor(path); err != nil || got != c {
			t.Fatalf("saved %v, loaded %v, %v", c, got, err)
		}
	}
	os.WriteFile(path, []byte("{"), 0o600)
	if _, err := LoadCursor(path); err == nil {
		t.Error("a torn cursor was taken")
	}
}

func fixCRC(head []byte) {
	binary.LittleEndian.PutUint32(head[60:], crc32.Checksum(head[:60], castagnoli))
}

// A reader that is close behind the writer never takes what is being written for damaged.
func TestReadWhileWritten(t *testing.T) {
	t.Parallel()
	const lines = 30_000
	dir := t.TempDir()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	written := make(chan error, 1)
	go func() {
		written <- func() error {
			w, err := OpenWriter(dir, Options{SegmentBytes: 200_000, OnFull: func(f *os.File) { f.Close() }})
			if err != nil {
				return err
			}
			defer func() { w.Take().Close() }()
			for i := range lines {
				b := fmt.Appendf(nil, "%d %s\n", i, strings.Repeat("y", i%300))
				unix.Write(p[1], b)
				for n := len(b); n > 0; {
					moved, err := w.Splice(p[0], Stdout, n, epoch)
					if err != nil {
						return err
					}
					n -= moved
				}
			}
			return nil
		}()
	}()
	r := NewReader(dir, Cursor{})
	defer r.Close()
	for i := 0; i < lines; {
		l, err := r.Next()
		if err == io.EOF {
			select {
			case err := <-written:
				if err != nil {
					t.Fatal(err)
				}
				written <- nil
			default:
			}
			if t.Context().Err() != nil {
				t.Fatal("the lines do not come")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d %s", i, strings.Repeat("y", i%300)); string(l.Text) != want || l.Partial || l.Lost > 0 {
			t.Fatalf("line %d is %q, lost %d", i, l.Text, l.Lost)
		}
		i++
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}
