package network

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// answer listens at an address in ns and answers each connection with a name and the address it comes
// from. It returns the port.
func answer(t testing.TB, ns int, address, name string) uint16 {
	t.Helper()
	var l net.Listener
	must(t, inNetNS(ns, func() (err error) {
		l, err = net.Listen("tcp4", address)
		return err
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, name+" "+c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestMetadataRedirect(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := h.config(t, "0001c001")
	n, second := h.open(t, cfg), h.open(t, h.config(t, "0002c002"))
	container, c := h.connect(t, n, "c")
	task, taskIP := h.setup(t, n, "awsvpc", 4)
	foreign, foreignC := h.connect(t, second, "c")

	// A network of link-local addresses beyond the host, such as EC2's.
	worldNL, err := netlink.NewHandleAt(netns.NsHandle(h.world), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(worldNL.Close)
	up, err := worldNL.LinkByName("up0")
	must(t, err)
	for _, a := range []string{"169.254.169.254", "169.254.170.2"} {
		must(t, worldNL.AddrAdd(up, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr(a))}))
	}
	answer(t, h.world, "0.0.0.0:80", "world")
	answer(t, h.world, "0.0.0.0:81", "world")
	hostUp, err := h.nl.LinkByName("up0")
	must(t, err)
	must(t, h.nl.AddrAdd(hostUp, &netlink.Addr{IPNet: ipNet(netip.MustParseAddr("169.254.7.7"))})) // the host's own
	answer(t, h.ns, "0.0.0.0:82", "host")
	if seen, err := knock(h.ns, "169.254.169.254:80"); err != nil || seen != "world "+h.uplinkIP {
		t.Fatalf("the host itself does not reach what the tasks must not: %q, %v", seen, err)
	}

	refused := func(ns int, to string) {
		t.Helper()
		if seen, err := knock(ns, to); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: answered %q, %v; want a refusal at once", to, seen, err)
		}
	}
	refused(container, "169.254.170.2:80") // before there is a server

	for i, net := range []*Network{n, second} {
		port := answer(t, h.ns, "127.0.0.1:0", "metadata"+strconv.Itoa(i))
		hostMode, err := net.ServeMetadata(t.Context(), port)
		if err != nil || hostMode != (i == 0) {
			t.Errorf("instance %d: for the host %v, %v", i, hostMode, err)
		}
	}
	for _, c := range []struct {
		name string
		ns   int
		seen string
	}{
		{"container", container, "metadata0 " + c.IPv4},
		{"awsvpc task", task, "metadata0 " + taskIP},
		{"another instance's container", foreign, "metadata1 " + foreignC.IPv4},
		{"host", h.ns, "metadata0 "},
	} {
		if seen, err := knock(c.ns, "169.254.170.2:80"); err != nil || !strings.HasPrefix(seen, c.seen) {
			t.Errorf("%s: answered %q, want %q; %v", c.name, seen, c.seen, err)
		}
	}
	for _, to := range []string{"169.254.170.2:81", "169.254.169.254:80", "169.254.169.254:81", "169.254.7.7:82"} {
		refused(container, to)
		refused(task, to)
	}

	// The claim ends with the instance, not with its process.
	n.Close()
	if seen, err := knock(container, "169.254.170.2:80"); err != nil || seen != "metadata0 "+c.IPv4 {
		t.Errorf("without its process: answered %q, %v", seen, err)
	}
	if hostMode, err := second.ServeMetadata(t.Context(), 1); err != nil || hostMode {
		t.Errorf("while the first one's rules are there: %v, %v", hostMode, err)
	}
	n = h.open(t, cfg)
	must(t, n.Reset(t.Context()))
	if hostMode, err := second.ServeMetadata(t.Context(), 1); err != nil || !hostMode {
		t.Errorf("after the first one's reset: %v, %v", hostMode, err)
	}
	if _, err := second.ServeMetadata(t.Context(), 0); err == nil {
		t.Error("port 0 was accepted")
	}
}

// What listens on the host's loopback is not reached from elsewhere, though our links route packets to
// loopback addresses: neither by a container that sends them there, nor by a neighbour of the host.
func TestHostLoopbackIsOutOfReach(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0003c003"))
	container, c := h.connect(t, n, "c", tcp(8080, 80))
	task, _ := h.setup(t, n, "awsvpc", 4)
	metadata := answer(t, h.ns, "127.0.0.1:0", "metadata")
	_, err := n.ServeMetadata(t.Context(), metadata)
	must(t, err)
	secret := "127.0.0.1:" + strconv.Itoa(int(answer(t, h.ns, "127.0.0.1:0", "secret")))
	answer(t, container, "0.0.0.0:80", "container")

	// divert makes a namespace send packets for loopback addresses out.
	divert := func(ns int, link string, via netip.Addr) {
		t.Helper()
		must(t, inNetNS(ns, func() error {
			return os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/route_localnet", []byte("1"), 0)
		}))
		nl, err := netlink.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_ROUTE)
		must(t, err)
		t.Cleanup(nl.Close)
		lo, err := nl.LinkByName("lo")
		must(t, err)
		dst := &net.IPNet{IP: net.IPv4(127, 0, 0, 0), Mask: net.CIDRMask(8, 32)}
		must(t, nl.AddrDel(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: dst.Mask}}))
		l, err := nl.LinkByName(link)
		must(t, err)
		must(t, nl.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: via.AsSlice(), Dst: dst, Flags: int(netlink.FLAG_ONLINK)}))
	}
	attackers := map[string]int{"container": container, "awsvpc task": task, "neighbour": h.world}
	divert(container, "eth0", router)
	divert(task, "eth0", router)
	divert(h.world, "up0", netip.MustParseAddr(h.uplinkIP))
	var attacks sync.WaitGroup
	for name, ns := range attackers {
		for _, to := range []string{secret, "127.0.0.1:8080", "127.0.0.1:" + strconv.Itoa(int(metadata))} {
			attacks.Go(func() {
				if seen, err := knock(ns, to); err == nil {
					t.Errorf("the %s reached %s: %s", name, to, seen)
				}
			})
		}
	}
	attacks.Wait()
	// Nor does anything come in that says it comes from there.
	before := dropped4(t, n)
	must(t, inNetNS(container, func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		packet := []byte{0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 10, 9, 0, 1, 0, 9, 0, 9, 0, 8, 0, 0}
		return unix.Sendto(s, packet, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 0, 1}})
	}))
	if got := dropped4(t, n) - before; got == 0 {
		t.Error("a packet that says it comes from 127.0.0.1 was not dropped")
	}
	if seen, err := knock(container, "169.254.170.2:80"); err != nil || seen != "metadata "+c.IPv4 {
		t.Errorf("the container's metadata: %q, %v", seen, err)
	}

	// It is our rules that keep the container out.
	n.watcher.stop()
	conn, err := n.nftables()
	must(t, err)
	must(t, removeTable(conn, n.inst.table()))
	if seen, err := knock(container, secret); err != nil || !strings.HasPrefix(seen, "secret") {
		t.Errorf("this test proves nothing: without the rules, %q, %v", seen, err)
	}
}

// dropped4 counts what the table's first chain has dropped.
func dropped4(t testing.TB, n *Network) (packets uint64) {
	t.Helper()
	c, err := n.nftables()
	must(t, err)
	chains, err := c.ListChains()
	must(t, err)
	for _, ch := range chains {
		if ch.Table.Name == n.inst.table() && ch.Name == "prerouting" {
			rules, err := c.GetRules(ch.Table, ch)
			must(t, err)
			for _, r := range rules {
				packets += counterOf(r)
			}
		}
	}
	return packets
}

// What others take away is put back.
func TestRepair(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0004c004"))
	container, _ := h.connect(t, n, "c", tcp(8080, 80))
	_, err := n.ServeMetadata(t.Context(), answer(t, h.ns, "127.0.0.1:0", "metadata"))
	must(t, err)
	answer(t, container, "0.0.0.0:80", "container")
	c, err := n.nftables()
	must(t, err)
	must(t, removeTable(c, n.inst.table())) // as nft flush ruleset does, and the restart of a firewall
	eventually(t, func() error {
		there, err := n.hasTable(n.inst.table())
		if err == nil && !there {
			err = errors.New("the table was not installed again")
		}
		return err
	})
	if seen, err := knock(h.world, h.uplinkIP+":8080"); err != nil || seen != "container "+h.worldIP {
		t.Errorf("the mapped port: %q, %v", seen, err)
	}
	if seen, err := knock(container, "169.254.170.2:80"); err != nil || !strings.HasPrefix(seen, "metadata") {
		t.Errorf("the metadata: %q, %v", seen, err)
	}
}
