package store

import (
	"context"
)

// Change is one step from a snapshot to a later one: one revision, or several folded into one when the
// watcher had fallen behind or the connection to etcd had been lost for long. It may have no rows.
type Change struct {
	Revision int64
	Snapshot *Snapshot // the state after the change
	Rows     []RowChange
	Folded   bool // more than one revision: of a row only the difference is seen, not each step
}

// RowChange is one row's step. Old is nil for a row created, New for a row deleted; else they are the
// table's *T.
type RowChange struct {
	Table string
	Key
	Old, New    any
	ModRevision int64 // 0 when deleted
}

// Change gives the row change's typed values; ok is false when it is of another table.
func (t *Table[T]) Change(c RowChange) (old, new *T, ok bool) {
	if c.Table != t.spec.name {
		return nil, nil, false
	}
	old, _ = c.Old.(*T)
	new, _ = c.New.(*T)
	return old, new, true
}

// The newest changes are kept for watchers to come and fetch. The store knows no watchers: they cost
// it nothing, and cannot stop it.
const (
	keptChanges = 1024
	keptRows    = 8192
)

// changeRing holds the newest changes, at most keptChanges with at most keptRows rows.
type changeRing struct {
	buf   [keptChanges]Change
	first int64 // sequence number of the oldest kept
	next  int64 // sequence number of the next to come
	rows  int
}

func (r *changeRing) push(c Change) {
	r.next = c.Snapshot.seq
	if r.next-r.first == keptChanges {
		r.drop()
	}
	r.buf[r.next%keptChanges] = c
	r.rows += len(c.Rows)
	r.next++
	for r.rows > keptRows && r.next-r.first > 1 {
		r.drop()
	}
}

// drop forgets the oldest change.
func (r *changeRing) drop() {
	old := &r.buf[r.first%keptChanges]
	r.rows -= len(old.Rows)
	*old = Change{}
	r.first++
}

// skip forgets all changes, and has the next one follow the snapshot of that sequence number.
func (r *changeRing) skip(seq int64) {
	for r.first < r.next {
		r.drop()
	}
	r.first, r.next = seq+1, seq+1
}

// at gives the change with that sequence number, if it is still kept.
func (r *changeRing) at(seq int64) (Change, bool) {
	if seq < r.first || seq >= r.next {
		return Change{}, false
	}
	return r.buf[seq%keptChanges], true
}

// Watcher delivers what changed after a snapshot. It belongs to one goroutine; it holds no resources
// but the snapshot it has come to, so it need not be closed.
type Watcher struct {
	store *Store
	ctx   context.Context
	last  *Snapshot
}

// Watch follows the store from a snapshot of this store on: Next gives every change after it, in order,
// each once. The usual start of a loop is
//
//	snap := s.Snapshot()
//	// reconcile against snap
//	w := s.Watch(ctx, snap)
func (s *Store) Watch(ctx context.Context, after *Snapshot) *Watcher {
	return &Watcher{store: s, ctx: ctx, last: after}
}

// Next waits for the next change. It fails when either context ends, or the store stops. A failed Next
// loses nothing: the next call goes on from the same place.
//
// A watcher that is so far behind that its next change is no longer kept gets all that it missed as one
// change with Folded set, computed at its own cost from the two snapshots.
func (w *Watcher) Next(ctx context.Context) (Change, error) {
	s := w.store
	for {
		s.mu.Lock()
		moved := s.moved
		newest := s.Snapshot()
		c, ok := s.changes.at(w.last.seq + 1)
		s.mu.Unlock()
		if !ok && newest.seq > w.last.seq {
			c = Change{Revision: newest.revision, Snapshot: newest, Rows: diff(w.last, newest), Folded: true}
			ok = true
		}
		if ok {
			w.last = c.Snapshot
			return c, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return Change{}, ctx.Err()
		case <-w.ctx.Done():
			return Change{}, w.ctx.Err()
		case <-s.done:
			return Change{}, s.err
		}
	}
}

// Snapshot is what the watcher has come to: the one it started from, or that of the last change.
func (w *Watcher) Snapshot() *Snapshot { return w.last }

// Moved is closed when the store has moved past the watcher's snapshot: for loops that select over
// several sources. It is a new channel after each Next.
func (w *Watcher) Moved() <-chan struct{} {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if w.store.Snapshot().seq > w.last.seq {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return w.store.moved
}
