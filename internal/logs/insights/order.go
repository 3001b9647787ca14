package insights

import (
	"container/heap"
	"slices"
	"strings"
)

// orderCollector keeps the first rows in an order, each of a kind once if duplicates are dropped.
type orderCollector struct {
	phase  *phase
	bound  int // how many can matter; zero: any number
	keep   []bool
	heap   entryHeap         // the worst first, so that it can make room; all rows without duplicates to drop
	byKey  map[string]*entry // with duplicates to drop, the best of each kind
	budget int64             // bytes left
	full   bool
	next   int64

	scratch entry
	key     []byte
}

// entry is a row that is held, and what it is ordered by.
type entry struct {
	row    row
	orders []value
	size   int64
}

// compare is the order of a phase; missing values come last.
func (c *orderCollector) compare(a, b *entry) int {
	for i, k := range c.phase.keys {
		x, y := a.orders[i], b.orders[i]
		switch {
		case x.kind == absent && y.kind == absent:
			continue
		case x.kind == absent:
			return 1
		case y.kind == absent:
			return -1
		}
		if d := compareSorted(x, y); d != 0 {
			if k.desc {
				return -d
			}
			return d
		}
	}
	return a.row.rank.compare(&b.row.rank)
}

func (c *orderCollector) add(r *row) error {
	if c.full {
		return ErrMemory
	}
	e := &c.scratch
	e.row = *r
	if c.keep == nil { // a later phase: rows stand as they came
		c.next++
		e.row.rank = rank{seq: c.next}
	}
	e.orders = e.orders[:0]
	for _, k := range c.phase.keys {
		e.orders = append(e.orders, k.expr.eval(r))
	}
	if key, ok := c.kind(r); ok {
		old := c.byKey[string(key)]
		if old != nil && c.compare(old, e) <= 0 {
			return nil
		}
		if old != nil {
			c.budget += old.size
		}
		held := c.hold(e)
		held.size += int64(len(key)) + 64
		c.byKey[string(key)] = held
		return c.spend(held)
	}
	if c.phase.deduped || c.bound == 0 || len(c.heap.entries) < c.bound {
		held := c.hold(e)
		if c.heap.less == nil {
			c.heap.less = func(a, b *entry) bool { return c.compare(a, b) > 0 }
		}
		heap.Push(&c.heap, held)
		return c.spend(held)
	}
	if c.compare(e, c.heap.entries[0]) >= 0 {
		return nil
	}
	c.budget += c.heap.entries[0].size
	held := c.hold(e)
	c.heap.entries[0] = held
	heap.Fix(&c.heap, 0)
	return c.spend(held)
}

func (c *orderCollector) spend(e *entry) error {
	if c.budget -= e.size; c.budget < 0 {
		c.full = true
		return ErrMemory
	}
	return nil
}

// kind is what duplicates of a row have in common; a row that misses a value has no duplicates.
func (c *orderCollector) kind(r *row) ([]byte, bool) {
	if !c.phase.deduped {
		return nil, false
	}
	c.key = c.key[:0]
	for _, n := range c.phase.dedup {
		v := n.eval(r)
		if v.kind == absent {
			return nil, false
		}
		c.key = appendKey(c.key, v)
	}
	return c.key, true
}

// hold copies a row with what is needed of it, so that the event it came from can go.
func (c *orderCollector) hold(e *entry) *entry {
	held := &entry{row: e.row, orders: slices.Clone(e.orders)}
	held.row.values = slices.Clone(e.row.values)
	held.size = 200 + 40*int64(len(held.orders)+len(held.row.values))
	own := func(s *string) {
		*s = strings.Clone(*s)
		held.size += int64(len(*s))
	}
	for i := range held.row.values {
		if c.keep != nil && !c.keep[i] {
			held.row.values[i] = value{}
			continue
		}
		own(&held.row.values[i].text)
	}
	for i := range held.orders {
		own(&held.orders[i].text)
	}
	own(&held.row.ptr)
	own(&held.row.rank.log)
	own(&held.row.rank.stream)
	held.row.rank.ptr = held.row.ptr
	return held
}

func (c *orderCollector) rows() []row {
	all := slices.Clone(c.heap.entries)
	for _, e := range c.byKey {
		all = append(all, e)
	}
	slices.SortFunc(all, c.compare)
	if c.bound > 0 && len(all) > c.bound {
		all = all[:c.bound]
	}
	out := make([]row, len(all))
	for i, e := range all {
		out[i] = e.row
		out[i].values = slices.Clone(e.row.values)
	}
	return out
}

// entryHeap has the entry that is less than all others first.
type entryHeap struct {
	entries []*entry
	less    func(a, b *entry) bool
}

func (h *entryHeap) Len() int           { return len(h.entries) }
func (h *entryHeap) Less(i, j int) bool { return h.less(h.entries[i], h.entries[j]) }
func (h *entryHeap) Swap(i, j int)      { h.entries[i], h.entries[j] = h.entries[j], h.entries[i] }
func (h *entryHeap) Push(x any)         { h.entries = append(h.entries, x.(*entry)) }

func (h *entryHeap) Pop() any {
	last := len(h.entries) - 1
	e := h.entries[last]
	h.entries = h.entries[:last]
	return e
}
