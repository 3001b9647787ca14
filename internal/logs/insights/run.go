package insights

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
)

// Event is a log event as a query sees it. Times are in milliseconds since the epoch.
type Event struct {
	Timestamp     int64
	IngestionTime int64
	Message       string
	Stream        string // @logStream
	Log           string // @log, "account:group"
	Ptr           string // @ptr, unique
}

// Options are what an execution is given besides its query.
type Options struct {
	From, To  int64 // only events of these times, both included, in milliseconds since the epoch; To zero: all
	Limit     int   // rows, if the query has no limit of its own; zero: MaxLimit
	MaxMemory int64 // bytes of rows and groups that may be held; zero: DefaultMemory
	Now       int64 // what now() answers, in milliseconds since the epoch

	// Progress is shown what there is so far each time that ProgressEvery events were read.
	Progress      func(Result)
	ProgressEvery int
}

// Field is a cell of a result.
type Field struct{ Name, Value string }

// Row is a row of a result: the query's columns that have a value in it, then @ptr if rows are events.
type Row []Field

// Statistics count the work.
type Statistics struct {
	RecordsMatched int64 // passed the filters before the first sort, dedup, limit or stats
	RecordsScanned int64
	BytesScanned   int64 // of messages
}

// Result is what an execution found.
type Result struct {
	Rows       []Row
	Statistics Statistics
}

// Run reads all events and answers the result. Its errors are those of ctx and of the events, and
// ErrMemory; the result then holds what was found until then.
func (q *Query) Run(ctx context.Context, events iter.Seq2[Event, error], o Options) (Result, error) {
	x := q.Start(o)
	read := 0
	for e, err := range events {
		if err != nil {
			return x.Result(), fmt.Errorf("read events: %w", err)
		}
		if read&255 == 0 && ctx.Err() != nil {
			return x.Result(), context.Cause(ctx)
		}
		if err := x.Add(e); err != nil {
			return x.Result(), err
		}
		if read++; o.Progress != nil && o.ProgressEvery > 0 && read%o.ProgressEvery == 0 {
			o.Progress(x.Result())
		}
	}
	return x.Result(), nil
}

// Execution is a query under way. It is safe for concurrent use.
type Execution struct {
	query   *Query
	options Options
	paths   []string // of discovered fields
	slots   []int    // of discovered fields

	mu      sync.Mutex
	row     row
	walker  walker
	found   []value
	collect collector
	stats   Statistics
}

// Start makes an execution that has seen nothing.
func (q *Query) Start(o Options) *Execution {
	if o.MaxMemory <= 0 {
		o.MaxMemory = DefaultMemory
	}
	if o.Limit <= 0 || o.Limit > MaxLimit {
		o.Limit = MaxLimit
	}
	x := &Execution{query: q, options: o, row: row{values: make([]value, q.slots), now: o.Now}}
	for _, f := range q.fields {
		if f.auto == "" {
			x.paths, x.slots = append(x.paths, jsonPath(f.path)), append(x.slots, f.slot)
		}
	}
	x.found = make([]value, len(x.paths))
	x.collect = x.collector(0, q.kept())
	return x
}

// Add reads an event. Its error is ErrMemory, after which the execution takes no more.
func (x *Execution) Add(e Event) error {
	if e.Timestamp < x.options.From || x.options.To > 0 && e.Timestamp > x.options.To {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.RecordsScanned++
	x.stats.BytesScanned += int64(len(e.Message))
	if !x.query.mayPass(e.Message) {
		return nil
	}
	x.fill(&e)
	for _, s := range x.query.phases[0].steps {
		if !s.apply(&x.row) {
			return nil
		}
	}
	x.stats.RecordsMatched++
	return x.collect.add(&x.row)
}

// fill makes a row of an event.
func (x *Execution) fill(e *Event) {
	r := &x.row
	clear(r.values)
	r.ptr = e.Ptr
	r.rank = rank{time: e.Timestamp, log: e.Log, stream: e.Stream, ptr: e.Ptr, seq: x.stats.RecordsScanned}
	for _, f := range x.query.fields {
		switch f.auto {
		case "@timestamp":
			r.values[f.slot] = value{kind: moment, num: float64(e.Timestamp)}
		case "@ingestiontime":
			r.values[f.slot] = value{kind: moment, num: float64(e.IngestionTime)}
		case "@message":
			r.values[f.slot] = textOf(e.Message)
		case "@logstream":
			r.values[f.slot] = textOf(e.Stream)
		case "@log":
			r.values[f.slot] = textOf(e.Log)
		case "@ptr":
			r.values[f.slot] = textOf(e.Ptr)
		}
	}
	if len(x.paths) > 0 && strings.HasPrefix(strings.TrimLeft(e.Message, " \t\r\n"), "{") &&
		x.walker.walk(e.Message, x.paths, x.found) {
		for i, slot := range x.slots {
			r.values[slot] = x.found[i]
		}
	}
}

// Result is what there is so far. Called after the last event, it is the result.
func (x *Execution) Result() Result {
	x.mu.Lock()
	rows := x.collect.rows()
	out := Result{Statistics: x.stats}
	x.mu.Unlock()
	for i := 1; i < len(x.query.phases); i++ {
		c := x.collector(i, nil)
		for _, r := range rows {
			keep := true
			for _, s := range x.query.phases[i].steps {
				if keep = s.apply(&r); !keep {
					break
				}
			}
			if keep && c.add(&r) != nil {
				break // what the first phase held was within the bound; groups of groups are fewer
			}
		}
		rows = c.rows()
	}
	out.Rows = make([]Row, len(rows))
	for i := range rows {
		out.Rows[i] = x.query.show(&rows[i])
	}
	return out
}

func (q *Query) show(r *row) Row {
	out := make(Row, 0, len(q.columns)+1)
	for _, c := range q.columns {
		if v := r.values[c.slot]; v.kind != absent {
			out = append(out, Field{Name: c.name, Value: v.String()})
		}
	}
	if q.ptr {
		out = append(out, Field{Name: "@ptr", Value: r.ptr})
	}
	return out
}

// collector is the end of a phase.
type collector interface {
	add(r *row) error
	// rows answers what was collected, in order, without changing it. The rows are the caller's.
	rows() []row
}

func (x *Execution) collector(i int, keep []bool) collector {
	ph := &x.query.phases[i]
	if ph.stats != nil {
		return &groupCollector{spec: ph.stats, slots: x.query.slots, groups: map[string]*group{}, budget: x.options.MaxMemory}
	}
	return &orderCollector{phase: ph, bound: x.bound(i), keep: keep, byKey: map[string]*entry{}, budget: x.options.MaxMemory}
}

// bound is how many rows of a phase can be in the result; zero if that cannot be known.
func (x *Execution) bound(i int) int {
	limit := x.query.phases[i].limit
	for j := i + 1; j < len(x.query.phases); j++ {
		ph := &x.query.phases[j]
		if ph.stats != nil || ph.sorted || ph.deduped {
			return limit
		}
		for _, s := range ph.steps {
			if _, ok := s.(*filter); ok {
				return limit
			}
		}
		if ph.limit > 0 && (limit == 0 || ph.limit < limit) {
			limit = ph.limit
		}
	}
	if x.query.limit == 0 && (limit == 0 || x.options.Limit < limit) {
		limit = x.options.Limit
	}
	if limit == 0 {
		limit = MaxLimit
	}
	return limit
}

// kept tells of each slot whether it is needed after the first phase.
func (q *Query) kept() []bool {
	keep := make([]bool, q.slots)
	for _, c := range q.columns {
		keep[c.slot] = true
	}
	mark := func(n node) {
		for ref := range slotRefs(n) {
			keep[ref.slot] = true
		}
	}
	for _, ph := range q.phases[1:] {
		for _, s := range ph.steps {
			switch s := s.(type) {
			case *compute:
				mark(s.expr)
			case *filter:
				mark(s.expr)
			case *extractRegex:
				mark(s.from)
			case *extractGlob:
				mark(s.from)
			}
		}
		for _, k := range ph.keys {
			mark(k.expr)
		}
		for _, n := range ph.dedup {
			mark(n)
		}
		if ph.stats != nil {
			for _, k := range ph.stats.keys {
				mark(k.expr)
			}
			for _, a := range ph.stats.aggs {
				if a.of != nil {
					mark(a.of)
				}
			}
		}
	}
	return keep
}
