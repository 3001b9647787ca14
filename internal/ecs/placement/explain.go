package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/berthhq/berth/internal/ecs/placement/query"
)

// MaxExplained is how many hosts an Explanation speaks of one by one.
const MaxExplained = 50

// Explanation says of a request that found no place why each host could not take it.
type Explanation struct {
	// Hosts are those that came closest, the closest first; at most MaxExplained.
	Hosts []HostVerdict `json:"hosts"`
	// Total is how many hosts there are.
	Total int `json:"total"`
	// Reasons counts all hosts by the first filter that refused.
	Reasons map[Reason]int `json:"reasons"`
}

// HostVerdict is what every filter says of one host, also those after the first that refused.
type HostVerdict struct {
	HostID      string  `json:"hostId"`
	InstanceARN string  `json:"instanceArn,omitempty"` // of its container instance in the cluster; empty: none yet
	Reason      Reason  `json:"reason,omitempty"`      // of the first that refused; empty: the task fits
	Checks      []Check `json:"checks"`                // in the order of ECS
}

// refused is how many filters refused.
func (v *HostVerdict) refused() int {
	n := 0
	for i := range v.Checks {
		if !v.Checks[i].OK {
			n++
		}
	}
	return n
}

// Check is what one filter says of one host.
type Check struct {
	Filter string `json:"filter"` // excluded, status, agent, cpu, gpu, memory, ports, address, attribute, distinctInstance, memberOf
	OK     bool   `json:"ok"`
	// Needed and Free are CPU units, MiB, GPUs, addresses, or tasks of the group.
	Needed int64 `json:"needed,omitempty"`
	Free   int64 `json:"free,omitempty"`
	// Detail is what the filter looked at: the status, the ports that are taken, the attribute as asked
	// for, the expression.
	Detail string `json:"detail,omitempty"`
	// Actual is what the host has of it.
	Actual string `json:"actual,omitempty"`
	// Terms are an expression's comparisons.
	Terms []query.Term `json:"terms,omitempty"`
}

// Explain judges every host by every filter.
func (l *Ledger) Explain(req Request) Explanation {
	l.refresh()
	q := l.prepare(&req)
	out := Explanation{Hosts: []HostVerdict{}, Total: len(l.order), Reasons: map[Reason]int{}}
	type candidate struct {
		*host
		v Verdict
	}
	all := make([]candidate, len(l.order))
	for i, h := range l.order {
		all[i] = candidate{h, h.verdict(&q)}
		out.Reasons[all[i].v.Reason]++
	}
	// Only so many are looked at closely; the others fail at an earlier filter.
	slices.SortFunc(all, func(a, b candidate) int {
		switch {
		case closer(a.v, b.v):
			return -1
		case closer(b.v, a.v):
			return 1
		}
		return 0
	})
	for _, c := range all[:min(len(all), MaxExplained)] {
		out.Hosts = append(out.Hosts, c.examine(&q))
	}
	slices.SortStableFunc(out.Hosts, func(a, b HostVerdict) int { return cmp.Compare(a.refused(), b.refused()) })
	return out
}

// Examine judges one host by every filter; false: there is no such host.
func (l *Ledger) Examine(hostID string, req Request) (HostVerdict, bool) {
	h, ok := l.hosts[hostID]
	if !ok || !h.known {
		return HostVerdict{HostID: hostID, Reason: Missing, Checks: []Check{}}, false
	}
	q := l.prepare(&req)
	return h.examine(&q), true
}

// examine asks what fits asks, in the same order, and does not stop at the first refusal.
func (h *host) examine(q *request) HostVerdict {
	v := HostVerdict{HostID: h.ID}
	p := h.findPresence(q.cluster)
	status := InstanceActive
	if p != nil && p.instance != nil {
		v.InstanceARN, status = p.instance.ARN, p.instance.Status
	}
	add := func(reason Reason, c Check) {

		if !c.OK && v.Reason == "" {
			v.Reason = reason
		}
		v.Checks = append(v.Checks, c)
	}
	amount := func(reason Reason, filter string, needed, free int64) {
		add(reason, Check{Filter: filter, OK: free >= needed, Needed: needed, Free: free})
	}
	if h.excluded(q) {
		add(Excluded, Check{Filter: "excluded", Detail: h.whyExcluded(q, p)})
	}
	add(Inactive, Check{Filter: "status", OK: status == InstanceActive, Detail: string(status)})
	add(Agent, Check{Filter: "agent", OK: h.AgentConnected})
	amount(CPU, "cpu", q.need[ofCPU], h.cpuFree)
	if q.need[ofGPUs] > 0 {
		amount(GPU, "gpu", q.need[ofGPUs], int64(h.gpusFree))
	}
	amount(Memory, "memory", q.need[ofMemory], h.memFree)
	if len(q.Ports) > 0 {
		taken := h.takenPorts(q)
		add(Ports, Check{Filter: "ports", OK: taken == "", Detail: portNames(q.Ports), Actual: taken})
	}
	if q.need[ofAddresses] > 0 {
		free := int64(h.addresses.free())
		add(ENI, Check{Filter: "address", OK: free > 0, Needed: q.need[ofAddresses], Free: free})
	}
	for _, name := range q.needs() {
		have, _ := h.attribute(q.region, p, name)
		c := Check{Filter: "attribute", OK: h.offers(q, p, name, q.Attributes[name]), Detail: name, Actual: have}
		if want := q.Attributes[name]; want != "" {
			c.Detail += "=" + want
		}
		add(Attribute, c)
	}
	if q.Distinct {
		n := int64(p.ofGroup(q.Group))
		add(Distinct, Check{Filter: "distinctInstance", OK: n == 0, Detail: q.Group, Free: n})
	}
	if len(q.Members) > 0 {
		s := h.subject(q, p)
		for _, e := range q.Members {
			add(MemberOf, Check{Filter: "memberOf", OK: e.Match(s), Detail: e.String(), Terms: e.Terms(s)})
		}
	}
	return v
}

func (h *host) whyExcluded(q *request, p *presence) string {
	if slices.Contains(q.Exclude, h.ID) {
		return "host"
	}
	var why []string
	for name, want := range q.Within {
		if !h.offers(q, p, name, want) {
			why = append(why, name+"="+want)
		}
	}
	slices.Sort(why)
	return strings.Join(why, ", ")
}

// takenPorts names the ports that the host cannot give.
func (h *host) takenPorts(q *request) string {
	var taken []Port
	for i, p := range q.Ports {
		if h.ports[p] > 0 || slices.Contains(q.Ports[:i], p) {
			taken = append(taken, p)
		}
	}
	return portNames(taken)
}

func portNames(ports []Port) string {
	names := make([]string, len(ports))
	for i, p := range ports {
		protocol := "tcp"
		if p.Protocol == UDP {
			protocol = "udp"
		}
		names[i] = fmt.Sprintf("%d/%s", p.Number, protocol)
	}
	return strings.Join(names, ", ")
}
