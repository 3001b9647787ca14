package placement

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Host is what a host says it can offer.
type Host struct {
	ID               string
	CPUUnits         int64 // 1,024 a logical CPU
	MemoryMiB        int64
	ReservedPorts    []Port       // never given to a task: sshd, the agent, …
	Subnet           netip.Prefix // IPv4 addresses for tasks with an address of their own; the zero value: none
	GPUIDs           []string     // each for one task at a time, given in this order
	Attributes       map[string]string
	AvailabilityZone string // the letter alone: "a"; its region is the cluster's
	AgentConnected   bool
	AgentVersion     string
}

// InstanceStatus is a container instance's status as DescribeContainerInstances shows it.
type InstanceStatus string

const (
	InstanceActive   InstanceStatus = "ACTIVE"   // takes tasks
	InstanceDraining InstanceStatus = "DRAINING" // takes none; any other status takes none either
)

// Instance is a host's presence in one cluster.
type Instance struct {
	HostID  string
	Cluster string // the cluster's ARN
	ARN     string
	Status  InstanceStatus
	// Attributes are those that clients gave it, beside the host's own.
	Attributes   map[string]string
	RegisteredAt time.Time
}

// Protocol of a host port; TCP and UDP ports are separate resources.
type Protocol uint8

const (
	TCP Protocol = iota
	UDP
)

// Port is one port of a host.
type Port struct {
	Number   uint16
	Protocol Protocol
}

// Compare orders ports by protocol, then number.
func (p Port) Compare(q Port) int {
	return cmp.Or(cmp.Compare(p.Protocol, q.Protocol), cmp.Compare(p.Number, q.Number))
}

// Reservation is what a task that is not stopped holds on its host.
type Reservation struct {
	TaskID    string // an ID or an ARN, so long as it is unique
	HostID    string
	Cluster   string // the cluster's ARN
	Group     string // what tasks are spread and kept apart by
	CPUUnits  int64
	MemoryMiB int64
	Ports     []Port     // fixed host ports
	Address   netip.Addr // from the host's subnet; the zero value: none
	GPUIDs    []string   // of the host's GPUs
	Running   bool       // the task has reached RUNNING
}

// Usage is what of a host is taken.
type Usage struct {
	Host      Host
	Tasks     int
	CPUFree   int64 // negative when the host shrank below what its tasks hold
	MemFree   int64 // MiB; likewise
	Ports     []Port
	Addresses int      // still free
	GPUs      []string // taken
}

// Ledger says what each host has left. It is not safe for concurrent use: it belongs to the placer.
type Ledger struct {
	hosts map[string]*host
	tasks map[string]*Reservation

	// order holds the hosts that have registered, by ID, and index their free resources at the same
	// positions. Both are rebuilt when needed after a host came or went.
	order    []*host
	index    index
	outdated bool

	clusters map[string]clusterID

	numberings map[attributeOf]numbering // of the hosts in order
}

// clusterID stands for a cluster's ARN inside one ledger; no decision depends on its value.
type clusterID int32

type host struct {
	Host
	known bool   // false: tasks or instances name it, but it has not registered
	pos   int    // in order
	hash  uint64 // of the ID

	zone, zoneRegion string // zoneIn's last answer

	cpuFree, memFree int64
	gpusFree         int
	gpus             map[string]int // how many tasks hold it, as with ports
	ports            map[Port]int   // how many tasks hold it: more than one only if the store says so
	addresses        pool
	tasks            map[string]*Reservation
	presences        []presence
}

// presence is what a host has in one cluster. Hosts serve few clusters, so a scan beats a map.
type presence struct {
	cluster  clusterID
	tasks    int32
	running  int32        // of those
	groups   []groupTasks // how the tasks divide into groups; few, so a scan beats a map
	instance *Instance    // nil: not registered there yet
}

type groupTasks struct {
	group string
	tasks int32
}

// NewLedger returns a ledger of no hosts.
func NewLedger() *Ledger {
	return &Ledger{
		hosts:    map[string]*host{},
		tasks:    map[string]*Reservation{},
		clusters: map[string]clusterID{},

		numberings: map[attributeOf]numbering{},
	}
}

// SetHost adds a host or replaces what is known of it. What its tasks have reserved stays, also when
// the host has become too small for it.
func (l *Ledger) SetHost(facts Host) {
	facts.Attributes = maps.Clone(facts.Attributes)
	facts.ReservedPorts = slices.Clone(facts.ReservedPorts)
	facts.GPUIDs = slices.Clone(facts.GPUIDs)
	h := l.host(facts.ID)
	if !h.known {
		h.known = true
		l.outdated = true
	}
	h.Host, h.zone = facts, ""
	clear(l.numberings)
	h.recount()
	l.changed(h)
}

// RemoveHost takes a host out of consideration. Its tasks' reservations are kept until they are
// released, in case it comes back.
func (l *Ledger) RemoveHost(id string) {
	h, ok := l.hosts[id]
	if !ok || !h.known {
		return
	}
	h.known, h.Host = false, Host{ID: id}
	h.recount()
	l.outdated = true
	l.forgetIfEmpty(h)
}

// SetInstance records a host's container instance in a cluster. The host may be unknown yet.
func (l *Ledger) SetInstance(in Instance) {
	clear(l.numberings)
	in.Attributes = maps.Clone(in.Attributes)
	h := l.host(in.HostID)
	h.presence(l.cluster(in.Cluster)).instance = &in
}

// RemoveInstance forgets a host's container instance in a cluster, so that the cluster's next task
// there registers a new one.
func (l *Ledger) RemoveInstance(hostID, cluster string) {
	h, ok := l.hosts[hostID]
	id, known := l.clusters[cluster]
	if !ok || !known {
		return
	}
	clear(l.numberings)
	h.presence(id).instance = nil
	h.dropPresenceIfEmpty(id)
	l.forgetIfEmpty(h)
}

// Reserve records what a task holds, without asking whether it fits: the caller read it in the
// store. The host may be unknown yet. Reserving a task again replaces what it held.
func (l *Ledger) Reserve(r Reservation) {
	l.Release(r.TaskID)
	r.CPUUnits, r.MemoryMiB = max(r.CPUUnits, 0), max(r.MemoryMiB, 0)
	r.Ports, r.GPUIDs = slices.Clone(r.Ports), slices.Clone(r.GPUIDs)
	h := l.host(r.HostID)
	l.tasks[r.TaskID] = &r
	h.tasks[r.TaskID] = &r
	h.presence(l.cluster(r.Cluster)).count(&r, 1)
	h.take(&r)
	l.changed(h)
}

// Release gives back what a task held. It answers false if the task held nothing.
func (l *Ledger) Release(taskID string) bool {
	r, ok := l.tasks[taskID]
	if !ok {
		return false
	}
	h := l.hosts[r.HostID]
	delete(l.tasks, taskID)
	delete(h.tasks, taskID)
	id := l.clusters[r.Cluster]
	h.presence(id).count(r, -1)
	h.dropPresenceIfEmpty(id)
	h.giveBack(r)
	l.changed(h)
	l.forgetIfEmpty(h)
	return true
}

// SetRunning records that a task runs. One that holds nothing is none of the ledger's.
func (l *Ledger) SetRunning(taskID string) {
	r, ok := l.tasks[taskID]
	if !ok || r.Running {
		return
	}
	r.Running = true
	l.hosts[r.HostID].presence(l.clusters[r.Cluster]).running++
}

// Reservation returns what a task holds.
func (l *Ledger) Reservation(taskID string) (Reservation, bool) {
	r, ok := l.tasks[taskID]
	if !ok {
		return Reservation{}, false
	}
	return *r, true
}

// Usage tells what of a registered host is taken.
func (l *Ledger) Usage(hostID string) (Usage, bool) {
	h, ok := l.hosts[hostID]
	if !ok || !h.known {
		return Usage{}, false
	}
	return Usage{
		Host:      h.Host,
		Tasks:     len(h.tasks),
		CPUFree:   h.cpuFree,
		MemFree:   h.memFree,
		Ports:     slices.SortedFunc(maps.Keys(h.ports), Port.Compare),
		Addresses: h.addresses.free(),
		GPUs:      slices.Sorted(maps.Keys(h.gpus)),
	}, true
}

func (l *Ledger) host(id string) *host {
	h, ok := l.hosts[id]
	if !ok {
		h = &host{Host: Host{ID: id}, hash: hash(id), tasks: map[string]*Reservation{}}
		l.hosts[id] = h
	}
	return h
}

// forgetIfEmpty drops a host that only tasks or instances spoke of, once none does.
func (l *Ledger) forgetIfEmpty(h *host) {
	if !h.known && len(h.tasks) == 0 && len(h.presences) == 0 {
		delete(l.hosts, h.ID)
	}
}

func (l *Ledger) cluster(arn string) clusterID {
	id, ok := l.clusters[arn]
	if !ok {
		id = clusterID(len(l.clusters))
		l.clusters[arn] = id
	}
	return id
}

// changed keeps the index true after a host's free resources moved.
func (l *Ledger) changed(h *host) {
	if h.known && !l.outdated {
		l.index.set(h.pos, h.offer())
	}
}

// refresh rebuilds order and index if hosts came or went.
func (l *Ledger) refresh() {
	if !l.outdated {
		return
	}
	l.order = l.order[:0]
	for _, h := range l.hosts {
		if h.known {
			l.order = append(l.order, h)
		}
	}
	slices.SortFunc(l.order, func(a, b *host) int { return cmp.Compare(a.ID, b.ID) })
	l.index.reset(len(l.order))
	for i, h := range l.order {
		h.pos = i
		l.index.put(i, h.offer())
	}
	l.index.build()
	clear(l.numberings)
	l.outdated = false
}

// offer is what the index may promise of the host: nothing while its agent is away.
func (h *host) offer() amounts {
	if !h.AgentConnected {
		return nothing
	}
	return amounts{ofCPU: h.cpuFree, ofMemory: h.memFree, ofAddresses: int64(h.addresses.free()), ofGPUs: int64(h.gpusFree)}
}

func (h *host) take(r *Reservation) {
	h.cpuFree -= r.CPUUnits
	h.memFree -= r.MemoryMiB
	for _, p := range r.Ports {
		if h.ports == nil {
			h.ports = map[Port]int{}
		}
		h.ports[p]++
	}
	if r.Address.IsValid() {
		h.addresses.take(r.Address)
	}
	for _, id := range r.GPUIDs {
		if h.gpus == nil {
			h.gpus = map[string]int{}
		}
		if h.gpus[id]++; h.gpus[id] == 1 && slices.Contains(h.GPUIDs, id) {
			h.gpusFree--
		}
	}
}

func (h *host) giveBack(r *Reservation) {
	h.cpuFree += r.CPUUnits
	h.memFree += r.MemoryMiB
	for _, p := range r.Ports {
		if h.ports[p]--; h.ports[p] <= 0 {
			delete(h.ports, p)
		}
	}
	if r.Address.IsValid() {
		h.addresses.giveBack(r.Address)
	}
	for _, id := range r.GPUIDs {
		if h.gpus[id]--; h.gpus[id] > 0 {
			continue
		}
		delete(h.gpus, id)
		if slices.Contains(h.GPUIDs, id) {
			h.gpusFree++
		}
	}
}

// recount derives everything counted from the host's facts and its tasks.
func (h *host) recount() {
	h.cpuFree, h.memFree = h.CPUUnits, h.MemoryMiB
	h.ports, h.gpus, h.gpusFree = nil, nil, len(h.GPUIDs)
	h.addresses = newPool(h.Subnet)
	h.take(&Reservation{Ports: h.ReservedPorts})
	for _, r := range h.tasks {
		h.take(r)
	}
}

// count enters a task (by 1) or strikes it out (by -1).
func (p *presence) count(r *Reservation, by int32) {
	p.tasks += by
	if r.Running {
		p.running += by
	}
	i := slices.IndexFunc(p.groups, func(g groupTasks) bool { return g.group == r.Group })
	if i < 0 {
		p.groups = append(p.groups, groupTasks{group: r.Group, tasks: by})
		return
	}
	if p.groups[i].tasks += by; p.groups[i].tasks <= 0 {
		last := len(p.groups) - 1
		p.groups[i], p.groups[last] = p.groups[last], groupTasks{}
		p.groups = p.groups[:last]
	}
}

// ofGroup is how many tasks of a group there are; a nil presence has none.
func (p *presence) ofGroup(group string) int32 {
	if p == nil {
		return 0
	}
	for i := range p.groups {
		if p.groups[i].group == group {
			return p.groups[i].tasks
		}
	}
	return 0
}

// presence returns the host's entry for a cluster, making it if need be.
func (h *host) presence(id clusterID) *presence {
	if p := h.findPresence(id); p != nil {
		return p
	}
	h.presences = append(h.presences, presence{cluster: id})
	return &h.presences[len(h.presences)-1]
}

func (h *host) findPresence(id clusterID) *presence {
	for i := range h.presences {
		if h.presences[i].cluster == id {
			return &h.presences[i]
		}
	}
	return nil
}

func (h *host) dropPresenceIfEmpty(id clusterID) {
	h.presences = slices.DeleteFunc(h.presences, func(p presence) bool {
		return p.cluster == id && p.tasks == 0 && p.instance == nil
	})
}
