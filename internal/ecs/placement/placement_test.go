package placement

import (
	"fmt"
	"net/netip"
	"testing"
)

const cluster = "arn:aws:ecs:eu-central-1:111122223333:cluster/default"

// newHost is an m5.xlarge with a /28: eleven addresses.
func newHost(i int) Host {
	return Host{
		ID:             fmt.Sprintf("%032x", i),
		CPUUnits:       4096,
		MemoryMiB:      15_000,
		ReservedPorts:  []Port{{Number: 22}},
		Subnet:         netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 12), byte(i >> 4), byte(i << 4)}), 28),
		Attributes:     map[string]string{"ecs.os-type": "linux"},
		AgentConnected: true,
	}
}

func ledgerOf(hosts ...Host) *Ledger {
	l := NewLedger()
	for _, h := range hosts {
		l.SetHost(h)
	}
	return l
}

func TestEveryReasonHasItsOwnHost(t *testing.T) {
	t.Parallel()
	l := NewLedger()
	set := func(i int, change func(*Host)) string {
		h := newHost(i)
		change(&h)
		l.SetHost(h)
		return h.ID
	}
	want := map[string]Reason{
		set(1, func(h *Host) {}):                                         Inactive,
		set(2, func(h *Host) { h.AgentConnected = false }):               Agent,
		set(3, func(h *Host) { h.CPUUnits = 100 }):                       CPU,
		set(4, func(h *Host) { h.MemoryMiB = 100 }):                      Memory,
		set(5, func(h *Host) { h.ReservedPorts = []Port{{Number: 80}} }): Ports,
		set(6, func(h *Host) { h.Subnet = netip.Prefix{} }):              ENI,
		set(7, func(h *Host) { h.Attributes = nil }):                     Attribute,
		set(8, func(h *Host) {}):                                         Excluded,
	}
	l.SetInstance(Instance{HostID: newHost(1).ID, Cluster: cluster, ARN: "arn:1", Status: InstanceDraining})
	l.SetInstance(Instance{HostID: newHost(3).ID, Cluster: cluster, ARN: "arn:3", Status: InstanceActive})

	req := Request{
		TaskID: "t", Cluster: cluster, CPUUnits: 256, MemoryMiB: 512, Address: true,
		Ports:   []Port{{Number: 80}},
		Rules:   Rules{Attributes: map[string]string{"ecs.os-type": ""}},
		Exclude: []string{newHost(8).ID},
	}
	if d, ok := l.Place(req); ok {
		t.Fatalf("placed on %+v", d)
	}
	verdicts := l.Judge(req)
	if len(verdicts) != len(want) {
		t.Fatalf("%d verdicts for %d hosts", len(verdicts), len(want))
	}
	for _, v := range verdicts {
		if v.Reason != want[v.HostID] {
			t.Errorf("host %s: %q, want %q", v.HostID, v.Reason, want[v.HostID])
		}
		if again := l.Fits(v.HostID, req); again != v {
			t.Errorf("Fits says %+v, Explain %+v", again, v)
		}
	}
	if v := verdicts[2]; v.InstanceARN != "arn:3" || v.Needed != 256 || v.Free != 100 {
		t.Errorf("CPU verdict %+v", v)
	}
	if v, ok := Closest(verdicts); !ok || v.Reason != Attribute || v.Lacks != "ecs.os-type" {
		t.Errorf("closest %+v, %v", v, ok)
	}
	if v := l.Fits("nobody", req); v.Reason != Missing {
		t.Errorf("unknown host: %+v", v)
	}
}

func TestClosestIsShortOfLeast(t *testing.T) {
	t.Parallel()
	v, ok := Closest([]Verdict{
		{HostID: "a", Reason: CPU, Needed: 512, Free: 500},
		{HostID: "b", Reason: Memory, Needed: 512, Free: 100},
		{HostID: "c", Reason: Memory, Needed: 512, Free: 400},
		{HostID: "d", Reason: Inactive},
	})
	if !ok || v.HostID != "c" || v.Clause() != "has insufficient memory available" {
		t.Fatalf("got %+v, %v", v, ok)
	}
	if _, ok := Closest([]Verdict{{HostID: "d", Reason: Inactive}}); ok {
		t.Fatal("a draining instance was considered")
	}
}

func TestNoHosts(t *testing.T) {
	t.Parallel()
	l := NewLedger()
	if _, ok := l.Place(Request{TaskID: "t"}); ok {
		t.Fatal("placed on nothing")
	}
	if v := l.Judge(Request{TaskID: "t"}); len(v) != 0 {
		t.Fatalf("verdicts without hosts: %v", v)
	}
}

func TestAddressesRunOutAndComeBack(t *testing.T) {
	t.Parallel()
	l := ledgerOf(newHost(1))
	seen := map[netip.Addr]bool{}
	place := func(i int) bool {
		d, ok := l.Begin().Place(Request{TaskID: fmt.Sprint("t", i), Cluster: cluster, Address: true})
		if ok && seen[d.Address] {
			t.Fatalf("%s given twice", d.Address)
		}
		seen[d.Address] = true
		return ok
	}
	for i := range 11 {
		if !place(i) {
			t.Fatalf("task %d found no address", i)
		}
	}
	for i := range 4 {
		if a := netip.AddrFrom4([4]byte{10, 0, 0, byte(16 + i)}); seen[a] {
			t.Errorf("%s is reserved", a)
		}
	}
	if seen[netip.AddrFrom4([4]byte{10, 0, 0, 31})] {
		t.Error("the broadcast address was given")
	}
	req := Request{TaskID: "late", Cluster: cluster, Address: true}
	if v := l.Fits(newHost(1).ID, req); v.Reason != ENI {
		t.Fatalf("full subnet: %+v", v)
	}
	held, _ := l.Reservation("t3")
	l.Release("t3")
	if d, ok := l.Place(req); !ok || d.Address != held.Address {
		t.Fatalf("got %v, %v; only %s is free", d, ok, held.Address)
	}
}

func TestPortsAreTheHostsOwn(t *testing.T) {
	t.Parallel()
	l := ledgerOf(newHost(1))
	b := l.Begin()
	web := Request{TaskID: "a", Cluster: cluster, Ports: []Port{{Number: 80}}}
	if _, ok := b.Place(web); !ok {
		t.Fatal("port 80 is free")
	}
	web.TaskID, web.Cluster = "b", cluster+"2"
	if v := l.Fits(newHost(1).ID, web); v.Reason != Ports {
		t.Errorf("port 80 of another cluster's task: %+v", v)
	}
	web.Ports = []Port{{Number: 80, Protocol: UDP}}
	if v := l.Fits(newHost(1).ID, web); !v.OK() {
		t.Errorf("UDP port 80 is another port: %+v", v)
	}
	web.Ports = []Port{{Number: 81}, {Number: 81}}
	if v := l.Fits(newHost(1).ID, web); v.Reason != Ports {
		t.Errorf("one port twice: %+v", v)
	}
	b.Undo()
	web.Ports = []Port{{Number: 80}}
	if v := l.Fits(newHost(1).ID, web); !v.OK() {
		t.Errorf("after Undo: %+v", v)
	}
}

func TestTasksAndInstancesMayComeBeforeTheirHost(t *testing.T) {
	t.Parallel()
	l := NewLedger()
	h := newHost(1)
	l.SetInstance(Instance{HostID: h.ID, Cluster: cluster, ARN: "arn:1", Status: InstanceActive})
	l.Reserve(Reservation{TaskID: "a", HostID: h.ID, Cluster: cluster, CPUUnits: 4000, Ports: []Port{{Number: 80}}})
	if _, ok := l.Usage(h.ID); ok {
		t.Fatal("a host that never registered has usage")
	}
	l.SetHost(h)
	u, _ := l.Usage(h.ID)
	if u.CPUFree != 96 || u.Tasks != 1 || len(u.Ports) != 2 {
		t.Fatalf("usage %+v", u)
	}
	d, ok := l.Place(Request{TaskID: "b", Cluster: cluster})
	if !ok || d.InstanceARN != "arn:1" {
		t.Fatalf("got %+v, %v", d, ok)
	}

	// It goes, and comes back smaller than what runs on it.
	l.RemoveHost(h.ID)
	if _, ok := l.Place(Request{TaskID: "b", Cluster: cluster}); ok {
		t.Fatal("placed on a host that is gone")
	}
	h.CPUUnits = 2048
	l.SetHost(h)
	if u, _ := l.Usage(h.ID); u.CPUFree != 2048-4000 {
		t.Fatalf("usage %+v", u)
	}
	if v := l.Fits(h.ID, Request{TaskID: "b", Cluster: cluster}); v.Reason != CPU {
		t.Fatalf("an overcommitted host: %+v", v)
	}
	l.Release("a")
	l.RemoveInstance(h.ID, cluster)
	l.RemoveHost(h.ID)
	if len(l.hosts)+len(l.tasks) != 0 {
		t.Fatalf("left behind: %v %v", l.hosts, l.tasks)
	}
}

func TestSpreadsOverHosts(t *testing.T) {
	t.Parallel()
	for _, hosts := range []int{1, 3, 16, 32, 33, 100, 1000} {
		l := NewLedger()
		for i := range hosts {
			l.SetHost(newHost(i))
		}
		b := l.Begin()
		for i := range hosts * 5 {
			if _, ok := b.Place(Request{TaskID: fmt.Sprint("t", i), Cluster: cluster, CPUUnits: 64, MemoryMiB: 64}); !ok {
				t.Fatalf("%d hosts: no place for task %d", hosts, i)
			}
		}
		least, most := hosts*5, 0
		for i := range hosts {
			u, _ := l.Usage(newHost(i).ID)
			least, most = min(least, u.Tasks), max(most, u.Tasks)
		}
		slack := 0 // exact while all hosts are compared
		if hosts > candidates {
			slack = 3
		}
		if least < 5-slack || most > 5+slack {
			t.Errorf("%d hosts: 5 tasks a host on average, but %d to %d", hosts, least, most)
		}
	}
}

func TestPlaceOnANamedHost(t *testing.T) {
	t.Parallel()
	l := ledgerOf(newHost(1), newHost(2))
	l.SetInstance(Instance{HostID: newHost(2).ID, Cluster: cluster, ARN: "arn:2", Status: InstanceActive})
	b := l.Begin()
	req := Request{TaskID: "a", Cluster: cluster, CPUUnits: 4000, Address: true}
	d, v := b.PlaceOn(newHost(2).ID, req)
	if !v.OK() || d.HostID != newHost(2).ID || d.InstanceARN != "arn:2" || !d.Address.IsValid() {
		t.Fatalf("%+v %+v", d, v)
	}
	if _, v := b.PlaceOn(newHost(1).ID, req); v.OK() {
		t.Error("one task was placed twice")
	}
	req.TaskID = "b"
	if _, v := b.PlaceOn(newHost(2).ID, req); v.Reason != CPU {
		t.Errorf("a full host: %+v", v)
	}
	if _, v := b.PlaceOn("nobody", req); v.Reason != Missing {
		t.Errorf("an unknown host: %+v", v)
	}
	if r, ok := l.Reservation("a"); !ok || r.Address != d.Address {
		t.Errorf("reserved %+v, decided %+v", r, d)
	}
	b.Undo()
	if _, ok := l.Reservation("a"); ok {
		t.Error("undone, and still reserved")
	}
}
