package placement

import (
	"math/bits"
	"net/netip"
	"slices"
)

// Request is a task that looks for a host.
type Request struct {
	TaskID    string // also the seed of every choice between hosts that are equally good
	Cluster   string // the cluster's ARN
	Group     string
	CPUUnits  int64
	MemoryMiB int64
	// Ports are the fixed host ports; those the host chooses itself are not asked for here.
	Ports []Port
	// Address asks for an address from the host's subnet (network mode awsvpc).
	Address bool
	GPUs    int
	Rules
	// Exclude names hosts not to be used.
	Exclude []string
	// Within are attributes of the hosts that may be used at all, such as those of one capacity provider.
	Within map[string]string
}

// Decision is a place for a task.
type Decision struct {
	TaskID      string
	HostID      string
	InstanceARN string     // of the host's container instance in the cluster; empty: to be registered
	Address     netip.Addr // valid if the request asked for one
	GPUIDs      []string   // as many as the request asked for
	// Ranking says what the host was chosen by, one for each strategy of the request, in order.
	Ranking []Rank
}

const (
	// candidates bounds how many hosts that fit are compared with each other. Spreading over the best
	// of a random few is nearly as even as over the best of all, and costs the same on any number of
	// hosts; up to this many hosts it is the best of all.
	candidates = 16
	// probes bounds how many hosts are tried at random before the index is asked.
	probes = 2 * candidates
)

// request is a Request prepared for asking many hosts.
type request struct {
	Request
	cluster     clusterID // -1: the ledger never heard of it
	need        amounts
	repeatsPort bool
	region      string // the cluster's
}

func (l *Ledger) prepare(req *Request) request {
	q := request{Request: *req, cluster: -1, region: regionOf(req.Cluster)}
	if id, ok := l.clusters[req.Cluster]; ok {
		q.cluster = id
	}
	q.need = amounts{ofCPU: max(req.CPUUnits, 0), ofMemory: max(req.MemoryMiB, 0), ofGPUs: int64(max(req.GPUs, 0))}
	if req.Address {
		q.need[ofAddresses] = 1
	}
	for i, p := range req.Ports {
		q.repeatsPort = q.repeatsPort || slices.Contains(req.Ports[:i], p)
	}
	return q
}

// fits is the one judge of whether a host can take a task. The reasons come in the order in which
// ECS checks: the agent, the resources, the attributes, then the constraints.
func (h *host) fits(q *request) Reason {
	if h.excluded(q) {
		return Excluded
	}
	p := h.findPresence(q.cluster)
	if p != nil && p.instance != nil && p.instance.Status != InstanceActive {
		return Inactive
	}
	if !h.AgentConnected {
		return Agent
	}
	if h.cpuFree < q.need[ofCPU] {
		return CPU
	}
	if int64(h.gpusFree) < q.need[ofGPUs] {
		return GPU
	}
	if h.memFree < q.need[ofMemory] {
		return Memory
	}
	if q.repeatsPort {
		return Ports // no two containers of a task can have the same port of any host
	}
	for _, p := range q.Ports {
		if _, taken := h.ports[p]; taken {
			return Ports
		}
	}
	if q.need[ofAddresses] > 0 && h.addresses.free() <= 0 {
		return ENI
	}
	if len(q.Attributes) > 0 && h.lacks(q, p) != "" {
		return Attribute
	}
	if q.Distinct && p.ofGroup(q.Group) > 0 {
		return Distinct
	}
	if len(q.Members) > 0 && h.outside(q, p) != nil {
		return MemberOf
	}
	return ""
}

func (h *host) excluded(q *request) bool {
	if len(q.Exclude) > 0 && slices.Contains(q.Exclude, h.ID) {
		return true
	}
	if len(q.Within) > 0 {
		p := h.findPresence(q.cluster)
		for name, want := range q.Within {
			if !h.offers(q, p, name, want) {
				return true
			}
		}
	}
	return false
}

// lacks names an attribute that the host does not have as asked: the first by name, so that the
// answer does not depend on a map's order.
func (h *host) lacks(q *request, p *presence) string {
	missing := ""
	for name, want := range q.Attributes {
		if !h.offers(q, p, name, want) && (missing == "" || name < missing) {
			missing = name
		}
	}
	return missing
}

func (h *host) verdict(q *request) Verdict {
	v := Verdict{HostID: h.ID, Reason: h.fits(q)}
	p := h.findPresence(q.cluster)
	if p != nil && p.instance != nil {
		v.InstanceARN = p.instance.ARN
	}
	switch v.Reason {
	case CPU:
		v.Needed, v.Free = q.need[ofCPU], h.cpuFree
	case Memory:
		v.Needed, v.Free = q.need[ofMemory], h.memFree
	case GPU:
		v.Needed, v.Free = q.need[ofGPUs], int64(h.gpusFree)
	case Attribute:
		v.Lacks = h.lacks(q, p)
	case MemberOf:
		v.Lacks = h.outside(q, p).String()
	}
	return v
}

// Fits judges one host.
func (l *Ledger) Fits(hostID string, req Request) Verdict {
	h, ok := l.hosts[hostID]
	if !ok || !h.known {
		return Verdict{HostID: hostID, Reason: Missing}
	}
	q := l.prepare(&req)
	return h.verdict(&q)
}

// Judge judges every host, in the order of their IDs. Asked at once after Place found no place, it
// holds the reason for each host; len 0 means there are no hosts.
func (l *Ledger) Judge(req Request) []Verdict {
	l.refresh()
	q := l.prepare(&req)
	verdicts := make([]Verdict, len(l.order))
	for i, h := range l.order {
		verdicts[i] = h.verdict(&q)
	}
	return verdicts
}

// Place finds a host for a task and reserves nothing. It answers false if and only if no host fits.
//
// Of a request with strategies it takes the best of all hosts that fit: best by the first strategy,
// among equals by the second, and so on. Without strategies, among a bounded number of hosts that fit,
// found in an order that depends on the task's ID alone, it takes the one with the fewest tasks of the
// cluster, and of those the one with the largest share of its scarcer resource free.
func (l *Ledger) Place(req Request) (Decision, bool) {
	l.refresh()
	seed := hash(req.TaskID)
	if len(req.Strategies) > 0 {
		return l.placeBest(req, seed)
	}
	q := l.prepare(&req)
	best := l.choose(&q, seed)
	if best == nil {
		return Decision{}, false
	}
	return best.decide(&q, seed)
}

// placeBest is Place with strategies.
func (l *Ledger) placeBest(req Request, seed uint64) (Decision, bool) {
	q := l.prepare(&req)
	best, ranking := l.chooseBest(&q, seed)
	if best == nil {
		return Decision{}, false
	}
	d, ok := best.decide(&q, seed)
	d.Ranking = ranking
	return d, ok
}

// PlaceOn is Place for a host that is named, as in StartTask.
func (l *Ledger) PlaceOn(hostID string, req Request) (Decision, Verdict) {
	v := l.Fits(hostID, req)
	if !v.OK() {
		return Decision{}, v
	}
	q := l.prepare(&req)
	d, _ := l.hosts[hostID].decide(&q, hash(req.TaskID))
	return d, v
}

func (h *host) decide(q *request, seed uint64) (Decision, bool) {
	d := Decision{TaskID: q.TaskID, HostID: h.ID}
	if p := h.findPresence(q.cluster); p != nil && p.instance != nil {
		d.InstanceARN = p.instance.ARN
	}
	if q.need[ofGPUs] > 0 {
		for _, id := range h.GPUIDs {
			if h.gpus[id] == 0 && int64(len(d.GPUIDs)) < q.need[ofGPUs] {
				d.GPUIDs = append(d.GPUIDs, id)
			}
		}
	}
	if q.need[ofAddresses] > 0 {
		var ok bool
		// A number of its own: the host's position and the address must not go together, or hosts
		// with equal subnets would wear out the same addresses.
		if d.Address, ok = h.addresses.choose(mix(seed ^ 0x9e3779b97f4a7c15)); !ok {
			return Decision{}, false
		}
	}
	return d, true
}

func (l *Ledger) choose(q *request, seed uint64) *host {
	n := len(l.order)
	if n == 0 || !l.index.nodes[1].covers(&q.need) {
		return nil
	}
	var best *host
	var bestScore score
	found := 0
	consider := func(h *host) {
		if h.fits(q) != "" {
			return
		}
		found++
		if s := h.score(q); best == nil || s.better(bestScore) {
			best, bestScore = h, s
		}
	}

	start := int(below(seed, n))
	if n <= probes {
		for i := 0; i < n && found < candidates; i++ {
			consider(l.order[(start+i)%n])
		}
		return best
	}
	for i := 0; i < probes && found < candidates; i++ {
		seed = mix(seed)
		consider(l.order[below(seed, n)]) // meeting a host twice changes nothing
	}
	if best != nil {
		return best
	}
	// Few hosts, or none, can take it: let the index lead from one that has the room to the next,
	// around the circle.
	for pos := l.index.next(start, q.need); pos >= 0 && found < candidates; pos = l.index.next(pos+1, q.need) {
		consider(l.order[pos])
	}
	for pos := l.index.next(0, q.need); pos >= 0 && pos < start && found < candidates; pos = l.index.next(pos+1, q.need) {
		consider(l.order[pos])
	}
	return best
}

// score ranks hosts that fit.
type score struct {
	tasks int32 // of the cluster, on the host
	free  int64 // share of the scarcer resource, in 1/65,536
}

func (s score) better(than score) bool {
	return s.tasks < than.tasks || s.tasks == than.tasks && s.free > than.free
}

func (h *host) score(q *request) score {
	s := score{free: min(share(h.cpuFree, h.CPUUnits), share(h.memFree, h.MemoryMiB))}
	if p := h.findPresence(q.cluster); p != nil {
		s.tasks = p.tasks
	}
	return s
}

func share(free, total int64) int64 {
	if total <= 0 {
		return 0
	}
	return free << 16 / total
}

// Batch places requests one after another, each seeing what the earlier ones took, and can give all
// of it back.
type Batch struct {
	ledger *Ledger
	tasks  []string
}

// Begin starts a batch.
func (l *Ledger) Begin() *Batch { return &Batch{ledger: l} }

// Place finds a host for the task and reserves it there. It answers false, and reserves nothing, if
// no host fits or if the task holds a reservation already.
func (b *Batch) Place(req Request) (Decision, bool) {
	if _, held := b.ledger.tasks[req.TaskID]; held {
		return Decision{}, false
	}
	d, ok := b.ledger.Place(req)
	if ok {
		b.reserve(&req, d)
	}
	return d, ok
}

// PlaceOn is Place for a host that is named. A task that holds a reservation already is refused as
// Excluded.
func (b *Batch) PlaceOn(hostID string, req Request) (Decision, Verdict) {
	if _, held := b.ledger.tasks[req.TaskID]; held {
		return Decision{}, Verdict{HostID: hostID, Reason: Excluded}
	}
	d, v := b.ledger.PlaceOn(hostID, req)
	if v.OK() {
		b.reserve(&req, d)
	}
	return d, v
}

func (b *Batch) reserve(req *Request, d Decision) {
	b.ledger.Reserve(Reservation{
		TaskID: req.TaskID, HostID: d.HostID, Cluster: req.Cluster, Group: req.Group,
		CPUUnits: req.CPUUnits, MemoryMiB: req.MemoryMiB, Ports: req.Ports, Address: d.Address, GPUIDs: d.GPUIDs,
	})
	b.tasks = append(b.tasks, req.TaskID)
}

// Undo gives back everything the batch reserved and empties it. Other batches may have placed since:
// because the ledger's answers depend on its content alone, the order of undoing does not matter.
func (b *Batch) Undo() {
	for _, id := range b.tasks {
		b.ledger.Release(id)
	}
	b.tasks = nil
}

// hash is FNV-1a over the ID, mixed: the same in every process and release, which hash/maphash is not.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the output function of SplitMix64: every bit of x moves every bit of the result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// below maps a number evenly to [0, n).
func below(x uint64, n int) uint64 {
	hi, _ := bits.Mul64(x, uint64(n))
	return hi
}
