package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

func newBlob(t *testing.T) blob.Store {
	t.Helper()
	b, err := blob.OpenDir(t.TempDir(), quiet)
	if err != nil {
		t.Fatalf("open the blob store: %v", err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func open(t *testing.T, b blob.Store) *Log {
	t.Helper()
	l, err := Open(t.Context(), b, quiet)
	if err != nil {
		t.Fatalf("open the log: %v", err)
	}
	return l
}

func event(n int) Event {
	return newEvent(scope, ServiceAction, fmt.Sprintf("arn:%d", n), time.Unix(int64(n), 0), "", map[string]int{"n": n})
}

func publish(t *testing.T, l *Log, from, n int) {
	t.Helper()
	for i := range n {
		if err := l.AppendThrough(t.Context(), int64(1000+from+i), []Event{event(from + i)}); err != nil {
			t.Fatalf("append: %v", err)
		}
	}
}

// read reads from a place to the log's end and checks that nothing lacks.
func read(t *testing.T, l *Log, after, want int64) {
	t.Helper()
	r := l.Follow(after)
	at := after
	for r.Pending() {
		records, err := r.Next(t.Context())
		if err != nil {
			t.Fatalf("after %d: %v", at, err)
		}
		for _, rec := range records {
			if at++; rec.Seq != at || rec.Event.Resources[0] != fmt.Sprintf("arn:%d", at) {
				t.Fatalf("record %d of %s, want %d", rec.Seq, rec.Event.Resources[0], at)
			}
		}
	}
	if at != want {
		t.Fatalf("read to %d, want %d", at, want)
	}
}

func TestLogIsReadFromAnyPlaceAndAfterMerging(t *testing.T) {
	t.Parallel()
	b := newBlob(t)
	l := open(t, b)
	publish(t, l, 1, 150)
	read(t, l, 0, 150)
	l = open(t, b) // nothing in memory
	if l.Last() != 150 || l.Revision() != 1150 {
		t.Fatalf("came back at %d, revision %d", l.Last(), l.Revision())
	}
	read(t, l, 77, 150)
	if err := l.maintain(t.Context(), time.Now()); err != nil {
		t.Fatalf("maintain: %v", err)
	}
	if len(l.segments) > mergeCount {
		t.Errorf("%d segments after merging", len(l.segments))
	}
	publish(t, l, 151, 1)
	read(t, l, 3, 151)
	read(t, open(t, b), 149, 151)
}

// TestMergeBrokenOff leaves what a crash between the writing of a merged segment and the deletion of its
// parts leaves.
func TestMergeBrokenOff(t *testing.T) {
	t.Parallel()
	b := newBlob(t)
	l := open(t, b)
	publish(t, l, 1, 70)
	l.blob = undeletable{b}
	if err := l.maintain(t.Context(), time.Now()); err == nil {
		t.Fatal("nothing was to be deleted")
	}
	l = open(t, b)
	read(t, l, 0, 70)
	n := 0
	for range b.List(t.Context(), segmentPrefix, "") {
		n++
	}
	if n != len(l.segments) || n > 6 {
		t.Errorf("%d segments are there, %d are known", n, len(l.segments))
	}
}

type undeletable struct{ blob.Store }

func (undeletable) Delete(context.Context, string) error { return errors.New("the power is gone") }

func TestReaderIsToldWhatItMissed(t *testing.T) {
	t.Parallel()
	l := open(t, newBlob(t))
	publish(t, l, 1, 10)
	l.recent = l.recent[7:]
	r := l.Follow(2)
	if err := l.prune(t.Context(), time.Now().Add(Retention+time.Hour)); err != nil {
		t.Fatalf("prune: %v", err)
	}
	var missed *MissedError
	if _, err := r.Next(t.Context()); !errors.As(err, &missed) || missed.From != 3 || missed.To != 9 {
		// Records 8 and 9 are in memory yet, but a reader that comes to them in order has lost 3 to 7.
		t.Fatalf("error %v, want that 3 to 9 are gone", err)
	}
	records, err := r.Next(t.Context())
	if err != nil || records[0].Seq != 10 {
		t.Fatalf("%+v, %v; want record 10", records, err)
	}
}

func TestReaderWaits(t *testing.T) {
	t.Parallel()
	l := open(t, newBlob(t))
	got := make(chan []Record, 1)
	go func() {
		records, _ := l.Follow(l.Last()).Next(t.Context())
		got <- records
	}()
	publish(t, l, 1, 1)
	if records := <-got; len(records) != 1 || records[0].Seq != 1 {
		t.Errorf("%+v", records)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Follow(l.Last()).Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestFailedAppendLeavesNoGap(t *testing.T) {
	t.Parallel()
	b := newBlob(t)
	l := open(t, b)
	l.blob = full{b}
	if err := l.Publish(t.Context(), event(1)); err == nil {
		t.Fatal("published on a full disk")
	}
	l.blob = b
	publish(t, l, 1, 2)
	read(t, open(t, b), 0, 2)
}

type full struct{ blob.Store }

func (full) Put(context.Context, string, io.Reader, blob.PutOptions) (blob.Info, error) {
	return blob.Info{}, errors.New("no space left on device")
}

// TestRunForgetsAfterAWeek lets eight days pass.
func TestRunForgetsAfterAWeek(t *testing.T) {
	t.Parallel()
	b := newBlob(t)
	synctest.Test(t, func(t *testing.T) {
		l := open(t, b)
		publish(t, l, 1, 5)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		time.Sleep(6 * 24 * time.Hour)
		publish(t, l, 6, 1)
		half := time.Now()
		time.Sleep(2 * 24 * time.Hour)
		synctest.Wait()
		if after := l.Find(half.Add(-time.Minute)); after != 5 {
			t.Errorf("events of two days ago follow %d, want 5", after)
		}
		if firsts := slices.Collect(func(yield func(int64) bool) {
			for _, s := range l.segments {
				yield(s.first)
			}
		}); !slices.Equal(firsts, []int64{6}) {
			t.Errorf("segments beginning with %v are kept, want 6", firsts)
		}
		cancel()
		<-done
	})
}
