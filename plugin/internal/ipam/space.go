package ipam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
)

// Space is the addresses of one subnet, and which of them are taken. Its memory is proportional to what is
// taken, never to the subnet, so an IPv6 /64 costs nothing. It is not safe for concurrent use.
type Space struct {
	subnet netip.Prefix
	bounds netip.Prefix
	taken  map[netip.Addr]struct{}
	used   uint64 // how many of taken lie within bounds
}

// probes is how often Pick tries a random address, in the host's own chunk and then in all of the bounds,
// before it scans. While half of the addresses are free, 1 in 65,000 picks comes to the scan.
const probes = 8

// chunkBits says how many parts the bounds have for the hints of hosts, as a power of two: 16.
const chunkBits = 4

// NewSpace returns the addresses of a subnet, none taken. The bounds (docker network create --ip-range) are
// where Pick looks; the zero value means all of the subnet. An address outside the bounds can be taken all
// the same, because it was asked for.
func NewSpace(subnet, bounds netip.Prefix) (*Space, error) {
	if !subnet.IsValid() {
		return nil, errors.New("make an address space: the subnet is no prefix")
	}
	subnet = subnet.Masked()
	if bounds == (netip.Prefix{}) {
		bounds = subnet
	}
	if bounds = bounds.Masked(); bounds.Bits() < subnet.Bits() || !subnet.Contains(bounds.Addr()) {
		return nil, fmt.Errorf("--ip-range %s does not lie inside the subnet %s: write a part of it", bounds, subnet)
	}
	return &Space{subnet: subnet, bounds: bounds, taken: make(map[netip.Addr]struct{})}, nil
}

// Take marks an address as taken. It reports false, and changes nothing, if the address is taken already or
// is not Usable.
func (s *Space) Take(addr netip.Addr) bool {
	if s.Taken(addr) || s.Usable(addr) != nil {
		return false
	}
	s.taken[addr] = struct{}{}
	if s.bounds.Contains(addr) {
		s.used++
	}
	return true
}

// Free marks an address as free; one that is free already stays so.
func (s *Space) Free(addr netip.Addr) {
	if !s.Taken(addr) {
		return
	}
	delete(s.taken, addr)
	if s.bounds.Contains(addr) {
		s.used--
	}
}

// Taken reports whether an address is taken.
func (s *Space) Taken(addr netip.Addr) bool {
	_, taken := s.taken[addr]
	return taken
}

// Usable reports why no container can have an address, whether taken or not; nil if one can.
func (s *Space) Usable(addr netip.Addr) error {
	switch {
	case !s.subnet.Contains(addr):
		return fmt.Errorf("%s is outside the subnet %s", addr, s.subnet)
	case addr == s.subnet.Addr() && addr.Is4():
		return fmt.Errorf("%s is the network address of %s", addr, s.subnet)
	case addr == s.subnet.Addr():
		return fmt.Errorf("%s is the subnet-router anycast address of %s", addr, s.subnet)
	case addr.Is4() && addr == last(s.subnet):
		return fmt.Errorf("%s is the broadcast address of %s", addr, s.subnet)
	}
	return nil
}

// Size returns how many addresses Pick can give in all: the usable ones of the bounds, taken or not. A
// number that does not fit becomes the greatest that does.
func (s *Space) Size() uint64 {
	host := hostBits(s.bounds)
	if host >= 64 {
		return math.MaxUint64
	}
	size := uint64(1) << host
	if s.bounds.Addr() == s.subnet.Addr() {
		size--
	}
	if s.bounds.Addr().Is4() && size > 0 && last(s.bounds) == last(s.subnet) {
		size--
	}
	return size
}

// Used returns how many addresses of the bounds are taken; it is at most Size.
func (s *Space) Used() uint64 { return s.used }

// Pick returns a free usable address of the bounds, and false only if there is none. It does not take it.
// The hint is any number that is always the same for one Host: it chooses the sixteenth of the bounds where
// the Host looks first, so that Hosts seldom meet and their addresses lie together.
func (s *Space) Pick(rng *rand.Rand, hint uint64) (netip.Addr, bool) {
	if s.used >= s.Size() {
		return netip.Addr{}, false
	}
	for _, part := range []netip.Prefix{s.chunk(hint), s.bounds} {
		for range probes {
			if addr := randomAddr(rng, part); s.free(addr) {
				return addr, true
			}
		}
	}
	// There is a free address, and at most used addresses and two that are not usable come before it.
	addr := randomAddr(rng, s.bounds)
	for !s.free(addr) {
		if addr = addr.Next(); !s.bounds.Contains(addr) {
			addr = s.bounds.Addr()
		}
	}
	return addr, true
}

// free reports whether Pick may answer an address of the bounds. It is Usable without the words.
func (s *Space) free(addr netip.Addr) bool {
	edge := addr == s.subnet.Addr() || addr.Is4() && addr == last(s.subnet)
	return !edge && !s.Taken(addr)
}

// chunk returns the part of the bounds that a hint chooses: all of them if they are too few to be divided.
func (s *Space) chunk(hint uint64) netip.Prefix {
	host := hostBits(s.bounds)
	if host <= chunkBits {
		return s.bounds
	}
	n := uint128{lo: hint % (1 << chunkBits)}.shiftLeft(host - chunkBits)
	return netip.PrefixFrom(withHost(s.bounds, n), s.bounds.Bits()+chunkBits)
}

// uint128 is a number of as many bits as an IPv6 address.
type uint128 struct{ hi, lo uint64 }

// shiftLeft returns u times two to the power n.
func (u uint128) shiftLeft(n int) uint128 {
	// Go defines a shift by 64 and more as 0, and a negative count does not come about.
	if n >= 64 {
		return uint128{hi: u.lo << (n - 64)}
	}
	return uint128{hi: u.hi<<n | u.lo>>(64-n), lo: u.lo << n}
}

// withHost returns the address of p whose host part is the low bits of n; the other bits of n are ignored.
func withHost(p netip.Prefix, n uint128) netip.Addr {
	ones := uint128{math.MaxUint64, math.MaxUint64}
	net := ones.shiftLeft(hostBits(p))
	b := p.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	binary.BigEndian.PutUint64(b[:8], hi&net.hi|n.hi&^net.hi)
	binary.BigEndian.PutUint64(b[8:], lo&net.lo|n.lo&^net.lo)
	addr := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return addr.Unmap()
	}
	return addr
}

// randomAddr returns any address of p, each as likely as the others.
func randomAddr(rng *rand.Rand, p netip.Prefix) netip.Addr {
	n := uint128{lo: rng.Uint64()}
	if hostBits(p) > 64 {
		n.hi = rng.Uint64()
	}
	return withHost(p, n)
}

// last returns the highest address of p.
func last(p netip.Prefix) netip.Addr {
	return withHost(p, uint128{math.MaxUint64, math.MaxUint64})
}

// hostBits returns how many bits of an address of p are free to choose.
func hostBits(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }
