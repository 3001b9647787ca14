package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// listPage is how many rows one range request reads; the pages are all of one revision.
const listPage = 2000

// load reads all rows at one revision and publishes them, as the first snapshot or, after the watch was
// lost for longer than etcd keeps history, as a step that watchers see folded.
func (s *Store) load(ctx context.Context) error {
	s.folds.Add(1)
	base := s.Snapshot()
	next := &builder{base: s.schema.empty()}
	var revision int64
	from, end := s.prefix, clientv3.GetPrefixRangeEnd(s.prefix)
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(revision))
		if err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) && revision != 0 { // compacted between two pages
				next, revision, from = &builder{base: s.schema.empty()}, 0, s.prefix
				continue
			}
			return fmt.Errorf("store: reading all rows: %w", err)
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			slot, e, err := s.decode(kv, nil)
			if err != nil {
				return err
			}
			// A row that did not change keeps its identity: diff goes by it.
			if old := base.tables[slot].get(e.path); old != nil && old.mod == e.mod {
				e = old
			}
			next.put(slot, e)
		}
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	snap := next.build(revision)
	snap.seq = base.seq + 1
	s.publishAll(snap)
	return nil
}

// decode decodes a stored row, unless that has been done ahead.
func (s *Store) decode(kv *mvccpb.KeyValue, p *pending) (slot int, e *entry, err error) {
	slot, path, err := s.schema.parse(strings.TrimPrefix(string(kv.Key), s.prefix))
	if err != nil {
		var newer *NewerSchemaError
		if errors.As(err, &newer) {
			newer.Stored, _, _ = decodeEnvelope(kv.Value)
			return 0, nil, err
		}
		return 0, nil, &CorruptRowError{Path: string(kv.Key), Err: err}
	}
	if e := p.take(rowRef{slot, path}, kv); e != nil {
		return slot, e, nil
	}
	e, err = newEntry(s.schema.specs[slot], path, kv.Value, kv.CreateRevision, kv.ModRevision)
	return slot, e, err
}

// follow keeps the snapshot up with etcd until the store stops.
func (s *Store) follow() {
	const maxDelay = 2 * time.Second
	delay := 20 * time.Millisecond
	for s.ctx.Err() == nil {
		before := s.Snapshot().revision
		err := s.followOnce()
		if s.ctx.Err() != nil {
			return
		}
		var newer *NewerSchemaError
		var corrupt *CorruptRowError
		switch {
		case errors.As(err, &newer), errors.As(err, &corrupt):
			s.fail(err)
			return
		case errors.Is(err, rpctypes.ErrCompacted):
			s.log.Info("the store's watch was away longer than history is kept; reading all rows again")
			if err = s.load(s.ctx); errors.As(err, &newer) || errors.As(err, &corrupt) {
				s.fail(err)
				return
			}
		}
		if s.Snapshot().revision > before {
			delay = 20 * time.Millisecond
		}
		if err != nil {
			s.log.Warn("the store's watch broke off; trying again", "error", err, "after", delay)
		}
		select {
		case <-time.After(delay):
		case <-s.ctx.Done():
		}
		delay = min(2*delay, maxDelay)
	}
}

// followOnce applies one watch's events until it breaks off.
func (s *Store) followOnce() error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(s.Snapshot().revision + 1)}
	if s.member == nil {
		// A member cut off from its cluster ends the watch, and the client goes to another.
		ctx = clientv3.WithRequireLeader(ctx)
	}
	events := s.client.Watch(ctx, s.prefix, opts...)
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return errors.New("the watch was closed")
			}
			if err := resp.Err(); err != nil {
				return err
			}
			if err := s.apply(&resp); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-s.progress:
			if err := s.client.RequestProgress(ctx); err != nil {
				return fmt.Errorf("asking for progress: %w", err)
			}
		}
	}
}

// apply publishes a response's events, one snapshot per revision. etcd never splits a revision over two
// responses.
func (s *Store) apply(resp *clientv3.WatchResponse) error {
	events := resp.Events
	for len(events) > 0 {
		revision := events[0].Kv.ModRevision
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == revision {
			n++
		}
		base := s.Snapshot()
		if revision > base.revision { // a watch resumed may repeat
			b := &builder{base: base}
			rows := make([]RowChange, 0, n)
			for _, ev := range events[:n] {
				row, err := s.applyEvent(b, ev)
				if err != nil {
					return err
				}
				if row.Old != nil || row.New != nil {
					rows = append(rows, row)
				}
			}
			snap := b.build(revision)
			s.publish(Change{Revision: revision, Snapshot: snap, Rows: rows})
		}
		events = events[n:]
	}
	if resp.IsProgressNotify() {
		if base := s.Snapshot(); resp.Header.Revision > base.revision {
			b := &builder{base: base}
			s.publish(Change{Revision: resp.Header.Revision, Snapshot: b.build(resp.Header.Revision)})
		}
	}
	return nil
}

func (s *Store) applyEvent(b *builder, ev *clientv3.Event) (RowChange, error) {
	if ev.Type == clientv3.EventTypeDelete {
		slot, path, err := s.schema.parse(strings.TrimPrefix(string(ev.Kv.Key), s.prefix))
		if err != nil {
			return RowChange{}, nil // never was in a snapshot
		}
		old := b.delete(slot, path)
		if old == nil {
			return RowChange{}, nil
		}
		return rowChange(s.schema.specs[slot], old, nil), nil
	}
	slot, e, err := s.decode(ev.Kv, s.marks.saw(ev.Kv))
	if err != nil {
		return RowChange{}, err
	}
	old := b.put(slot, e)
	return rowChange(s.schema.specs[slot], old, e), nil
}
