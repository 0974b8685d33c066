// Package ipam chooses addresses and subnets. It is pure: no I/O, no clock, no goroutine; what is taken is
// what its caller says, and chance is the caller's too, so that a test can repeat every choice.
//
// It does not decide who owns an address. A free address from here is a candidate: the store's
// create-if-absent decides. That is why candidates are random: Hosts that all try the lowest free address
// collide nearly always, and Hosts that try random ones nearly never.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// The lengths of the prefixes that a Network can have. Shorter ones are nearly always slips of the finger,
// and longer ones hold no two containers beside the gateway.
const (
	shortest4, longest4 = 8, 30
	shortest6, longest6 = 32, 126
)

// bitsMapped is how many bits of an IPv4-mapped IPv6 address come before the IPv4 address.
const bitsMapped = 96

// CheckSubnet reports why a prefix cannot be a Network's subnet, and what to write instead; nil if it can.
func CheckSubnet(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("the subnet is no prefix: write one as in 10.1.0.0/24")
	case p.Addr().Is4In6():
		return checkMapped(p)
	case p != p.Masked():
		return fmt.Errorf("%s has host bits set: write %s", p, p.Masked())
	}
	if err := checkLength(p); err != nil {
		return err
	}
	for _, s := range special() {
		if p.Overlaps(s.prefix) {
			return fmt.Errorf("%s overlaps %s, %s: write a private range, as in %s", p, s.prefix, s.name, example(p))
		}
	}
	return nil
}

func checkMapped(p netip.Prefix) error {
	if p.Bits() < bitsMapped {
		return fmt.Errorf("%s is an IPv4-mapped IPv6 prefix: write an IPv4 one, as in 10.1.0.0/24", p)
	}
	plain := netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-bitsMapped).Masked()
	return fmt.Errorf("%s is an IPv4-mapped IPv6 prefix: write %s", p, plain)
}

func checkLength(p netip.Prefix) error {
	shortest, longest := shortest4, longest4
	if p.Addr().Is6() {
		shortest, longest = shortest6, longest6
	}
	switch {
	case p.Bits() < shortest:
		return fmt.Errorf("%s is too large: write /%d or longer", p, shortest)
	case p.Bits() > longest:
		return fmt.Errorf("%s is too small for two containers and a gateway: write /%d or shorter", p, longest)
	}
	return nil
}

type specialRange struct {
	prefix netip.Prefix
	name   string
}

// special returns the ranges in which no container can have an address (RFC 6890).
func special() []specialRange {
	return []specialRange{
		{netip.MustParsePrefix("0.0.0.0/8"), "the unspecified range"},
		{netip.MustParsePrefix("127.0.0.0/8"), "the loopback range"},
		{netip.MustParsePrefix("169.254.0.0/16"), "the link-local range"},
		{netip.MustParsePrefix("224.0.0.0/4"), "the multicast range"},
		{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
		{netip.MustParsePrefix("::/128"), "the unspecified address"},
		{netip.MustParsePrefix("::1/128"), "the loopback address"},
		{netip.MustParsePrefix("::ffff:0:0/96"), "the range of IPv4-mapped addresses"},
		{netip.MustParsePrefix("fe80::/10"), "the link-local range"},
		{netip.MustParsePrefix("ff00::/8"), "the multicast range"},
	}
}

// example returns a private subnet of p's family, for an error that says what to write.
func example(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "10.1.0.0/24"
	}
	return "fd00:1::/64"
}
