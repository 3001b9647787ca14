package segment

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/logs/segment/logtest"
)

// The benchmarks use so many MiB of generated lines.
func benchBytes() int {
	if n, err := strconv.Atoi(os.Getenv("BERTH_BENCH_MIB")); err == nil {
		return n << 20
	}
	return 256 << 20
}

var benchGroup = Group{"000000000000", "eu-central-1", "/ecs/orders"}

// batches generates lines in batches of about a MiB, as PutLogEvents takes them.
func batches(seed uint64, size int) (out [][]Entry, bytes int) {
	src := logtest.New(seed, time.UnixMilli(1_750_000_000_000))
	for bytes < size {
		var entries []Entry
		arena := make([]byte, 0, 1<<20)
		for {
			at, line := src.Next()
			if len(arena)+len(line) > cap(arena) || len(entries) == 10_000 {
				break
			}
			n := len(arena)
			arena = append(arena, line...)
			entries = append(entries, Entry{at, arena[n:len(arena):len(arena)]})
		}
		bytes += len(arena)
		out = append(out, entries)
	}
	return out, bytes
}

// cpu is what the process has used of the processors, which says more than the time on a machine that is shared.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIngest appends from eight clients until all is on disk and in segments but the last tables.
func BenchmarkIngest(b *testing.B) {
	in, size := batches(1, min(benchBytes(), 512<<20))
	events := 0
	for _, batch := range in {
		events += len(batch)
	}
	for b.Loop() {
		s, err := Open(Config{Dir: b.TempDir(), Blob: blobDir(b)})
		if err != nil {
			b.Fatal(err)
		}
		work := make(chan []Entry)
		var wg sync.WaitGroup
		start, used := time.Now(), cpu()
		for i := range 8 {
			wg.Go(func() {
				for batch := range work {
					if _, err := s.Append(context.Background(), benchGroup, fmt.Sprint("web/orders/", i), batch); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for _, batch := range in {
			work <- batch
		}
		close(work)
		wg.Wait()
		b.ReportMetric(float64(size)/1e6/time.Since(start).Seconds(), "MB/s-acknowledged")
		b.StopTimer()
		waitSealed(b, s)
		took := time.Since(start)
		b.ReportMetric(float64(size)/1e6/(cpu()-used).Seconds(), "MB/cpu-s")
		u := s.Usage()
		b.ReportMetric(float64(u.RawBytes)/1e6/took.Seconds(), "MB/s-sealed")
		b.ReportMetric(float64(u.SegmentBytes)/float64(u.RawBytes), "stored/raw-at-once")
		b.ReportMetric(float64(events)/took.Seconds(), "events/s")
		// Segments made in haste are made again.
		if err := s.keep(b.Context()); err != nil {
			b.Fatal(err)
		}
		u = s.Usage()
		b.ReportMetric(float64(u.SegmentBytes)/float64(u.RawBytes), "stored/raw")
		s.Close()
		b.StartTimer()
	}
	b.SetBytes(int64(size))
}

func waitSealed(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkMemory is what the process has taken from the system after many tables were filled and sealed by
// one client, with next to nothing of its own.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		s, err := Open(Config{Dir: b.TempDir(), Blob: blobDir(b)})
		if err != nil {
			b.Fatal(err)
		}
		size, _ := fill(b, s, benchGroup, benchBytes(), 8)
		waitSealed(b, s)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.Sys-m.HeapReleased)/1e6, "MB-of-memory")
		b.SetBytes(int64(size))
		s.Close()
	}
}

func BenchmarkScan(b *testing.B) {
	s := openTest(b, Config{Dir: b.TempDir(), Blob: blobDir(b)})
	raw := 0
	for seed := uint64(1); raw < benchBytes(); seed++ {
		in, size := batches(seed, 64<<20)
		raw += size
		for i, batch := range in {
			for j := range batch {
				batch[j].Timestamp += int64(seed) * 10_000_000
			}
			if _, err := s.Append(b.Context(), benchGroup, fmt.Sprint("web/orders/", i%8), batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	rare := "4bf92f3577b34da6"
	if _, err := s.Append(b.Context(), benchGroup, "web/orders/3", []Entry{{1_750_000_500_000 + 10_000_000, []byte(`{"level":"ERROR","requestId":"` + rare + `","message":"could not ship"}`)}}); err != nil {
		b.Fatal(err)
	}
	waitSealed(b, s)
	if err := s.keep(b.Context()); err != nil {
		b.Fatal(err)
	}
	if dir := os.Getenv("BERTH_BENCH_EXPORT"); dir != "" {
		f, err := os.Create(dir)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Scan(b.Context(), benchGroup, ScanOptions{}, func(e Event) bool {
			f.Write(e.Message)
			_, err := f.WriteString("\n")
			return err == nil
		}); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	for _, c := range []struct {
		name  string
		terms []Term
	}{
		{"rare", []Term{{Text: rare, Word: true}}},
		{"rare-quoted", []Term{{Text: `"` + rare + `"`}}},
		{"unfiltered", []Term{{Text: rare}}},
		{"absent-letters", []Term{{Text: "OutOfMemoryErr"}}},
		{"common", []Term{{Text: "ERROR", Word: true}}},
		{"all", nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			n, used := 0, cpu()
			for b.Loop() {
				n = 0
				s.cacheMu.Lock()
				s.cache = cache{limit: cacheBytes}
				s.cacheMu.Unlock()
				if err := s.Scan(b.Context(), benchGroup, ScanOptions{Terms: c.terms}, func(Event) bool { n++; return true }); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(raw))
			b.ReportMetric(float64(n), "found")
			b.ReportMetric((cpu()-used).Seconds()*1000/float64(b.N), "cpu-ms/op")
		})
	}
}
