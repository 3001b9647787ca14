package network

import (
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

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func tcp(host, container int32) *dispatchpb.PortMapping {
	return &dispatchpb.PortMapping{HostPort: host, ContainerPort: container, Protocol: "tcp"}
}

func udp(host, container int32) *dispatchpb.PortMapping {
	return &dispatchpb.PortMapping{HostPort: host, ContainerPort: container, Protocol: "udp"}
}

// connect connects container c of task "task" and returns its namespace.
func (h *host) connect(t testing.TB, n *Network, c string, ports ...*dispatchpb.PortMapping) (ns int, got agent.Connection) {
	t.Helper()
	got, err := n.Connect(t.Context(), agent.Endpoint{TaskID: "task", Container: c, Ports: ports})
	must(t, err)
	ns, err = openNetNS(got.NetNS)
	must(t, err)
	t.Cleanup(func() { unix.Close(ns) })
	return ns, got
}

// knock connects from ns to an address and returns how it is seen there.
func knock(ns int, address string) (seen string, err error) {
	err = inNetNS(ns, func() error {
		d := net.Dialer{Timeout: 2 * time.Second}
		c, err := d.Dial("tcp", address)
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

func TestBridgeReachability(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0000b001"))
	web, webC := h.connect(t, n, "web", tcp(8080, 80))
	other, otherC := h.connect(t, n, "other")
	task, taskIP := h.setup(t, n, "awsvpc", 4)
	for _, ns := range []int{web, other, task, h.world} {
		serve(t, ns, "0.0.0.0")
	}
	serve(t, h.ns, h.uplinkIP)
	worldNL, err := netlink.NewHandleAt(netns.NsHandle(h.world), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(worldNL.Close)
	must(t, worldNL.RouteAdd(&netlink.Route{Gw: net.ParseIP(h.uplinkIP)})) // a neighbour that tries

	gateway := Gateway(n.BridgeSubnet()).String()
	published := h.uplinkIP + ":8080"
	for _, c := range []struct {
		name string
		ns   int
		to   string
		seen string
	}{
		{"host to container", h.ns, webC.IPv4 + ":80", gateway},
		{"host to port on loopback", h.ns, "127.0.0.1:8080", gateway},
		{"host to port on another loopback address", h.ns, "127.8.8.8:8080", gateway},
		{"host to port on its address", h.ns, published, h.uplinkIP},
		{"host to port on IPv6 loopback, through the held socket", h.ns, "[::1]:8080", gateway},
		{"world to port", h.world, published, h.worldIP},
		{"container to container", other, webC.IPv4 + ":80", otherC.IPv4},
		{"container to port", other, published, gateway},
		{"container to its own port", web, published, gateway},
		{"container to port at the gateway", other, gateway + ":8080", gateway},
		{"container to itself", web, webC.IPv4 + ":80", webC.IPv4},
		{"container to host", web, h.uplinkIP + ":80", webC.IPv4},
		{"container to world, masqueraded", web, h.worldIP + ":80", h.uplinkIP},
		{"awsvpc task to port", task, published, taskIP},
		{"awsvpc task to world", task, h.worldIP + ":80", h.uplinkIP},
	} {
		if seen, err := knock(c.ns, c.to); err != nil || seen != c.seen {
			t.Errorf("%s: seen as %q, want %q; %v", c.name, seen, c.seen, err)
		}
	}
	if seen, err := knock(web, taskIP+":80"); err != nil || seen == webC.IPv4 {
		t.Errorf("container to awsvpc task: seen as %q; %v", seen, err)
	}
	var tries sync.WaitGroup
	for _, c := range []struct {
		name string
		ns   int
		to   string
	}{
		{"world to container", h.world, webC.IPv4 + ":80"},
		{"awsvpc task to container", task, webC.IPv4 + ":80"},
		{"container to its own loopback", web, "127.0.0.1:8080"},
	} {
		tries.Go(func() {
			if seen, err := knock(c.ns, c.to); err == nil {
				t.Errorf("%s: succeeded, as %s", c.name, seen)
			}
		})
	}
	tries.Wait()
	if want := []*dispatchpb.PortMapping{{BindIp: "0.0.0.0", ContainerPort: 80, HostPort: 8080, Protocol: "tcp"}}; fmt.Sprint(webC.Bindings) != fmt.Sprint(want) {
		t.Errorf("bindings %v, want %v", webC.Bindings, want)
	}
	_, eth0 := inside(t, web)
	if eth0.Attrs().HardwareAddr.String() != webC.MAC || webC.Gateway != gateway {
		t.Errorf("eth0 has MAC %v; the connection says %+v", eth0.Attrs().HardwareAddr, webC)
	}

	must(t, n.Disconnect(t.Context(), "task", "web"))
	for _, to := range []string{"127.0.0.1:8080", published, "[::1]:8080"} {
		if _, err := knock(h.ns, to); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("a port that is mapped no more: %v", err)
		}
	}
}

// echo answers each datagram to the address in ns with the sender's address and the text.
func echo(t testing.TB, ns int, address, text string) {
	t.Helper()
	var c net.PacketConn
	must(t, inNetNS(ns, func() (err error) {
		c, err = net.ListenPacket("udp4", address)
		return err
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 64)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo([]byte(text), from)
		}
	})
	t.Cleanup(func() { c.Close(); wg.Wait() })
}

// A client that keeps sending from one port reaches the container that has the port now.
func TestBridgeUDP(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0000b002"))
	var client *net.UDPConn
	must(t, inNetNS(h.world, func() (err error) {
		client, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.ParseIP(h.uplinkIP), Port: 5353})
		return err
	}))
	defer client.Close()
	send := func() (string, error) {
		client.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := client.Write([]byte("x")); err != nil {
			return "", err
		}
		b := make([]byte, 64)
		k, err := client.Read(b)
		return string(b[:k]), err
	}
	send() // nobody is there yet, and the kernel remembers that
	for _, c := range []string{"first", "second"} {
		ns, _ := h.connect(t, n, c, udp(5353, 53), tcp(5353, 53))
		echo(t, ns, ":53", c)
		if got, err := send(); err != nil || got != c {
			t.Errorf("to %s: answered %q, %v", c, got, err)
		}
		must(t, n.Disconnect(t.Context(), "task", c))
	}
}

func TestBridgePorts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	must(t, inNetNS(h.ns, func() error {
		return errors.Join(os.WriteFile(localPortsFile, []byte("40000 40009"), 0), os.WriteFile(reservedPortsFile, []byte("40001,40005-40006"), 0))
	}))
	n := h.open(t, h.config(t, "0000b003"))
	taken := func(network, address string) io.Closer {
		t.Helper()
		var c io.Closer
		must(t, inNetNS(h.ns, func() (err error) {
			if network == "udp" {
				c, err = net.ListenPacket("udp", address)
			} else {
				c, err = net.Listen("tcp", address)
			}
			return err
		}))
		t.Cleanup(func() { c.Close() })
		return c
	}
	taken("tcp", "127.0.0.1:40002")
	ports := func(c agent.Connection) (out string) {
		for _, b := range c.Bindings {
			out += fmt.Sprint(b.HostPort, b.HostPortRange, "/", b.Protocol, " ")
		}
		return out
	}
	_, a := h.connect(t, n, "a", tcp(0, 80), udp(0, 80), tcp(40004, 81))
	if got := ports(a); got != "40000/tcp 40001/udp " && got != "40000/tcp 40002/udp 40004/tcp " {
		t.Errorf("dynamic ports %s", got)
	}
	// The row 40007 to 40009 is the only one of three; then it goes round.
	_, b := h.connect(t, n, "b", &dispatchpb.PortMapping{ContainerPortRange: "9000-9002", Protocol: "tcp"}, tcp(0, 80))
	if got := ports(b); got != "040007-40009/tcp 40003/tcp " {
		t.Errorf("range %s", got)
	}
	if m := b.Bindings[0]; m.ContainerPort != 0 || m.HostPort != 0 || m.ContainerPortRange != "9000-9002" {
		t.Errorf("a range's binding: %v", m)
	}
	before := h.state(t)
	for name, c := range map[string]struct {
		ports []*dispatchpb.PortMapping
		want  string
	}{
		"of an endpoint":        {[]*dispatchpb.PortMapping{udp(7777, 1), tcp(40004, 80)}, "Bind for 0.0.0.0:40004 failed: port is already allocated"},
		"dynamic, of another":   {[]*dispatchpb.PortMapping{tcp(40000, 80)}, "Bind for 0.0.0.0:40000 failed: port is already allocated"},
		"of a process":          {[]*dispatchpb.PortMapping{tcp(40002, 80)}, "Bind for 0.0.0.0:40002 failed: port is already allocated"},
		"twice":                 {[]*dispatchpb.PortMapping{tcp(7777, 80), tcp(7777, 81)}, "Bind for 0.0.0.0:7777 failed: port is already allocated"},
		"none left":             {[]*dispatchpb.PortMapping{tcp(0, 80)}, "a host port is unavailable in 40000-40009"},
		"none left in a row":    {[]*dispatchpb.PortMapping{{ContainerPortRange: "1-9", Protocol: "udp"}}, "9 contiguous host ports are unavailable"},
		"of another protocol":   {[]*dispatchpb.PortMapping{{ContainerPort: 1, Protocol: "sctp"}}, "neither tcp nor udp"},
		"too high":              {[]*dispatchpb.PortMapping{tcp(65536, 80)}, "not one of ports"},
		"a range upside down":   {[]*dispatchpb.PortMapping{{ContainerPortRange: "9-1"}}, "not a range of ports"},
		"from 0":                {[]*dispatchpb.PortMapping{{ContainerPortRange: "0-1"}}, "not a range of ports"},
		"without a container's": {[]*dispatchpb.PortMapping{tcp(80, 0)}, "not one of ports"},
	} {
		if _, err := n.Connect(t.Context(), agent.Endpoint{TaskID: "task", Container: "c", Ports: c.ports}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		must(t, n.Disconnect(t.Context(), "task", "c"))
	}
	if got := h.state(t); got != before {
		t.Errorf("refusals changed the host:\n%s\nbefore:\n%s", got, before)
	}
	taken("tcp", ":7777").Close() // refusals hold nothing
	taken("udp", ":7777").Close()
	must(t, n.Disconnect(t.Context(), "task", "a"))
	taken("tcp", ":40000").Close()
}

// Each mapped port is held, so that no other process can have it, whatever options it sets.
func TestBridgePortsAreHeld(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := h.config(t, "0000b004")
	n := h.open(t, cfg)
	h.connect(t, n, "c", tcp(8080, 80), udp(8080, 80))
	steal := func(kind int, addr unix.Sockaddr, family int) error {
		return inNetNS(h.ns, func() error {
			s, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(s)
			if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
			return unix.Bind(s, addr)
		})
	}
	expect := func(want error) {
		t.Helper()
		for _, a := range []netip.Addr{netip.IPv4Unspecified(), localhost, netip.MustParseAddr(h.uplinkIP)} {
			for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
				if err := steal(kind, &unix.SockaddrInet4{Port: 8080, Addr: a.As4()}, unix.AF_INET); !errors.Is(err, want) {
					t.Errorf("bind %v:8080, kind %d: %v, want %v", a, kind, err, want)
				}
			}
		}
		if err := steal(unix.SOCK_STREAM, &unix.SockaddrInet6{Port: 8080, Addr: netip.IPv6Loopback().As16()}, unix.AF_INET6); !errors.Is(err, want) {
			t.Errorf("bind [::1]:8080: %v, want %v", err, want)
		}
	}
	expect(unix.EADDRINUSE)
	n.Close()
	expect(nil)
	n = h.open(t, cfg) // the ports are held again at once
	expect(unix.EADDRINUSE)
	must(t, n.Disconnect(t.Context(), "task", "c"))
	expect(nil)
}

// A port that somebody else took while no process held it leads to the container all the same, and is
// held once it is free.
func TestBridgePortTakenMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := h.config(t, "0000b00b")
	n := h.open(t, cfg)
	ns, _ := h.connect(t, n, "c", tcp(8080, 80))
	answer(t, ns, "0.0.0.0:80", "container")
	n.Close()
	var thief net.Listener
	must(t, inNetNS(h.ns, func() (err error) {
		thief, err = net.Listen("tcp4", ":8080")
		return err
	}))
	n = h.open(t, cfg)
	if seen, err := knock(h.world, h.uplinkIP+":8080"); err != nil || seen != "container "+h.worldIP {
		t.Errorf("answered %q, %v", seen, err)
	}
	thief.Close()
	n.holdAgain() // as the watcher does now and then
	if seen, err := knock(h.ns, "[::1]:8080"); err != nil || !strings.HasPrefix(seen, "container ") {
		t.Errorf("through the held socket: %q, %v", seen, err)
	}
}

func TestBridgeIsolated(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0000b005"))
	c, err := n.Connect(t.Context(), agent.Endpoint{TaskID: "task", Container: "c", Isolated: true, Ports: []*dispatchpb.PortMapping{tcp(8080, 80)}})
	must(t, err)
	if c.IPv4 != "" || c.Gateway != "" || c.MAC != "" || len(c.Bindings) > 0 {
		t.Errorf("isolated, but %+v", c)
	}
	ns, err := openNetNS(c.NetNS)
	must(t, err)
	defer unix.Close(ns)
	serve(t, ns, "127.0.0.1")
	if _, err := knock(ns, "127.0.0.1:80"); err != nil {
		t.Errorf("its loopback: %v", err)
	}
	if _, err := knock(ns, h.worldIP+":80"); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("isolated to world: %v", err)
	}
	list, err := n.Connected(t.Context())
	if err != nil || len(list) != 1 || !list[0].Isolated {
		t.Errorf("connected: %v, %v", list, err)
	}
	must(t, n.Disconnect(t.Context(), "task", "c"))
}

// Any sequence of Connect, Disconnect and restarts leaves exactly the endpoints it should, each with
// what it got at first.
func TestBridgeRandomSequence(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := h.config(t, "0000b006")
	n := h.open(t, cfg)
	empty := h.state(t)
	rapid.Check(t, func(rt *rapid.T) {
		up := map[string]string{}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			c := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "container")
			switch rapid.SampledFrom([]string{"connect", "connect", "disconnect", "restart"}).Draw(rt, "what") {
			case "connect":
				got, err := n.Connect(t.Context(), agent.Endpoint{TaskID: "task", Container: c, Isolated: c == "c",
					Ports: []*dispatchpb.PortMapping{tcp(0, 80), tcp(9000+int32(c[0]), 81)}})
				if err != nil {
					rt.Fatal(err)
				}
				text := fmt.Sprint(got)
				if up[c] != "" && up[c] != text {
					rt.Fatalf("%s was %s and is %s", c, up[c], text)
				}
				up[c] = text
			case "disconnect":
				if err := n.Disconnect(t.Context(), "task", c); err != nil {
					rt.Fatal(err)
				}
				delete(up, c)
			case "restart":
				n.Close()
				var err error
				if n, err = Open(t.Context(), cfg); err != nil {
					rt.Fatal(err)
				}
			}
		}
		list, err := n.Connected(t.Context())
		if err != nil || len(list) != len(up) {
			rt.Fatalf("connected %v, %v; want %v", list, err, up)
		}
		mapped, held := 0, 0
		for _, e := range n.endpoints.records {
			mapped += len(e.mappings())
		}
		n.ports.mu.Lock()
		held = len(n.ports.held)
		n.ports.mu.Unlock()
		if in := len(mapped4(rt, h, n)); mapped != held || in != mapped {
			rt.Fatalf("%d ports in records, %d held, %d in the table", mapped, held, in)
		}
		for c := range up {
			if err := n.Disconnect(t.Context(), "task", c); err != nil {
				rt.Fatal(err)
			}
		}
		if got := h.state(t); got != empty {
			rt.Fatalf("after disconnecting all:\n%s\nbefore:\n%s", got, empty)
		}
		if k := mounts(t, cfg.RunDir+"/bridge"); k > 0 {
			rt.Fatalf("%d mounts are left", k)
		}
		if names, err := namesIn(n.endpointsDir()); err != nil || len(names) > 0 {
			rt.Fatalf("left: %v, %v", names, err)
		}
	})
	n.Close()
}

// mapped4 lists the elements of the map of ports.
func mapped4(t interface{ Fatal(...any) }, h *host, n *Network) []string {
	c, err := n.nftables()
	if err != nil {
		t.Fatal(err)
	}
	elements, err := c.GetSetElements(portMap(ruleset{inst: n.inst}.table()))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range elements {
		out = append(out, fmt.Sprint(e.Key, e.Val))
	}
	slices.Sort(out)
	return out
}

// Whatever an interrupted Connect or Disconnect, or somebody, left: Connect ends in the same place.
func TestBridgeLeftovers(t *testing.T) {
	t.Parallel()
	key := endpointKey("task", "c")
	for name, damage := range map[string]func(t *testing.T, h *host, n *Network, dir string){
		"none": func(*testing.T, *host, *Network, string) {},
		"no mount": func(t *testing.T, _ *host, _ *Network, dir string) {
			must(t, unix.Unmount(dir+"/netns", unix.MNT_DETACH))
		},
		"no link": func(t *testing.T, h *host, n *Network, _ string) { must(t, n.removeLink(n.inst.link(key))) },
		"not mapped": func(t *testing.T, _ *host, n *Network, _ string) {
			r, _ := n.endpoints.get(key)
			must(t, n.mapPorts(r.mappings(), false))
		},
		"no record": func(t *testing.T, _ *host, n *Network, dir string) { must(t, os.Remove(dir+"/endpoint.json")) },
		"no table": func(t *testing.T, h *host, n *Network, _ string) {
			c, err := n.nftables()
			must(t, err)
			must(t, removeTable(c, n.inst.table()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			cfg := h.config(t, "0000b007")
			n := h.open(t, cfg)
			_, first := h.connect(t, n, "c", tcp(0, 80))
			want, mapped := h.state(t), mapped4(t, h, n)
			n.watcher.stop() // which would be faster
			damage(t, h, n, filepath.Dir(first.NetNS))
			n.Close()
			n = h.open(t, cfg)
			ns, again := h.connect(t, n, "c", tcp(0, 80))
			if fmt.Sprint(again) != fmt.Sprint(first) {
				t.Errorf("connected as %v, at first as %v", again, first)
			}
			if got := h.state(t); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if got := mapped4(t, h, n); !slices.Equal(got, mapped) {
				t.Errorf("mapped %v, want %v", got, mapped)
			}
			serve(t, ns, "0.0.0.0")
			if _, err := knock(h.world, fmt.Sprintf("%s:%d", h.uplinkIP, again.Bindings[0].HostPort)); err != nil {
				t.Errorf("world to port: %v", err)
			}
			must(t, n.Disconnect(t.Context(), "task", "c"))
		})
	}
}

// Reset removes all, the endpoints of an earlier process included.
func TestBridgeReset(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	empty := h.state(t)
	cfg := h.config(t, "0000b009")
	n := h.open(t, cfg)
	h.connect(t, n, "a", &dispatchpb.PortMapping{ContainerPortRange: "1000-5999"}, udp(53, 53))
	h.connect(t, n, "b")
	if k := len(mapped4(t, h, n)); k != 5001 {
		t.Errorf("%d ports are mapped", k)
	}
	n.Close()
	n = h.open(t, cfg)
	if k := len(mapped4(t, h, n)); k != 5001 {
		t.Errorf("%d ports are mapped after a restart", k)
	}
	_, err := n.ServeMetadata(t.Context(), 1)
	must(t, err)
	must(t, n.Reset(t.Context()))
	if got := h.state(t); got != empty {
		t.Errorf("after reset:\n%s\nat first:\n%s", got, empty)
	}
	if k := mounts(t, cfg.RunDir); k != 0 {
		t.Errorf("%d mounts are left", k)
	}
	if left, err := namesIn(cfg.RunDir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestBridgeConcurrently(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	n := h.open(t, h.config(t, "0000b00a"))
	opened := h.state(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]string{} // host port and address to container
	for i := range 24 {
		wg.Go(func() {
			c := fmt.Sprint("c", i/2) // two at a time for each
			got, err := n.Connect(t.Context(), agent.Endpoint{TaskID: "task", Container: c, Ports: []*dispatchpb.PortMapping{tcp(0, 80)}})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, k := range []string{got.IPv4, fmt.Sprint(got.Bindings[0].HostPort)} {
				if seen[k] != "" && seen[k] != c {
					t.Errorf("%s and %s both have %s", c, seen[k], k)
				}
				seen[k] = c
			}
		})
	}
	wg.Wait()
	list, err := n.Connected(t.Context())
	if err != nil || len(list) != 12 || len(seen) != 24 {
		t.Errorf("connected: %v, %v; seen %v", list, err, seen)
	}
	for _, e := range list {
		wg.Go(func() {
			if err := n.Disconnect(t.Context(), e.TaskID, e.Container); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := h.state(t); got != opened {
		t.Errorf("after disconnecting:\n%s\nbefore:\n%s", got, opened)
	}
}

func BenchmarkConnect(b *testing.B) {
	h := newHost(b)
	n := h.open(b, h.config(b, "0000b008"))
	e := agent.Endpoint{TaskID: "task", Container: "c", Ports: []*dispatchpb.PortMapping{tcp(0, 80)}}
	var disconnect time.Duration
	for b.Loop() {
		if _, err := n.Connect(b.Context(), e); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		start := time.Now()
		must(b, n.Disconnect(b.Context(), e.TaskID, e.Container))
		disconnect += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(disconnect.Nanoseconds())/float64(b.N), "ns/disconnect")
}
