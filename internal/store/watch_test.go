package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// mirror rebuilds a table from changes alone.
type mirror struct {
	rows     map[string]thing
	revision int64
}

func newMirror(snap *Snapshot) *mirror {
	m := &mirror{rows: map[string]thing{}, revision: snap.Revision()}
	for r := range things.All(snap) {
		m.rows[r.Key.String()] = *r.Value
	}
	return m
}

func (m *mirror) apply(c Change) error {
	if c.Revision <= m.revision {
		return fmt.Errorf("revision %d came after %d", c.Revision, m.revision)
	}
	m.revision = c.Revision
	if c.Snapshot.Revision() != c.Revision {
		return fmt.Errorf("the change to %d carries the snapshot of %d", c.Revision, c.Snapshot.Revision())
	}
	for _, row := range c.Rows {
		old, new, ok := things.Change(row)
		if !ok {
			continue
		}
		path := row.Key.String()
		had, was := m.rows[path]
		if (old != nil) != was || old != nil && *old != had {
			return fmt.Errorf("%s: the change's old value is %+v, the mirror has %+v (%v)", path, old, had, was)
		}
		if new == nil {
			delete(m.rows, path)
		} else {
			m.rows[path] = *new
		}
	}
	return m.equals(c.Snapshot)
}

func (m *mirror) equals(snap *Snapshot) error {
	if want := newMirror(snap).rows; !maps.Equal(m.rows, want) {
		return fmt.Errorf("at revision %d the mirror has %v, the snapshot %v", snap.Revision(), m.rows, want)
	}
	return nil
}

func TestWatchOneRevisionAtATime(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		s := open(t, b.cfg(t), things)
		early := s.Snapshot()
		w := s.Watch(t.Context(), early)
		var revs []int64
		for i := range 20 {
			revs = append(revs, update(t, s, func(tx *Tx) {
				things.Put(tx, k("a"), &thing{Count: i})
				things.Put(tx, k(fmt.Sprint(i)), &thing{})
				things.Delete(tx, k(fmt.Sprint(i-3)))
			}))
		}
		late := s.Watch(t.Context(), early)
		for _, w := range []*Watcher{w, late} {
			m := newMirror(early)
			for _, rev := range revs {
				<-w.Moved()
				c, err := w.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if c.Revision != rev || c.Folded {
					t.Errorf("got revision %d (folded %v), want %d", c.Revision, c.Folded, rev)
				}
				if err := m.apply(c); err != nil {
					t.Fatal(err)
				}
			}
			if c, err := w.tryNext(); !errors.Is(err, context.Canceled) {
				t.Errorf("one change too many: %+v, %v", c, err)
			}
		}
	})
}

// bare is a store without etcd behind it.
func bare(tables ...TableDef) *Store {
	sc, err := newSchema(tables)
	if err != nil {
		panic(err)
	}
	s := &Store{schema: sc, moved: make(chan struct{}), done: make(chan struct{}), cancel: func(error) {}}
	s.publishAll(sc.empty())
	return s
}

// publishThings publishes one revision that sets rows; an empty value deletes.
func (s *Store) publishThings(rows map[string]thing) {
	base := s.Snapshot()
	b := &builder{base: base}
	revision := base.revision + 1
	var changes []RowChange
	for id, v := range rows {
		key := k(id)
		if v == (thing{}) {
			if old := b.delete(0, key.path()); old != nil {
				changes = append(changes, rowChange(things.spec, old, nil))
			}
			continue
		}
		e := makeEntry(things.spec, key, key.path(), &v, revision, revision)
		changes = append(changes, rowChange(things.spec, b.put(0, e), e))
	}
	s.publish(Change{Revision: revision, Snapshot: b.build(revision), Rows: changes})
}

// A watcher that does not come for its changes does not hold up the store, and is given what it missed
// as one change that leads to the same state.
func TestSlowWatcherGetsItFolded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := bare(things)
		slow := s.Watch(t.Context(), s.Snapshot())
		fast := s.Watch(t.Context(), s.Snapshot())
		ms, mf := newMirror(s.Snapshot()), newMirror(s.Snapshot())
		seen := 0
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for {
				c, err := fast.Next(ctx)
				if err != nil {
					return
				}
				if err := mf.apply(c); err != nil || c.Folded {
					t.Errorf("the fast watcher: %v, folded %v", err, c.Folded)
				}
				seen++
			}
		}()
		n := keptChanges + 100
		for i := range n {
			s.publishThings(map[string]thing{fmt.Sprint(i % 50): {Count: i + 1}, fmt.Sprint((i + 25) % 50): {}})
			synctest.Wait()
		}
		if seen != n {
			t.Errorf("the fast watcher saw %d changes, want %d", seen, n)
		}
		c, err := slow.Next(t.Context())
		if err != nil || !c.Folded {
			t.Fatalf("the slow watcher got %v, folded %v", err, c.Folded)
		}
		if err := ms.apply(c); err != nil {
			t.Error(err)
		}
		if c.Revision != s.Snapshot().Revision() {
			t.Errorf("folded up to %d, the newest is %d", c.Revision, s.Snapshot().Revision())
		}
		s.publishThings(map[string]thing{"x": {Count: 1}})
		if c, err = slow.Next(t.Context()); err != nil || c.Folded || len(c.Rows) != 1 {
			t.Errorf("after catching up: %+v, %v", c, err)
		}
		synctest.Wait()
		cancel()
		// Large changes are kept in smaller number.
		for range 20 {
			rows := map[string]thing{}
			for i := range keptRows / 10 {
				rows[fmt.Sprint("large", i)] = thing{Count: rand.IntN(1 << 30)}
			}
			s.publishThings(rows)
		}
		if n, rows := s.changes.next-s.changes.first, s.changes.rows; n > 10 || rows > keptRows {
			t.Errorf("%d changes with %d rows are kept", n, rows)
		}
		synctest.Wait()
		s.stop(ErrClosed)
		if _, err := slow.tryNext(); err != nil {
			t.Errorf("what was there before the end is still given: %v", err)
		}
		slow.last = s.Snapshot()
		if _, err := slow.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// Next returns when its context ends, and goes on from the same place afterwards.
func TestWatcherWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := bare(things)
		w := s.Watch(t.Context(), s.Snapshot())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		go func() {
			time.Sleep(time.Second)
			s.publishThings(map[string]thing{"a": {Count: 1}})
		}()
		if c, err := w.Next(t.Context()); err != nil || len(c.Rows) != 1 {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

// When the watch was away for longer than history is kept, all rows are read again, and watchers still
// see every row's difference once.
func TestWatchAfterCompaction(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		s := open(t, b.cfg(t), things)
		update(t, s, func(tx *Tx) {
			for i := range 10 {
				things.Put(tx, k(fmt.Sprint(i)), &thing{Count: i})
			}
		})
		// A second store over the same client, whose watch has not begun.
		s2 := &Store{
			cfg: s.cfg, log: s.log, prefix: s.prefix, schema: s.schema, client: s.client, member: s.member,
			marks: newMarkState(), moved: make(chan struct{}), progress: make(chan struct{}, 1), done: make(chan struct{}),
		}
		s2.ctx, s2.cancel = context.WithCancelCause(t.Context())
		s2.snap.Store(s2.schema.empty())
		if err := s2.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		w, m := s2.Watch(t.Context(), s2.Snapshot()), newMirror(s2.Snapshot())
		same, _ := things.Get(s2.Snapshot(), k("5"))
		var rev int64
		for i := range 5 {
			rev = update(t, s, func(tx *Tx) {
				things.Delete(tx, k(fmt.Sprint(i)))
				things.Put(tx, k("9"), &thing{Count: 100 + i})
				things.Put(tx, k(fmt.Sprint("new", i)), &thing{})
			})
		}
		if _, err := s.client.Compact(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		s2.loops.Go(s2.follow)
		c, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !c.Folded || c.Revision < rev {
			t.Errorf("got revision %d, folded %v", c.Revision, c.Folded)
		}
		if err := m.apply(c); err != nil {
			t.Error(err)
		}
		if now, _ := things.Get(s2.Snapshot(), k("5")); now.Value != same.Value {
			t.Error("a row that did not change was decoded again")
		}
		update(t, s, func(tx *Tx) { things.Put(tx, k("9"), &thing{}) })
		if c, err = w.Next(t.Context()); err != nil || c.Folded || len(c.Rows) != 1 {
			t.Errorf("after that: %+v, %v", c, err)
		}
		s2.stop(ErrClosed)
		s2.loops.Wait()
	})
}

// checkIndex compares an index with the rows it is over.
func checkIndex(snap *Snapshot) error {
	want := map[string][]string{}
	for r := range things.All(snap) {
		if h := r.Value.Host; h != "" {
			want[h] = append(want[h], r.Key.String())
		}
	}
	n := 0
	for h, keys := range want {
		var got []string
		for r := range things.By(snap, "byHost", h) {
			got = append(got, r.Key.String())
		}
		if !slices.Equal(got, keys) {
			return fmt.Errorf("the index has %q for %q, the rows %q", got, h, keys)
		}
		n += len(keys)
	}
	if l := snap.table(things.spec).indexes[0].Len(); l != n {
		return fmt.Errorf("the index has %d entries, the rows make %d", l, n)
	}
	return nil
}

// step is one Update of the random test.
type step struct {
	kind     string
	from, to string
	host     string
}

// run does the step and tells what it read and wrote.
func (o step) run(tx *Tx, sc Scope) (reads map[string]thing, writes map[string]*thing, err error) {
	reads, writes = map[string]thing{}, map[string]*thing{}
	get := func(id string) thing {
		var v thing
		if r, ok := things.Get(tx, K(sc, id)); ok {
			v = *r.Value
		}
		if _, own := writes[id]; !own {
			reads[id] = v
		}
		return v
	}
	put := func(id string, v *thing) {
		writes[id] = v
		if v == nil {
			things.Delete(tx, K(sc, id))
		} else {
			things.Put(tx, K(sc, id), v)
		}
	}
	switch o.kind {
	case "increment", "fail":
		put(o.from, &thing{Name: "x", Count: get(o.from).Count + 1, Host: o.host})
	case "move": // from and to may be the same row
		put(o.from, &thing{Name: "x", Count: get(o.from).Count - 1, Host: o.host})
		put(o.to, &thing{Name: "x", Count: get(o.to).Count + 1, Host: o.host})
	case "delete":
		if get(o.from) != (thing{}) {
			put(o.from, nil)
		}
	case "put":
		put(o.to, &thing{Name: "x", Count: 1000, Host: o.host})
	}
	if o.kind == "fail" {
		return nil, nil, errBoom
	}
	return reads, writes, nil
}

var errBoom = errors.New("boom")

// Writers and watchers at random. In the order of revisions every commit must have read what the commits
// before it left, which makes the history serial; the store must end with what it comes to; and every
// watcher must be able to rebuild each snapshot from the changes alone.
func TestRandomWritersAndWatchers(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		s := open(t, b.cfg(t), things)
		round := 0
		rapid.Check(t, func(rt *rapid.T) {
			round++
			sc := Scope{fmt.Sprint("round", round), "r"}
			id := rapid.StringMatching(`[a-c](/[ab])?`)
			steps := rapid.Custom(func(rt *rapid.T) step {
				return step{
					kind: rapid.SampledFrom([]string{"increment", "move", "delete", "put", "fail"}).Draw(rt, "kind"),
					from: id.Draw(rt, "from"), to: id.Draw(rt, "to"),
					host: rapid.SampledFrom([]string{"", "h1", "h2", "h1\x00", "h1\x00\x01x"}).Draw(rt, "host"),
				}
			})
			writers := rapid.SliceOfN(rapid.SliceOfN(steps, 1, 8), 1, 4).Draw(rt, "writers")

			type commit struct {
				reads  map[string]thing
				writes map[string]*thing
			}
			var (
				mu      sync.Mutex
				errs    []error
				history = map[int64]commit{}
			)
			report := func(format string, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf(format, args...))
			}
			start := s.Snapshot()
			var watchers, wg sync.WaitGroup
			for range 2 {
				watchers.Go(func() {
					m := newMirror(start)
					w := s.Watch(context.Background(), start)
					for {
						c, err := w.Next(context.Background())
						if err == nil {
							err = m.apply(c)
						}
						if err == nil {
							err = checkIndex(c.Snapshot)
						}
						if err != nil {
							report("watching: %w", err)
							return
						}
						if _, ok := things.Get(c.Snapshot, K(sc, "end")); ok {
							return
						}
					}
				})
			}
			for _, steps := range writers {
				wg.Go(func() {
					for _, o := range steps {
						var c commit
						rev, err := s.Update(context.Background(), func(tx *Tx) (err error) {
							c.reads, c.writes, err = o.run(tx, sc)
							return err
						})
						if o.kind == "fail" && err != errBoom || o.kind != "fail" && err != nil {
							report("%s: %v", o.kind, err)
						}
						if err != nil || len(c.writes) == 0 {
							continue
						}
						if got := s.Snapshot().Revision(); got < rev {
							report("Update returned %d with the snapshot at %d", rev, got)
						}
						mu.Lock()
						if _, twice := history[rev]; twice {
							errs = append(errs, fmt.Errorf("two commits at revision %d", rev))
						}
						history[rev] = c
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			got := map[string]thing{}
			for r := range things.List(s.Snapshot(), sc, "") {
				got[r.ID] = *r.Value
			}
			update(t, s, func(tx *Tx) { things.Put(tx, K(sc, "end"), &thing{}) })
			watchers.Wait()

			model := map[string]thing{}
			for _, rev := range slices.Sorted(maps.Keys(history)) {
				for id, v := range history[rev].reads {
					if model[id] != v {
						rt.Errorf("revision %d read %+v at %s, where the commits before it left %+v", rev, v, id, model[id])
					}
				}
				for id, v := range history[rev].writes {
					if v == nil {
						delete(model, id)
					} else {
						model[id] = *v
					}
				}
			}
			if !maps.Equal(got, model) {
				rt.Errorf("the store has %v, the model %v", got, model)
			}
			for _, err := range errs {
				rt.Error(err)
			}
		})
	})
}
