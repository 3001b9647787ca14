package segment

import "time"

// chunkRows is how many events a part of a table has that is ordered and skipped as one.
const chunkRows = 4096

// row is an event in memory: its message is in the record of the write-ahead log.
type row struct {
	id  ID
	rec *record
	i   int
}

func (r row) item() item { return item{r.id, r.rec.ingestedAt, r.rec.stream, r.rec.message(r.i)} }

// chunk is rows in the order of ingestion. Rows are only appended, so a copy of the slice is a snapshot.
type chunk struct {
	rows     []row
	min, max ID
	bytes    int
}

type tableGroup struct {
	chunks  []*chunk
	streams map[string]*streamStat
}

// table is what write-ahead logs hold that are not in a segment yet. Store.mu guards it.
type table struct {
	logs   []*wal // the last one is written to, if the table is the last one
	groups map[Group]*tableGroup
	bytes  int64 // of messages
	events int64
	since  time.Time // of the first append
}

func newTable() *table { return &table{groups: map[Group]*tableGroup{}} }

func (t *table) add(r *record, now time.Time) {
	if t.events == 0 {
		t.since = now
	}
	g := t.groups[r.group]
	if g == nil {
		g = &tableGroup{streams: map[string]*streamStat{}}
		t.groups[r.group] = g
	}
	s := g.streams[r.stream]
	if s == nil {
		s = &streamStat{name: r.stream}
		g.streams[r.stream] = s
	}
	for i, at := range r.times {
		var c *chunk
		if n := len(g.chunks); n > 0 {
			c = g.chunks[n-1]
		}
		size := len(r.message(i))
		if c == nil || len(c.rows) >= chunkRows || c.bytes+size > maxBlockRaw {
			c = &chunk{min: lastID}
			g.chunks = append(g.chunks, c)
		}
		id := ID{at, r.firstSeq + uint64(i)}
		if id.Compare(c.min) < 0 {
			c.min = id
		}
		if id.Compare(c.max) > 0 {
			c.max = id
		}
		c.rows = append(c.rows, row{id, r, i})
		c.bytes += size
		s.add(id, r.ingestedAt, size)
		t.bytes += int64(size)
	}
	t.events += int64(len(r.times))
}

func (t *table) logBytes() (n int64) {
	for _, l := range t.logs {
		n += l.size.Load()
	}
	return n
}

// snapshot answers copies of a group's chunks.
func (t *table) snapshot(g Group) []*chunk {
	tg := t.groups[g]
	if tg == nil {
		return nil
	}
	out := make([]*chunk, len(tg.chunks))
	for i, c := range tg.chunks {
		k := *c
		out[i] = &k
	}
	return out
}
