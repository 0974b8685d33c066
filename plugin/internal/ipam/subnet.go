package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// ulaBits is the length of the prefixes that RandomULA returns, that of one IPv6 link (RFC 4291).
const ulaBits = 64

// FreeSubnet returns a subnet of the pool with the given length in bits that overlaps none of the busy
// prefixes, searched from a random place so that Hosts that search at once seldom find the same one. The
// cost grows with the number of busy prefixes, not with the pool. It fails if the pool holds no subnet of
// that length, or no free one.
func FreeSubnet(pool netip.Prefix, bits int, busy []netip.Prefix, rng *rand.Rand) (netip.Prefix, error) {
	if !pool.IsValid() || bits < pool.Bits() || bits > pool.Addr().BitLen() {
		return netip.Prefix{}, fmt.Errorf("find a free subnet: the pool %s holds no subnet of length /%d", pool, bits)
	}
	pool = pool.Masked()
	busy = disjoint(pool, busy)
	start := netip.PrefixFrom(randomAddr(rng, pool), bits).Masked()
	if free, ok := firstFree(pool, start, busy); ok {
		return free, nil
	}
	if free, ok := firstFree(pool, netip.PrefixFrom(pool.Addr(), bits), busy); ok {
		return free, nil
	}
	return netip.Prefix{}, fmt.Errorf("find a free subnet: none of length /%d is left in the pool %s", bits, pool)
}

// disjoint returns the busy prefixes that matter in the pool, in order, without those inside another.
func disjoint(pool netip.Prefix, busy []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, b := range busy {
		if b.Overlaps(pool) {
			out = append(out, b.Masked())
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare) // a prefix comes before those that lie inside it
	kept := out[:0]
	for _, b := range out {
		if n := len(kept); n == 0 || !kept[n-1].Overlaps(b) {
			kept = append(kept, b)
		}
	}
	return kept
}

// firstFree returns the first subnet from the given one on, of its length, that overlaps none of the busy
// prefixes, which are disjoint and in order; false if the pool ends first.
func firstFree(pool, from netip.Prefix, busy []netip.Prefix) (netip.Prefix, bool) {
	for _, b := range busy {
		if last(b).Less(from.Addr()) {
			continue
		}
		if !b.Overlaps(from) {
			break // b comes after from, and so do all that follow
		}
		end := last(b)
		if b.Bits() > from.Bits() {
			end = last(from)
		}
		if !pool.Contains(end.Next()) {
			return netip.Prefix{}, false
		}
		from = netip.PrefixFrom(end.Next(), from.Bits())
	}
	return from, true
}

// RandomULA returns a random unique local prefix (RFC 4193): fd, 40 random bits of global id and 16 random
// bits of subnet id.
func RandomULA(rng *rand.Rand) netip.Prefix {
	ula := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd}), 8)
	return netip.PrefixFrom(randomAddr(rng, ula), ulaBits).Masked()
}
