package placement

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/berthhq/berth/internal/ecs/placement/query"
)

// Limits of a request's rules, from the API reference.
const (
	MaxStrategies  = 5
	MaxConstraints = 10
)

// ZoneAttribute is the one built-in attribute that depends on the cluster: a host's Availability Zone
// is a letter, to which the cluster gives the region.
const ZoneAttribute = "ecs.availability-zone"

// Rules narrow and order the hosts that have the room.
type Rules struct {
	// Attributes the host must have. An empty value asks only that the attribute exists.
	Attributes map[string]string
	// Distinct: no host has two tasks of the request's group in the cluster.
	Distinct bool
	// Members are expressions that must all hold for the host.
	Members []*query.Expr
	// Strategies say which host is best, the first before the second; none: as Place says.
	Strategies []Strategy
}

// Kind of a strategy, in the API's words.
type Kind string

const (
	Random  Kind = "random"
	Spread  Kind = "spread"
	Binpack Kind = "binpack"
)

// Fields of strategies. Any other field of Spread is an attribute's name.
const (
	ByHost   = "instanceId"
	ByCPU    = "cpu"
	ByMemory = "memory"
)

// attributePrefix stands before an attribute's name in a strategy's field.
const attributePrefix = "attribute:"

// Strategy is one way to say that a host is better than another.
type Strategy struct {
	Kind  Kind
	Field string // ByHost or "attribute:…" with Spread; ByCPU or ByMemory with Binpack; empty with Random
}

// NewStrategy reads a strategy as the API takes it; false: it is none.
func NewStrategy(kind, field string) (Strategy, bool) {
	s := Strategy{Kind: Kind(kind)}
	switch s.Kind {
	case Random:
		return s, true
	case Spread:
		if name, ok := strings.CutPrefix(field, attributePrefix); ok {
			s.Field = field
			return s, name != ""
		}
		s.Field = ByHost
		return s, strings.EqualFold(field, ByHost) || strings.EqualFold(field, "host")
	case Binpack:
		s.Field = strings.ToLower(field)
		return s, s.Field == ByCPU || s.Field == ByMemory
	}
	return s, false
}

// String is the strategy as people write it: spread(attribute:ecs.availability-zone).
func (s Strategy) String() string {
	if s.Field == "" {
		return string(s.Kind)
	}
	return string(s.Kind) + "(" + s.Field + ")"
}

// Rank is what a host counts by one strategy; the least is best.
type Rank struct {
	Strategy string `json:"strategy"`
	// Value is the group's tasks there, the CPU units or MiB left before the task, or a random number.
	Value int64 `json:"value"`
}

// offers tells whether the host has an attribute as asked, in the cluster of the request.
func (h *host) offers(q *request, p *presence, name, want string) bool {
	have, ok := h.attribute(q.region, p, name)
	return ok && (want == "" || have == want)
}

// attribute answers an attribute of the host's presence in a cluster of the region, or else its own.
func (h *host) attribute(region string, p *presence, name string) (string, bool) {
	if name == ZoneAttribute && h.AvailabilityZone != "" {
		return h.zoneIn(region), true
	}
	if p != nil && p.instance != nil {
		if value, ok := p.instance.Attributes[name]; ok {
			return value, true
		}
	}
	value, ok := h.Attributes[name]
	return value, ok
}

// zoneIn is the name of the host's Availability Zone. It is asked for one region after many times.
func (h *host) zoneIn(region string) string {
	if h.zone == "" || h.zoneRegion != region {
		h.zone, h.zoneRegion = region+h.AvailabilityZone, region
	}
	return h.zone
}

// regionOf is the region in an ARN.
func regionOf(arn string) string {
	for range 3 {
		_, rest, ok := strings.Cut(arn, ":")
		if !ok {
			return ""
		}
		arn = rest
	}
	region, _, _ := strings.Cut(arn, ":")
	return region
}

// outside is the first expression that does not hold for the host; nil: all hold.
func (h *host) outside(q *request, p *presence) *query.Expr {
	s := h.subject(q, p)
	for _, e := range q.Members {
		if !e.Match(s) {
			return e
		}
	}
	return nil
}

// subject is the host as expressions see it.
func (h *host) subject(q *request, p *presence) query.Subject {
	region := q.region // the request itself stays off the heap
	s := query.Subject{
		AgentConnected: h.AgentConnected, AgentVersion: h.AgentVersion,
		Attribute: func(name string) (string, bool) { return h.attribute(region, p, name) },
	}
	if p == nil {
		return s
	}
	s.RunningTasks = int(p.running)
	s.Groups = p.groupNames()
	if p.instance != nil {
		s.RegisteredAt = p.instance.RegisteredAt
	}
	return s
}

func (p *presence) groupNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range p.groups {
			if !yield(p.groups[i].group) {
				return
			}
		}
	}
}

// chooseBest compares all hosts with room by the request's strategies. Hosts that are equal by all of
// them are told apart by chance, which depends on the task's ID alone.
func (l *Ledger) chooseBest(q *request, seed uint64) (*host, []Rank) {
	r := l.ranker(q, seed)
	var best *host
	values, least := make([]int64, len(r.strategies)), make([]int64, len(r.strategies))
	for pos := l.index.next(0, q.need); pos >= 0; pos = l.index.next(pos+1, q.need) {
		h := l.order[pos]
		p := h.findPresence(q.cluster)
		c := 0
		for i := range r.strategies {
			values[i] = r.value(i, h, p)
			if best != nil && c == 0 {
				if c = compare(values[i], least[i]); c > 0 {
					break
				}
			}
		}
		if best != nil && c == 0 {
			c = compare(r.chance(h), r.chance(best))
		}
		if best != nil && c >= 0 || h.fits(q) != "" {
			continue
		}
		best = h
		values, least = least, values
	}
	if best == nil {
		return nil, nil
	}
	ranking := make([]Rank, len(least))
	for i, s := range q.Strategies {
		ranking[i] = Rank{Strategy: s.String(), Value: least[i]}
	}
	return best, ranking
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// ranker computes what hosts count by each strategy of a request.
type ranker struct {
	q          *request
	seed       uint64
	strategies []Strategy
	over       []spreadOver // for each strategy; the zero value unless it spreads over an attribute
}

// spreadOver is how many tasks of the group each value of an attribute has.
type spreadOver struct {
	values []int32 // by the host's position, the number of its value
	tasks  []int64 // by number
}

func (l *Ledger) ranker(q *request, seed uint64) *ranker {
	r := &ranker{q: q, seed: seed, strategies: q.Strategies, over: make([]spreadOver, len(q.Strategies))}
	spreads := false
	for i, s := range q.Strategies {
		if s.Kind == Spread && s.Field != ByHost {
			values, n := l.valuesOf(q, strings.TrimPrefix(s.Field, attributePrefix))
			r.over[i] = spreadOver{values, make([]int64, n)}
			spreads = true
		}
	}
	if !spreads {
		return r
	}
	for pos, h := range l.order {
		n := int64(h.findPresence(q.cluster).ofGroup(q.Group))
		if n == 0 {
			continue
		}
		for i := range r.over {
			if r.over[i].values != nil {
				r.over[i].tasks[r.over[i].values[pos]] += n
			}
		}
	}
	return r
}

// attributeOf is an attribute as one cluster sees it.
type attributeOf struct{ cluster, name string }

// numbering numbers the values that hosts have of an attribute, from 0; having none is one of them.
type numbering struct {
	values []int32 // by the host's position
	n      int
}

// maxNumberings bounds how many attributes' numberings are kept.
const maxNumberings = 64

// valuesOf answers the numbering of an attribute's values. It is kept until a host or an instance
// changes; what tasks come and go does not matter to it.
func (l *Ledger) valuesOf(q *request, name string) ([]int32, int) {
	key := attributeOf{q.Cluster, name}
	if known, ok := l.numberings[key]; ok {
		return known.values, known.n
	}
	if len(l.numberings) >= maxNumberings {
		clear(l.numberings)
	}
	type value struct {
		text string
		has  bool
	}
	numbers := map[value]int32{}
	made := numbering{values: make([]int32, len(l.order))}
	for pos, h := range l.order {
		text, has := h.attribute(q.region, h.findPresence(q.cluster), name)
		number, ok := numbers[value{text, has}]
		if !ok {
			number = int32(len(numbers))
			numbers[value{text, has}] = number
		}
		made.values[pos] = number
	}
	made.n = len(numbers)
	l.numberings[key] = made
	return made.values, made.n
}

func (r *ranker) value(i int, h *host, p *presence) int64 {
	switch s := r.strategies[i]; {
	case s.Kind == Random:
		return int64(mix(r.seed^h.hash^uint64(i+1)) >> 1)
	case s.Kind == Binpack && s.Field == ByCPU:
		return h.cpuFree
	case s.Kind == Binpack:
		return h.memFree
	case s.Field == ByHost:
		return int64(p.ofGroup(r.q.Group))
	default:
		return r.over[i].tasks[r.over[i].values[h.pos]]
	}
}

// chance tells apart hosts that are equal by every strategy.
func (r *ranker) chance(h *host) int64 { return int64(mix(r.seed^h.hash) >> 1) }

// needs lists the attributes asked for, by name.
func (q *request) needs() []string { return slices.Sorted(maps.Keys(q.Attributes)) }
