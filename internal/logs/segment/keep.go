package segment

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

// This is what happens to events behind the scenes: tables become segments, small segments become large
// ones, and what is past retention or beyond MaxBytes goes.

const (
	keepEvery   = time.Minute
	retryAfter  = time.Second
	mergeAtOnce = 8 // as many small segments are made one
)

// sealLoop makes segments of full tables, the oldest first.
func (s *Store) sealLoop() {
	for {
		s.mu.RLock()
		var t *table
		if len(s.tables) > 1 {
			t = s.tables[0]
		}
		s.mu.RUnlock()
		if t == nil {
			select {
			case <-s.wake:
				continue
			case <-s.quit:
				return
			}
		}
		err := s.seal(t)
		s.mu.Lock()
		if err != nil && s.ctx.Err() == nil && s.sealErr == nil {
			s.log.Error("A segment of log events cannot be stored; it is tried again.", "error", err)
		}
		s.sealErr = err
		close(s.progress)
		s.progress = make(chan struct{})
		s.mu.Unlock()
		if err == nil {
			s.poke(s.tend)
			continue
		}
		select {
		case <-time.After(retryAfter):
		case <-s.quit:
			return
		}
	}
}

// seal makes a segment of a table, and removes its logs.
func (s *Store) seal(t *table) error {
	s.mu.RLock()
	groups := make([]Group, 0, len(t.groups))
	for g := range t.groups {
		groups = append(groups, g)
	}
	s.mu.RUnlock()
	slices.SortFunc(groups, Group.compare)
	var minSeq, maxSeq uint64
	for _, g := range groups {
		for _, st := range t.groups[g].chunks {
			for _, r := range st.rows {
				if minSeq == 0 || r.id.Seq < minSeq {
					minSeq = r.id.Seq
				}
				maxSeq = max(maxSeq, r.id.Seq)
			}
		}
	}
	var logs []uint64
	for _, w := range t.logs {
		logs = append(logs, w.salt)
	}
	s.mu.RLock()
	// Another table is filled faster than this one is sealed: those who append would wait.
	busy := len(s.tables) > 2
	s.mu.RUnlock()
	m, err := s.store(s.ctx, segmentKey(minSeq, maxSeq, 0), busy, 0, logs, nil, groups, func(g Group, yield func(*item) error) error {
		return s.merge(s.ctx, g, nil, []*table{t}, s.logGap, yield)
	})
	if err != nil {
		return err
	}
	ch := &change{}
	if m != nil {
		ch.Add = []*segmentMeta{m}
	}
	s.hit("segment/seal/before")
	err = s.commitChange(ch, func() {
		s.tables = s.tables[1:]
	})
	if err != nil {
		return err
	}
	s.hit("segment/seal/after")
	for _, w := range t.logs {
		if w.f != nil {
			w.f.Close()
		}
		if err := os.Remove(w.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("A write-ahead log of log events stays until the next start.", "error", err)
		}
	}
	return nil
}

// commitChange makes a change durable and then visible, together with what shown does.
func (s *Store) commitChange(ch *change, shown func()) error {
	s.catMu.Lock()
	defer s.catMu.Unlock()
	s.mu.RLock()
	ch.NextSeq = s.nextSeq
	s.mu.RUnlock()
	if err := s.catalogue.commit(ch); err != nil {
		return full(err)
	}
	var gone []*segment
	s.mu.Lock()
	for _, m := range ch.Add {
		s.segments[m.Key] = s.newSegment(m)
	}
	for _, k := range ch.Remove {
		gone = append(gone, s.segments[k])
		delete(s.segments, k)
	}
	if ch.State != nil {
		s.state = *ch.State
	}
	if shown != nil {
		shown()
	}
	s.mu.Unlock()
	for _, seg := range gone {
		s.forget(seg.meta.Key)
		s.toDelete = append(s.toDelete, seg)
		s.release([]*segment{seg})
	}
	return nil
}

// merge yields a group's events of segments and tables, in order, without those that are hidden.
func (s *Store) merge(ctx context.Context, g Group, segs []*segment, tables []*table, report func(Gap), yield func(*item) error) error {
	q := newQuery(g, ScanOptions{})
	ctx, cancel := context.WithCancel(ctx)
	sc := &scanner{s: s, q: q, slots: 2, report: report}
	sc.todo.q, sc.open.q = q, q
	defer func() {
		cancel()
		for _, l := range sc.ahead {
			s.recycle((<-l.done).buf)
		}
	}()
	s.mu.RLock()
	q.hidden = s.state.hiddenOf(g, s.now())
	for _, seg := range segs {
		if m := seg.meta.group(g); m != nil {
			sc.todo.list = append(sc.todo.list, source{first: ID{m.From, 0}, segment: seg})
		}
	}
	for _, t := range tables {
		for _, c := range t.snapshot(g) {
			sc.todo.list = append(sc.todo.list, source{first: c.min, chunk: c})
		}
	}
	s.mu.RUnlock()
	heap.Init(&sc.todo)
	var failed error
	err := sc.run(ctx, func(it *item) bool {
		failed = yield(it)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// store writes a segment; it answers nil if there is nothing to write.
func (s *Store) store(ctx context.Context, key string, fast bool, generation int, logs []uint64, replaces []string, groups []Group,
	events func(Group, func(*item) error) error) (*segmentMeta, error) {
	pr, pw := io.Pipe()
	type result struct {
		x   *index
		err error
	}
	done := make(chan result, 1)
	// Nothing is put before there is an event.
	started := make(chan bool, 1)
	go func() {
		w := newSegmentWriter(pw, s.codec, fast)
		w.onFirst = func() { started <- true }
		x, err := func() (*index, error) {
			defer w.abort()
			for _, g := range groups {
				begun := false
				if err := events(g, func(it *item) error {
					if !begun {
						begun = true
						if err := w.begin(g); err != nil {
							return err
						}
					}
					return w.add(*it)
				}); err != nil {
					return nil, err
				}
			}
			if len(w.x.groups) == 0 {
				return nil, nil
			}
			return w.finish(generation, logs, replaces)
		}()
		pw.CloseWithError(err)
		done <- result{x, err}
		close(started)
	}()
	if !<-started {
		return nil, (<-done).err
	}
	_, err := s.blob.Put(ctx, key, pr, blob.PutOptions{ContentType: "application/octet-stream"})
	pr.CloseWithError(err) // lets the writer end if the store has
	r := <-done
	if err = errors.Join(err, r.err); err != nil {
		return nil, full(fmt.Errorf("store %s: %w", key, err))
	}
	m := r.x.meta
	m.Key, m.Fast = key, fast
	r.x.meta.Key = key
	return &m, nil
}

// keepLoop merges and removes segments.
func (s *Store) keepLoop() {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		if err := s.keep(s.ctx); err != nil && s.ctx.Err() == nil {
			s.log.Error("Segments of log events cannot be tended; it is tried again.", "error", err)
			select {
			case <-tick.C:
				continue
			case <-s.quit:
				return
			}
		}
		select {
		case <-tick.C:
		case <-s.tend:
		case <-s.quit:
			return
		}
	}
}

// keep does once what is due.
func (s *Store) keep(ctx context.Context) error {
	s.keepMu.Lock()
	defer s.keepMu.Unlock()
	// First, so that nothing is made of segments when an object of the same events cannot be deleted.
	if err := s.deleteRemoved(ctx); err != nil {
		return err
	}
	if err := s.enforce(); err != nil {
		return err
	}
	if err := s.expire(); err != nil {
		return err
	}
	for {
		if more, err := s.compact(ctx); err != nil {
			return err
		} else if !more {
			break
		}
	}
	if err := s.syncState(ctx); err != nil {
		return err
	}
	return s.deleteRemoved(ctx)
}

// limit is what segments and logs may use before the next table is full and stored.
func (s *Store) limit() int64 { return s.cfg.MaxBytes - 2*s.cfg.SealBytes }

// enforce keeps the store below MaxBytes: segments go in the order of ingestion.
func (s *Store) enforce() error {
	if s.cfg.MaxBytes == 0 {
		return nil
	}
	s.mu.RLock()
	u := s.usage()
	segs := s.bySeq()
	s.mu.RUnlock()
	pressed := u.Total() > s.limit()/10*9
	if pressed && !s.pressed && s.cfg.OnPressure != nil {
		s.cfg.OnPressure(u)
	}
	if pressed && !s.pressed {
		s.log.Warn("Log events use nine tenths of their space; beyond it the oldest are dropped.", "bytes", u.Total(), "limit", u.MaxBytes)
	}
	s.pressed = pressed
	ch, events, total := &change{}, int64(0), u.Total()
	for _, seg := range segs {
		if total <= s.limit() {
			break
		}
		total -= seg.meta.Size
		events += seg.meta.Events
		ch.Remove = append(ch.Remove, seg.meta.Key)
	}
	if len(ch.Remove) == 0 {
		return nil
	}
	if err := s.commitChange(ch, func() { s.dropped += events }); err != nil {
		return err
	}
	s.log.Warn("The oldest log events were dropped to stay within the space they have.", "events", events, "segments", len(ch.Remove))
	if s.cfg.OnPressure != nil {
		s.cfg.OnPressure(s.Usage())
	}
	return nil
}

// bySeq answers the segments in the order of ingestion, under mu.
func (s *Store) bySeq() []*segment {
	var segs []*segment
	for _, seg := range s.segments {
		segs = append(segs, seg)
	}
	slices.SortFunc(segs, func(a, b *segment) int {
		return cmp.Or(cmp.Compare(a.meta.MinSeq, b.meta.MinSeq), cmp.Compare(a.meta.Key, b.meta.Key))
	})
	return segs
}

// live is how many of a segment's bytes can still be read, judged by its groups.
func (s *Store) live(m *segmentMeta, now time.Time) (n int64) {
	for _, g := range m.Groups {
		h := s.state.hiddenOf(g.Group, now)
		if g.To >= h.from && g.MaxSeq >= h.seq {
			n += g.RawBytes + 1 // empty messages are events too
		}
	}
	return n
}

// expire removes segments that have nothing to read any more.
func (s *Store) expire() error {
	ch := &change{}
	s.mu.RLock()
	now := s.now()
	for _, seg := range s.segments {
		if s.live(seg.meta, now) == 0 {
			ch.Remove = append(ch.Remove, seg.meta.Key)
		}
	}
	s.mu.RUnlock()
	if len(ch.Remove) == 0 {
		return nil
	}
	return s.commitChange(ch, nil)
}

// choose finds segments to be made one: many small ones in a row, or one that is mostly dead; or, when
// there is nothing else to do, one that was made in haste.
func (s *Store) choose() []*segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	segs, now := s.bySeq(), s.now()
	for _, seg := range segs {
		if 2*s.live(seg.meta, now) < seg.meta.RawBytes && s.reads(seg) {
			return []*segment{seg}
		}
	}
	for i := range segs {
		var total, largest int64
		for j := i; j < len(segs); j++ {
			total += segs[j].meta.RawBytes
			largest = max(largest, segs[j].meta.RawBytes)
			if total > s.cfg.SealBytes || !s.reads(segs[j]) {
				break
			}
			// Every event is written again only when its segment grows to double.
			if n := j - i + 1; n >= mergeAtOnce && 2*largest <= total || n >= 4*mergeAtOnce {
				return segs[i : j+1]
			}
		}
	}
	if len(s.tables) == 1 {
		for _, seg := range segs {
			if seg.meta.Fast && s.reads(seg) {
				return []*segment{seg}
			}
		}
	}
	return nil
}

// reads says whether a segment was read without damage: one that was not stays as it is.
func (s *Store) reads(seg *segment) bool { return !seg.damaged.Load() }

// compact does one step.
func (s *Store) compact(ctx context.Context) (more bool, err error) {
	segs := s.choose()
	if segs == nil {
		return false, nil
	}
	if s.cfg.MaxBytes > 0 {
		size := int64(0)
		for _, seg := range segs {
			size += seg.meta.Size
		}
		if s.Usage().Total()+size > s.cfg.MaxBytes {
			return false, nil
		}
	}
	ch := &change{}
	generation, minSeq, maxSeq := 0, segs[0].meta.MinSeq, uint64(0)
	seen := map[Group]bool{}
	var groups []Group
	var logs []uint64
	for _, seg := range segs {
		ch.Remove = append(ch.Remove, seg.meta.Key)
		generation = max(generation, seg.meta.Generation+1)
		minSeq, maxSeq = min(minSeq, seg.meta.MinSeq), max(maxSeq, seg.meta.MaxSeq)
		logs = append(logs, seg.meta.Logs...)
		for _, g := range seg.meta.Groups {
			if !seen[g.Group] {
				seen[g.Group] = true
				groups = append(groups, g.Group)
			}
		}
	}
	slices.SortFunc(groups, Group.compare)
	if logs, err = s.present(logs); err != nil {
		return false, err
	}
	// What is still to be deleted may hold events of these segments: who finds it beside the new one, and
	// no catalogue, must know.
	s.catMu.Lock()
	replaces := slices.Clone(ch.Remove)
	for k := range s.catalogue.pending {
		replaces = append(replaces, k)
	}
	s.catMu.Unlock()
	broken := false
	m, err := s.store(ctx, segmentKey(minSeq, maxSeq, generation), false, generation, logs, replaces, groups, func(g Group, yield func(*item) error) error {
		return s.mergeWhole(ctx, g, segs, yield, &broken)
	})
	if broken {
		return true, nil // without the damaged one
	}
	if err != nil {
		return false, err
	}
	if m != nil {
		ch.Add = []*segmentMeta{m}
	}
	s.hit("segment/compact/before")
	if err := s.commitChange(ch, nil); err != nil {
		if m != nil {
			// It may not stay beside what is made of the same segments later.
			s.catMu.Lock()
			s.catalogue.pending[m.Key] = true
			s.catMu.Unlock()
		}
		return false, err
	}
	s.hit("segment/compact/after")
	return true, nil
}

var errStays = errors.New("a damaged segment stays as it is")

// mergeWhole is merge of segments, which ends at the first damage: what is left of a damaged segment is
// worth more where it is, with its gap reported whenever it is read.
func (s *Store) mergeWhole(ctx context.Context, g Group, segs []*segment, yield func(*item) error, broken *bool) error {
	err := s.merge(ctx, g, segs, nil, func(gap Gap) {
		for _, seg := range segs {
			if seg.meta.Key == gap.Object {
				seg.damaged.Store(true)
			}
		}
		*broken = true
	}, func(it *item) error {
		if *broken {
			return errStays
		}
		return yield(it)
	})
	if *broken {
		return errStays
	}
	return err
}

// present answers those of the logs that are still there.
func (s *Store) present(salts []uint64) ([]uint64, error) {
	numbers, err := listWALs(s.walDir())
	if err != nil || len(salts) == 0 {
		return nil, err
	}
	var found []uint64
	for _, n := range numbers {
		f, err := os.Open(walPath(s.walDir(), n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		if err == nil {
			var salt uint64
			if salt, err = readSalt(f, st.Size()); slices.Contains(salts, salt) {
				found = append(found, salt)
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// deleteRemoved deletes the objects of segments that are gone and that nobody reads.
func (s *Store) deleteRemoved(ctx context.Context) error {
	s.catMu.Lock()
	if s.catalogue.f == nil {
		// What the file says of the last change is not known, so nothing may be deleted for it.
		if err := s.catalogue.rewrite(); err != nil {
			s.catMu.Unlock()
			return full(err)
		}
	}
	busy := map[string]bool{}
	s.toDelete = slices.DeleteFunc(s.toDelete, func(seg *segment) bool {
		if seg.refs.Load() > 0 {
			busy[seg.meta.Key] = true
		}
		return !busy[seg.meta.Key]
	})
	var keys []string
	for k := range s.catalogue.pending {
		if !busy[k] {
			keys = append(keys, k)
		}
	}
	s.catMu.Unlock()
	// What was replaced goes before what replaced it, should that be on its way too.
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(generationOf(a), generationOf(b)) })
	ch := &change{}
	for _, k := range keys {
		if err := s.blob.Delete(ctx, k); err != nil {
			return err
		}
		s.hit("segment/delete/after")
		ch.Deleted = append(ch.Deleted, k)
	}
	if len(ch.Deleted) == 0 {
		return nil
	}
	return s.commitChange(ch, nil)
}

// generationOf reads a segment's generation from its key.
func generationOf(key string) (n int) {
	var minSeq, maxSeq uint64
	fmt.Sscanf(key, keyPrefix+"%x-%x-%d", &minSeq, &maxSeq, &n)
	return n
}

// SetRetention hides a group's events that are older than so many days, at once and to the millisecond;
// their segments go soon. 0: nothing is too old. What was too old once does not come back.
func (s *Store) SetRetention(ctx context.Context, g Group, days int) error {
	if days < 0 || days > 36500 {
		return fmt.Errorf("%w: retention of %d days", ErrInvalid, days)
	}
	return s.changeState(ctx, func(st *state, seq uint64) {
		if from := st.hiddenOf(g, s.now()).from; from > 0 {
			st.Dropped = slices.DeleteFunc(st.Dropped, func(d drop) bool { return d.Group == g && d.Before > 0 && d.Before <= from })
			st.Dropped = append(st.Dropped, drop{Group: g, Before: from, Seq: seq})
		}
		st.Retention = slices.DeleteFunc(st.Retention, func(r retention) bool { return r.Group == g })
		if days > 0 {
			st.Retention = append(st.Retention, retention{g, days})
		}
	})
}

// DropGroup hides all events of a group that were appended so far, and its retention. What is appended
// from now on is seen.
func (s *Store) DropGroup(ctx context.Context, g Group) error {
	return s.changeState(ctx, func(st *state, seq uint64) {
		st.Retention = slices.DeleteFunc(st.Retention, func(r retention) bool { return r.Group == g })
		st.Dropped = slices.DeleteFunc(st.Dropped, func(d drop) bool { return d.Group == g })
		st.Dropped = append(st.Dropped, drop{Group: g, All: true, Seq: seq})
	})
}

// DropStream is DropGroup of one stream.
func (s *Store) DropStream(ctx context.Context, g Group, stream string) error {
	return s.changeState(ctx, func(st *state, seq uint64) {
		st.Dropped = slices.DeleteFunc(st.Dropped, func(d drop) bool { return d.Group == g && !d.All && d.Before == 0 && d.Stream == stream })
		st.Dropped = append(st.Dropped, drop{Group: g, Stream: stream, Seq: seq})
	})
}

// changeState changes a copy of the state and commits it. Drops that hide nothing any more are forgotten.
func (s *Store) changeState(ctx context.Context, f func(st *state, seq uint64)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return ErrClosed
	}
	st := state{Version: catalogueVersion, Revision: s.state.Revision + 1, NextSeq: s.nextSeq,
		Retention: slices.Clone(s.state.Retention), Dropped: slices.Clone(s.state.Dropped)}
	oldest := map[Group]uint64{}
	see := func(g Group, seq uint64) {
		if have, ok := oldest[g]; !ok || seq < have {
			oldest[g] = seq
		}
	}
	for _, seg := range s.segments {
		for _, g := range seg.meta.Groups {
			see(g.Group, g.MinSeq)
		}
	}
	for _, t := range s.tables {
		for g, tg := range t.groups {
			see(g, tg.chunks[0].rows[0].id.Seq)
		}
	}
	s.mu.RUnlock()
	st.Dropped = slices.DeleteFunc(st.Dropped, func(d drop) bool {
		seq, ok := oldest[d.Group]
		return !ok || seq >= d.Seq
	})
	f(&st, st.NextSeq)
	if err := s.commitChange(&change{State: &st}, func() { s.stateSynced = false }); err != nil {
		return err
	}
	s.poke(s.tend)
	return nil
}

// syncState puts the state's object, for the case that the catalogue is lost.
func (s *Store) syncState(ctx context.Context) error {
	s.mu.RLock()
	st, synced := s.state, s.stateSynced
	s.mu.RUnlock()
	if synced || st.Revision == 0 {
		return nil
	}
	if err := writeState(ctx, s.blob, st); err != nil {
		return err
	}
	s.mu.Lock()
	s.stateSynced = s.state.Revision == st.Revision
	s.mu.Unlock()
	return nil
}
