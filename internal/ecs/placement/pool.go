package placement

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// As in a VPC subnet, the first four addresses (network, router, DNS, future use) and the last
// (broadcast) are not given out.
const (
	poolFirst = 4
	poolLast  = 1
	// poolMax bounds a pool, whatever the prefix; a VPC's largest subnet, a /16, has as many.
	poolMax = 1 << 16
)

// pool is the addresses of one host's subnet. The zero value has none.
type pool struct {
	base  uint32
	size  int // addresses in the subnet, reserved ones included; 0: no pool
	taken []uint64
	used  int
	// twice counts further holders of an address, which only a contradictory store can make.
	twice map[int]int
}

func newPool(subnet netip.Prefix) pool {
	if !subnet.IsValid() || !subnet.Addr().Is4() {
		return pool{}
	}
	host := 32 - subnet.Bits()
	if host < 3 { // four addresses or fewer: all reserved
		return pool{}
	}
	size := poolMax
	if host < 16 {
		size = 1 << host
	}
	b := subnet.Masked().Addr().As4()
	return pool{base: binary.BigEndian.Uint32(b[:]), size: size, taken: make([]uint64, (size+63)/64)}
}

func (p *pool) usable() int { return max(p.size-poolFirst-poolLast, 0) }

func (p *pool) free() int { return p.usable() - p.used }

// offset answers where in the pool an address is, if it is one the pool gives out.
func (p *pool) offset(a netip.Addr) (int, bool) {
	if !a.Is4() {
		return 0, false
	}
	b := a.As4()
	off := int64(binary.BigEndian.Uint32(b[:])) - int64(p.base)
	return int(off), off >= poolFirst && off < int64(p.size-poolLast)
}

// take marks an address. One from outside the pool, left from an earlier subnet, is nobody else's.
func (p *pool) take(a netip.Addr) {
	off, ok := p.offset(a)
	if !ok {
		return
	}
	if p.taken[off/64]&(1<<(off%64)) != 0 {
		if p.twice == nil {
			p.twice = map[int]int{}
		}
		p.twice[off]++
		return
	}
	p.taken[off/64] |= 1 << (off % 64)
	p.used++
}

func (p *pool) giveBack(a netip.Addr) {
	off, ok := p.offset(a)
	if !ok {
		return
	}
	if p.twice[off] > 0 {
		p.twice[off]--
		return
	}
	p.taken[off/64] &^= 1 << (off % 64)
	p.used--
}

// choose picks a free address by the seed, without taking it. Starting anywhere but at the lowest
// keeps an address just given back from going at once to the next task, which would meet its
// predecessor's connections.
func (p *pool) choose(seed uint64) (netip.Addr, bool) {
	if p.free() <= 0 {
		return netip.Addr{}, false
	}
	start := poolFirst + int(below(seed, p.usable()))
	off := p.nextFree(start, p.size-poolLast)
	if off < 0 {
		off = p.nextFree(poolFirst, start)
	}
	if off < 0 {
		return netip.Addr{}, false
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], p.base+uint32(off))
	return netip.AddrFrom4(b), true
}

// nextFree returns the first free offset in [from, to), or -1.
func (p *pool) nextFree(from, to int) int {
	for off := from; off < to; {
		free := ^p.taken[off/64] >> (off % 64)
		if free == 0 {
			off = (off/64 + 1) * 64
			continue
		}
		if off += bits.TrailingZeros64(free); off < to {
			return off
		}
		return -1
	}
	return -1
}
