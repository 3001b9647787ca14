package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

// memBlob is a blob.Store in memory that checks nothing, and fails when told to.
type memBlob struct {
	mu      sync.Mutex
	objects map[string][]byte
	fail    error // of Put
}

func newMemBlob() *memBlob { return &memBlob{objects: map[string][]byte{}} }

func (m *memBlob) Put(_ context.Context, key string, r io.Reader, _ blob.PutOptions) (blob.Info, error) {
	m.mu.Lock()
	fail := m.fail
	m.mu.Unlock()
	if fail != nil {
		return blob.Info{}, fail
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return blob.Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = b
	return blob.Info{Key: key, Size: int64(len(b))}, nil
}

type memReader struct {
	*bytes.Reader
	info blob.Info
}

func (r memReader) Close() error    { return nil }
func (r memReader) Info() blob.Info { return r.info }

func (m *memBlob) Get(_ context.Context, key string) (blob.Reader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.objects[key]
	if !ok {
		return nil, blob.ErrNotFound
	}
	return memReader{bytes.NewReader(b), blob.Info{Key: key, Size: int64(len(b))}}, nil
}

func (m *memBlob) Stat(ctx context.Context, key string) (blob.Info, error) {
	r, err := m.Get(ctx, key)
	if err != nil {
		return blob.Info{}, err
	}
	return r.Info(), nil
}

func (m *memBlob) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

func (m *memBlob) List(_ context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.Sorted(maps.Keys(m.objects))
	return func(yield func(blob.Info, error) bool) {
		for _, k := range keys {
			if strings.HasPrefix(k, prefix) && k > after && !yield(blob.Info{Key: k}, nil) {
				return
			}
		}
	}
}

func (m *memBlob) segments() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[string][]byte{}
	for k, b := range m.objects {
		if strings.HasPrefix(k, keyPrefix) {
			found[k] = b
		}
	}
	return found
}

// oneSegment stores n MiB of lines in one segment.
func oneSegment(t *testing.T, mib int) (*Store, *memBlob, string, int) {
	t.Helper()
	m := newMemBlob()
	s := openTest(t, Config{Dir: t.TempDir(), Blob: m})
	_, events := fill(t, s, benchGroup, mib<<20, 3)
	waitSealed(t, s)
	segs := m.segments()
	if len(segs) != 1 {
		t.Fatalf("%d segments", len(segs))
	}
	for key := range segs {
		return s, m, key, events
	}
	panic("unreachable")
}

func scanAll(t *testing.T, s *Store, g Group) (events int, gaps []Gap) {
	t.Helper()
	err := s.Scan(t.Context(), g, ScanOptions{Gap: func(g Gap) { gaps = append(gaps, g) }}, func(Event) bool { events++; return true })
	if err != nil {
		t.Fatal(err)
	}
	return events, gaps
}

// A damaged byte costs the block that it is in, and the gap says what that was.
func TestDamagedBlock(t *testing.T) {
	t.Parallel()
	s, m, key, events := oneSegment(t, 6)
	x, err := s.index(t.Context(), s.segments[key])
	if err != nil {
		t.Fatal(err)
	}
	blocks := x.groups[0].blocks
	for i, k := range blocks {
		for _, at := range []int64{k.offset, k.offset + int64(k.columnsLen) - 1, k.offset + int64(k.columnsLen), k.offset + int64(k.columnsLen+k.dataLen) - 1} {
			m.objects[key][at] ^= 1
			got, gaps := scanAll(t, s, benchGroup)
			m.objects[key][at] ^= 1
			if got != events-k.events || len(gaps) != 1 || gaps[0].Events != k.events || gaps[0].Object != key || gaps[0].Group != benchGroup ||
				gaps[0].From != k.min.Timestamp || gaps[0].To != k.max.Timestamp || !errors.Is(gaps[0].Reason, errDamaged) {
				t.Fatalf("block %d of %d, byte %d: %d of %d events, %v", i, len(blocks), at, got, events, gaps)
			}
		}
	}
	// A filter only saves time.
	for at := x.filtersAt; at < x.filtersAt+int64(x.filters); at += 61 {
		m.objects[key][at] ^= 0xff
	}
	n := 0
	if err := s.Scan(t.Context(), benchGroup, ScanOptions{Terms: []Term{{Text: "ERROR", Word: true}}}, func(Event) bool { n++; return true }); err != nil || n == 0 {
		t.Fatalf("%d events with a damaged filter: %v", n, err)
	}
}

// The index is there twice. When both are gone, so is the segment, and the gap says so.
func TestDamagedIndex(t *testing.T) {
	t.Parallel()
	s, m, key, events := oneSegment(t, 2)
	meta := s.segments[key].meta
	size := len(m.objects[key])
	m.objects[key][size-1] ^= 1
	if got, gaps := scanAll(t, s, benchGroup); got != events || gaps != nil {
		t.Fatalf("%d of %d events, %v", got, events, gaps)
	}
	s.forget(key)
	m.objects[key][meta.FirstFooter-1] ^= 1
	if got, gaps := scanAll(t, s, benchGroup); got != 0 || len(gaps) != 1 || gaps[0].Events != events {
		t.Fatalf("%d events, %v", got, gaps)
	}
}

// Compaction leaves a damaged segment as it is: what can be read of it stays, what cannot is reported.
func TestDamagedIsNotCompacted(t *testing.T) {
	t.Parallel()
	m := newMemBlob()
	s := openTest(t, Config{Dir: t.TempDir(), Blob: m})
	s.keepMu.Lock()
	for range 3 * mergeAtOnce {
		if _, err := s.Append(t.Context(), benchGroup, "s", []Entry{{1, []byte("message")}}); err != nil {
			t.Fatal(err)
		}
		waitSealed(t, s)
	}
	keys := slices.Sorted(maps.Keys(m.segments()))
	m.objects[keys[2]][10] ^= 1
	s.keepMu.Unlock()
	if err := s.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := m.segments(); len(left) >= len(keys) || left[keys[2]] == nil {
		t.Fatalf("%d of %d segments are left", len(left), len(keys))
	}
	if got, gaps := scanAll(t, s, benchGroup); got != 3*mergeAtOnce-1 || len(gaps) != 1 || gaps[0].Object != keys[2] {
		t.Fatalf("%d events, %v", got, gaps)
	}
}

// walOf appends n records of one event and answers the log's path, closed.
func walOf(t *testing.T, dir string, n int) string {
	t.Helper()
	s, err := Open(Config{Dir: dir, Blob: newMemBlob()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := s.Append(t.Context(), benchGroup, "s", []Entry{{int64(i), fmt.Appendf(nil, "message %d", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	path := s.active().logs[0].path
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// Any damaged byte of a log costs one record at most; a log that is cut keeps what is whole.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	const n = 20
	whole, err := os.ReadFile(walOf(t, t.TempDir(), n))
	if err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) (records, gaps int) {
		last := uint64(0)
		err := readWAL(bytes.NewReader(b), int64(len(b)), func(r *record) {
			if r.firstSeq <= last || string(r.message(0)) != fmt.Sprintf("message %d", r.times[0]) {
				t.Fatalf("record %+v", r)
			}
			last = r.firstSeq
			records++
		}, func(int64, error) { gaps++ })
		if err != nil {
			t.Fatal(err)
		}
		return records, gaps
	}
	size := (len(whole) - walHeaderSize) / n
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x10
		records, gaps := read(damaged)
		switch {
		case at < walHeaderSize:
			if records != n {
				t.Fatalf("byte %d: %d records", at, records)
			}
		case records != n-1 || gaps != 1 && at < len(whole)-2*size:
			t.Fatalf("byte %d: %d records, %d gaps", at, records, gaps)
		}
	}
	for end := walHeaderSize; end <= len(whole); end++ {
		if records, gaps := read(whole[:end]); records > n || gaps != 0 || records < (end-walHeaderSize)/(size+2) {
			t.Fatalf("cut at %d: %d records, %d gaps", end, records, gaps)
		}
	}
}

// A store says that it is full, loses nothing, and goes on when there is room.
func TestFull(t *testing.T) {
	t.Parallel()
	m := newMemBlob()
	s := openTest(t, Config{Dir: t.TempDir(), Blob: m, SealBytes: 1000})
	m.fail = blob.ErrNoSpace
	stored := 0
	var err error
	for stored < 1000 && err == nil {
		if _, err = s.Append(t.Context(), benchGroup, "s", []Entry{{int64(stored), bytes.Repeat([]byte("x"), 500)}}); err == nil {
			stored++
		}
	}
	if !errors.Is(err, ErrFull) || stored > 20 {
		t.Fatalf("after %d events: %v", stored, err)
	}
	if !errors.Is(s.Usage().SealError, ErrFull) {
		t.Fatalf("%+v", s.Usage())
	}
	if got, gaps := scanAll(t, s, benchGroup); got != stored || gaps != nil {
		t.Fatalf("%d of %d events, %v", got, stored, gaps)
	}
	m.mu.Lock()
	m.fail = nil
	m.mu.Unlock()
	for {
		if _, err = s.Append(t.Context(), benchGroup, "s", []Entry{{int64(stored), nil}}); err == nil {
			break
		}
		if !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		s.mu.RLock()
		progress := s.progress
		s.mu.RUnlock()
		<-progress
	}
	if got, _ := scanAll(t, s, benchGroup); got != stored+1 {
		t.Fatalf("%d of %d events", got, stored+1)
	}
}

// When the volume with the logs is full, the error says so and what was there is as it was.
func TestFullVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("a small volume is needed: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := openTest(t, Config{Dir: dir, Blob: newMemBlob()})
	stored := 0
	var err error
	for err == nil && stored < 1000 {
		if _, err = s.Append(t.Context(), benchGroup, "s", []Entry{{int64(stored), bytes.Repeat([]byte("x"), 10_000)}}); err == nil {
			stored++
		}
	}
	if !errors.Is(err, ErrFull) || stored == 0 {
		t.Fatalf("after %d events: %v", stored, err)
	}
	if _, err := s.Append(t.Context(), benchGroup, "s", []Entry{{int64(stored), []byte("small")}}); err == nil {
		stored++
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=2m"); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, Config{Dir: dir, Blob: newMemBlob()})
	if got, gaps := scanAll(t, s, benchGroup); got != stored || gaps != nil {
		t.Fatalf("%d of %d events, %v", got, stored, gaps)
	}
}

// Use stays below MaxBytes; the oldest go first, after a warning.
func TestBounded(t *testing.T) {
	t.Parallel()
	m := newMemBlob()
	var mu sync.Mutex
	var told []Usage
	const limit = 8 << 20
	s := openTest(t, Config{Dir: t.TempDir(), Blob: m, MaxBytes: limit, OnPressure: func(u Usage) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, u)
	}})
	noise := make([]byte, 200<<10)
	for i := range 60 {
		rnd := uint64(i + 1)
		for j := range noise {
			rnd = rnd*6364136223846793005 + 1442695040888963407
			noise[j] = byte(rnd >> 33)
		}
		if _, err := s.Append(t.Context(), benchGroup, "s", []Entry{{int64(i), noise}}); err != nil {
			t.Fatal(err)
		}
		if err := s.keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if u := s.Usage(); u.Total() > limit {
			t.Fatalf("%+v", u)
		}
	}
	u := s.Usage()
	var got []int64
	if err := s.Scan(t.Context(), benchGroup, ScanOptions{}, func(e Event) bool { got = append(got, e.ID.Timestamp); return true }); err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 || got[len(got)-1] != 59 || got[0] != u.DroppedEvents || len(got) != 60-int(got[0]) || u.Total() < limit/3 {
		t.Fatalf("left: %v, %+v", got, u)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) < 2 || told[0].DroppedEvents != 0 {
		t.Fatalf("told: %+v", told)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	s := openTest(t, Config{Dir: t.TempDir(), Blob: newMemBlob()})
	for name, c := range map[string]struct {
		stream  string
		entries []Entry
	}{
		"nothing":        {"s", nil},
		"before 1970":    {"s", []Entry{{-1, nil}}},
		"a long message": {"s", []Entry{{1, make([]byte, MaxMessage+1)}}},
		"a long name":    {strings.Repeat("s", MaxName+1), []Entry{{1, nil}}},
		"too many":       {"s", make([]Entry, MaxEvents+1)},
	} {
		if _, err := s.Append(t.Context(), benchGroup, c.stream, c.entries); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Append(t.Context(), benchGroup, "s", []Entry{{1, nil}})
	if err2 := s.Scan(t.Context(), benchGroup, ScanOptions{}, func(Event) bool { return true }); !errors.Is(err, ErrClosed) || !errors.Is(err2, ErrClosed) {
		t.Errorf("closed: %v, %v", err, err2)
	}
	// Only one has it open.
	dir := t.TempDir()
	openTest(t, Config{Dir: dir, Blob: newMemBlob()})
	if s, err := Open(Config{Dir: dir, Blob: newMemBlob()}); err == nil {
		s.Close()
		t.Error("opened twice")
	}
}

// What a newer Berth wrote is refused.
func TestNewerFormat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := encodeChange(&change{})
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(b[8:], []byte(`"Version":1`), []byte(`"Version":2`), 1)
	head := appendChange(nil, newer)
	if err := os.WriteFile(filepath.Join(dir, catalogueFile), head, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(Config{Dir: dir, Blob: newMemBlob()}); err == nil || !strings.Contains(err.Error(), "format 2") {
		if err == nil {
			s.Close()
		}
		t.Fatalf("%v", err)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	s := openTest(t, Config{Dir: t.TempDir(), Blob: newMemBlob(), Logger: slog.New(slog.DiscardHandler)})
	other := Group{"1", "r", "other"}
	all := s.Tail(TailOptions{Groups: []Group{benchGroup, other}})
	some := s.Tail(TailOptions{Groups: []Group{benchGroup}, Prefix: "web/", Events: 3})
	defer some.Close()
	put := func(g Group, stream string, n int) {
		for i := range n {
			if _, err := s.Append(t.Context(), g, stream, []Entry{{int64(i), fmt.Appendf(nil, "%s %d", stream, i)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(benchGroup, "web/1", 5)
	put(benchGroup, "db/1", 2)
	put(other, "web/2", 1)
	events, dropped, err := all.Next(t.Context())
	if err != nil || dropped != 0 || len(events) != 8 || string(events[7].Message) != "web/2 0" || events[7].Group != other {
		t.Fatalf("%d events, %d dropped, %v", len(events), dropped, err)
	}
	events, dropped, err = some.Next(t.Context())
	if err != nil || dropped != 2 || len(events) != 3 || string(events[2].Message) != "web/1 2" {
		t.Fatalf("%d events, %d dropped, %v", len(events), dropped, err)
	}
	put(benchGroup, "web/1", 1)
	if events, dropped, err = some.Next(t.Context()); err != nil || dropped != 0 || len(events) != 1 {
		t.Fatalf("%d events, %d dropped, %v", len(events), dropped, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, _, err := some.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if events, _, err = all.Next(t.Context()); err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	all.Close()
	if _, _, err := all.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if u := s.Usage(); u.TailDropped != 2 {
		t.Fatalf("%+v", u)
	}
}
