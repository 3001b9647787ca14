package segment

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

// small answers a segment of a few events of two groups, and its key.
func small(t testing.TB) (key string, b []byte) {
	m := newMemBlob()
	s, err := Open(Config{Dir: t.TempDir(), Blob: m})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, g := range []Group{benchGroup, {"1", "r", "other"}, benchGroup} {
		if _, err := s.Append(context.Background(), g, "s", []Entry{{int64(i), []byte("an ERROR: 42")}, {5, nil}}); err != nil {
			t.Fatal(err)
		}
	}
	waitSealed(t, s)
	for key, b := range m.segments() {
		return key, b
	}
	t.Fatal("no segment")
	return "", nil
}

// scanObject reads all that an object says it has.
func scanObject(t *testing.T, key string, b []byte) {
	m := newMemBlob()
	m.objects[key] = b
	c, err := sharedCodec()
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{blob: m, codec: c, now: time.Now, log: slog.New(slog.DiscardHandler), cache: cache{limit: 1 << 20}, segments: map[string]*segment{}}
	x, err := readIndex(context.Background(), m, c, key, 0)
	if err != nil {
		return
	}
	for _, g := range x.groups {
		meta := x.meta
		seg := s.newSegment(&meta)
		s.segments = map[string]*segment{key: seg}
		n := 0
		err := s.Scan(context.Background(), g.group, ScanOptions{Terms: []Term{{Text: "4"}}, Gap: func(Gap) {}}, func(e Event) bool {
			if !bytes.Contains(e.Message, []byte("4")) {
				t.Errorf("%q", e.Message)
			}
			n++
			return true
		})
		if err != nil {
			t.Errorf("scan: %v", err)
		}
	}
}

// Whatever an object holds, reading it neither panics nor allocates more than it may.
func FuzzSegment(f *testing.F) {
	key, good := small(f)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(segmentMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, 64<<20+64*int64(len(b)), func() { scanObject(t, key, b) })
	})
}

// An index that has the right checksum and the wrong content.
func FuzzIndex(f *testing.F) {
	key, good := small(f)
	c, err := sharedCodec()
	if err != nil {
		f.Fatal(err)
	}
	x, err := readIndexFrom(bytes.NewReader(good), int64(len(good)), c)
	if err != nil {
		f.Fatal(err)
	}
	blocks := good[:x.filtersAt]
	f.Add(x.encode(), int(x.filtersAt), x.filters)
	f.Fuzz(func(t *testing.T, raw []byte, filtersAt, filters int) {
		packed := c.enc.EncodeAll(raw, nil)
		b := append(bytes.Clone(blocks), packed...)
		foot := footer{int64(len(blocks)), len(packed), len(raw), checksum(packed), int64(filtersAt), filters}
		b = append(b, foot.encode()...)
		bounded(t, 64<<20+1000*int64(len(raw)), func() { scanObject(t, key, b) })
	})
}

// Columns that have the right checksum and the wrong content.
func FuzzColumns(f *testing.F) {
	_, good := small(f)
	c, err := sharedCodec()
	if err != nil {
		f.Fatal(err)
	}
	x, err := readIndexFrom(bytes.NewReader(good), int64(len(good)), c)
	if err != nil {
		f.Fatal(err)
	}
	for _, g := range x.groups {
		for _, k := range g.blocks {
			raw, err := c.open(good[k.offset:][:k.columnsLen], k.columnsSum, k.columnsRaw, nil)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw, k.events, len(k.streams), k.dataRaw)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, events, streams, dataRaw int) {
		if events < 0 || streams < 0 || streams > 1000 || dataRaw < 0 {
			return
		}
		col, err := decodeColumns(b, &blockInfo{events: events, streams: make([]int, streams), dataRaw: dataRaw})
		if err != nil {
			return
		}
		if len(col.ends) != events || events > 0 && col.ends[events-1] != dataRaw {
			t.Errorf("%d events, %v", events, col.ends)
		}
	})
}

// Whatever a log holds, reading it yields records or gaps.
func FuzzLog(f *testing.F) {
	var good []byte
	{
		dir := f.TempDir()
		w, err := createWAL(dir, 1, 7)
		if err != nil {
			f.Fatal(err)
		}
		var records []*record
		for i := range 3 {
			r := newRecord(benchGroup, "s", []Entry{{int64(i), []byte("message")}, {1, nil}}, 7)
			r.seal(7, uint64(2*i+1), 1)
			records = append(records, r)
		}
		if _, err := w.commit(records); err != nil {
			f.Fatal(err)
		}
		good = make([]byte, w.size.Load())
		if _, err := w.f.ReadAt(good, 0); err != nil && err != io.EOF {
			f.Fatal(err)
		}
		w.f.Close()
	}
	f.Add(good)
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, 8<<20+64*int64(len(b)), func() {
			err := readWAL(bytes.NewReader(b), int64(len(b)), func(r *record) {
				for i := range r.times {
					r.message(i)
				}
			}, func(int64, error) {})
			if err != nil {
				t.Error(err)
			}
		})
	})
}

// A record with the right checksums and the wrong content.
func FuzzRecord(f *testing.F) {
	r := newRecord(benchGroup, "s", []Entry{{1, []byte("message")}, {2, nil}}, 7)
	f.Add(r.raw[recHeaderSize:], uint32(2))
	f.Fuzz(func(t *testing.T, body []byte, events uint32) {
		raw := append(make([]byte, recHeaderSize), body...)
		raw[12], raw[13], raw[14], raw[15] = byte(events), byte(events>>8), byte(events>>16), byte(events>>24)
		sum := checksum(body)
		raw[32], raw[33], raw[34], raw[35] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		raw[16] = 1
		got, err := parseRecord(raw)
		if err != nil {
			return
		}
		for i := range got.times {
			got.message(i)
		}
	})
}

func FuzzCatalogue(f *testing.F) {
	b, err := encodeChange(&change{Add: []*segmentMeta{{Key: "logs/segments/a", Groups: []groupMeta{{Group: benchGroup}}}}, State: &state{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[8:])
	f.Fuzz(func(t *testing.T, body []byte) {
		c := &catalogue{segments: map[string]*segmentMeta{}, pending: map[string]bool{}}
		for _, b := range [][]byte{body, appendChange(nil, body)} {
			if _, err := decodeChanges(b, c.apply); err != nil && !strings.Contains(err.Error(), "format") {
				t.Error(err)
			}
		}
	})
}

// A term that is in a message is never said to be missing.
func FuzzTerm(f *testing.F) {
	f.Add([]byte(`{"level":"ERROR","id":"4bf92f35-77b3"}`), 10, 15)
	f.Add([]byte("java.lang.OutOfMemoryError: Java heap\xff\x00 space"), 3, 20)
	f.Fuzz(func(t *testing.T, message []byte, from, to int) {
		if from < 0 || to > len(message) || from > to {
			return
		}
		b := newFilterBuilder()
		b.add(message)
		filter := b.finish()
		for _, term := range []Term{{Text: string(message[from:to])}, {Text: string(message[from:to]), Word: true}} {
			if plainMatch(string(message), term) != matchAll(matchers([]Term{term}), message) {
				t.Errorf("%+v in %q", term, message)
			}
			if plainMatch(string(message), term) && !mayHave(filter, term.hashes()) {
				t.Errorf("%+v of %q is not in the filter", term, message)
			}
		}
	})
}

func bounded(t *testing.T, limit int64, f func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got := int64(after.TotalAlloc - before.TotalAlloc); got > limit {
		t.Errorf("%d bytes were allocated, more than %d", got, limit)
	}
}

// The real store of blobs finds damage before the segment does; it costs the same.
func TestDamagedObject(t *testing.T) {
	t.Parallel()
	d, err := blob.OpenDir(filepath.Join(t.TempDir(), "blob"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s := openTest(t, Config{Dir: t.TempDir(), Blob: damagedBlob{d}})
	_, events := fill(t, s, benchGroup, 3<<20, 1)
	waitSealed(t, s)
	got, gaps := scanAll(t, s, benchGroup)
	lost := 0
	for _, g := range gaps {
		lost += g.Events
	}
	if lost == 0 || got+lost != events {
		t.Fatalf("%d and %d lost of %d events, %v", got, lost, events, gaps)
	}
}

// damagedBlob fails reads near the beginning of segments.
type damagedBlob struct{ blob.Store }

type damagedReader struct {
	blob.Reader
	at int64
}

func (d damagedBlob) Get(ctx context.Context, key string) (blob.Reader, error) {
	r, err := d.Store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return &damagedReader{Reader: r}, nil
}

func (r *damagedReader) Seek(offset int64, whence int) (int64, error) {
	at, err := r.Reader.Seek(offset, whence)
	r.at = at
	return at, err
}

func (r *damagedReader) Read(b []byte) (int, error) {
	if r.at < 1000 {
		return 0, blob.ErrCorrupt
	}
	return r.Reader.Read(b)
}
