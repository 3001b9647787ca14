package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a network namespace that acts as a host: it has an uplink, 10.9.0.1, to a world in which
// there is 10.9.0.2 and nothing knows of task subnets.
type host struct {
	path     string
	ns       int
	nl       *netlink.Handle
	world    int
	pools    string
	worldIP  string
	uplinkIP string
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{path: filepath.Join(t.TempDir(), "host"), pools: t.TempDir(), uplinkIP: "10.9.0.1", worldIP: "10.9.0.2"}
	var worldNL *netlink.Handle
	h.ns, h.nl = makeNS(t, h.path)
	h.world, worldNL = makeNS(t, filepath.Join(t.TempDir(), "world"))
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "up0", 1400
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "up0", netlink.NsFd(h.world)
	must(t, h.nl.LinkAdd(veth))
	for _, end := range []struct {
		nl *netlink.Handle
		ip string
	}{{h.nl, h.uplinkIP}, {worldNL, h.worldIP}} {
		lo, err := end.nl.LinkByName("lo")
		must(t, err)
		must(t, end.nl.LinkSetUp(lo))
		up, err := end.nl.LinkByName("up0")
		must(t, err)
		addr, err := netlink.ParseAddr(end.ip + "/24")
		must(t, err)
		must(t, end.nl.AddrAdd(up, addr))
		must(t, end.nl.LinkSetUp(up))
	}
	must(t, h.nl.RouteAdd(&netlink.Route{Gw: net.ParseIP(h.worldIP)}))
	return h
}

func makeNS(t testing.TB, path string) (int, *netlink.Handle) {
	t.Helper()
	if err := newNetNS(path, func() error { return nil }); err != nil {
		t.Fatalf("make a network namespace (tests need root): %v", err)
	}
	t.Cleanup(func() {
		if err := removeNetNS(path); err != nil {
			t.Error(err)
		}
	})
	fd, err := openNetNS(path)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	nl, err := netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(nl.Close)
	return fd, nl
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *host) config(t testing.TB, inst string) Config {
	return Config{Instance: inst, StateDir: t.TempDir(), RunDir: t.TempDir(), PoolDir: h.pools, HostNetNS: h.path}
}

func (h *host) open(t testing.TB, cfg Config) *Network {
	t.Helper()
	n, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { // a test's own Reset or Close may have been first
		n, err := Open(context.Background(), cfg)
		if err == nil {
			err = n.Reset(context.Background())
		}
		if err != nil && !strings.Contains(err.Error(), "no subnet is free") {
			t.Error(err)
		}
	})
	t.Cleanup(func() { n.Close() })
	return n
}

func nicOf(n *Network, i uint64) *dispatchpb.NetworkInterface {
	return &dispatchpb.NetworkInterface{
		PrivateIpv4: nth(n.Subnet(), i).String(),
		MacAddress:  fmt.Sprintf("0a:00:00:00:00:%02x", i),
	}
}

func (h *host) setup(t testing.TB, n *Network, task string, i uint64) (ns int, ip string) {
	t.Helper()
	path, err := n.Setup(t.Context(), task, nicOf(n, i))
	must(t, err)
	ns, err = openNetNS(path)
	must(t, err)
	t.Cleanup(func() { unix.Close(ns) })
	return ns, nicOf(n, i).PrivateIpv4
}

// serve answers each connection to ip:80 in ns with the address it comes from.
func serve(t testing.TB, ns int, ip string) {
	t.Helper()
	var l net.Listener
	must(t, inNetNS(ns, func() (err error) {
		l, err = net.Listen("tcp4", ip+":80")
		return err
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
}

// ask connects from ns to ip:80 and returns how it is seen there.
func ask(ns int, ip string, from net.Addr) (seen string, err error) {
	err = inNetNS(ns, func() error {
		d := net.Dialer{Timeout: 3 * time.Second, LocalAddr: from}
		c, err := d.Dial("tcp4", ip+":80")
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		b, err := io.ReadAll(c)
		seen = string(b)
		return err
	})
	return seen, err
}

func TestReachability(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0000aaaa"))
	a, aIP := h.setup(t, n, "task-a", 4)
	b, bIP := h.setup(t, n, "task-b", 5)
	serve(t, a, aIP)
	serve(t, b, "0.0.0.0")
	serve(t, h.world, h.worldIP)
	serve(t, h.ns, h.uplinkIP)
	for _, c := range []struct {
		name string
		ns   int
		to   string
		seen string
	}{
		{"host to task", h.ns, aIP, Gateway(n.Subnet()).String()},
		{"task to task", a, bIP, aIP},
		{"and back", b, aIP, bIP},
		{"task to itself", b, bIP, bIP},
		{"task's loopback", b, "127.0.0.1", "127.0.0.1"},
		{"task to host", a, h.uplinkIP, aIP},
		{"task to world, masqueraded", a, h.worldIP, h.uplinkIP},
	} {
		if seen, err := ask(c.ns, c.to, nil); err != nil || seen != c.seen {
			t.Errorf("%s: seen as %q, want %q; %v", c.name, seen, c.seen, err)
		}
	}
	// An address that no task has fails at once, rather than leave the host.
	if _, err := ask(h.ns, nth(n.Subnet(), 99).String(), nil); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
		t.Errorf("an unused address: %v", err)
	}
	_, eth0 := inside(t, a)
	if eth0.Attrs().HardwareAddr.String() != nicOf(n, 4).MacAddress || eth0.Attrs().MTU != 1400 {
		t.Errorf("eth0 has MAC %v and MTU %d", eth0.Attrs().HardwareAddr, eth0.Attrs().MTU)
	}
}

func inside(t testing.TB, ns int) (*netlink.Handle, netlink.Link) {
	t.Helper()
	nl, err := netlink.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(nl.Close)
	eth0, err := nl.LinkByName("eth0")
	must(t, err)
	return nl, eth0
}

// A task that gives itself another address, that of a neighbour included, is not heard.
func TestSpoofedSourceIsDropped(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0000bbbb"))
	a, _ := h.setup(t, n, "task-a", 4)
	b, bIP := h.setup(t, n, "task-b", 5)
	serve(t, h.ns, "0.0.0.0")
	serve(t, b, bIP)
	nl, eth0 := inside(t, a)
	for _, spoofed := range []string{bIP, "10.9.0.77", nth(n.Subnet(), 50).String()} {
		must(t, nl.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr(spoofed))}))
		before := dropped(t, h, n)
		// One packet, since the answer to a connection would not come back in any case.
		must(t, inNetNS(a, func() error {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(spoofed)}, &net.UDPAddr{IP: net.ParseIP(h.uplinkIP), Port: 9})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("x"))
			return err
		}))
		if got := dropped(t, h, n) - before; got == 0 {
			t.Errorf("a packet from %s was not dropped", spoofed)
		}
	}
	if _, err := ask(a, h.uplinkIP, &net.TCPAddr{IP: net.ParseIP(nicOf(n, 4).PrivateIpv4)}); err != nil {
		t.Errorf("with its own address: %v", err)
	}
}

// dropped is the packet count of the rule that drops spoofed sources.
func dropped(t testing.TB, h *host, n *Network) uint64 {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(h.ns))
	must(t, err)
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: n.inst.table()}
	rules, err := c.GetRules(table, &nftables.Chain{Name: "prerouting", Table: table})
	must(t, err)
	return counterOf(rules[len(rules)-1])
}

// state is all that can be seen on the host, but for counters.
func (h *host) state(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	links, err := h.nl.LinkList()
	must(t, err)
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		fmt.Fprintf(&b, "link %s %s\n", l.Attrs().Name, l.Attrs().Alias)
	}
	addrs, err := h.nl.AddrList(nil, netlink.FAMILY_V4)
	must(t, err)
	for _, a := range addrs {
		fmt.Fprintf(&b, "addr %v\n", a)
	}
	routes, err := h.nl.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	must(t, err)
	for _, r := range routes {
		fmt.Fprintf(&b, "route %v src %v via %v dev %s table %d\n", r.Dst, r.Src, r.Gw, names[r.LinkIndex], r.Table)
	}
	neigh, err := h.nl.NeighList(0, netlink.FAMILY_V4)
	must(t, err)
	for _, ne := range neigh {
		if ne.State&netlink.NUD_PERMANENT != 0 {
			fmt.Fprintf(&b, "neigh %v %v %s\n", ne.IP, ne.HardwareAddr, names[ne.LinkIndex])
		}
	}
	c, err := nftables.New(nftables.WithNetNSFd(h.ns))
	must(t, err)
	chains, err := c.ListChains()
	must(t, err)
	for _, ch := range chains {
		fmt.Fprintf(&b, "chain %s %s\n", ch.Table.Name, ch.Name)
	}
	pools, _ := os.ReadDir(h.pools)
	for _, p := range pools {
		fmt.Fprintf(&b, "pool %s\n", p.Name())
	}
	return b.String()
}

func mounts(t testing.TB, dir string) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Count(string(b), " "+dir+"/")
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	empty := h.state(t)
	cfg := h.config(t, "0000cccc")
	n := h.open(t, cfg)
	other := h.open(t, h.config(t, "0000dddd"))
	h.setup(t, other, "task-a", 4)
	opened := h.state(t)
	for range 2 {
		h.setup(t, n, "task-a", 4)
		h.setup(t, n, "task-b", 5)
		if ids, err := n.List(t.Context()); err != nil || !slices.Equal(ids, []string{"task-a", "task-b"}) {
			t.Errorf("list: %v, %v", ids, err)
		}
		for _, task := range []string{"task-a", "task-b", "task-a", "unknown"} {
			must(t, n.Teardown(t.Context(), task))
		}
		if got := h.state(t); got != opened {
			t.Fatalf("after teardown:\n%s\nbefore:\n%s", got, opened)
		}
		if k := mounts(t, cfg.RunDir); k != 0 {
			t.Errorf("%d mounts are left", k)
		}
	}
	h.setup(t, n, "task-a", 4)
	must(t, n.Reset(t.Context()))
	if k := mounts(t, cfg.RunDir); k != 0 {
		t.Errorf("%d mounts are left after reset", k)
	}
	if _, err := os.Stat(filepath.Join(cfg.StateDir, "network.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the subnet is remembered after reset: %v", err)
	}
	must(t, other.Reset(t.Context()))
	if got := h.state(t); got != empty {
		t.Errorf("after reset:\n%s\nat first:\n%s", got, empty)
	}
}

// Whatever an interrupted Setup or Teardown, or somebody, left: Setup ends in the same place.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, h *host, n *Network, ns int){
		"none": func(*testing.T, *host, *Network, int) {},
		"no mount": func(t *testing.T, _ *host, n *Network, _ int) {
			must(t, unix.Unmount(n.namespace("task"), unix.MNT_DETACH))
		},
		"no file":   func(t *testing.T, _ *host, n *Network, _ int) { must(t, removeNetNS(n.namespace("task"))) },
		"no link":   func(t *testing.T, h *host, n *Network, _ int) { must(t, h.nl.LinkDel(hostEnd(t, h, n))) },
		"no alias":  func(t *testing.T, h *host, n *Network, _ int) { must(t, h.nl.LinkSetAlias(hostEnd(t, h, n), "")) },
		"link down": func(t *testing.T, h *host, n *Network, _ int) { must(t, h.nl.LinkSetDown(hostEnd(t, h, n))) },
		"eth0 down": func(t *testing.T, _ *host, _ *Network, ns int) { nl, l := inside(t, ns); must(t, nl.LinkSetDown(l)) },
		"no address": func(t *testing.T, _ *host, n *Network, ns int) {
			nl, l := inside(t, ns)
			must(t, nl.AddrDel(l, &netlink.Addr{IPNet: ipNet(nth(n.Subnet(), 4))}))
		},
		"other address": func(t *testing.T, _ *host, n *Network, ns int) {
			nl, l := inside(t, ns)
			must(t, nl.AddrAdd(l, &netlink.Addr{IPNet: ipNet(nth(n.Subnet(), 9))}))
		},
		"other MAC": func(t *testing.T, _ *host, n *Network, ns int) {
			nl, l := inside(t, ns)
			must(t, nl.LinkSetHardwareAddr(l, net.HardwareAddr{2, 2, 2, 2, 2, 2}))
		},
		"no table": func(t *testing.T, h *host, n *Network, _ int) {
			c, err := nftables.New(nftables.WithNetNSFd(h.ns))
			must(t, err)
			must(t, removeTable(c, n.inst.table()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			cfg := h.config(t, "0000eeee")
			n := h.open(t, cfg)
			ns, ip := h.setup(t, n, "task", 4)
			want := h.state(t)
			damage(t, h, n, ns)
			n.Close()
			n = h.open(t, cfg) // as after a crash
			ns, _ = h.setup(t, n, "task", 4)
			if got := h.state(t); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			serve(t, ns, ip)
			serve(t, h.world, h.worldIP)
			if _, err := ask(h.ns, ip, nil); err != nil {
				t.Errorf("host to task: %v", err)
			}
			if _, err := ask(ns, h.worldIP, nil); err != nil {
				t.Errorf("task to world: %v", err)
			}
			must(t, n.Teardown(t.Context(), "task"))
		})
	}
}

func hostEnd(t testing.TB, h *host, n *Network) netlink.Link {
	t.Helper()
	l, err := h.nl.LinkByName(n.inst.link("task"))
	must(t, err)
	return l
}

func TestSetupRefuses(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0000ffff"))
	h.setup(t, n, "task-a", 4)
	opened := h.state(t)
	for name, c := range map[string]struct {
		task string
		nic  *dispatchpb.NetworkInterface
	}{
		"path":         {"../x", nicOf(n, 5)},
		"no task":      {"", nicOf(n, 5)},
		"no interface": {"task-b", nil},
		"no address":   {"task-b", &dispatchpb.NetworkInterface{}},
		"IPv6":         {"task-b", &dispatchpb.NetworkInterface{PrivateIpv4: "fe80::1"}},
		"elsewhere":    {"task-b", &dispatchpb.NetworkInterface{PrivateIpv4: "192.168.7.7"}},
		"gateway":      {"task-b", nicOf(n, 1)},
		"broadcast":    {"task-b", nicOf(n, 4095)},
		"bad MAC":      {"task-b", &dispatchpb.NetworkInterface{PrivateIpv4: nicOf(n, 5).PrivateIpv4, MacAddress: "x"}},
		"group MAC":    {"task-b", &dispatchpb.NetworkInterface{PrivateIpv4: nicOf(n, 5).PrivateIpv4, MacAddress: "01:00:00:00:00:01"}},
	} {
		if _, err := n.Setup(t.Context(), c.task, c.nic); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if got := h.state(t); got != opened {
		t.Errorf("refusals changed the host:\n%s\nbefore:\n%s", got, opened)
	}
	if _, err := n.Setup(t.Context(), "task-b", nicOf(n, 4)); err == nil || !strings.Contains(err.Error(), "has this address") {
		t.Errorf("another task's address: %v", err)
	}
	must(t, n.Teardown(t.Context(), "task-b"))
	if got := h.state(t); got != opened {
		t.Errorf("a refused address changed the host:\n%s\nbefore:\n%s", got, opened)
	}
}

func TestPools(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	pools := []netip.Prefix{netip.MustParsePrefix("172.31.0.0/20"), netip.MustParsePrefix("172.31.16.0/20"), netip.MustParsePrefix("172.31.32.0/20")}
	config := func(inst string) Config {
		cfg := h.config(t, inst)
		cfg.Pools = pools
		return cfg
	}
	expect := func(n *Network, i int) {
		t.Helper()
		if n.Subnet() != pools[i] {
			t.Errorf("subnet %v, want %v", n.Subnet(), pools[i])
		}
	}
	empty := h.state(t)
	aCfg, bCfg := config("000000aa"), config("000000bb")
	a, b := h.open(t, aCfg), h.open(t, bCfg)
	expect(a, 0)
	expect(b, 1)
	h.setup(t, a, "task", 4)
	h.setup(t, b, "task", 4)

	// The host takes the third for something else.
	up, err := h.nl.LinkByName("up0")
	must(t, err)
	taken := &netlink.Route{LinkIndex: up.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(172, 31, 40, 0), Mask: net.CIDRMask(24, 32)}}
	must(t, h.nl.RouteAdd(taken))
	if _, err := Open(t.Context(), config("000000cc")); err == nil || !strings.Contains(err.Error(), "172.31.40.0/24 by up0") {
		t.Errorf("with nothing free: %v", err)
	}

	// One that has died keeps its subnet as long as its tasks live; then another may have it.
	a.Close()
	if _, err := Open(t.Context(), config("000000cc")); err == nil || !strings.Contains(err.Error(), "instance 000000aa") {
		t.Errorf("a subnet with tasks of a dead instance: %v", err)
	}
	a = h.open(t, aCfg)
	expect(a, 0)
	must(t, a.Teardown(t.Context(), "task"))
	a.Close()
	c := h.open(t, config("000000cc"))
	expect(c, 0)
	must(t, h.nl.RouteDel(taken))
	a = h.open(t, aCfg) // its own is gone
	expect(a, 2)
	a.Close()
	must(t, c.Reset(t.Context()))
	a = h.open(t, aCfg) // and it stays with the one it has
	expect(a, 2)
	a.Close()
	must(t, h.nl.RouteAdd(taken)) // unless the host came to need it
	a = h.open(t, aCfg)
	expect(a, 0)
	must(t, h.nl.RouteDel(taken))
	must(t, a.Reset(t.Context()))
	must(t, b.Reset(t.Context()))
	if got := h.state(t); got != empty {
		t.Errorf("after reset:\n%s\nat first:\n%s", got, empty)
	}
	if _, err := Open(t.Context(), Config{Instance: "nothex!!"}); err == nil {
		t.Error("a bad instance was accepted")
	}
}

func TestUsable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		bits := rapid.IntRange(8, 29).Draw(rt, "bits")
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(rt, "addr"))), bits).Masked()
		first, last, ok := Usable(p)
		if !ok || !p.Contains(first) || !p.Contains(last) || first.Compare(last) > 0 {
			rt.Fatalf("%v: %v to %v, %v", p, first, last, ok)
		}
		if p.Contains(last.Next().Next()) || !p.Contains(last.Next()) || nth(p, 3).Next() != first {
			rt.Fatalf("%v: %v to %v leaves out other than the first four and the last", p, first, last)
		}
		if IsUsable(p, Gateway(p)) || !IsUsable(p, first) || !IsUsable(p, last) || IsUsable(p, last.Next()) {
			rt.Fatalf("%v: IsUsable disagrees", p)
		}
	})
	for _, s := range []string{"10.0.0.0/30", "fd00::/64"} {
		if _, _, ok := Usable(netip.MustParsePrefix(s)); ok {
			t.Errorf("%s has usable addresses", s)
		}
	}
	if got := DefaultPools(); len(got) != 32 || got[1].String() != "172.31.16.0/20" || got[31].String() != "172.30.240.0/20" {
		t.Errorf("default pools: %v", got)
	}
}

// Any sequence of Setup, Teardown and restarts leaves exactly the networks it should.
func TestRandomSequence(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := h.config(t, "00001111")
	n := h.open(t, cfg)
	rapid.Check(t, func(rt *rapid.T) {
		up := map[string]bool{}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			i := rapid.Uint64Range(4, 6).Draw(rt, "task")
			task := fmt.Sprint("task", i)
			switch rapid.SampledFrom([]string{"setup", "setup", "teardown", "restart"}).Draw(rt, "what") {
			case "setup":
				if _, err := n.Setup(t.Context(), task, nicOf(n, i)); err != nil {
					rt.Fatal(err)
				}
				up[task] = true
			case "teardown":
				if err := n.Teardown(t.Context(), task); err != nil {
					rt.Fatal(err)
				}
				delete(up, task)
			case "restart":
				n.Close()
				var err error
				if n, err = Open(t.Context(), cfg); err != nil {
					rt.Fatal(err)
				}
			}
		}
		ids, err := n.List(t.Context())
		if err != nil || len(ids) != len(up) || mounts(t, cfg.RunDir) != len(up) {
			rt.Fatalf("listed %v, %d mounts, %v; want %v", ids, mounts(t, cfg.RunDir), err, up)
		}
		links := strings.Count(h.state(t), "link be")
		if links != len(up) {
			rt.Fatalf("%d links of %v", links, up)
		}
		for _, id := range ids {
			if err := n.Teardown(t.Context(), id); err != nil {
				rt.Fatal(err)
			}
		}
	})
	n.Close()
}

func TestConcurrentTasks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "00002222"))
	opened := h.state(t)
	var wg sync.WaitGroup
	for i := range uint64(24) {
		wg.Go(func() {
			task := fmt.Sprint("task", i/2) // two at a time for each
			if _, err := n.Setup(t.Context(), task, nicOf(n, 4+i/2)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ids, err := n.List(t.Context())
	if err != nil || len(ids) != 12 {
		t.Errorf("list: %v, %v", ids, err)
	}
	for _, id := range ids {
		wg.Go(func() {
			if err := n.Teardown(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := h.state(t); got != opened {
		t.Errorf("after teardown:\n%s\nbefore:\n%s", got, opened)
	}
}

func BenchmarkSetup(b *testing.B) {
	h := newHost(b)
	n := h.open(b, h.config(b, "00003333"))
	var teardown time.Duration
	for b.Loop() {
		if _, err := n.Setup(b.Context(), "task", nicOf(n, 4)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		start := time.Now()
		must(b, n.Teardown(b.Context(), "task"))
		teardown += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(teardown.Nanoseconds())/float64(b.N), "ns/teardown")
}

func counterOf(r *nftables.Rule) uint64 {
	for _, e := range r.Exprs {
		if c, ok := e.(*expr.Counter); ok {
			return c.Packets
		}
	}
	return 0
}
