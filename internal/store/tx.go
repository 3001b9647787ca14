package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berthhq/berth/internal/failpoint"
)

// The limits of a transaction. etcd's own are 128 operations and 1.5 MiB.
const (
	MaxOps   = 128     // distinct rows got, put or deleted, plus required leaderships
	MaxBytes = 1 << 20 // keys and encoded values
)

const (
	maxAttempts    = 500              // of running an Update's function
	queueAfter     = 2                // conflicts after which attempts of this process take turns
	starvingAfter  = 8                // conflicts after which all others of this process queue behind
	attemptTimeout = 10 * time.Second // of one request to etcd
)

// Tx is one attempt of an Update: the snapshot it started from, and what is to be written. It is used by
// the function it is given to, and no longer.
type Tx struct {
	store    *Store
	base     *Snapshot
	mark     string
	guards   map[rowRef]int64 // mod revision the row must still have; 0: absent
	writes   map[rowRef]*write
	order    []*write
	required []*Leadership
	session  *session  // that the ephemeral rows were last sent with
	overlay  *Snapshot // base with the first overlaid writes applied; for lists
	overlaid int
	bytes    int
	over     bool
	err      error
}

type rowRef struct {
	slot int
	path string
}

type write struct {
	rowRef
	key       Key
	val       any // nil: delete
	value     []byte
	ephemeral bool
	decoded   atomic.Pointer[entry] // ahead of the commit's coming back
}

// Snapshot is what the attempt started from. Reading through it guards nothing and does not see the
// transaction's own writes.
func (tx *Tx) Snapshot() *Snapshot { return tx.base }

// Require makes the commit conditional on the leadership: Update returns ErrNotLeader if it is lost.
func (tx *Tx) Require(l *Leadership) {
	tx.required = append(tx.required, l)
}

func (tx *Tx) alive() {
	if tx.over {
		panic("store: a Tx was used after its Update function had returned")
	}
}

func (tx *Tx) get(spec *tableSpec, path string) *entry {
	tx.alive()
	ref := rowRef{tx.base.schema.slot(spec), path}
	if w := tx.writes[ref]; w != nil {
		if w.val == nil {
			return nil
		}
		return &entry{key: w.key, path: path, val: w.val}
	}
	e := tx.base.tables[ref.slot].get(path)
	tx.guard(ref, e)
	return e
}

func (tx *Tx) guard(ref rowRef, e *entry) {
	if _, ok := tx.guards[ref]; ok {
		return
	}
	if tx.guards == nil {
		tx.guards = map[rowRef]int64{}
	}
	var mod int64
	if e != nil {
		mod = e.mod
	}
	tx.guards[ref] = mod
	tx.bytes += len(ref.path)
}

func (tx *Tx) table(spec *tableSpec) *tableState {
	tx.alive()
	if tx.overlay == nil {
		tx.overlay = tx.base
	}
	if tx.overlaid < len(tx.order) {
		b := &builder{base: tx.overlay}
		for _, w := range tx.order[tx.overlaid:] {
			if w.val == nil {
				b.delete(w.slot, w.path)
			} else {
				b.put(w.slot, makeEntry(tx.base.schema.specs[w.slot], w.key, w.path, w.val, 0, 0))
			}
		}
		tx.overlay, tx.overlaid = b.build(tx.base.revision), len(tx.order)
	}
	return tx.overlay.tables[tx.base.schema.slot(spec)]
}

func (tx *Tx) write(spec *tableSpec, k Key, val any, ephemeral bool) {
	tx.alive()
	if err := k.validate(); err != nil {
		tx.fail(fmt.Errorf("%w (table %s)", err, spec.name))
		return
	}
	ref := rowRef{tx.base.schema.slot(spec), k.path()}
	before := tx.base.tables[ref.slot].get(ref.path)
	tx.guard(ref, before)
	w := &write{rowRef: ref, key: k, val: val, ephemeral: ephemeral}
	if val != nil {
		var err error
		if w.value, err = spec.write(val, tx.mark); err != nil {
			tx.fail(fmt.Errorf("store: encoding row %s of table %s: %w", ref.path, spec.name, err))
			return
		}
	}
	tx.bytes += len(w.value)
	if earlier := tx.writes[ref]; earlier != nil {
		tx.bytes -= len(earlier.value)
	}
	if tx.writes == nil {
		tx.writes = map[rowRef]*write{}
	}
	tx.writes[ref] = w
	tx.order = append(tx.order, w)
}

func (tx *Tx) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// Put inserts or replaces a row. The value is encoded at once; it must not be changed afterwards as long
// as the transaction is read from. Every Put guards its row: it replaces what the snapshot has, or the
// function runs again.
func (t *Table[T]) Put(tx *Tx, k Key, v *T) { tx.write(t.spec, k, notNil(t.spec, v), false) }

// PutEphemeral is Put of a row that lasts as long as this server: it is deleted when the Store is closed,
// when a process of the same ServerID opens the store again, or some ten seconds after the server is gone
// (a minute, when embedded). A later Put makes the row permanent.
func (t *Table[T]) PutEphemeral(tx *Tx, k Key, v *T) { tx.write(t.spec, k, notNil(t.spec, v), true) }

func notNil[T any](spec *tableSpec, v *T) any {
	if v == nil {
		panic("store: Put of a nil " + reflect.TypeFor[T]().String() + " to table " + spec.name)
	}
	return v
}

// Delete deletes a row. That it is not there is no error, but is guarded.
func (t *Table[T]) Delete(tx *Tx, k Key) { tx.write(t.spec, k, nil, false) }

// Update runs fn on the newest snapshot and commits what it wrote, all or nothing. It returns the commit's
// revision when the local snapshot includes it.
//
// The commit takes place only if every row that fn got, put or deleted through the Tx is still as it was
// in the snapshot; else the snapshot catches up and fn runs again: it must have no effects but on its Tx
// and variables that it sets anew, and must not call Update. An error from fn ends the Update; nothing is written. An Update that
// writes nothing does no I/O and returns the snapshot's revision.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) (revision int64, err error) {
	queued := false
	defer func() {
		if queued {
			s.starving.Store(false)
			<-s.turn
		}
	}()
	for attempt := range maxAttempts {
		if err := s.Err(); err != nil {
			return 0, err
		}
		if !queued && (attempt >= queueAfter || s.starving.Load()) {
			select {
			case s.turn <- struct{}{}:
				queued = true
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-s.done:
				return 0, s.err
			}
		}
		if queued && attempt == starvingAfter {
			s.starving.Store(true)
		}
		tx := &Tx{store: s, base: s.Snapshot(), mark: s.marks.next()}
		err := fn(tx)
		tx.over = true
		if err == nil {
			err = tx.err
		}
		if err != nil {
			return 0, err
		}
		if len(tx.writes) == 0 {
			return tx.base.revision, nil
		}
		revision, err := s.commit(ctx, tx)
		if err != errConflict {
			return revision, err
		}
		// The row that stood in the way is on its way to us.
		if err := s.awaitConflict(ctx, tx); err != nil {
			return 0, err
		}
		// Other processes do not take turns; chance decides. Waiting long would only let others win.
		if attempt > queueAfter {
			if err := sleep(ctx, rand.N(2*time.Millisecond)); err != nil {
				return 0, err
			}
		}
	}
	return 0, ErrConflict
}

var errConflict = errors.New("conflict")

// commit sends the transaction until it has a definite answer.
func (s *Store) commit(ctx context.Context, tx *Tx) (revision int64, err error) {
	if n := len(tx.guards) + len(tx.required); n > MaxOps || tx.bytes > MaxBytes {
		return 0, &TooLargeError{Ops: n, Bytes: tx.bytes}
	}
	for _, l := range tx.required {
		if l.lost(tx.base) {
			return 0, ErrNotLeader
		}
	}
	p := s.marks.add(tx)
	defer s.marks.remove(tx)
	if len(tx.writes) >= decodeAhead {
		go p.decode(s.schema)
	}
	unsure, spaceTries := false, 0
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		ops, err := s.operations(ctx, tx)
		if err != nil {
			return 0, s.outcome(ctx, unsure, err)
		}
		if len(ops) == 0 { // deletes of rows that are not there
			return tx.base.revision, nil
		}
		failpoint.Hit("store/commit/before")
		resp, err := s.send(ctx, tx, ops)
		failpoint.Hit("store/commit/after")
		switch {
		case err == nil && resp.Succeeded:
			return s.awaitCommit(ctx, resp.Header.Revision)
		case err == nil:
			if unsure {
				if revision, err := s.settle(ctx, p, resp.Header.Revision); revision != 0 || err != nil {
					return revision, err
				}
			}
			for i, l := range tx.required {
				r := resp.Responses[i].GetResponseRange()
				if len(r.Kvs) == 0 || r.Kvs[0].CreateRevision != l.revision {
					return 0, ErrNotLeader
				}
			}
			return 0, errConflict
		case errors.Is(err, rpctypes.ErrNoSpace):
			// etcd applies the transaction that crosses the quota, and refuses it all the same.
			unsure = true
			if spaceTries++; s.member == nil || spaceTries > 2 {
				return s.settleNoSpace(ctx, p)
			}
			// Often it is only history that takes the space.
			if err := s.awaitSpace(ctx); err != nil {
				return 0, s.outcome(ctx, unsure, err)
			}
			continue
		case errors.Is(err, rpctypes.ErrLeaseNotFound) && tx.session != nil:
			tx.session.end()
		case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
			return 0, &TooLargeError{Ops: len(tx.guards), Bytes: tx.bytes}
		case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrAuthFailed):
			return 0, fmt.Errorf("store: committing: %w", err)
		default:
			// The answer is lost. Sending the same again is safe: the first to commit changes the revisions
			// that the other compares.
			unsure = true
			if s.Err() == nil && ctx.Err() == nil {
				s.log.Warn("a commit got no answer; sending it again", "error", err)
			}
		}
		if err := sleep(ctx, delay); err != nil {
			return 0, s.outcome(ctx, unsure, err)
		}
		if s.Err() != nil {
			return 0, s.outcome(ctx, unsure, s.err)
		}
	}
}

func (s *Store) outcome(ctx context.Context, unsure bool, err error) error {
	if s.Err() != nil {
		err = s.err
	} else if ctx.Err() != nil {
		err = ctx.Err()
	}
	if unsure {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return err
}

// operations makes the request's writes, in the order of the function's.
func (s *Store) operations(ctx context.Context, tx *Tx) (ops []clientv3.Op, err error) {
	tx.session = nil
	for _, w := range tx.order {
		if tx.writes[w.rowRef] != w {
			continue // written again later
		}
		key := s.etcdKey(w.rowRef)
		switch {
		case w.val == nil && tx.guards[w.rowRef] == 0:
		case w.val == nil:
			ops = append(ops, clientv3.OpDelete(key))
		case w.ephemeral:
			if tx.session == nil {
				if tx.session, err = s.openSession(ctx); err != nil {
					return nil, err
				}
			}
			ops = append(ops, clientv3.OpPut(key, string(w.value), clientv3.WithLease(tx.session.lease)))
		default:
			ops = append(ops, clientv3.OpPut(key, string(w.value)))
		}
	}
	return ops, nil
}

func (s *Store) send(ctx context.Context, tx *Tx, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := s.within(ctx, attemptTimeout)
	defer cancel()
	cmps := make([]clientv3.Cmp, 0, len(tx.guards)+len(tx.required))
	for ref, mod := range tx.guards {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(s.etcdKey(ref)), "=", mod))
	}
	var otherwise []clientv3.Op
	for _, l := range tx.required {
		key := s.etcdKey(l.ref)
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(key), "=", l.revision))
		otherwise = append(otherwise, clientv3.OpGet(key, clientv3.WithKeysOnly()))
	}
	return s.client.Txn(ctx).If(cmps...).Then(ops...).Else(otherwise...).Commit()
}

// within bounds a context by a timeout and by the store's own life.
func (s *Store) within(ctx context.Context, timeout time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

func (s *Store) etcdKey(ref rowRef) string {
	var b strings.Builder
	name := s.schema.specs[ref.slot].name
	b.Grow(len(s.prefix) + len(name) + 1 + len(ref.path))
	b.WriteString(s.prefix)
	b.WriteString(name)
	b.WriteByte('/')
	b.WriteString(ref.path)
	return b.String()
}

// awaitCommit returns when the snapshot includes the revision.
func (s *Store) awaitCommit(ctx context.Context, revision int64) (int64, error) {
	if _, err := s.wait(ctx, func(snap *Snapshot) bool { return snap.revision >= revision }); err != nil {
		return revision, fmt.Errorf("store: committed at revision %d, but waiting for the snapshot to have it: %w", revision, err)
	}
	return revision, nil
}

// awaitConflict returns when the snapshot shows a reason for the conflict. Comparisons are by revisions,
// which never come back, so there is one and it is in the watch.
func (s *Store) awaitConflict(ctx context.Context, tx *Tx) error {
	_, err := s.wait(ctx, func(snap *Snapshot) bool {
		if snap.seq == tx.base.seq {
			return false
		}
		for ref, mod := range tx.guards {
			var now int64
			if e := snap.tables[ref.slot].get(ref.path); e != nil {
				now = e.mod
			}
			if now != mod {
				return true
			}
		}
		return false
	})
	return err
}

// settle finds out, after an answer was lost and the repetition met a conflict, whether the conflict is
// the first copy's commit. By the time the watch has passed the repetition's revision it has seen the
// commit's mark, if there is one. Zero and nil: it did not commit.
func (s *Store) settle(ctx context.Context, p *pending, revision int64) (int64, error) {
	ask := time.NewTicker(100 * time.Millisecond)
	defer ask.Stop()
	for {
		s.mu.Lock()
		moved := s.moved
		s.mu.Unlock()
		if r := p.committed.Load(); r != 0 {
			return s.awaitCommit(ctx, r)
		}
		if s.Snapshot().revision >= revision {
			if !p.markable || s.folds.Load() != p.folds {
				return 0, ErrUnknownOutcome // the mark may have passed unseen
			}
			return 0, nil
		}
		select {
		case <-moved:
		case <-ask.C:
			s.askProgress()
		case <-s.done:
			return 0, s.outcome(ctx, true, s.err)
		case <-ctx.Done():
			return 0, s.outcome(ctx, true, ctx.Err())
		}
	}
}

func (s *Store) askProgress() {
	select {
	case s.progress <- struct{}{}:
	default:
	}
}

// settleNoSpace finds out whether a transaction refused for want of space was the one that crossed the quota.
func (s *Store) settleNoSpace(ctx context.Context, p *pending) (int64, error) {
	newest, err := s.newestRevision(ctx)
	if err != nil {
		return 0, s.outcome(ctx, true, err)
	}
	if revision, err := s.settle(ctx, p, newest); revision != 0 || err != nil {
		return revision, err
	}
	return 0, ErrNoSpace
}

// newestRevision asks etcd, not the snapshot.
func (s *Store) newestRevision(ctx context.Context) (int64, error) {
	rctx, cancel := s.within(ctx, attemptTimeout)
	defer cancel()
	resp, err := s.client.Get(rctx, s.prefix+metaTable.spec.name+"/"+Key{ID: "format"}.path(), clientv3.WithKeysOnly())
	if err != nil {
		return 0, fmt.Errorf("store: asking for the newest revision: %w", err)
	}
	return resp.Header.Revision, nil
}

// Sync returns when the local snapshot includes everything that any server had committed when Sync was
// called.
func (s *Store) Sync(ctx context.Context) error {
	newest, err := s.newestRevision(ctx)
	if err != nil {
		return s.outcome(ctx, false, err)
	}
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	for {
		s.mu.Lock()
		moved := s.moved
		s.mu.Unlock()
		if s.Snapshot().revision >= newest {
			return nil
		}
		select {
		case <-moved:
		case <-ask.C:
			s.askProgress()
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
