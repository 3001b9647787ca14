package segment

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/logs/segment/logtest"
)

func openTest(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func blobDir(t testing.TB) blob.Store {
	t.Helper()
	d, err := blob.OpenDir(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// fill appends about so many bytes of generated lines to streams of a group, and answers how many it were.
func fill(t testing.TB, s *Store, g Group, size int, streams int) (bytes, events int) {
	src := logtest.New(1, time.UnixMilli(1_750_000_000_000))
	for n := 0; bytes < size; n++ {
		var entries []Entry
		for b := 0; b < 1<<20-1000; {
			at, line := src.Next()
			entries = append(entries, Entry{at, append([]byte(nil), line...)})
			b += len(line)
			bytes += len(line)
		}
		if _, err := s.Append(context.Background(), g, fmt.Sprint("stream-", n%streams), entries); err != nil {
			t.Fatal(err)
		}
		events += len(entries)
	}
	return bytes, events
}

func TestScanAll(t *testing.T) {
	t.Parallel()
	g := Group{"000000000000", "eu-central-1", "/ecs/web"}
	s := openTest(t, Config{Dir: t.TempDir(), Blob: blobDir(t), SealBytes: 4 << 20})
	bytes, events := fill(t, s, g, 20<<20, 5)
	for _, reverse := range []bool{false, true} {
		n, size := 0, 0
		var last ID
		err := s.Scan(t.Context(), g, ScanOptions{Reverse: reverse}, func(e Event) bool {
			if n > 0 && (e.ID.Compare(last) > 0) == reverse {
				t.Fatalf("%v after %v", e.ID, last)
			}
			last = e.ID
			n++
			size += len(e.Message)
			return true
		})
		if err != nil || n != events || size != bytes {
			t.Fatalf("%v: %d events, %d bytes, not %d and %d", err, n, size, events, bytes)
		}
	}
	t.Logf("%+v", s.Usage())
}
