package store

import (
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	maintainEvery = 10 * time.Second
	keepHistory   = 5 * time.Minute // how old revisions may become
	keepRevisions = 10_000          // and how many there may be

	defragAbove = 64 << 20 // bytes of database file below which it is left as it is
)

// spaceWanted asks for space: a writer met the quota.
func (s *Store) spaceWanted() {
	select {
	case s.space <- struct{}{}:
	default:
	}
}

// maintain compacts history, of any kind of store, and defragments the embedded one's file.
func (s *Store) maintain() {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	h := history{}
	if s.member != nil && len(s.member.server.Alarms()) > 0 {
		s.spaceWanted() // the alarm outlives the process
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
				s.defragment(false)
			}
		case <-s.space:
			if s.member != nil {
				s.makeSpace()
				drain := time.NewTimer(time.Second) // writers ask at each try
				select {
				case <-drain.C:
				case <-s.ctx.Done():
					drain.Stop()
				}
			}
		}
	}
}

// history decides what to compact.
type history struct {
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
	to := max(h.compacted, revision-keepRevisions)
	if to < h.compacted+keepRevisions/2 {
		to = h.compacted
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

// defragment rewrites the database file when most of it is unused. Requests wait meanwhile: about a
// second for 100 MB in use.
func (s *Store) defragment(force bool) {
	be := s.member.server.Backend()
	size, used := be.Size(), be.SizeInUse()
	if !force && (size < defragAbove || used > size/2) {
		return
	}
	start := time.Now()
	if err := s.member.server.Defragment(); err != nil {
		s.log.Warn("the database could not be defragmented", "error", err)
		return
	}
	s.log.Info("defragmented the database", "bytes_before", size, "bytes_after", be.Size(), "took", time.Since(start))
}

// makeSpace does what can be done when the quota was met: drops all history, rewrites the file, and lets
// writers on if that made enough room.
func (s *Store) makeSpace() {
	server := s.member.server
	be := server.Backend()
	quota := s.cfg.QuotaBytes
	s.compact(s.Snapshot().revision, clientv3.WithCompactPhysical())
	server.KV().Commit()
	if be.SizeInUse() < be.Size()-be.Size()/10 {
		s.defragment(true)
	}
	if len(server.Alarms()) == 0 {
		return
	}
	// A little room, or the alarm would be back at once.
	if size := be.Size(); size > quota-quota/20 {
		s.log.Error("the database is at its quota: writes are refused until rows are deleted or the quota is raised",
			"bytes", size, "quota", quota)
		return
	}
	ctx, cancel := s.within(s.ctx, attemptTimeout)
	defer cancel()
	for _, a := range server.Alarms() {
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		if _, err := s.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			s.log.Warn("the space alarm could not be taken back", "error", err)
			return
		}
	}
	s.log.Info("the database has room again", "bytes", be.Size(), "quota", quota)
}
