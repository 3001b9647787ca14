package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

var (
	loopbackNet  = netip.MustParsePrefix("127.0.0.0/8")
	linkLocalNet = netip.MustParsePrefix("169.254.0.0/16")
	localhost    = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	// metadataAddr is where ECS's containers find their task's metadata and credentials.
	metadataAddr = netip.AddrFrom4([4]byte{169, 254, 170, 2})
)

// rules guards the nftables table.
type rules struct {
	mu sync.Mutex
	// metadata is the port of the metadata server on the host's loopback, 0 without one.
	metadata uint16
	// hostMetadata is the claim to redirect metadataAddr for the host's own processes, nil without it.
	hostMetadata *claim
	// bridges are Docker's, where our interfaces are accepted in its chain.
	bridges []string
	// conn changes the map of ports; nil before the first change and after an error. It is kept because
	// the kernel, when such a socket is closed, first waits until what was removed is out of use: 12 ms.
	conn *nftables.Conn
}

// disconnect lets conn go.
func (r *rules) disconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		r.conn.CloseLasting()
		r.conn = nil
	}
}

// ruleset is the instance's table. It is replaced as a whole, in one transaction; tasks come and go
// without a change to it, and endpoints change the map of ports alone.
//
//	table inet berth_<instance> {
//		map ports { type inet_proto . inet_service : ipv4_addr . inet_service }
//		set bridges { type ifname }
//
//		chain prerouting {
//			type filter hook prerouting priority raw; policy accept;
//			iifname != "be<inst>*" accept
//			meta nfproto != ipv4 counter drop
//			ip daddr 127.0.0.0/8 counter drop
//			fib saddr . iif oif missing counter drop
//		}
//		chain redirect {
//			type nat hook prerouting priority dstnat; policy accept;
//			iifname "be<inst>*" ip daddr 169.254.170.2 tcp dport 80 dnat ip to 127.0.0.1:<metadata>
//			ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @ports
//		}
//		chain redirect_own {
//			type nat hook output priority -100; policy accept;
//			ip daddr 169.254.170.2 tcp dport 80 dnat ip to 127.0.0.1:<metadata>
//			fib daddr type local dnat ip to meta l4proto . th dport map @ports
//		}
//		chain input {
//			type filter hook input priority filter; policy accept;
//			iifname "be<inst>*" ip daddr 169.254.0.0/16 ip daddr != 169.254.1.1 counter reject
//		}
//		chain forward {
//			type filter hook forward priority filter; policy accept;
//			iifname "be<inst>*" ip daddr 169.254.0.0/16 counter reject
//			iifname "be<inst>*" oifname @bridges ct state new ct status ! dnat counter reject
//			meta nfproto != ipv4 accept
//			ip daddr != <bridge> accept
//			ct state established,related accept
//			ct status dnat accept
//			iifname "be<inst>*" ip saddr <bridge> accept
//			counter drop
//		}
//		chain postrouting {
//			type nat hook postrouting priority srcnat; policy accept;
//			ip saddr <subnet> ip daddr != <subnet> ip daddr != <bridge> counter masquerade
//			ip saddr <bridge> ip daddr != <bridge> counter masquerade
//			ip saddr <bridge> ip daddr <bridge> ct status dnat snat ip to <bridge's gateway>
//			ip saddr 127.0.0.0/8 ip daddr <bridge> snat ip to <bridge's gateway>
//		}
//	}
//
// The fib rule drops a packet whose source address is not routed back to where it came from: the only
// route to a task's interface is that of its own address.
//
// Our interfaces accept packets from and to loopback addresses (route_localnet), so that a redirect may
// lead there. The first chain keeps everything else out: it sees a packet before any redirect, and drops
// what names a loopback address itself, as its destination or, by the fib rule, its source. Others'
// interfaces are not changed, so the kernel goes on to drop a neighbour's packets to the host's loopback.
//
// Nothing else that is link-local leaves a task: 169.254.169.254 would be the host's own instance
// metadata, with the host's credentials.
//
// Containers in the bridge subnet are reached by each other, by the host, and otherwise through mapped
// ports alone, as on Docker's default bridge. One that reaches a mapped port of another, or its own,
// through the host's address comes from the gateway.
//
// The set of bridges keeps tasks from the ports that Docker's containers do not publish, as Docker did
// before its chain came to accept our interfaces.
type ruleset struct {
	inst           instance
	subnet, bridge netip.Prefix
	ports          []mapping
	metadata       uint16
	hostMetadata   bool
	bridges        []string
}

// mapping is a host port that leads to a container's.
type mapping struct {
	protocol uint8
	port     uint16
	to       netip.AddrPort
}

func (r ruleset) table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: r.inst.table()}
}

// portMap is the map of ports in a table. Its ID tells it from other sets of one transaction.
func portMap(table *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: table, ID: 1, Name: "ports", IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)}
}

// element is the mapping in the map: each part padded to the registers' four bytes.
func (m mapping) element() nftables.SetElement {
	to := m.to.Addr().As4()
	return nftables.SetElement{
		Key: []byte{m.protocol, 0, 0, 0, byte(m.port >> 8), byte(m.port), 0, 0},
		Val: []byte{to[0], to[1], to[2], to[3], byte(m.to.Port() >> 8), byte(m.to.Port()), 0, 0},
	}
}

// mostPorts is how many ports to change in one transaction, which has to fit into a socket's buffer, and
// as elements into an attribute of 64 KiB.
const mostPorts = 400

// elements are mappings in the map.
func elements(ports []mapping) []nftables.SetElement {
	e := make([]nftables.SetElement, 0, len(ports))
	for _, m := range ports {
		e = append(e, m.element())
	}
	return e
}

func (r ruleset) install(c *nftables.Conn) error {
	table := r.table()
	c.AddTable(table) // so that there is one to delete
	c.DelTable(table)
	c.AddTable(table)
	ports := portMap(table)
	first := r.ports[:min(len(r.ports), mostPorts)]
	if err := c.AddSet(ports, elements(first)); err != nil {
		return fmt.Errorf("describe the map of ports: %w", err)
	}
	bridges := &nftables.Set{Table: table, ID: 2, Name: "bridges", KeyType: nftables.TypeIFName}
	if err := c.AddSet(bridges, interfaces(r.bridges)); err != nil {
		return fmt.Errorf("describe the set of Docker's bridges: %w", err)
	}
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) func(parts ...[]expr.Any) {
		accept := nftables.ChainPolicyAccept
		ch := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority, Policy: &accept})
		return func(parts ...[]expr.Any) {
			rule := &nftables.Rule{Table: table, Chain: ch}
			for _, p := range parts {
				rule.Exprs = append(rule.Exprs, p...)
			}
			c.AddRule(rule)
		}
	}
	ours := iifname(expr.CmpOpEq, r.inst.linkPrefix())
	metadata := func(rule func(...[]expr.Any), from []expr.Any) {
		rule(from, isIPv4, within(daddr, expr.CmpOpEq, netip.PrefixFrom(metadataAddr, 32)), tcpPort(80),
			translate(expr.NATTypeDestNAT, netip.AddrPortFrom(localhost, r.metadata)))
	}

	rule := chain("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	rule(iifname(expr.CmpOpNeq, r.inst.linkPrefix()), accept)
	rule(nfproto(expr.CmpOpNeq), count, drop)
	rule(isIPv4, within(daddr, expr.CmpOpEq, loopbackNet), count, drop)
	rule(noRouteBack, count, drop)

	rule = chain("redirect", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	if r.metadata != 0 {
		metadata(rule, ours)
	}
	rule(isIPv4, within(daddr, expr.CmpOpNeq, loopbackNet), toLocal, toMapped(ports))

	rule = chain("redirect_own", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	if r.metadata != 0 && r.hostMetadata {
		metadata(rule, nil)
	}
	rule(isIPv4, toLocal, toMapped(ports))

	rule = chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	rule(ours, isIPv4, within(daddr, expr.CmpOpEq, linkLocalNet),
		within(daddr, expr.CmpOpNeq, netip.PrefixFrom(router, 32)), count, reject)

	rule = chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(ours, isIPv4, within(daddr, expr.CmpOpEq, linkLocalNet), count, reject)
	rule(ours, leavesBy(bridges), conntrack(expr.CtKeySTATE, expr.CtStateBitNEW), untranslated, count, reject)
	rule(nfproto(expr.CmpOpNeq), accept)
	rule(isIPv4, within(daddr, expr.CmpOpNeq, r.bridge), accept)
	rule(conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	rule(translated, accept)
	rule(ours, isIPv4, within(saddr, expr.CmpOpEq, r.bridge), accept)
	rule(count, drop)

	rule = chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	gateway := netip.AddrPortFrom(Gateway(r.bridge), 0)
	rule(isIPv4, within(saddr, expr.CmpOpEq, r.subnet), within(daddr, expr.CmpOpNeq, r.subnet),
		within(daddr, expr.CmpOpNeq, r.bridge), count, masquerade)
	rule(isIPv4, within(saddr, expr.CmpOpEq, r.bridge), within(daddr, expr.CmpOpNeq, r.bridge), count, masquerade)
	rule(isIPv4, within(saddr, expr.CmpOpEq, r.bridge), within(daddr, expr.CmpOpEq, r.bridge), translated,
		translate(expr.NATTypeSourceNAT, gateway))
	rule(isIPv4, within(saddr, expr.CmpOpEq, loopbackNet), within(daddr, expr.CmpOpEq, r.bridge),
		translate(expr.NATTypeSourceNAT, gateway))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install nftables table %s: %w", table.Name, err)
	}
	return changePorts(c, table, r.ports[len(first):], true)
}

// changePorts adds mappings, which the map may have, or removes them.
func changePorts(c *nftables.Conn, table *nftables.Table, ports []mapping, add bool) error {
	for some := range slices.Chunk(ports, mostPorts) {
		// To add what is there is no error, but to remove what is not is one.
		err := c.SetAddElements(portMap(table), elements(some))
		if err == nil && !add {
			err = c.SetDeleteElements(portMap(table), elements(some))
		}
		if err == nil {
			err = c.Flush()
		}
		if err != nil {
			return fmt.Errorf("change the mapped ports: %w", err)
		}
	}
	return nil
}

// The parts that rules are made of.
var (
	accept     = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop       = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	count      = []expr.Any{&expr.Counter{}}
	masquerade = []expr.Any{&expr.Masq{}}
	// reject answers at once, so that a client does not wait for its timeout.
	reject = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
	isIPv4 = nfproto(expr.CmpOpEq)
	// noRouteBack matches a source address to which there is no route by the interface it came from.
	noRouteBack = []expr.Any{
		&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
	// toLocal matches the host's own addresses.
	toLocal = []expr.Any{
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
	translated   = conntrack(expr.CtKeySTATUS, statusDestinationNAT)
	untranslated = without(translated)
)

const (
	saddr, daddr         = 12, 16 // offsets in the IPv4 header
	statusDestinationNAT = 1 << 5 // IPS_DST_NAT
)

// iifname compares the name of the interface that a packet came in by with a prefix: comparing fewer
// bytes than a name has is how nft spells a wildcard.
func iifname(op expr.CmpOp, prefix string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte(prefix)},
	}
}

// nfproto compares a packet's protocol with IPv4.
func nfproto(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

// within compares an address of the IPv4 header with a subnet.
func within(offset uint32, op expr.CmpOp, subnet netip.Prefix) []expr.Any {
	addr := subnet.Masked().Addr().As4()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: net.CIDRMask(subnet.Bits(), 32), Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: op, Register: 1, Data: addr[:]},
	}
}

// conntrack matches a connection that has one of the bits.
func conntrack(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0, 0, 0}},
	}
}

// without matches where conntrack does not.
func without(conntrack []expr.Any) []expr.Any {
	e := slices.Clone(conntrack)
	e[len(e)-1] = &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 0, 0, 0}}
	return e
}

// leavesBy matches a packet that leaves by one of the interfaces in a set.
func leavesBy(set *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}

// interfaces are names as elements: padded to the kernel's length.
func interfaces(names []string) []nftables.SetElement {
	var e []nftables.SetElement
	for _, name := range names {
		key := make([]byte, unix.IFNAMSIZ)
		copy(key, name)
		e = append(e, nftables.SetElement{Key: key})
	}
	return e
}

func tcpPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// translate changes a connection's address, and its port unless that is 0.
func translate(kind expr.NATType, to netip.AddrPort) []expr.Any {
	addr := to.Addr().As4()
	e := []expr.Any{&expr.Immediate{Register: 1, Data: addr[:]}}
	nat := &expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}
	if to.Port() != 0 {
		e = append(e, &expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(to.Port())})
		nat.RegProtoMin = 2
	}
	return append(e, nat)
}

// toMapped leads to the container that the map has for a packet's protocol and port; without one the
// rule does not match.
func toMapped(ports *nftables.Set) []expr.Any {
	// A register has 16 bytes and can be named by its words too, of which the first is number 8.
	const word1 = unix.NFT_REG32_01
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Payload{DestRegister: word1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: ports.Name, SetID: ports.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: word1},
	}
}

func (n *Network) nftables() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithNetNSFd(n.host))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil
}

// installRules makes the table what it should be now.
func (n *Network) installRules() error {
	n.rules.mu.Lock()
	defer n.rules.mu.Unlock()
	return n.installRulesLocked()
}

func (n *Network) installRulesLocked() error {
	c, err := n.nftables()
	if err != nil {
		return err
	}
	return ruleset{inst: n.inst, subnet: n.claim.subnet, bridge: n.bridge.subnet, ports: n.endpoints.mappings(),
		metadata: n.rules.metadata, hostMetadata: n.rules.hostMetadata != nil, bridges: n.rules.bridges}.install(c)
}

// mapPorts adds mappings to the table, which may have them, or removes them.
func (n *Network) mapPorts(ports []mapping, add bool) error {
	if len(ports) == 0 {
		return nil
	}
	n.rules.mu.Lock()
	defer n.rules.mu.Unlock()
	err := n.mapPortsLocked(ports, add)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) {
		err = n.installRulesLocked() // somebody changed the table
	}
	return err
}

func (n *Network) mapPortsLocked(ports []mapping, add bool) (err error) {
	if n.rules.conn == nil {
		if n.rules.conn, err = nftables.New(nftables.WithNetNSFd(n.host), nftables.AsLasting()); err != nil {
			n.rules.conn = nil
			return fmt.Errorf("open nftables: %w", err)
		}
	}
	if err := changePorts(n.rules.conn, ruleset{inst: n.inst}.table(), ports, add); err != nil {
		n.rules.conn.CloseLasting() // answers may be under way
		n.rules.conn = nil
		return err
	}
	return nil
}
