package segment

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// While events are appended, sealed, compacted and dropped, each scan sees of every stream all that was
// acknowledged before it began, once and in order.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	s := openTest(t, Config{Dir: t.TempDir(), Blob: newMemBlob(), SealBytes: 8000})
	const streams, each = 4, 150
	var acknowledged [streams]atomic.Int64
	tail := s.Tail(TailOptions{Groups: []Group{benchGroup}})
	defer tail.Close()
	var appending, rest sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range streams {
		appending.Go(func() {
			for n := range each {
				// Streams are at different times, so that segments overlap.
				e := Entry{int64(n + 40*i), fmt.Appendf(nil, "%d %080d", n, n)}
				if _, err := s.Append(ctx, benchGroup, fmt.Sprint(i), []Entry{e}); err != nil {
					t.Error(err)
					return
				}
				acknowledged[i].Add(1)
			}
		})
	}
	scan := func() {
		var before [streams]int64
		for i := range before {
			before[i] = acknowledged[i].Load()
		}
		var next [streams]int64
		err := s.Scan(ctx, benchGroup, ScanOptions{Gap: func(g Gap) { t.Error(g) }}, func(e Event) bool {
			var i, n int64
			fmt.Sscan(e.Stream, &i)
			fmt.Sscan(string(e.Message), &n)
			if n != next[i] {
				t.Errorf("stream %d: event %d in place of %d", i, n, next[i])
				return false
			}
			next[i]++
			return true
		})
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		for i := range before {
			if ctx.Err() == nil && next[i] < before[i] {
				t.Errorf("stream %d: %d events of %d", i, next[i], before[i])
			}
		}
	}
	for _, f := range []func(){
		scan,
		scan,
		func() {
			if err := s.keep(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		},
		func() {
			if err := s.DropStream(ctx, Group{Name: "other"}, "s"); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			if _, err := s.Streams(ctx, benchGroup); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			s.Usage()
		},
		func() {
			if _, err := s.Read(ctx, benchGroup, "2", ReadOptions{Limit: 10}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		},
	} {
		rest.Go(func() {
			for ctx.Err() == nil {
				f()
			}
		})
	}
	appending.Wait()
	cancel()
	rest.Wait()
	ctx = t.Context()
	scan()
	got := 0
	for got < streams*each {
		events, dropped, err := tail.Next(t.Context())
		if err != nil || dropped > 0 {
			t.Fatalf("%d dropped, %v", dropped, err)
		}
		got += len(events)
	}
}
