package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

type thing struct {
	Name  string
	Host  string
	Count int
}

var things = DefineTable[thing]("things", 1,
	Index("byHost", func(_ Key, t *thing) []string {
		if t.Host == "" {
			return nil
		}
		return []string{t.Host}
	}))

var scope = Scope{"123456789012", "us-east-1"}

func k(id string) Key { return K(scope, id) }

// update is Update that must succeed.
func update(t *testing.T, s *Store, f func(tx *Tx)) int64 {
	t.Helper()
	rev, err := s.Update(context.Background(), func(tx *Tx) error { f(tx); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func ids(rows func(func(Row[thing]) bool)) []string {
	var out []string
	for r := range rows {
		out = append(out, r.ID)
	}
	return out
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestReadWrite(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		cfg := b.cfg(t)
		s := open(t, cfg, things)
		before := s.Snapshot()
		rev := update(t, s, func(tx *Tx) {
			for _, id := range []string{"b/2", "a/1", "b/1", "c%/3", "b"} {
				things.Put(tx, k(id), &thing{Name: id, Host: "h" + id[:1]})
			}
			things.Put(tx, K(Scope{"123/%456", "eu"}, "a/1"), &thing{Name: "elsewhere", Host: "hb"})
			things.Put(tx, Key{ID: "nowhere"}, &thing{})
		})
		snap := s.Snapshot()
		if snap.Revision() < rev {
			t.Errorf("the snapshot is of %d after a commit at %d", snap.Revision(), rev)
		}
		r, ok := things.Get(snap, k("b/1"))
		if !ok || r.Value.Name != "b/1" || r.ModRevision != rev || r.CreateRevision != rev || r.Key != k("b/1") {
			t.Errorf("Get: %+v, %v", r, ok)
		}
		equal(t, "List", ids(things.List(snap, scope, "")), []string{"a/1", "b", "b/1", "b/2", "c%/3"})
		equal(t, "List of a prefix", ids(things.List(snap, scope, "b/")), []string{"b/1", "b/2"})
		equal(t, "ListFrom", ids(things.ListFrom(snap, scope, "b/", "b/2")), []string{"b/2"})
		equal(t, "ListFrom before the prefix", ids(things.ListFrom(snap, scope, "b/", "a")), []string{"b/1", "b/2"})
		equal(t, "ListFrom after the prefix", ids(things.ListFrom(snap, scope, "b/", "c")), nil)
		equal(t, "List of an odd scope", ids(things.List(snap, Scope{"123/%456", "eu"}, "")), []string{"a/1"})
		equal(t, "List without scope", ids(things.List(snap, Scope{}, "")), []string{"nowhere"})
		equal(t, "By", ids(things.By(snap, "byHost", "hb")), []string{"a/1", "b", "b/1", "b/2"})
		equal(t, "By of a value's prefix", ids(things.By(snap, "byHost", "h")), nil)
		if n, m, l := things.Len(snap), things.Count(snap, scope, "b"), things.CountBy(snap, "byHost", "hb"); n != 7 || m != 3 || l != 4 {
			t.Errorf("Len, Count, CountBy: %d, %d, %d", n, m, l)
		}
		if things.Len(before) != 0 {
			t.Error("an old snapshot changed")
		}

		rev2 := update(t, s, func(tx *Tx) {
			things.Put(tx, k("b/1"), &thing{Host: "hx"})
			things.Delete(tx, k("b/2"))
			things.Delete(tx, k("not there"))
		})
		r, _ = things.Get(s.Snapshot(), k("b/1"))
		if r.CreateRevision != rev || r.ModRevision != rev2 {
			t.Errorf("after a second Put: %+v", r)
		}
		equal(t, "By after a change", ids(things.By(s.Snapshot(), "byHost", "hb")), []string{"a/1", "b"})
		equal(t, "By of the new value", ids(things.By(s.Snapshot(), "byHost", "hx")), []string{"b/1"})
		equal(t, "the snapshot before", ids(things.By(snap, "byHost", "hb")), []string{"a/1", "b", "b/1", "b/2"})

		// A store opened again is the same store.
		id, want := s.InstanceID(), maps.Collect(byPath(s.Snapshot()))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Update(t.Context(), func(tx *Tx) error { things.Delete(tx, k("b")); return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("Update after Close: %v", err)
		}
		s = open(t, cfg, things)
		if s.InstanceID() != id || id == "" {
			t.Errorf("instance %q became %q", id, s.InstanceID())
		}
		if got := maps.Collect(byPath(s.Snapshot())); !maps.Equal(got, want) {
			t.Errorf("opened again: got %v, want %v", got, want)
		}
	})
}

// byPath gives all things with their revisions, for comparing.
func byPath(v View) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for r := range things.All(v) {
			if !yield(r.Key.String(), fmt.Sprint(*r.Value, r.CreateRevision, r.ModRevision)) {
				return
			}
		}
	}
}

func TestTxSeesItsOwnWrites(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		s := open(t, b.cfg(t), things)
		update(t, s, func(tx *Tx) {
			things.Put(tx, k("a"), &thing{Host: "1"})
			things.Put(tx, k("b"), &thing{Host: "1"})
		})
		seq := s.Snapshot().seq
		update(t, s, func(tx *Tx) {
			things.Delete(tx, k("a"))
			equal(t, "List", ids(things.List(tx, scope, "")), []string{"b"})
			things.Put(tx, k("c"), &thing{Host: "1"})
			things.Put(tx, k("b"), &thing{Host: "2"})
			if _, ok := things.Get(tx, k("a")); ok {
				t.Error("a deleted row is there")
			}
			if r, ok := things.Get(tx, k("b")); !ok || r.Value.Host != "2" {
				t.Errorf("b is %+v", r)
			}
			equal(t, "By", ids(things.By(tx, "byHost", "1")), []string{"c"})
			equal(t, "All", ids(things.All(tx)), []string{"b", "c"})
			things.Put(tx, k("b"), &thing{Host: "1"})
			equal(t, "By", ids(things.By(tx, "byHost", "1")), []string{"b", "c"})
			equal(t, "the snapshot", ids(things.All(tx.Snapshot())), []string{"a", "b"})
		})
		if c, err := s.Watch(t.Context(), s.Snapshot()).tryNext(); err == nil {
			t.Errorf("more changes than commits: %+v", c)
		}
		if got := s.Snapshot().seq; got != seq+1 {
			t.Errorf("%d changes, want one", got-seq)
		}

		// Nothing is written by a failed function, a reading one, or the deletion of nothing.
		rev := s.Snapshot().Revision()
		boom := errors.New("boom")
		if _, err := s.Update(t.Context(), func(tx *Tx) error { things.Delete(tx, k("b")); return boom }); err != boom {
			t.Errorf("got %v", err)
		}
		if got := update(t, s, func(tx *Tx) { things.Get(tx, k("b")) }); got != rev {
			t.Errorf("reading: revision %d, want %d", got, rev)
		}
		if got := update(t, s, func(tx *Tx) { things.Delete(tx, k("nothing")) }); got != rev {
			t.Errorf("deleting nothing: revision %d, want %d", got, rev)
		}
		if _, err := s.Update(t.Context(), func(tx *Tx) error { things.Put(tx, Key{}, &thing{}); return nil }); err == nil {
			t.Error("a row without ID was put")
		}
		var kept *Tx
		update(t, s, func(tx *Tx) { kept = tx })
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a Tx outlived its function")
				}
			}()
			things.Put(kept, k("late"), &thing{})
		}()
	})
}

func (w *Watcher) tryNext() (Change, error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return w.Next(ctx)
}

func TestNoLostUpdates(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		cfg := b.cfg(t)
		stores := []*Store{open(t, cfg, things)}
		if len(cfg.Endpoints) > 0 {
			stores = append(stores, open(t, cfg, things))
		}
		const writers, times = 8, 12
		var wg sync.WaitGroup
		for w := range writers {
			s := stores[w%len(stores)]
			wg.Go(func() {
				for range times {
					if _, err := s.Update(context.Background(), func(tx *Tx) error {
						r, ok := things.Get(tx, k("counter"))
						v := thing{}
						if ok {
							v = *r.Value
						}
						v.Count++
						things.Put(tx, k("counter"), &v)
						return nil
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for _, s := range stores {
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r, _ := things.Get(s.Snapshot(), k("counter")); r.Value.Count != writers*times {
				t.Errorf("the counter is %d, want %d", r.Value.Count, writers*times)
			}
		}
	})
}

// A row that was only read guards the commit: of two transactions that each read what the other
// writes, one runs again.
func TestReadsAreGuarded(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		s := open(t, b.cfg(t), things)
		update(t, s, func(tx *Tx) { things.Put(tx, k("a"), &thing{}); things.Put(tx, k("b"), &thing{}) })
		for _, id := range []string{"a", "absent"} {
			runs := 0
			update(t, s, func(tx *Tx) {
				runs++
				r, _ := things.Get(tx, k(id))
				if runs == 1 {
					update(t, s, func(tx *Tx) { things.Put(tx, k(id), &thing{Count: 7}) })
				} else if r.Value == nil || r.Value.Count != 7 {
					t.Errorf("%s: the second run reads %+v", id, r)
				}
				things.Put(tx, k("b"), &thing{})
			})
			if runs != 2 {
				t.Errorf("%s: %d runs, want 2", id, runs)
			}
		}
		// What is read through the snapshot is not guarded.
		runs := 0
		update(t, s, func(tx *Tx) {
			runs++
			things.Get(tx.Snapshot(), k("a"))
			update(t, s, func(tx *Tx) { things.Put(tx, k("a"), &thing{}) })
			things.Put(tx, k("b"), &thing{})
		})
		if runs != 1 {
			t.Errorf("unguarded: %d runs, want 1", runs)
		}
		// A function that always meets a conflict ends with its context.
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := s.Update(ctx, func(tx *Tx) error {
			putRaw(t, s, "things", k("a").path(), `{"v":1,"d":{}}`)
			things.Put(tx, k("a"), &thing{})
			return nil
		})
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrConflict) {
			t.Errorf("endless conflict: %v", err)
		}
	})
}

func TestLimits(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		s := open(t, b.cfg(t), things)
		update(t, s, func(tx *Tx) {
			for i := range MaxOps {
				things.Put(tx, k(fmt.Sprint(i)), &thing{})
			}
		})
		update(t, s, func(tx *Tx) { things.Put(tx, k("large"), &thing{Name: strings.Repeat("x", MaxBytes-4096)}) })
		rev := s.Snapshot().Revision()
		for name, f := range map[string]func(*Tx) error{
			"operations": func(tx *Tx) error {
				for i := range MaxOps {
					things.Get(tx, k(fmt.Sprint(i)))
				}
				things.Put(tx, k("one more"), &thing{})
				return nil
			},
			"bytes": func(tx *Tx) error {
				things.Put(tx, k("larger"), &thing{Name: strings.Repeat("x", MaxBytes)})
				return nil
			},
		} {
			_, err := s.Update(t.Context(), f)
			var tooLarge *TooLargeError
			if !errors.As(err, &tooLarge) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if s.Snapshot().Revision() != rev {
			t.Error("something was written")
		}
	})
}

func TestElection(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		cfg := b.cfg(t)
		cfg.ServerID = "one"
		s := open(t, cfg, things)
		if _, ok := s.Leader("placer"); ok {
			t.Error("a leader before any election")
		}
		l, err := s.Campaign(t.Context(), "placer", "addr:1")
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := s.Leader("placer"); !ok || got != (Leader{"one", "addr:1", l.Revision()}) {
			t.Errorf("the leader is %+v, %v", got, ok)
		}
		if _, err := s.Campaign(t.Context(), "placer", "again"); err == nil {
			t.Error("one store stands twice")
		}
		other, err := s.Campaign(t.Context(), "placer/other", "")
		if err != nil {
			t.Fatal(err)
		}
		write := func(s *Store, l *Leadership) error {
			_, err := s.Update(t.Context(), func(tx *Tx) error {
				tx.Require(l)
				things.Put(tx, k("x"), &thing{})
				return nil
			})
			return err
		}
		if err := write(s, l); err != nil {
			t.Error(err)
		}
		if err := l.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-l.Done()
		if err := write(s, l); !errors.Is(err, ErrNotLeader) {
			t.Errorf("writing after resigning: %v", err)
		}
		if err := l.Resign(t.Context()); err != nil {
			t.Errorf("resigning twice: %v", err)
		}
		if err := write(s, other); err != nil {
			t.Error(err)
		}
		again, err := s.Campaign(t.Context(), "placer", "addr:2")
		if err != nil {
			t.Fatal(err)
		}
		if again.Revision() <= l.Revision() {
			t.Error("leaders' revisions do not grow")
		}
		if err := write(s, l); !errors.Is(err, ErrNotLeader) {
			t.Errorf("writing as an earlier leader: %v", err)
		}
		update(t, s, func(tx *Tx) { things.PutEphemeral(tx, k("mine"), &thing{}) })
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		<-again.Done()
		s = open(t, cfg, things)
		if _, ok := things.Get(s.Snapshot(), k("mine")); ok {
			t.Error("an ephemeral row outlived its store")
		}
		if got, ok := s.Leader("placer"); ok {
			t.Errorf("a leader outlived its store: %+v", got)
		}
	})
}

func TestContextEnds(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		s := open(t, b.cfg(t), things)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Update(ctx, func(tx *Tx) error { things.Put(tx, k("a"), &thing{}); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Update: %v", err)
		}
		if _, err := s.Watch(ctx, s.Snapshot()).Next(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("Next: %v", err)
		}
		if _, err := s.Campaign(ctx, "x", ""); !errors.Is(err, context.Canceled) {
			t.Errorf("Campaign: %v", err)
		}
		if err := s.Sync(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Sync: %v", err)
		}
		// The name is free again.
		if _, err := s.Campaign(t.Context(), "x", ""); err != nil {
			t.Error(err)
		}
	})
}

func TestOneProcessADirectory(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Logger: testLog(t)}
	s := open(t, cfg)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	s.Close()
	open(t, cfg)
}

func TestNothingLeaksAndNothingListens(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	before := listeners(t)
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), Logger: testLog(t)}, things)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Campaign(t.Context(), "x", ""); err != nil {
		t.Fatal(err)
	}
	if now := listeners(t); now > before {
		t.Errorf("the embedded member opened %d listening sockets", now-before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, leaks)
}
