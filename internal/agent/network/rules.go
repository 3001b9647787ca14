package network

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// installRules replaces the instance's table as a whole, in one transaction:
//
//	table inet berth_<instance> {
//		chain prerouting {
//			type filter hook prerouting priority raw; policy accept;
//			iifname != "be<inst>*" accept
//			meta nfproto != ipv4 counter drop
//			fib saddr . iif oif missing counter drop
//		}
//		chain postrouting {
//			type nat hook postrouting priority srcnat; policy accept;
//			ip saddr <subnet> ip daddr != <subnet> counter masquerade
//		}
//	}
//
// The fib rule drops a packet whose source address is not routed back to where it came from: the only
// route to a task's interface is that of its own address.
func installRules(c *nftables.Conn, inst instance, subnet netip.Prefix) error {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: inst.table()}
	c.AddTable(table) // so that there is one to delete
	c.DelTable(table)
	c.AddTable(table)

	accept := nftables.ChainPolicyAccept
	pre := c.AddChain(&nftables.Chain{Name: "prerouting", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw, Policy: &accept})
	drop := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		r := &nftables.Rule{Table: table, Chain: chain}
		for _, p := range parts {
			r.Exprs = append(r.Exprs, p...)
		}
		c.AddRule(r)
	}
	rule(pre, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		// Comparing fewer bytes than a name has is how nft spells a wildcard.
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte(inst.linkPrefix())},
		&expr.Verdict{Kind: expr.VerdictAccept},
	})
	rule(pre, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
	}, drop)
	rule(pre, []expr.Any{
		&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}, drop)

	post := c.AddChain(&nftables.Chain{Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &accept})
	const source, destination = 12, 16 // offsets in the IPv4 header
	rule(post, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
	}, within(source, expr.CmpOpEq, subnet), within(destination, expr.CmpOpNeq, subnet),
		[]expr.Any{&expr.Counter{}, &expr.Masq{}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install nftables table %s: %w", table.Name, err)
	}
	return nil
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
