package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/failpoint"
)

// router is the next hop of every task. It is the same everywhere and outside all subnets, so a task's
// routes say nothing about where it runs.
var router = netip.AddrFrom4([4]byte{169, 254, 1, 1})

// routerMAC is the hardware address of the host's end of every link. Each link has two ends only.
var routerMAC = net.HardwareAddr{0x02, 0xbe, 0, 0, 0, 1}

// Config of a Network.
type Config struct {
	// Instance is 8 hexadecimal digits; all that is made on the host carries it.
	Instance string
	// StateDir keeps the instance's subnet over restarts and reboots.
	StateDir string
	// RunDir is the instance's directory for what does not survive a reboot; namespaces are pinned
	// under it.
	RunDir string
	// PoolDir holds the claims of all instances on the host; they must agree on it. Default
	// /run/berth/pools.
	PoolDir string
	// Pools are the subnets to choose from for awsvpc tasks. Default: DefaultPools.
	Pools []netip.Prefix
	// BridgePools are those for containers of network mode bridge. Default: DefaultBridgePools.
	BridgePools []netip.Prefix
	// DynamicPorts is the range, "49153-65535", from which host ports are chosen that a definition
	// leaves open, as ECS_DYNAMIC_HOST_PORT_RANGE sets it for Amazon's agent. Default: the kernel's
	// net.ipv4.ip_local_port_range.
	DynamicPorts string
	// HostNetNS is the path of the namespace to act as the host's. Default: that of the process.
	HostNetNS string
	Logger    *slog.Logger
}

// Network implements agent.Network and agent.Bridge. Its methods may be called concurrently.
type Network struct {
	cfg    Config
	inst   instance
	log    *slog.Logger
	host   int  // the host's network namespace
	within bool // it is the process's own
	nl     *netlink.Handle
	raw    *nl.SocketHandle // for what nl has no words for
	claim  *claim           // on the subnet of awsvpc tasks
	bridge *claim           // on that of network mode bridge
	mtu    int
	tasks  keyedMutex // by task ID, and by endpointKey

	endpoints endpoints
	ports     portTable
	rules     rules
	watcher   watcher
	iptables  func(args ...string) error // runs legacy iptables
}

var (
	_ agent.Network = (*Network)(nil)
	_ agent.Bridge  = (*Network)(nil)
)

// Open claims the subnets and prepares the host: forwarding, the subnets' gateway addresses and routes,
// and the nftables table. Tasks and endpoints of an earlier process are left as they are, and their
// ports are held again. Until Close, what others undo of it is repaired.
func Open(ctx context.Context, cfg Config) (_ *Network, err error) {
	n := &Network{cfg: cfg, inst: instance(cfg.Instance), log: cfg.Logger, host: -1, iptables: runIPTables}
	if err := n.inst.valid(); err != nil {
		return nil, err
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.cfg.PoolDir == "" {
		n.cfg.PoolDir = "/run/berth/pools"
	}
	if n.cfg.Pools == nil {
		n.cfg.Pools = DefaultPools()
	}
	if n.cfg.BridgePools == nil {
		n.cfg.BridgePools = DefaultBridgePools()
	}
	if n.cfg.DynamicPorts != "" {
		if _, err := parsePorts(n.cfg.DynamicPorts); err != nil {
			return nil, fmt.Errorf("range of dynamic host ports: %w", err)
		}
	}
	for _, dir := range []string{n.cfg.StateDir, n.namespaces(), n.endpointsDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the network's directory: %w", err)
		}
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if n.host, err = openHostNetNS(n.cfg.HostNetNS); err != nil {
		return nil, err
	}
	n.within = n.cfg.HostNetNS == ""
	if n.nl, err = netlink.NewHandleAt(netns.NsHandle(n.host), unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(n.host), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	n.raw = &nl.SocketHandle{Socket: socket}
	if err = n.claimSubnets(); err != nil {
		return nil, err
	}
	if err = n.loadEndpoints(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	failpoint.Hit("network/open/before")
	if err := n.prepareHost(); err != nil {
		return nil, err
	}
	failpoint.Hit("network/open/after")
	n.watch()
	n.log.Info("task subnets", "awsvpc", n.claim.subnet, "bridge", n.bridge.subnet, "mtu", n.mtu)
	return n, nil
}

// Close gives up the claims and the held ports; what tasks have stays.
func (n *Network) Close() error {
	n.watcher.stop()
	n.ports.close()
	n.rules.disconnect()
	if n.nl != nil {
		n.nl.Close()
	}
	if n.raw != nil {
		n.raw.Close()
	}
	for _, c := range []*claim{n.claim, n.bridge, n.rules.hostMetadata} {
		if c != nil {
			c.close()
		}
	}
	if n.host >= 0 {
		unix.Close(n.host)
		n.host = -1
	}
	return nil
}

// Subnet is what this host's awsvpc tasks get their addresses from.
func (n *Network) Subnet() netip.Prefix { return n.claim.subnet }

// BridgeSubnet is what containers of network mode bridge get theirs from.
func (n *Network) BridgeSubnet() netip.Prefix { return n.bridge.subnet }

func (n *Network) namespaces() string { return filepath.Join(n.cfg.RunDir, "netns") }

func (n *Network) namespace(taskID string) string { return filepath.Join(n.namespaces(), taskID) }

func (n *Network) prepareHost() error {
	for _, c := range []*claim{n.claim, n.bridge} {
		if err := n.addSubnet(c.subnet); err != nil {
			return err
		}
	}
	n.mtu = n.uplinkMTU()
	if err := n.onHost(enableForwarding); err != nil {
		return err
	}
	return n.installRules()
}

// onHost runs f in the host's network namespace.
func (n *Network) onHost(f func() error) error {
	if n.within {
		return f()
	}
	return inNetNS(n.host, f)
}

// addSubnet gives the host what it has of a subnet: the gateway's address, and a route by which what is
// sent to an address that no task has fails here and now rather than leave the host. The route also
// tells other software that the subnet is taken.
func (n *Network) addSubnet(p netip.Prefix) error {
	lo, err := n.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := n.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	// Replacing would keep the label of a dead instance that had the subnet before.
	addrs, err := n.nl.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the addresses of lo: %w", err)
	}
	for _, a := range addrs {
		if a.Label != n.inst.loLabel() && a.IP.Equal(Gateway(p).AsSlice()) {
			if err := n.nl.AddrDel(lo, &a); err != nil {
				return fmt.Errorf("remove a dead instance's gateway %v: %w", a.IP, err)
			}
		}
	}
	gateway := &netlink.Addr{IPNet: ipNet(Gateway(p)), Label: n.inst.loLabel()}
	if err := n.nl.AddrReplace(lo, gateway); err != nil {
		return fmt.Errorf("add the subnet's gateway %v to lo: %w", gateway.IPNet, err)
	}
	if err := n.nl.RouteReplace(subnetRoute(p)); err != nil {
		return fmt.Errorf("add the route of subnet %v: %w", p, err)
	}
	return nil
}

func (n *Network) removeSubnet(p netip.Prefix) error {
	if err := n.nl.RouteDel(subnetRoute(p)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route of subnet %v: %w", p, err)
	}
	lo, err := n.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	err = n.nl.AddrDel(lo, &netlink.Addr{IPNet: ipNet(Gateway(p))})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove the gateway of subnet %v: %w", p, err)
	}
	return nil
}

func subnetRoute(p netip.Prefix) *netlink.Route {
	return &netlink.Route{Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN,
		Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}
}

const forwardingFile = "/proc/sys/net/ipv4/ip_forward"

// enableForwarding writes only when it must: the write alone resets other settings.
func enableForwarding() error {
	b, err := os.ReadFile(forwardingFile)
	if err == nil && strings.TrimSpace(string(b)) != "0" {
		return nil
	}
	if err := os.WriteFile(forwardingFile, []byte("1"), 0); err != nil {
		return fmt.Errorf("enable IPv4 forwarding: %w", err)
	}
	return nil
}

// uplinkMTU is that of the interface with the default route: with a larger one, what tasks send would
// have to be fragmented.
func (n *Network) uplinkMTU() int {
	const ethernet = 1500
	routes, err := n.nl.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return ethernet
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.LinkIndex == 0 {
			continue
		}
		if l, err := n.nl.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU >= 576 {
			return min(l.Attrs().MTU, 65535)
		}
	}
	return ethernet
}

// Setup implements agent.Network. What an interrupted Setup left is completed, or removed and made
// anew. The address must be one of Subnet's; without a MAC address one is derived from it.
func (n *Network) Setup(ctx context.Context, taskID string, ni *dispatchpb.NetworkInterface) (string, error) {
	if err := validTask(taskID); err != nil {
		return "", fmt.Errorf("set up network: %w", err)
	}
	defer n.tasks.lock(taskID)()
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("set up network of task %s: %w", taskID, err)
	}
	nic, err := parseNIC(n.claim.subnet, ni)
	if err != nil {
		return fail(err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	failpoint.Hit("network/setup/before")
	path := n.namespace(taskID)
	ns, inside, err := n.enterNamespace(path)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(ns)
	defer inside.Close()
	failpoint.Hit("network/setup/namespace")
	l := link{name: n.inst.link(taskID), alias: n.inst.alias(taskID), nic: nic, gateway: Gateway(n.claim.subnet)}
	if err := n.connect(l, ns, inside); err != nil {
		return fail(err)
	}
	failpoint.Hit("network/setup/after")
	return path, nil
}

// enterNamespace opens the namespace at path, making it if there is none, and a netlink socket in it.
func (n *Network) enterNamespace(path string) (ns int, inside *netlink.Handle, err error) {
	if ns, err = openNetNS(path); err == nil {
		if inside, err = netlink.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_ROUTE); err != nil {
			unix.Close(ns)
			return -1, nil, fmt.Errorf("open netlink in the namespace: %w", err)
		}
		return ns, inside, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return -1, nil, err
	}
	err = newNetNS(path, func() (err error) {
		inside, err = netlink.NewHandle(unix.NETLINK_ROUTE) // a socket stays where it was made
		return err
	})
	if err == nil {
		ns, err = openNetNS(path)
	}
	if err != nil && inside != nil {
		inside.Close()
	}
	return ns, inside, err
}

// link is a veth pair to be: the host's end, and the interface inside.
type link struct {
	name, alias string
	nic         nic
	gateway     netip.Addr // as which the host speaks to it
}

// loopback brings lo up in a namespace.
func loopback(inside *netlink.Handle) error {
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the task's lo: %w", err)
	}
	if err := inside.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring the task's lo up: %w", err)
	}
	return nil
}

// connect makes the veth pair and everything on both of its ends.
func (n *Network) connect(l link, ns int, inside *netlink.Handle) error {
	if err := loopback(inside); err != nil {
		return err
	}
	host, eth0, err := n.pair(l, ns, inside)
	if err != nil {
		return err
	}
	failpoint.Hit("network/setup/pair")

	// The host's end, without the route: nothing is sent to the task before it is ready.
	nic := l.nic
	if host.Attrs().Alias != l.alias {
		if err := n.nl.LinkSetAlias(host, l.alias); err != nil {
			return fmt.Errorf("mark the host's end as ours: %w", err)
		}
	}
	if err := n.routeLocalnet(host); err != nil {
		return err
	}
	// Who does not know the fixed neighbour, as a sandboxed kernel, gets an answer to its ARP request.
	if err := n.nl.AddrReplace(host, &netlink.Addr{IPNet: ipNet(router), Scope: unix.RT_SCOPE_LINK}); err != nil {
		return fmt.Errorf("add address %v to the host's end: %w", router, err)
	}
	if err := n.nl.LinkSetUp(host); err != nil {
		return fmt.Errorf("bring the host's end up: %w", err)
	}
	if err := n.nl.NeighSet(neighbour(host, nic.addr, nic.mac)); err != nil {
		return fmt.Errorf("add the task as neighbour: %w", err)
	}

	if err := inside.AddrReplace(eth0, &netlink.Addr{IPNet: ipNet(nic.addr)}); err != nil {
		return fmt.Errorf("add address %v to the task: %w", nic.addr, err)
	}
	if err := inside.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("bring the task's end up: %w", err)
	}
	if err := inside.NeighSet(neighbour(eth0, router, routerMAC)); err != nil {
		return fmt.Errorf("add the router as the task's neighbour: %w", err)
	}
	out := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: router.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
		Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}
	if err := inside.RouteReplace(out); err != nil {
		return fmt.Errorf("add the task's default route: %w", err)
	}

	in := &netlink.Route{LinkIndex: host.Attrs().Index, Dst: ipNet(nic.addr), Scope: unix.RT_SCOPE_LINK,
		Src: l.gateway.AsSlice(), Protocol: routeProtocol}
	err = n.nl.RouteAdd(in)
	if errors.Is(err, unix.EEXIST) {
		err = n.sameRoute(nic.addr, host.Attrs().Index)
	}
	if err != nil {
		return fmt.Errorf("add the route to %v: %w", nic.addr, err)
	}
	return nil
}

// pair returns the two ends of the link. Ends that do not belong together, or are not those of this
// interface, are made anew.
func (n *Network) pair(l link, ns int, inside *netlink.Handle) (host, eth0 netlink.Link, err error) {
	name, nic := l.name, l.nic
	host, err = linkByName(n.nl, name)
	if err != nil {
		return nil, nil, err
	}
	eth0, err = linkByName(inside, "eth0")
	if err != nil {
		return nil, nil, err
	}
	if host != nil && eth0 != nil {
		fits, err := fits(inside, host, eth0, nic)
		if err != nil {
			return nil, nil, err
		}
		if fits {
			return host, eth0, nil
		}
	}
	if host != nil { // and its other end with it
		if err := n.nl.LinkDel(host); err != nil {
			return nil, nil, fmt.Errorf("remove the unfinished link %s: %w", name, err)
		}
		if eth0, err = linkByName(inside, "eth0"); err != nil {
			return nil, nil, err
		}
	}
	if eth0 != nil {
		return nil, nil, fmt.Errorf("the namespace has an eth0 that is not ours")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, n.mtu, routerMAC
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = "eth0", nic.mac, uint32(n.mtu)
	veth.PeerNamespace = netlink.NsFd(ns)
	if err := n.nl.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("make the link %s: %w", name, err)
	}
	if eth0, err = inside.LinkByName("eth0"); err != nil {
		return nil, nil, fmt.Errorf("find the task's end of %s: %w", name, err)
	}
	return veth, eth0, nil
}

// fits tells whether the two are ends of one link that has the interface's addresses, so far.
func fits(inside *netlink.Handle, host, eth0 netlink.Link, nic nic) (bool, error) {
	addrs, err := inside.AddrList(eth0, netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("list the task's addresses: %w", err)
	}
	for _, a := range addrs {
		if !a.IP.Equal(nic.addr.AsSlice()) {
			return false, nil
		}
	}
	return eth0.Attrs().ParentIndex == host.Attrs().Index && eth0.Attrs().HardwareAddr.String() == nic.mac.String(), nil
}

// sameRoute is nil if the route to addr that exists is by that link.
func (n *Network) sameRoute(addr netip.Addr, link int) error {
	routes, err := n.nl.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: ipNet(addr)}, netlink.RT_FILTER_DST)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.LinkIndex != link {
			return fmt.Errorf("another interface, number %d, has this address", r.LinkIndex)
		}
	}
	return nil
}

// Teardown implements agent.Network.
func (n *Network) Teardown(ctx context.Context, taskID string) error {
	if err := validTask(taskID); err != nil {
		return fmt.Errorf("tear down network: %w", err)
	}
	defer n.tasks.lock(taskID)()
	if err := ctx.Err(); err != nil {
		return err
	}
	failpoint.Hit("network/teardown/before")
	if err := n.teardown(taskID); err != nil {
		return fmt.Errorf("tear down network of task %s: %w", taskID, err)
	}
	failpoint.Hit("network/teardown/after")
	return nil
}

// teardown removes the link first: as long as there is a link, List names the task.
func (n *Network) teardown(taskID string) error {
	if err := n.removeLink(n.inst.link(taskID)); err != nil {
		return err
	}
	failpoint.Hit("network/teardown/link")
	return removeNetNS(n.namespace(taskID))
}

func (n *Network) removeLink(name string) error {
	host, err := linkByName(n.nl, name)
	if err != nil {
		return err
	}
	if host != nil {
		if err := n.nl.LinkDel(host); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove link %s: %w", name, err)
		}
	}
	return nil
}

// List implements agent.Network. It also names tasks whose Setup or Teardown was interrupted.
func (n *Network) List(context.Context) ([]string, error) {
	ids, err := namesIn(n.namespaces())
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	return ids, nil
}

// namesIn lists a directory, sorted.
func namesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Reset removes all that the instance made on this host, with its claim, and closes n.
func (n *Network) Reset(ctx context.Context) error {
	defer n.Close()
	n.watcher.stop()
	ids, err := n.List(ctx)
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, n.Teardown(ctx, id))
	}
	endpoints, err := n.Connected(ctx)
	errs = append(errs, err)
	for _, e := range endpoints {
		errs = append(errs, n.Disconnect(ctx, e.TaskID, e.Container))
	}
	links, err := n.nl.LinkList()
	errs = append(errs, err)
	for _, l := range links { // whose namespace's file somebody removed
		if n.inst.owns(l.Attrs().Name, l.Attrs().Alias) {
			errs = append(errs, n.nl.LinkDel(l))
		}
	}
	c, err := nftables.New(nftables.WithNetNSFd(n.host))
	if err == nil {
		err = removeTable(c, n.inst.table())
	}
	errs = append(errs, err)
	errs = append(errs, n.leaveDocker())
	errs = append(errs, n.removeSubnet(n.claim.subnet), n.removeSubnet(n.bridge.subnet))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reset network: %w", err) // the claim stays: what is left still uses the subnet
	}
	if err := os.Remove(n.memory()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reset network: %w", err)
	}
	os.Remove(n.namespaces())
	os.Remove(n.endpointsDir())
	if n.rules.hostMetadata != nil {
		errs = append(errs, n.rules.hostMetadata.remove())
	}
	return errors.Join(append(errs, n.claim.remove(), n.bridge.remove())...)
}

func ipNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

func neighbour(l netlink.Link, a netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: a.AsSlice(), HardwareAddr: mac}
}

// linkByName returns nil if there is no such link.
func linkByName(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	return l, nil
}

// keyedMutex is a mutex for each key.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int
}

// lock returns the function that unlocks.
func (k *keyedMutex) lock(key string) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyLock{}
	}
	l := k.held[key]
	if l == nil {
		l = &keyLock{}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
}

var _ io.Closer = (*Network)(nil)
