package network

import (
	"encoding/binary"
	"net/netip"
)

// As in a VPC: AWS reserves the first four addresses of a subnet (the network, the router, DNS, and
// one for later) and the last.
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
const (
	reservedFirst = 4
	reservedLast  = 1
)

// Gateway is the address of the subnet's router: its second. The host speaks to tasks from it.
func Gateway(subnet netip.Prefix) netip.Addr { return nth(subnet, 1) }

// Usable returns the first and the last address that tasks may have. ok is false if subnet has none:
// if it is not IPv4, or smaller than /29.
func Usable(subnet netip.Prefix) (first, last netip.Addr, ok bool) {
	if !subnet.IsValid() || !subnet.Addr().Is4() || subnet.Bits() > 29 {
		return netip.Addr{}, netip.Addr{}, false
	}
	size := uint64(1) << (32 - subnet.Bits())
	return nth(subnet, reservedFirst), nth(subnet, size-1-reservedLast), true
}

// IsUsable tells whether a task may have the address.
func IsUsable(subnet netip.Prefix, a netip.Addr) bool {
	first, last, ok := Usable(subnet)
	return ok && a.Is4() && a.Compare(first) >= 0 && a.Compare(last) <= 0
}

func nth(p netip.Prefix, n uint64) netip.Addr {
	b := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}

// DefaultPools are the subnets to choose from, best first: the default subnets of AWS's default VPC,
// 172.31.0.0/16, and then those of 172.30.0.0/16.
func DefaultPools() []netip.Prefix { return pools("172.31.0.0/16", "172.30.0.0/16") }

// DefaultBridgePools are the subnets for containers of network mode bridge to choose from, best first.
// Docker gives out the same ones last.
func DefaultBridgePools() []netip.Prefix { return pools("172.29.0.0/16", "172.28.0.0/16") }

// pools are the subnets /20 of networks /16.
func pools(networks ...string) []netip.Prefix {
	var pools []netip.Prefix
	for _, s := range networks {
		network := netip.MustParsePrefix(s)
		for i := range uint64(16) {
			pools = append(pools, netip.PrefixFrom(nth(network, i<<12), 20))
		}
	}
	return pools
}
