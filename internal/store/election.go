package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// How long a server's lease outlives the server. The embedded member's lease is revoked when the process
// starts again, and nobody else waits for it: it only has to outlast pauses.
const (
	sessionTTL         = 10 * time.Second
	sessionTTLEmbedded = time.Minute
)

// session is the server's lease: one for all its leaderships and ephemeral rows, kept alive by one
// goroutine. It is made on first use and made anew after it was lost.
type session struct {
	lease clientv3.LeaseID
	ctx   context.Context // ends when the lease is lost
	end   context.CancelFunc
}

type sessionState struct {
	slot    chan struct{} // holds one token: the right to change current
	current *session
}

// serverRow tells which lease a server holds, so that its next process can revoke it.
type serverRow struct {
	Lease int64 `json:"lease"`
}

// electionRow is a candidate. The eldest row of an election, by create revision, leads.
type electionRow struct {
	Server string `json:"server"`
	Value  string `json:"value"`
}

var (
	serverTable   = defineTable[serverRow]("@servers", 1)
	electionTable = defineTable[electionRow]("@elections", 1)
)

// forgetEarlier revokes the lease of an earlier process of this server.
func (s *Store) forgetEarlier(ctx context.Context) error {
	key := Key{ID: s.cfg.ServerID}
	row, ok := serverTable.Get(s.Snapshot(), key)
	if !ok {
		return nil
	}
	rctx, cancel := s.within(ctx, attemptTimeout)
	defer cancel()
	if _, err := s.client.Revoke(rctx, clientv3.LeaseID(row.Value.Lease)); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return s.outcome(ctx, false, fmt.Errorf("store: revoking the lease of this server's earlier process: %w", err))
	}
	_, err := s.wait(ctx, func(snap *Snapshot) bool {
		now, ok := serverTable.Get(snap, key)
		return !ok || now.Value.Lease != row.Value.Lease
	})
	return err
}

// openSession returns the server's session, making it if there is none.
func (s *Store) openSession(ctx context.Context) (*session, error) {
	select {
	case s.session.slot <- struct{}{}:
		defer func() { <-s.session.slot }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.done:
		return nil, s.err
	}
	if se := s.session.current; se != nil && se.ctx.Err() == nil {
		return se, nil
	}
	if s.session.current == nil {
		if _, ok := serverTable.Get(s.Snapshot(), Key{ID: s.cfg.ServerID}); ok {
			s.log.Warn("another process uses this server's ID; its lease is revoked", "server", s.cfg.ServerID)
		}
	}
	if err := s.forgetEarlier(ctx); err != nil {
		return nil, err
	}
	rctx, cancel := s.within(ctx, attemptTimeout)
	defer cancel()
	ttl := sessionTTL
	if s.member != nil {
		ttl = sessionTTLEmbedded
	}
	grant, err := s.client.Grant(rctx, int64(ttl/time.Second))
	if errors.Is(err, rpctypes.ErrNoSpace) {
		s.spaceWanted()
		return nil, ErrNoSpace
	}
	if err != nil {
		return nil, s.outcome(ctx, false, fmt.Errorf("store: getting a lease: %w", err))
	}
	se := &session{lease: grant.ID}
	se.ctx, se.end = context.WithCancel(s.ctx)
	alive, err := s.client.KeepAlive(se.ctx, grant.ID)
	if err != nil {
		se.end()
		return nil, s.outcome(ctx, false, fmt.Errorf("store: keeping the lease alive: %w", err))
	}
	s.spawn(func() {
		for range alive {
		}
		if se.ctx.Err() == nil {
			s.log.Warn("this server's lease is lost; its leaderships end")
		}
		se.end()
	})
	// The row goes first: whatever hangs on the lease can then be found by the next process.
	value, err := serverTable.spec.write(&serverRow{Lease: int64(grant.ID)}, "")
	if err == nil {
		_, err = s.client.Put(rctx, s.etcdKey(rowRef{s.schema.slot(serverTable.spec), Key{ID: s.cfg.ServerID}.path()}),
			string(value), clientv3.WithLease(grant.ID))
	}
	if err != nil {
		se.end()
		return nil, s.outcome(ctx, false, fmt.Errorf("store: registering the lease: %w", err))
	}
	s.session.current = se
	return se, nil
}

// endSession revokes the lease, so that others need not wait for it to expire.
func (s *Store) endSession() {
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	select {
	case s.session.slot <- struct{}{}:
	case <-ctx.Done():
		return
	}
	se := s.session.current
	<-s.session.slot
	if se == nil {
		return
	}
	se.end()
	if _, err := s.client.Revoke(ctx, se.lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.log.Warn("this server's lease could not be given up; it will expire", "error", err)
	}
}

// Leadership is an election won. It lasts until it is resigned, or the server's lease is lost; a
// transaction that Requires it cannot commit a moment longer.
type Leadership struct {
	store    *Store
	ref      rowRef
	key      Key
	revision int64 // create revision of the candidate's row
	session  *session
	done     chan struct{}
}

// Done is closed when the leadership has ended.
func (l *Leadership) Done() <-chan struct{} { return l.done }

// Revision is the revision at which the winner became a candidate: it grows from leader to leader.
func (l *Leadership) Revision() int64 { return l.revision }

func (l *Leadership) lost(snap *Snapshot) bool {
	if l.session.ctx.Err() != nil {
		return true
	}
	e := snap.tables[l.ref.slot].get(l.ref.path)
	return e == nil || e.create != l.revision
}

// Resign gives the leadership to the next candidate.
func (l *Leadership) Resign(ctx context.Context) error {
	_, err := l.store.Update(ctx, func(tx *Tx) error {
		if row, ok := electionTable.Get(tx, l.key); ok && row.CreateRevision == l.revision {
			electionTable.Delete(tx, l.key)
		}
		return nil
	})
	return err
}

// Leader is who leads an election.
type Leader struct {
	Server   string // its Config.ServerID
	Value    string // as given to Campaign, e.g. an address
	Revision int64
}

// Leader tells who leads, as far as the snapshot knows.
func (s *Snapshot) Leader(name string) (Leader, bool) {
	eldest, ok := eldest(s, name)
	if !ok {
		return Leader{}, false
	}
	return Leader{Server: eldest.Value.Server, Value: eldest.Value.Value, Revision: eldest.CreateRevision}, true
}

// Leader tells who leads, as far as the newest snapshot knows.
func (s *Store) Leader(name string) (Leader, bool) { return s.Snapshot().Leader(name) }

func eldest(v View, name string) (first Row[electionRow], ok bool) {
	for row := range electionTable.List(v, Scope{}, escape(name)+"/") {
		if !ok || row.CreateRevision < first.CreateRevision {
			first, ok = row, true
		}
	}
	return first, ok
}

// Campaign stands for election and returns when it is won. The snapshot then includes everything that
// earlier leaders committed under the election. A Store stands at most once at a time for each name.
func (s *Store) Campaign(ctx context.Context, name, value string) (*Leadership, error) {
	for {
		l, err := s.stand(ctx, name, value)
		if err != nil {
			return nil, err
		}
		// Having led and lost the lease in one step counts as lost: stand again.
		snap, err := s.wait(ctx, func(snap *Snapshot) bool {
			first, _ := eldest(snap, name)
			return l.lost(snap) || first.CreateRevision == l.revision
		})
		if err != nil {
			if s.Err() == nil {
				rctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
				defer cancel()
				if err := l.Resign(rctx); err != nil {
					s.log.Warn("a candidacy could not be withdrawn", "election", name, "error", err)
				}
			}
			return nil, err
		}
		if l.lost(snap) {
			continue
		}
		if !s.spawn(func() {
			defer close(l.done)
			s.wait(l.session.ctx, l.lost)
		}) {
			return nil, s.err
		}
		return l, nil
	}
}

// stand puts the candidate's row.
func (s *Store) stand(ctx context.Context, name, value string) (*Leadership, error) {
	if _, err := s.openSession(ctx); err != nil { // also clears away what an earlier session left
		return nil, err
	}
	l := &Leadership{store: s, key: Key{ID: escape(name) + "/" + s.cfg.ServerID}, done: make(chan struct{})}
	l.ref = rowRef{s.schema.slot(electionTable.spec), l.key.path()}
	var tx *Tx
	revision, err := s.Update(ctx, func(t *Tx) error {
		if _, ok := electionTable.Get(t, l.key); ok {
			return fmt.Errorf("store: this server already stands for election %q", name)
		}
		electionTable.PutEphemeral(t, l.key, &electionRow{Server: s.cfg.ServerID, Value: value})
		tx = t
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.revision, l.session = revision, tx.session
	return l, nil
}
