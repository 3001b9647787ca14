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
	p := &pending{folds: tx.store.folds.Load()}
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

// saw notes which pending transaction a row that came by watch belongs to.
func (m *markState) saw(kv *mvccpb.KeyValue) {
	_, rest, ok := bytes.Cut(kv.Value[:min(len(kv.Value), 64)], []byte(`,"w":"`))
	if !ok || !bytes.HasPrefix(rest, []byte(m.prefix)) {
		return
	}
	mark, _, _ := bytes.Cut(rest, []byte(`"`))
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pending[string(mark)]; p != nil {
		p.committed.Store(kv.ModRevision)
	}
}
