package segment

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/blob"
)

// world is a store, and what it should hold.
type world struct {
	dir, blobDir string
	blob         *blob.Dir
	s            *Store
	model        map[Group][]Event
	retention    map[Group]int
	clock        *clock
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// gapLog fails the test when damage is logged.
type gapLog struct{ report func(string) }

func (g gapLog) Enabled(context.Context, slog.Level) bool { return true }
func (g gapLog) WithAttrs([]slog.Attr) slog.Handler       { return g }
func (g gapLog) WithGroup(string) slog.Handler            { return g }
func (g gapLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		text := r.Message
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		g.report(text)
	}
	return nil
}

func (w *world) open(t *rapid.T) {
	var err error
	if w.blob, err = blob.OpenDir(w.blobDir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	w.s, err = open(Config{Dir: w.dir, Blob: w.blob, SealBytes: 3000, SealAfter: time.Hour,
		Logger: slog.New(gapLog{func(text string) { t.Errorf("%s", text) }})}, w.clock.now, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
}

// crash opens a copy of the directories, as a killed process leaves them, taken while the store runs.
func (w *world) crash(t *rapid.T, parent string) {
	to, err := os.MkdirTemp(parent, "crash")
	if err != nil {
		t.Fatal(err)
	}
	// Objects are copied before the catalogue and the logs that were removed for them, and again after.
	// Both stores stand still for it: a copy of files that change is not what a crash leaves.
	w.s.freeze(func() {
		copyTree(t, w.dir, filepath.Join(to, "local"))
		copyTree(t, w.blobDir, filepath.Join(to, "blob"))
	})
	w.s.Close()
	w.blob.Close()
	w.dir, w.blobDir = filepath.Join(to, "local"), filepath.Join(to, "blob")
	w.open(t)
}

// freeze runs f while nothing is written.
func (s *Store) freeze(f func()) {
	s.keepMu.Lock()
	defer s.keepMu.Unlock()
	s.catMu.Lock()
	defer s.catMu.Unlock()
	f()
}

func copyTree(t *rapid.T, from, to string) {
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // a temporary file
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) visible(g Group) []Event {
	var out []Event
	for _, e := range w.model[g] {
		if d := w.retention[g]; d == 0 || e.ID.Timestamp >= w.clock.now().UnixMilli()-int64(d)*dayMillis {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Event) int { return a.ID.Compare(b.ID) })
	return out
}

// forget takes out of the model what is hidden now: it may be gone for good.
func (w *world) forget(g Group) { w.model[g] = w.visible(g) }

func describe(events []Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%v %s %.30q of %d at %d\n", e.ID, e.Stream, e.Message, len(e.Message), e.IngestedAt)
	}
	return b.String()
}

var (
	testGroups  = []Group{{"1", "r", "a"}, {"1", "r", "b"}, {"2", "r", "a"}}
	testStreams = []string{"s", "s1", "s2", "web/1", "web/2"}
	words       = []string{"alpha", "beta", "Exception", "x1", "42", "é", "key=", "-", " ", "\n", "\x00", "_", "deadbeef", ":"}
)

func anyMessage() *rapid.Generator[[]byte] {
	text := rapid.Map(rapid.SliceOfN(rapid.SampledFrom(words), 0, 8), func(p []string) []byte { return []byte(strings.Join(p, "")) })
	return rapid.OneOf(text, text, text, rapid.Map(rapid.IntRange(1, 60), func(n int) []byte { return bytes.Repeat([]byte("long "), n*10) }))
}

// What is read is what was acknowledged, whatever happens in between.
func TestLikeASlice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		parent, err := os.MkdirTemp("/dev/shm", "segment") // in memory: a hundred rounds of fsync take seconds
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(parent)
		w := &world{dir: filepath.Join(parent, "local"), blobDir: filepath.Join(parent, "blob"), model: map[Group][]Event{}, retention: map[Group]int{}, clock: &clock{t: time.UnixMilli(1_000 * dayMillis)}}
		w.open(rt)
		defer func() { w.s.Close(); w.blob.Close() }()
		ctx := context.Background()
		someGroup, someStream := rapid.SampledFrom(testGroups), rapid.SampledFrom(testStreams)
		someTime := func(label string) int64 {
			return w.clock.now().UnixMilli() - rapid.OneOf(rapid.Int64Range(-20, 20), rapid.Int64Range(0, 5*dayMillis)).Draw(rt, label)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				g, stream := someGroup.Draw(rt, "group"), someStream.Draw(rt, "stream")
				var entries []Entry
				for range rapid.IntRange(1, 30).Draw(rt, "events") {
					entries = append(entries, Entry{someTime("time"), anyMessage().Draw(rt, "message")})
				}
				got, err := w.s.Append(ctx, g, stream, entries)
				if err != nil {
					rt.Fatal(err)
				}
				for i, e := range entries {
					w.model[g] = append(w.model[g], Event{g, stream, ID{e.Timestamp, got.FirstSeq + uint64(i)}, got.IngestedAt, e.Message})
				}
			},
			"concurrently": func(rt *rapid.T) {
				g := someGroup.Draw(rt, "group")
				var mu sync.Mutex
				var wg sync.WaitGroup
				for _, stream := range testStreams {
					at := someTime("time")
					wg.Go(func() {
						got, err := w.s.Append(ctx, g, stream, []Entry{{at, []byte("of " + stream)}})
						mu.Lock()
						defer mu.Unlock()
						if err != nil {
							rt.Error(err)
							return
						}
						w.model[g] = append(w.model[g], Event{g, stream, ID{at, got.FirstSeq}, got.IngestedAt, []byte("of " + stream)})
					})
				}
				wg.Wait()
			},
			"time passes": func(rt *rapid.T) {
				w.clock.add(time.Duration(rapid.Int64Range(1, dayMillis).Draw(rt, "ms")) * time.Millisecond)
				for _, g := range testGroups {
					w.forget(g)
				}
			},
			"retention": func(rt *rapid.T) {
				g, days := someGroup.Draw(rt, "group"), rapid.IntRange(0, 4).Draw(rt, "days")
				if err := w.s.SetRetention(ctx, g, days); err != nil {
					rt.Fatal(err)
				}
				w.forget(g) // what was hidden does not come back
				w.retention[g] = days
				w.forget(g)
			},
			"drop stream": func(rt *rapid.T) {
				g, stream := someGroup.Draw(rt, "group"), someStream.Draw(rt, "stream")
				if err := w.s.DropStream(ctx, g, stream); err != nil {
					rt.Fatal(err)
				}
				w.model[g] = slices.DeleteFunc(w.model[g], func(e Event) bool { return e.Stream == stream })
			},
			"drop group": func(rt *rapid.T) {
				g := someGroup.Draw(rt, "group")
				if err := w.s.DropGroup(ctx, g); err != nil {
					rt.Fatal(err)
				}
				delete(w.model, g)
				delete(w.retention, g)
			},
			"crash": func(rt *rapid.T) { w.crash(rt, parent) },
			"catalogue lost": func(rt *rapid.T) {
				if err := w.s.keep(ctx); err != nil { // the state is an object then
					rt.Fatal(err)
				}
				w.s.Close()
				w.blob.Close()
				if err := os.Remove(filepath.Join(w.dir, catalogueFile)); err != nil {
					rt.Fatal(err)
				}
				w.open(rt)
			},
			"seal": func(rt *rapid.T) {
				if err := w.s.Seal(ctx); err != nil {
					rt.Fatal(err)
				}
			},
			"keep": func(rt *rapid.T) {
				if err := w.s.keep(ctx); err != nil {
					rt.Fatal(err)
				}
			},
			"scan": func(rt *rapid.T) { w.checkScan(rt, someGroup.Draw(rt, "group"), someTime) },
			"read": func(rt *rapid.T) { w.checkRead(rt, someGroup.Draw(rt, "group"), someStream.Draw(rt, "stream")) },
			"": func(rt *rapid.T) {
				for _, g := range testGroups {
					w.same(rt, g, ScanOptions{}, w.visible(g))
				}
			},
		})
	})
}

func (w *world) same(t *rapid.T, g Group, o ScanOptions, want []Event) {
	var got []Event
	o.Gap = func(gap Gap) { t.Errorf("%v", gap) }
	err := w.s.Scan(context.Background(), g, o, func(e Event) bool {
		e.Message = bytes.Clone(e.Message)
		got = append(got, e)
		return true
	})
	if a, b := describe(got), describe(want); err != nil || a != b {
		t.Fatalf("scan of %v, %+v: %v\n%s---want\n%s", g, o, err, a, b)
	}
}

func (w *world) checkScan(t *rapid.T, g Group, someTime func(string) int64) {
	o := ScanOptions{Reverse: rapid.Bool().Draw(t, "reverse")}
	want := w.visible(g)
	keep := func(f func(Event) bool) {
		want = slices.DeleteFunc(want, func(e Event) bool { return !f(e) })
	}
	if len(want) > 0 && rapid.Bool().Draw(t, "after?") {
		o.After = want[rapid.IntRange(0, len(want)-1).Draw(t, "after")].ID
		keep(func(e Event) bool { c := e.ID.Compare(o.After); return c > 0 && !o.Reverse || c < 0 && o.Reverse })
	}
	switch rapid.IntRange(0, 2).Draw(t, "streams?") {
	case 1:
		o.Streams = rapid.SliceOfDistinct(rapid.SampledFrom(testStreams), rapid.ID[string]).Draw(t, "streams")
		keep(func(e Event) bool { return o.Streams == nil || slices.Contains(o.Streams, e.Stream) })
	case 2:
		o.Prefix = rapid.SampledFrom([]string{"s", "web/", "no"}).Draw(t, "prefix")
		keep(func(e Event) bool { return strings.HasPrefix(e.Stream, o.Prefix) })
	}
	if rapid.Bool().Draw(t, "from?") {
		o.From = someTime("from")
		keep(func(e Event) bool { return e.ID.Timestamp >= o.From })
	}
	if rapid.Bool().Draw(t, "to?") {
		o.To = someTime("to")
		keep(func(e Event) bool { return e.ID.Timestamp < o.To })
	}
	for range rapid.IntRange(0, 2).Draw(t, "terms") {
		term := Term{Text: strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 0, 3).Draw(t, "term"), ""), Word: rapid.Bool().Draw(t, "word")}
		o.Terms = append(o.Terms, term)
		keep(func(e Event) bool { return plainMatch(string(e.Message), term) })
	}
	if o.Reverse {
		slices.Reverse(want)
	}
	w.same(t, g, o, want)
}

// plainMatch is what a term means, plainly.
func plainMatch(message string, term Term) bool {
	isToken := func(s string) bool {
		c := s[0]
		return c == '_' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
	}
	if term.Text == "" {
		return true
	}
	for i := 0; i+len(term.Text) <= len(message); i++ {
		end := i + len(term.Text)
		if message[i:end] != term.Text {
			continue
		}
		if !term.Word || !(i > 0 && isToken(message[i-1:]) && isToken(message[i:])) && !(end < len(message) && isToken(message[end-1:]) && isToken(message[end:])) {
			return true
		}
	}
	return false
}

// checkRead reads a stream page by page to its end, and back, from any place.
func (w *world) checkRead(t *rapid.T, g Group, stream string) {
	want := slices.DeleteFunc(w.visible(g), func(e Event) bool { return e.Stream != stream })
	o := ReadOptions{Limit: rapid.IntRange(1, 20).Draw(t, "limit"), MaxBytes: rapid.SampledFrom([]int{0, 1, 100, 10_000}).Draw(t, "bytes"), Forward: true,
		Gap: func(gap Gap) { t.Errorf("%v", gap) }}
	page := func() Page {
		p, err := w.s.Read(context.Background(), g, stream, o)
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, e := range p.Events {
			size += len(e.Message)
		}
		if len(p.Events) > o.Limit || o.MaxBytes > 0 && size > o.MaxBytes && len(p.Events) > 1 {
			t.Fatalf("a page of %d events and %d bytes for %+v", len(p.Events), size, o)
		}
		return p
	}
	var got []Event
	for {
		p := page()
		if o.After != (ID{}) && len(p.Events) == 0 && p.Next != o.After {
			t.Fatalf("at the end the position goes from %v to %v", o.After, p.Next)
		}
		o.After = p.Next
		if got = append(got, p.Events...); len(p.Events) == 0 {
			break
		}
	}
	if a, b := describe(got), describe(want); a != b {
		t.Fatalf("read forward\n%s---want\n%s", a, b)
	}
	got = nil
	for o.Forward, o.After = false, (ID{}); ; {
		p := page()
		o.Before = p.Previous
		if got = append(p.Events, got...); len(p.Events) == 0 {
			break
		}
	}
	if a, b := describe(got), describe(want); a != b {
		t.Fatalf("read backward\n%s---want\n%s", a, b)
	}
	if len(want) > 0 {
		// Before the end and behind it are the same place.
		o = ReadOptions{After: want[len(want)-1].ID, Forward: true}
		end := page0(t, w.s, g, stream, o)
		back := page0(t, w.s, g, stream, ReadOptions{Before: end.Previous, Limit: 1})
		if len(back.Events) != 1 || back.Events[0].ID != want[len(want)-1].ID {
			t.Fatalf("back from the end: %+v", back)
		}
	}
	infos, err := w.s.Streams(context.Background(), g)
	if err != nil {
		t.Fatal(err)
	}
	i, found := slices.BinarySearchFunc(infos, stream, func(s StreamInfo, name string) int { return cmp.Compare(s.Stream, name) })
	if !found {
		if len(want) > 0 {
			t.Fatalf("%s is not among %v", stream, slices.Collect(maps.Keys(w.model)))
		}
	} else if len(want) > 0 && (infos[i].First > want[0].ID.Timestamp || infos[i].Last < want[len(want)-1].ID.Timestamp || infos[i].Events < int64(len(want))) {
		t.Fatalf("%+v for %s", infos[i], describe(want))
	}
}

func page0(t *rapid.T, s *Store, g Group, stream string, o ReadOptions) Page {
	p, err := s.Read(context.Background(), g, stream, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
