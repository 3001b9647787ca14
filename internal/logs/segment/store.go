package segment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/failpoint"
)

// maxSealing is how many full tables may wait for their segments; then appending waits.
const maxSealing = 2

// commitBytes bounds what one fsync is for.
const commitBytes = 32 << 20

// Store is a store of log events. Its methods are safe for concurrent use.
type Store struct {
	cfg   Config
	log   *slog.Logger
	blob  blob.Store
	codec *codec
	lock  *os.File
	now   func() time.Time
	hit   func(string) // failpoints; tests put their own

	requests chan *request
	wake     chan struct{}   // for the sealer
	tend     chan struct{}   // for the keeper
	sealNow  chan chan error // asks the committer for a new table
	quit     chan struct{}
	wg       sync.WaitGroup
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc

	// mu guards what readers see. It is held for moments, never over input or output.
	mu          sync.RWMutex
	tables      []*table // by age; the last one is filled
	segments    map[string]*segment
	state       state
	nextSeq     uint64
	closed      bool
	sealErr     error
	progress    chan struct{} // closed and made anew when a table went
	dropped     int64
	stateSynced bool // the state's object is as the state

	catMu     sync.Mutex // before mu
	catalogue *catalogue
	toDelete  []*segment // removed; somebody may read them

	// keepMu is held while segments are replaced or removed, before catMu.
	keepMu  sync.Mutex
	pressed bool
	stateMu sync.Mutex // held while the state is changed; before catMu

	nextWAL     uint64 // the committer's, after Open
	broken      error  // the committer's
	tailMu      sync.Mutex
	tails       map[*Tail]struct{}
	tailDropped atomic.Int64

	cacheMu sync.Mutex
	cache   cache
	buffers sync.Pool
}

// segment is an object that is read.
type segment struct {
	meta *segmentMeta
	refs atomic.Int64 // of scans, and one of the store
	gone func()       // called when nobody reads it any more

	damaged  atomic.Bool // compaction found it so
	filterMu sync.Mutex  // held while its filters are read
}

type request struct {
	rec  *record
	done chan error
}

// Open opens the store. What was acknowledged before a crash is there; damage to what was not yet in
// segments is logged.
func Open(cfg Config) (*Store, error) { return open(cfg, time.Now, failpoint.Hit) }

func open(cfg Config, now func() time.Time, hit func(string)) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open log store %s: %w", cfg.Dir, err)
		}
	}()
	cfg.SealBytes = cmp.Or(cfg.SealBytes, 64<<20)
	cfg.SealAfter = cmp.Or(cfg.SealAfter, 10*time.Minute)
	if cfg.MaxBytes > 0 {
		// The tables' logs and a segment that is written have to fit too.
		cfg.SealBytes = max(1, min(cfg.SealBytes, cfg.MaxBytes/8))
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := sharedCodec()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: cfg.Logger, blob: cfg.Blob, codec: c, now: now, hit: hit,
		requests: make(chan *request), wake: make(chan struct{}, 1), tend: make(chan struct{}, 1), sealNow: make(chan chan error), quit: make(chan struct{}),
		segments: map[string]*segment{}, progress: make(chan struct{}), tails: map[*Tail]struct{}{}}
	s.cache.limit = cacheBytes
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.load(); err != nil {
		s.cancel()
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, err
	}
	s.wg.Go(s.commitLoop)
	s.wg.Go(s.sealLoop)
	s.wg.Go(s.keepLoop)
	s.poke(s.wake)
	s.poke(s.tend)
	return s, nil
}

func (s *Store) load() (err error) {
	if err := os.MkdirAll(s.walDir(), 0o700); err != nil {
		return err
	}
	if s.lock, err = os.OpenFile(filepath.Join(s.cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another process has it open: %w", err)
	}
	if s.catalogue, err = openCatalogue(s.cfg.Dir); err != nil {
		return err
	}
	sealed, err := s.catalogue.reconcile(s.ctx, s.blob, s.codec, s.logGap)
	if err != nil {
		return err
	}
	for _, m := range s.catalogue.segments {
		s.segments[m.Key] = s.newSegment(m)
	}
	s.state, s.nextSeq = s.catalogue.state, s.catalogue.nextSeq
	if err := s.recover(sealed); err != nil {
		return err
	}
	s.catalogue.nextSeq = s.nextSeq
	if err := s.catalogue.rewrite(); err != nil {
		return err
	}
	return s.newLog()
}

func (s *Store) walDir() string { return filepath.Join(s.cfg.Dir, "wal") }

// recover reads the write-ahead logs into tables, which are sealed at once.
func (s *Store) recover(sealed map[uint64]bool) error {
	numbers, err := listWALs(s.walDir())
	if err != nil {
		return err
	}
	for _, n := range numbers {
		s.nextWAL = n + 1
		path := walPath(s.walDir(), n)
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		w := &wal{path: path}
		w.size.Store(st.Size())
		if w.salt, err = readSalt(f, st.Size()); err != nil {
			return errors.Join(err, f.Close())
		}
		t := newTable()
		t.logs = []*wal{w}
		if !sealed[w.salt] || w.salt == 0 {
			err = readWAL(f, st.Size(), func(r *record) {
				t.add(r, s.now())
				s.nextSeq = max(s.nextSeq, r.firstSeq+uint64(len(r.times)))
			}, func(at int64, reason error) { s.logGap(Gap{Object: path, Offset: at, Reason: reason}) })
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if t.events == 0 {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		// It may have been written and never synced.
		if err := syncFile(path); err != nil {
			return err
		}
		s.tables = append(s.tables, t)
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// newLog starts a table with a log.
func (s *Store) newLog() error {
	w, err := createWAL(s.walDir(), s.nextWAL, rand.Uint64()|1)
	if err != nil {
		return full(err)
	}
	s.nextWAL++
	t := newTable()
	t.logs = []*wal{w}
	s.mu.Lock()
	s.tables = append(s.tables, t)
	s.mu.Unlock()
	return nil
}

func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, blob.ErrNoSpace) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Close ends the store. What is in write-ahead logs stays there for the next Open.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.quit)
	s.cancel()
	s.wg.Wait()
	s.tailMu.Lock()
	for t := range s.tails {
		t.end(ErrClosed)
	}
	s.tailMu.Unlock()
	var err error
	for _, t := range s.tables {
		for _, w := range t.logs {
			if w.f != nil {
				err = errors.Join(err, w.f.Close())
			}
		}
	}
	if s.catalogue.f != nil {
		err = errors.Join(err, s.catalogue.f.Close())
	}
	return errors.Join(err, s.lock.Close())
}

func (s *Store) poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Store) logGap(g Gap) {
	s.log.Error("Log events are damaged.", "object", g.Object, "offset", g.Offset, "group", g.Group.Name, "events", g.Events, "from", g.From, "to", g.To, "reason", g.Reason)
}

// Append stores events of one stream; when it returns, they survive a crash of the machine. All of them
// are stored or none, in the order given; timestamps need not ascend. When ctx ends before they are
// taken up, none is stored.
func (s *Store) Append(ctx context.Context, g Group, stream string, entries []Entry) (Appended, error) {
	size, err := checkAppend(g, stream, entries)
	if err != nil {
		return Appended{}, err
	}
	req := &request{rec: newRecord(g, stream, entries, size), done: make(chan error, 1)}
	select {
	case s.requests <- req:
	case <-ctx.Done():
		return Appended{}, ctx.Err()
	case <-s.quit:
		return Appended{}, ErrClosed
	}
	if err := <-req.done; err != nil {
		return Appended{}, fmt.Errorf("append to %s: %w", g.Name, err)
	}
	return Appended{req.rec.firstSeq, req.rec.ingestedAt}, nil
}

// commitLoop is the only writer of logs. It takes all who wait at once.
func (s *Store) commitLoop() {
	age := time.NewTimer(s.cfg.SealAfter)
	defer age.Stop()
	for {
		var reqs []*request
		select {
		case <-s.quit:
			return
		case <-age.C:
			age.Reset(s.sealDue())
			continue
		case reply := <-s.sealNow:
			var err error
			if s.active().events > 0 {
				err = s.rotate(true)
			}
			reply <- err
			continue
		case r := <-s.requests:
			reqs = append(reqs, r)
		}
		size := len(reqs[0].rec.raw)
	drain:
		for size < commitBytes {
			select {
			case r := <-s.requests:
				reqs = append(reqs, r)
				size += len(r.rec.raw)
			default:
				break drain
			}
		}
		err := s.commit(reqs)
		for _, r := range reqs {
			r.done <- err
		}
		if s.active().bytes >= s.cfg.SealBytes {
			// A failure is for those who append next.
			if err := s.rotate(false); err != nil {
				s.log.Debug("A full table of log events waits.", "error", err)
			}
		}
		age.Reset(s.sealDue())
	}
}

// sealDue starts a new table if the last one is old enough, and says when to look again.
func (s *Store) sealDue() time.Duration {
	s.mu.RLock()
	t := s.tables[len(s.tables)-1]
	wait := s.cfg.SealAfter
	if t.events > 0 {
		wait = s.cfg.SealAfter - s.now().Sub(t.since)
	}
	s.mu.RUnlock()
	if wait > 0 {
		return wait
	}
	if err := s.rotate(false); err != nil {
		return min(time.Second, s.cfg.SealAfter)
	}
	return s.cfg.SealAfter
}

// rotate starts a new table, when there are not too many; or waits until there are not.
func (s *Store) rotate(wait bool) error {
	for {
		s.mu.RLock()
		waiting, sealErr, progress := len(s.tables)-1, s.sealErr, s.progress
		s.mu.RUnlock()
		if waiting < maxSealing {
			break
		}
		if !wait {
			return ErrFull
		}
		if sealErr != nil {
			return fmt.Errorf("%w: %d tables wait for their segments: %w", ErrFull, waiting, sealErr)
		}
		select {
		case <-progress:
		case <-s.quit:
			return ErrClosed
		}
	}
	if err := s.newLog(); err != nil {
		return err
	}
	s.poke(s.wake)
	s.poke(s.tend)
	return nil
}

// commit writes records, and shows them when they are on disk.
func (s *Store) commit(reqs []*request) error {
	if s.broken != nil {
		return s.broken
	}
	t := s.active()
	if t.bytes >= s.cfg.SealBytes {
		if err := s.rotate(true); err != nil {
			return err
		}
		t = s.active()
	}
	w := t.logs[0]
	now := s.now()
	seq := s.nextSeq
	records := make([]*record, len(reqs))
	for i, r := range reqs {
		r.rec.seal(w.salt, seq, now.UnixMilli())
		seq += uint64(len(r.rec.times))
		records[i] = r.rec
	}
	s.hit("segment/append/before")
	broken, err := w.commit(records)
	if broken {
		s.broken = fmt.Errorf("%w: %w", ErrBroken, err)
		s.log.Error("The log store takes nothing until it is opened again.", "error", err)
		return s.broken
	}
	if err != nil {
		return full(err)
	}
	s.hit("segment/append/after")
	s.mu.Lock()
	for _, r := range records {
		t.add(r, now)
	}
	s.nextSeq = seq
	s.mu.Unlock()
	s.publish(records)
	return nil
}

// active is the table that is filled. Only the committer changes it, and may read it without the lock.
func (s *Store) active() *table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tables[len(s.tables)-1]
}

// Seal makes segments of all that was appended, and waits until they are stored. It is for those who want
// everything in the blob store now; what was appended is safe without it.
func (s *Store) Seal(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case s.sealNow <- reply:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.quit:
		return ErrClosed
	}
	if err := <-reply; err != nil {
		return fmt.Errorf("seal log events: %w", err)
	}
	s.mu.RLock()
	waiting := slices.Clone(s.tables[:len(s.tables)-1])
	s.mu.RUnlock()
	for {
		s.mu.RLock()
		left := len(waiting) > 0 && slices.Contains(s.tables, waiting[len(waiting)-1])
		progress, sealErr := s.progress, s.sealErr
		s.mu.RUnlock()
		if !left {
			return nil
		}
		if sealErr != nil {
			return fmt.Errorf("seal log events: %w", sealErr)
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.quit:
			return ErrClosed
		}
	}
}

// newSegment makes a segment readable.
func (s *Store) newSegment(m *segmentMeta) *segment {
	seg := &segment{meta: m}
	seg.gone = func() { s.poke(s.tend) }
	seg.refs.Store(1)
	return seg
}

func (s *Store) release(held []*segment) {
	for _, seg := range held {
		if seg.refs.Add(-1) == 0 {
			seg.gone()
		}
	}
}

// Streams answers a group's streams that hold something, by name. Events past retention count until
// their segment goes; First is never before it.
func (s *Store) Streams(ctx context.Context, g Group) ([]StreamInfo, error) {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, ErrClosed
	}
	h := s.state.hiddenOf(g, s.now())
	all := map[string]*streamStat{}
	merge := func(st *streamStat, maxSeq uint64) {
		if st.events == 0 || st.last < h.from || maxSeq < max(h.seq, h.streams[st.name]) {
			return
		}
		have := all[st.name]
		if have == nil {
			have = &streamStat{name: st.name, first: lastID.Timestamp}
			all[st.name] = have
		}
		have.first = min(have.first, max(st.first, h.from))
		have.last = max(have.last, st.last)
		have.lastIngested = max(have.lastIngested, st.lastIngested)
		have.events += st.events
		have.bytes += st.bytes
	}
	for _, t := range s.tables {
		if tg := t.groups[g]; tg != nil {
			for _, st := range tg.streams {
				merge(st, st.maxSeq)
			}
		}
	}
	var held []*segment
	for _, seg := range s.segments {
		if m := seg.meta.group(g); m != nil && m.MaxSeq >= h.seq && m.To >= h.from {
			seg.refs.Add(1)
			held = append(held, seg)
		}
	}
	s.mu.RUnlock()
	defer s.release(held)
	for _, seg := range held {
		x, err := s.index(ctx, seg)
		if damaged(err) {
			m := seg.meta.group(g)
			s.logGap(Gap{Object: seg.meta.Key, Group: g, From: m.From, To: m.To, Events: int(m.Events), Reason: err})
			continue
		}
		if err != nil {
			return nil, err
		}
		if gi := x.find(g); gi != nil {
			for i := range gi.streams {
				merge(&gi.streams[i], gi.streams[i].maxSeq)
			}
		}
	}
	out := make([]StreamInfo, 0, len(all))
	for _, st := range all {
		out = append(out, StreamInfo{st.name, st.first, st.last, st.lastIngested, st.events, st.bytes})
	}
	slices.SortFunc(out, func(a, b StreamInfo) int { return cmp.Compare(a.Stream, b.Stream) })
	return out, nil
}

// Usage answers what the store uses.
func (s *Store) Usage() Usage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.usage()
}

func (s *Store) usage() Usage {
	u := Usage{Segments: len(s.segments), MaxBytes: s.cfg.MaxBytes, DroppedEvents: s.dropped, TailDropped: s.tailDropped.Load(), SealError: s.sealErr}
	groups := map[Group]bool{}
	for _, seg := range s.segments {
		u.SegmentBytes += seg.meta.Size
		u.RawBytes += seg.meta.RawBytes
		for _, g := range seg.meta.Groups {
			groups[g.Group] = true
		}
	}
	for _, t := range s.tables {
		u.LogBytes += t.logBytes()
		u.PendingBytes += t.bytes
		for g := range t.groups {
			groups[g] = true
		}
	}
	u.Groups = len(groups)
	return u
}
