package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	maintainEvery = 10 * time.Second
	keepHistory   = 5 * time.Minute // how old revisions may become

	// How many revisions there may be. A watch that was away for longer reads all rows again; that of the
	// embedded member is never away.
	keepRevisions         = 10_000
	keepRevisionsEmbedded = 1_000

	defragAbove = 64 << 20 // bytes of database file below which it is left as it is

	spacePause = 500 * time.Millisecond // between attempts to make space that did not
)

// spaceWanted asks for space: a writer met the quota.
func (s *Store) spaceWanted() {
	select {
	case s.space <- struct{}{}:
	default:
	}
}

// awaitSpace asks for space and returns when it was tried.
func (s *Store) awaitSpace(ctx context.Context) error {
	s.mu.Lock()
	tried := s.spaceTried
	s.mu.Unlock()
	s.spaceWanted()
	select {
	case <-tried:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return s.err
	}
}

// maintain compacts history, of any kind of store, and defragments the embedded one's file.
func (s *Store) maintain() {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	h := history{keep: keepRevisions}
	if s.member != nil {
		h.keep = keepRevisionsEmbedded
		if len(s.member.server.Alarms()) > 0 {
			s.spaceWanted() // the alarm outlives the process
		}
	}
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			if to := h.due(now, s.Snapshot().revision); to > 0 {
				s.compact(to)
			}
			if s.member != nil {
				s.defragment()
			}
		case <-s.space:
			if s.member == nil {
				continue // making room in a cluster is for those who run it
			}
			made := s.makeSpace()
			s.mu.Lock()
			close(s.spaceTried)
			s.spaceTried = make(chan struct{})
			s.mu.Unlock()
			if !made {
				sleep(s.ctx, spacePause)
			}
		}
	}
}

// history decides what to compact.
type history struct {
	keep      int64
	compacted int64
	seen      []seenRevision // oldest first
}

type seenRevision struct {
	at       time.Time
	revision int64
}

// due gives the revision to compact to, or 0.
func (h *history) due(now time.Time, revision int64) int64 {
	if n := len(h.seen); n == 0 || h.seen[n-1].revision != revision {
		h.seen = append(h.seen, seenRevision{now, revision})
	}
	to := h.compacted
	if revision-h.compacted > h.keep+h.keep/2 {
		to = revision - h.keep
	}
	for len(h.seen) > 0 && now.Sub(h.seen[0].at) >= keepHistory {
		to = max(to, h.seen[0].revision)
		h.seen = h.seen[1:]
	}
	if to <= h.compacted {
		return 0
	}
	h.compacted = to
	return to
}

func (s *Store) compact(revision int64, opts ...clientv3.CompactOption) {
	ctx, cancel := s.within(s.ctx, attemptTimeout)
	defer cancel()
	_, err := s.client.Compact(ctx, revision, opts...)
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) && s.ctx.Err() == nil {
		s.log.Warn("the store's history could not be compacted", "revision", revision, "error", err)
	}
}

// defragment rewrites the database file when half of it is unused, and drops history early when the quota
// is near. Requests wait while the file is rewritten: about a second for 100 MB in use.
func (s *Store) defragment() {
	be := s.member.server.Backend()
	if size := be.Size(); size > s.cfg.QuotaBytes/5*4 {
		s.makeSpace()
	} else if size > defragAbove && be.SizeInUse() < size/2 {
		s.rewrite()
	}
}

func (s *Store) rewrite() {
	be := s.member.server.Backend()
	start, size := time.Now(), be.Size()
	if err := s.member.server.Defragment(); err != nil {
		s.log.Warn("the database could not be defragmented", "error", err)
		return
	}
	s.log.Info("defragmented the database", "bytes_before", size, "bytes_after", be.Size(), "took", time.Since(start))
}

// makeSpace does what can be done about the quota: drops all history, rewrites the file when that is worth
// it, and takes back the alarm when there is room. It tells whether writers may write.
func (s *Store) makeSpace() bool {
	server := s.member.server
	be, quota := server.Backend(), s.cfg.QuotaBytes
	s.compact(s.Snapshot().revision, clientv3.WithCompactPhysical())
	// What the file says of its use lags behind the compaction; the rows themselves do not.
	be.ForceCommit()
	if used, size := min(be.SizeInUse(), 2*s.Snapshot().bytes()), be.Size(); used < size-size/10 {
		s.rewrite()
	}
	alarms := server.Alarms()
	if len(alarms) == 0 {
		return true
	}
	// A little room, or the alarm would be back at once.
	if size := be.Size(); size > quota-quota/20 {
		if now := time.Now(); now.Sub(s.member.full) > time.Minute {
			s.member.full = now
			s.log.Error("the database is at its quota: writes are refused until rows are deleted or the quota is raised",
				"bytes", size, "quota", quota)
		}
		return false
	}
	ctx, cancel := s.within(s.ctx, attemptTimeout)
	defer cancel()
	for _, a := range alarms {
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		if _, err := s.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			s.log.Warn("the space alarm could not be taken back", "error", err)
			return false
		}
	}
	s.member.full = time.Time{}
	s.log.Info("the database has room again", "bytes", be.Size(), "quota", quota)
	return true
}
