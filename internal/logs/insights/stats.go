package insights

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// statsSpec is a stats command.
type statsSpec struct {
	keys    []compute
	aggs    []aggregation
	results []compute // over the slots of aggregations
}

type aggKind uint8

const (
	aggCount aggKind = iota
	aggCountDistinct
	aggSum
	aggAvg
	aggMin
	aggMax
	aggStddev
	aggPct
	aggEarliest
	aggLatest
)

// aggregations are the functions of stats. sortsFirst and sortsLast are min and max: all three go by the
// order of the sort command.
var aggregations = map[string]aggKind{
	"count": aggCount, "count_distinct": aggCountDistinct, "sum": aggSum, "avg": aggAvg, "min": aggMin, "max": aggMax,
	"stddev": aggStddev, "pct": aggPct, "earliest": aggEarliest, "latest": aggLatest, "sortsfirst": aggMin, "sortslast": aggMax,
}

// aggregation is one call of such a function.
type aggregation struct {
	kind    aggKind
	of      node // nil: of rows
	percent float64
	slot    int
}

// groupCollector groups rows.
type groupCollector struct {
	spec    *statsSpec
	slots   int
	groups  map[string]*group
	budget  int64 // bytes left
	full    bool
	scratch []value
	key     []byte
}

type group struct {
	keys []value
	aggs []accumulator
	now  int64
}

// appendKey appends a value so that values that are shown alike, and only those, are alike.
func appendKey(key []byte, v value) []byte {
	if v.kind == absent {
		return append(key, 0)
	}
	s := v.String()
	key = binary.AppendUvarint(append(key, 1), uint64(len(s)))
	return append(key, s...)
}

func (c *groupCollector) add(r *row) error {
	if c.full {
		return ErrMemory
	}
	c.key, c.scratch = c.key[:0], c.scratch[:0]
	for _, k := range c.spec.keys {
		v := k.expr.eval(r)
		c.scratch = append(c.scratch, v)
		c.key = appendKey(c.key, v)
	}
	g := c.groups[string(c.key)]
	if g == nil {
		g = &group{keys: slices.Clone(c.scratch), aggs: make([]accumulator, len(c.spec.aggs)), now: r.now}
		for i := range g.keys {
			g.keys[i].text = strings.Clone(g.keys[i].text)
		}
		c.groups[string(c.key)] = g
		c.budget -= 200 + 2*int64(len(c.key)) + 40*int64(len(g.keys)) + 160*int64(len(g.aggs))
	}
	for i := range c.spec.aggs {
		spec := &c.spec.aggs[i]
		v := boolOf(true)
		if spec.of != nil {
			v = spec.of.eval(r)
		}
		if v.kind != absent {
			c.budget -= g.aggs[i].add(spec, v, &r.rank)
		}
	}
	if c.budget < 0 {
		c.full = true
		return ErrMemory
	}
	return nil
}

func (c *groupCollector) rows() []row {
	groups := make([]*group, 0, len(c.groups))
	for _, g := range c.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *group) int {
		for i := range a.keys {
			x, y := a.keys[i], b.keys[i]
			d := 0
			switch {
			case x.kind == absent || y.kind == absent:
				d = int(min(y.kind, 1)) - int(min(x.kind, 1))
			case x.kind == moment && y.kind == moment:
				d = compareFloats(y.num, x.num)
			default:
				d = compareSorted(x, y)
			}
			if d != 0 {
				return d
			}
		}
		return 0
	})
	out := make([]row, len(groups))
	for i, g := range groups {
		r := row{values: make([]value, c.slots), rank: rank{seq: int64(i)}, now: g.now}
		for j := range c.spec.aggs {
			r.values[c.spec.aggs[j].slot] = g.aggs[j].result(&c.spec.aggs[j])
		}
		for j := range c.spec.results {
			c.spec.results[j].apply(&r)
		}
		for j, k := range c.spec.keys {
			r.values[k.slot] = g.keys[j]
		}
		out[i] = r
	}
	return out
}

// accumulator is an aggregation under way.
type accumulator struct {
	count     float64
	sum, mean float64
	squares   float64 // sum of squared distances from the mean
	best      value
	at        rank
	distinct  *distinct
	sample    *sample
}

// add counts in a value that is there, and answers how many bytes more are held.
func (a *accumulator) add(spec *aggregation, v value, at *rank) int64 {
	switch spec.kind {
	case aggCount:
		a.count++
		return 0
	case aggCountDistinct:
		if a.distinct == nil {
			a.distinct = &distinct{exact: map[string]struct{}{}}
		}
		return a.distinct.add(v.String())
	case aggMin, aggMax:
		d := -1
		if a.best.kind != absent {
			d = compareSorted(v, a.best)
		}
		if a.best.kind == absent || spec.kind == aggMin && d < 0 || spec.kind == aggMax && d > 0 {
			return a.take(v)
		}
		return 0
	case aggEarliest, aggLatest:
		// Ranks put the latest first.
		d := at.compare(&a.at)
		if a.best.kind == absent || spec.kind == aggLatest && d < 0 || spec.kind == aggEarliest && d > 0 {
			a.at = *at
			a.at.log, a.at.stream, a.at.ptr = strings.Clone(at.log), strings.Clone(at.stream), strings.Clone(at.ptr)
			return a.take(v)
		}
		return 0
	}
	x, ok := v.number()
	if !ok {
		return 0
	}
	a.count++
	a.sum += x
	distance := x - a.mean
	a.mean += distance / a.count
	a.squares += distance * (x - a.mean)
	if spec.kind == aggPct {
		if a.sample == nil {
			a.sample = &sample{}
		}
		return a.sample.add(x)
	}
	return 0
}

// take makes a value the best.
func (a *accumulator) take(v value) int64 {
	more := int64(len(v.text) - len(a.best.text))
	v.text = strings.Clone(v.text)
	a.best = v
	return more
}

func (a *accumulator) result(spec *aggregation) value {
	switch spec.kind {
	case aggCount:
		return numberOf(a.count)
	case aggCountDistinct:
		if a.distinct == nil {
			return numberOf(0)
		}
		return numberOf(a.distinct.count())
	case aggMin, aggMax, aggEarliest, aggLatest:
		return a.best
	}
	switch {
	case a.count == 0:
		return value{}
	case spec.kind == aggSum:
		return finite(a.sum)
	case spec.kind == aggAvg:
		return finite(a.sum / a.count)
	case spec.kind == aggPct:
		return finite(a.sample.at(spec.percent))
	case a.count == 1:
		return numberOf(0)
	}
	return finite(math.Sqrt(a.squares / (a.count - 1)))
}

// distinct counts different texts: exactly while they are few, then by HyperLogLog (Flajolet et al., 2007).
type distinct struct {
	exact     map[string]struct{} // nil: there are too many
	registers []uint8
}

const (
	maxDistinct  = 16_384
	registerBits = 14
)

func (d *distinct) add(s string) int64 {
	if d.exact == nil {
		d.register(s)
		return 0
	}
	if _, ok := d.exact[s]; ok {
		return 0
	}
	d.exact[strings.Clone(s)] = struct{}{}
	if len(d.exact) <= maxDistinct {
		return int64(len(s)) + 48
	}
	d.registers = make([]uint8, 1<<registerBits)
	held := int64(0)
	for x := range d.exact {
		d.register(x)
		held += int64(len(x)) + 48
	}
	d.exact = nil
	return int64(len(s)) + 48 + int64(len(d.registers)) - held
}

func (d *distinct) register(s string) {
	h := fnv.New64a()
	h.Write([]byte(s))
	x := h.Sum64()
	// FNV's high bits are poor; this finalizer is that of MurmurHash3.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	r := &d.registers[x>>(64-registerBits)]
	*r = max(*r, uint8(bits.LeadingZeros64(x<<registerBits|1<<(registerBits-1))+1))
}

func (d *distinct) count() float64 {
	if d.exact != nil {
		return float64(len(d.exact))
	}
	m := float64(len(d.registers))
	sum, empty := 0.0, 0.0
	for _, r := range d.registers {
		sum += math.Ldexp(1, -int(r))
		if r == 0 {
			empty++
		}
	}
	estimate := 0.7213 / (1 + 1.079/m) * m * m / sum
	if estimate <= 2.5*m && empty > 0 {
		estimate = m * math.Log(m/empty)
	}
	return math.Round(estimate)
}

// sample finds percentiles: exactly while there are few values, then from counts of values that differ by
// no more than 1 % (as DDSketch does; Masson et al., 2019). It does not depend on the order of values.
type sample struct {
	exact    []float64
	counts   map[int]float64 // by bucket, after exact grew too long
	negative map[int]float64
	zero     float64
	total    float64
}

const maxSample = 4096

// bucketWidth is the logarithm of the ratio between the bounds of a bucket; its middle is within 1 % of
// each.
var bucketWidth = math.Log(1.02)

func (s *sample) add(x float64) int64 {
	s.total++
	if s.counts == nil {
		s.exact = append(s.exact, x)
		if len(s.exact) <= maxSample {
			return 8
		}
		s.counts, s.negative = map[int]float64{}, map[int]float64{}
		held := int64(0)
		for _, v := range s.exact {
			held += s.bucket(v) - 8
		}
		s.exact = nil
		return held + 8
	}
	return s.bucket(x)
}

func (s *sample) bucket(x float64) int64 {
	to := s.counts
	switch {
	case x == 0:
		s.zero++
		return 0
	case x < 0:
		to = s.negative
	}
	before := len(to)
	to[int(math.Floor(math.Log(math.Abs(x))/bucketWidth))]++
	return 32 * int64(len(to)-before)
}

// at is the smallest value that is not less than so many percent of them.
func (s *sample) at(percent float64) float64 {
	n := max(1, math.Ceil(percent/100*s.total))
	if s.counts == nil {
		sorted := slices.Clone(s.exact)
		slices.Sort(sorted)
		return sorted[int(n)-1]
	}
	middle := func(i int) float64 { return math.Exp((float64(i) + 0.5) * bucketWidth) }
	for _, i := range slices.Backward(keysOf(s.negative)) {
		if n -= s.negative[i]; n <= 0 {
			return -middle(i)
		}
	}
	if n -= s.zero; n <= 0 {
		return 0
	}
	last := 0.0
	for _, i := range keysOf(s.counts) {
		last = middle(i)
		if n -= s.counts[i]; n <= 0 {
			break
		}
	}
	return last
}

func keysOf(m map[int]float64) []int {
	out := make([]int, 0, len(m))
	for i := range m {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}
