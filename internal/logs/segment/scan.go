package segment

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

// ScanOptions say what is wanted of a group.
type ScanOptions struct {
	Streams []string // these; nil: all, or those of Prefix
	Prefix  string   // of streams' names
	From    int64    // timestamp, included
	To      int64    // timestamp, not included; 0: no bound
	Terms   []Term   // all of them, in every event
	After   ID       // only events after it; in a reverse scan, only those before it, if it is not zero
	Reverse bool     // latest first
	// Gap is told, in the order of the scan, of what could not be read. Without it gaps are logged.
	Gap func(Gap)
}

// hidden is what must not be seen of a group any more.
type hidden struct {
	from    int64 // timestamps before it
	seq     uint64
	streams map[string]uint64
	expired []drop
}

func (h *hidden) hides(stream string, id ID) bool {
	for _, d := range h.expired {
		if id.Seq < d.Seq && id.Timestamp < d.Before {
			return true
		}
	}
	return id.Timestamp < h.from || id.Seq < h.seq || len(h.streams) > 0 && id.Seq < h.streams[stream]
}

const dayMillis = 24 * 60 * 60 * 1000

// hiddenOf is what the state says of a group at a time.
func (st *state) hiddenOf(g Group, now time.Time) hidden {
	var h hidden
	for _, r := range st.Retention {
		if r.Group == g && r.Days > 0 {
			h.from = now.UnixMilli() - int64(r.Days)*dayMillis
		}
	}
	for _, d := range st.Dropped {
		switch {
		case d.Group != g:
		case d.All:
			h.seq = max(h.seq, d.Seq)
		case d.Before > 0:
			h.expired = append(h.expired, d)
		default:
			if h.streams == nil {
				h.streams = map[string]uint64{}
			}
			h.streams[d.Stream] = max(h.streams[d.Stream], d.Seq)
		}
	}
	return h
}

// query is a scan, prepared.
type query struct {
	group    Group
	from, to ID // both not included
	streams  map[string]bool
	prefix   string
	terms    []matcher
	hashes   []uint64
	hidden   hidden
	reverse  bool
}

func newQuery(g Group, o ScanOptions) *query {
	q := &query{group: g, from: o.After, to: lastID, prefix: o.Prefix, terms: matchers(o.Terms), reverse: o.Reverse}
	if o.Reverse {
		q.from = ID{}
		if o.After != (ID{}) {
			q.to = o.After
		}
	}
	// Numbers begin at 1, so that {t, 0} is before all events of t.
	if from := (ID{max(o.From, 0), 0}); from.Compare(q.from) > 0 {
		q.from = from
	}
	if o.To != 0 {
		if to := (ID{max(o.To, 0), 0}); to.Compare(q.to) < 0 {
			q.to = to
		}
	}
	if o.Streams != nil {
		q.streams = map[string]bool{}
		for _, s := range o.Streams {
			q.streams[s] = true
		}
	}
	for _, t := range o.Terms {
		q.hashes = append(q.hashes, t.hashes()...)
	}
	return q
}

func (q *query) wants(stream string) bool {
	return (q.streams == nil || q.streams[stream]) && strings.HasPrefix(stream, q.prefix)
}

// overlaps says whether events between two may be wanted, both included.
func (q *query) overlaps(first, last ID) bool {
	return last.Compare(q.from) > 0 && first.Compare(q.to) < 0 && last.Timestamp >= q.hidden.from
}

func (q *query) within(id ID) bool { return id.Compare(q.from) > 0 && id.Compare(q.to) < 0 }

// before says whether a comes before b in this scan.
func (q *query) before(a, b ID) bool {
	if q.reverse {
		return a.Compare(b) > 0
	}
	return a.Compare(b) < 0
}

// source is something to be read that holds no event before `first`, in the order of the scan: a
// segment whose index is still to be read, one of its blocks, or a chunk of a table.
type source struct {
	first   ID
	segment *segment
	group   *groupIndex
	block   *blockInfo
	index   *index
	wanted  []bool // of the group's streams; nil: all
	chunk   *chunk
}

func (q *query) first(lo, hi ID) ID {
	if q.reverse {
		return hi
	}
	return lo
}

type sources struct {
	q    *query
	list []source
}

func (s *sources) Len() int           { return len(s.list) }
func (s *sources) Less(i, j int) bool { return s.q.before(s.list[i].first, s.list[j].first) }
func (s *sources) Swap(i, j int)      { s.list[i], s.list[j] = s.list[j], s.list[i] }
func (s *sources) Push(x any)         { s.list = append(s.list, x.(source)) }
func (s *sources) Pop() any {
	last := s.list[len(s.list)-1]
	s.list[len(s.list)-1] = source{}
	s.list = s.list[:len(s.list)-1]
	return last
}

// batch is what was read of a source.
type batch struct {
	items []item
	gap   *Gap
	err   error
	buf   []byte // that the items are in, if it can be used again
}

// loading is a batch under way.
type loading struct {
	first ID
	done  chan batch
}

// scanner merges sources.
type scanner struct {
	s      *Store
	q      *query
	todo   sources
	ahead  []loading // under way, in order
	slots  int
	open   cursors
	report func(Gap)
}

type cursors struct {
	q    *query
	list []*cursor
}

type cursor struct {
	items []item
	buf   []byte
}

func (c *cursors) Len() int { return len(c.list) }
func (c *cursors) Less(i, j int) bool {
	return c.q.before(c.list[i].items[0].id, c.list[j].items[0].id)
}
func (c *cursors) Swap(i, j int) { c.list[i], c.list[j] = c.list[j], c.list[i] }
func (c *cursors) Push(x any)    { c.list = append(c.list, x.(*cursor)) }
func (c *cursors) Pop() any {
	last := c.list[len(c.list)-1]
	c.list = c.list[:len(c.list)-1]
	return last
}

// Scan yields a group's events in the order of their IDs, or in the reverse order, until yield answers
// false. It sees what was acknowledged before it began. An event's Message is valid until yield
// returns. Damage is reported as gaps and is not an error.
func (s *Store) Scan(ctx context.Context, g Group, o ScanOptions, yield func(Event) bool) error {
	q := newQuery(g, o)
	report := o.Gap
	if report == nil {
		report = s.logGap
	}
	return s.scan(ctx, q, report, func(it *item) bool {
		return yield(Event{g, it.stream, it.id, it.ingestedAt, it.message})
	})
}

func (s *Store) scan(ctx context.Context, q *query, report func(Gap), yield func(*item) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	sc := &scanner{s: s, q: q, slots: 2 * runtime.GOMAXPROCS(0), report: report}
	sc.todo.q, sc.open.q = q, q
	held, err := sc.snapshot()
	if err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		for _, l := range sc.ahead {
			s.recycle((<-l.done).buf)
		}
		s.release(held)
	}()
	return sc.run(ctx, yield)
}

// snapshot gathers what there is, and holds the segments.
func (sc *scanner) snapshot() ([]*segment, error) {
	s, q := sc.s, sc.q
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	q.hidden = s.state.hiddenOf(q.group, s.now())
	var held []*segment
	for _, seg := range s.segments {
		m := seg.meta.group(q.group)
		if m == nil {
			continue
		}
		lo, hi := ID{m.From, 0}, ID{m.To, lastID.Seq}
		if m.MaxSeq >= q.hidden.seq && q.overlaps(lo, hi) {
			seg.refs.Add(1)
			held = append(held, seg)
			sc.todo.list = append(sc.todo.list, source{first: q.first(lo, hi), segment: seg})
		}
	}
	for _, t := range s.tables {
		for _, c := range t.snapshot(q.group) {
			if q.overlaps(c.min, c.max) {
				sc.todo.list = append(sc.todo.list, source{first: q.first(c.min, c.max), chunk: c})
			}
		}
	}
	heap.Init(&sc.todo)
	return held, nil
}

func (sc *scanner) run(ctx context.Context, yield func(*item) bool) error {
	for {
		if err := sc.fill(ctx); err != nil {
			return err
		}
		for len(sc.ahead) > 0 && (sc.open.Len() == 0 || !sc.q.before(sc.open.list[0].items[0].id, sc.ahead[0].first)) {
			if err := sc.take(ctx); err != nil {
				return err
			}
			if err := sc.fill(ctx); err != nil {
				return err
			}
		}
		if sc.open.Len() == 0 {
			return nil
		}
		c := sc.open.list[0]
		// As long as no other cursor and no batch to come is before its events, they are yielded in a row.
		limit, bounded := ID{}, false
		for _, other := range []int{1, 2} {
			if other < sc.open.Len() {
				if id := sc.open.list[other].items[0].id; !bounded || sc.q.before(id, limit) {
					limit, bounded = id, true
				}
			}
		}
		if len(sc.ahead) > 0 {
			if id := sc.ahead[0].first; !bounded || sc.q.before(id, limit) {
				limit, bounded = id, true
			}
		}
		n := 0
		for n < len(c.items) && (n == 0 || !bounded || sc.q.before(c.items[n].id, limit)) {
			if !yield(&c.items[n]) {
				return nil
			}
			n++
		}
		if c.items = c.items[n:]; len(c.items) == 0 {
			heap.Pop(&sc.open)
			sc.s.recycle(c.buf)
		} else {
			heap.Fix(&sc.open, 0)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// take waits for the first batch under way.
func (sc *scanner) take(ctx context.Context) error {
	var b batch
	select {
	case b = <-sc.ahead[0].done:
	case <-ctx.Done():
		return ctx.Err()
	}
	sc.ahead = sc.ahead[1:]
	if b.err != nil {
		return b.err
	}
	if b.gap != nil {
		sc.report(*b.gap)
	}
	if len(b.items) > 0 {
		heap.Push(&sc.open, &cursor{b.items, b.buf})
	} else {
		sc.s.recycle(b.buf)
	}
	return nil
}

// fill starts to load sources, in order, until enough are under way.
func (sc *scanner) fill(ctx context.Context) error {
	for len(sc.ahead) < sc.slots && sc.todo.Len() > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		src := heap.Pop(&sc.todo).(source)
		if src.segment != nil && src.block == nil {
			if err := sc.expand(ctx, src); err != nil {
				return err
			}
			continue
		}
		done := make(chan batch, 1)
		sc.ahead = append(sc.ahead, loading{src.first, done})
		if src.chunk != nil {
			done <- sc.loadChunk(src.chunk)
			continue
		}
		go func() { done <- sc.loadBlock(ctx, src) }()
	}
	return nil
}

// expand puts a segment's blocks among the sources.
func (sc *scanner) expand(ctx context.Context, src source) error {
	q := sc.q
	x, err := sc.s.index(ctx, src.segment)
	if damaged(err) {
		m := src.segment.meta.group(q.group)
		sc.report(Gap{Object: src.segment.meta.Key, Group: q.group, From: m.From, To: m.To, Events: int(m.Events), Reason: err})
		return nil
	}
	if err != nil {
		return err
	}
	g := x.find(q.group)
	if g == nil {
		return nil
	}
	var wanted []bool
	if q.streams != nil || q.prefix != "" {
		wanted = make([]bool, len(g.streams))
		found := false
		for i := range g.streams {
			wanted[i] = q.wants(g.streams[i].name)
			found = found || wanted[i]
		}
		if !found {
			return nil
		}
	}
	for i := range g.blocks {
		k := &g.blocks[i]
		if !q.overlaps(k.min, k.max) {
			continue
		}
		if wanted != nil && !slices.ContainsFunc(k.streams, func(s int) bool { return wanted[s] }) {
			continue
		}
		heap.Push(&sc.todo, source{first: q.first(k.min, k.max), segment: src.segment, index: x, group: g, block: k, wanted: wanted})
	}
	return nil
}

// damaged says whether an error costs what was read and nothing else.
func damaged(err error) bool {
	return errors.Is(err, errDamaged) || errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrNotFound)
}

func (sc *scanner) loadChunk(c *chunk) batch {
	q := sc.q
	var b batch
	for _, r := range c.rows {
		if q.within(r.id) && q.wants(r.rec.stream) && !q.hidden.hides(r.rec.stream, r.id) && matchAll(q.terms, r.rec.message(r.i)) {
			b.items = append(b.items, r.item())
		}
	}
	slices.SortFunc(b.items, func(x, y item) int {
		if q.reverse {
			x, y = y, x
		}
		return cmp.Or(cmp.Compare(x.id.Timestamp, y.id.Timestamp), cmp.Compare(x.id.Seq, y.id.Seq))
	})
	return b
}

func (sc *scanner) loadBlock(ctx context.Context, src source) batch {
	b, err := sc.readBlock(ctx, src)
	if damaged(err) {
		k := src.block
		return batch{gap: &Gap{Object: src.segment.meta.Key, Offset: k.offset, Group: sc.q.group,
			From: k.min.Timestamp, To: k.max.Timestamp, Events: k.events, Reason: err}}
	}
	if err != nil {
		return batch{err: fmt.Errorf("read %s: %w", src.segment.meta.Key, err)}
	}
	return b
}

func (sc *scanner) readBlock(ctx context.Context, src source) (batch, error) {
	s, q, k := sc.s, sc.q, src.block
	if err := ctx.Err(); err != nil {
		return batch{}, err
	}
	if len(q.hashes) > 0 {
		// A filter that cannot be read costs time, not events.
		if filters, err := s.filters(ctx, src.segment, src.index); err == nil {
			filter := filters[k.filterAt : k.filterAt+k.filterLen]
			if checksum(filter) == k.filterSum && !mayHave(filter, q.hashes) {
				return batch{}, nil
			}
		}
	}
	r, err := s.blob.Get(ctx, src.segment.meta.Key)
	if err != nil {
		return batch{}, err
	}
	defer r.Close()
	packed, err := readRange(r, k.offset, k.columnsLen+k.dataLen)
	if err != nil {
		return batch{}, err
	}
	raw, err := s.codec.open(packed[:k.columnsLen], k.columnsSum, k.columnsRaw, nil)
	if err != nil {
		return batch{}, err
	}
	col, err := decodeColumns(raw, k)
	if err != nil {
		return batch{}, err
	}
	names := make([]string, len(k.streams))
	want := make([]bool, len(k.streams))
	for i, id := range k.streams {
		names[i] = src.group.streams[id].name
		want[i] = src.wanted == nil || src.wanted[id]
	}
	lo, _ := slices.BinarySearchFunc(col.ids, q.from, func(id, t ID) int { return cmp.Or(id.Compare(t), -1) })
	hi, _ := slices.BinarySearchFunc(col.ids, q.to, ID.Compare)
	wanted := func(i int) bool { return want[col.streams[i]] && !q.hidden.hides(names[col.streams[i]], col.ids[i]) }
	some := false
	for i := lo; i < hi && !some; i++ {
		some = wanted(i)
	}
	if !some {
		return batch{}, nil
	}
	buf := s.buffer(k.dataRaw)
	data, err := s.codec.open(packed[k.columnsLen:], k.dataSum, k.dataRaw, buf)
	if err != nil {
		return batch{}, err
	}
	b := batch{buf: buf}
	message := func(i int) []byte {
		start := 0
		if i > 0 {
			start = col.ends[i-1]
		}
		return data[start:col.ends[i]:col.ends[i]]
	}
	take := func(i int) {
		b.items = append(b.items, item{col.ids[i], col.ingested[i], names[col.streams[i]], message(i)})
	}
	if len(q.terms) == 0 {
		b.items = make([]item, 0, hi-lo)
		for i := lo; i < hi; i++ {
			if wanted(i) {
				take(i)
			}
		}
	} else {
		// All messages are searched as one text for the longest term; where it is, the event is looked at.
		key := slices.MaxFunc(q.terms, func(a, b matcher) int { return cmp.Compare(len(a.text), len(b.text)) }).text
		for i := lo; i < hi; {
			start := 0
			if i > 0 {
				start = col.ends[i-1]
			}
			at := bytes.Index(data[start:col.ends[hi-1]], key)
			if at < 0 {
				break
			}
			at += start
			// The first event that ends behind it; it may begin in one and end in the next.
			n, _ := slices.BinarySearch(col.ends[i:hi], at+1)
			i += n
			if wanted(i) && matchAll(q.terms, message(i)) {
				take(i)
			}
			i++
		}
	}
	if q.reverse {
		slices.Reverse(b.items)
	}
	return b, nil
}
