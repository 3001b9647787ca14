package store

import (
	"bytes"
	"crypto/rand"
	"strconv"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Every transaction attempt has a mark, unique for ever, that its rows carry in their envelopes. The
// watch recognizes by it this process's own commits.
type markState struct {
	prefix string
	count  atomic.Int64

	mu      sync.Mutex
	pending map[string]*pending
}

// pending is a transaction under way.
type pending struct {
	writes    map[rowRef]*write
	markable  bool         // has a row that carries the mark
	folds     int64        // how often all rows had been read again before it was sent
	committed atomic.Int64 // its revision, once the watch has seen it
}

func newMarkState() *markState {
	return &markState{prefix: rand.Text()[:10], pending: map[string]*pending{}}
}

func (m *markState) next() string {
	return m.prefix + strconv.FormatInt(m.count.Add(1), 36)
}

func (m *markState) add(tx *Tx) *pending {
	p := &pending{writes: tx.writes, folds: tx.store.folds.Load()}
	for _, w := range tx.writes {
		p.markable = p.markable || w.val != nil
	}
	m.mu.Lock()
	m.pending[tx.mark] = p
	m.mu.Unlock()
	return p
}

func (m *markState) remove(tx *Tx) {
	m.mu.Lock()
	delete(m.pending, tx.mark)
	m.mu.Unlock()
}

// saw tells which pending transaction a row that came by watch belongs to, if any, and notes that it was
// committed.
func (m *markState) saw(kv *mvccpb.KeyValue) *pending {
	_, rest, ok := bytes.Cut(kv.Value[:min(len(kv.Value), 64)], []byte(`,"w":"`))
	if !ok || !bytes.HasPrefix(rest, []byte(m.prefix)) {
		return nil
	}
	mark, _, _ := bytes.Cut(rest, []byte(`"`))
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pending[string(mark)]
	if p != nil {
		p.committed.Store(kv.ModRevision)
	}
	return p
}

// decodeAhead is for how many rows a transaction's values are decoded while it is under way.
const decodeAhead = 8

// decode decodes the rows as they will come back by watch, while etcd is writing them to disk. The watch
// uses what is ready and does the rest itself.
func (p *pending) decode(sc *schema) {
	for _, w := range p.writes {
		if w.val == nil {
			continue
		}
		if e, err := newEntry(sc.specs[w.slot], w.path, w.value, 0, 0); err == nil {
			w.decoded.Store(e)
		}
	}
}

// take hands out a row decoded ahead, once. Nil: there is none.
func (p *pending) take(ref rowRef, kv *mvccpb.KeyValue) *entry {
	if p == nil {
		return nil
	}
	w := p.writes[ref]
	if w == nil {
		return nil
	}
	e := w.decoded.Swap(nil)
	if e != nil {
		e.create, e.mod = kv.CreateRevision, kv.ModRevision
	}
	return e
}
