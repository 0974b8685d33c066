package ipam

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestFreeSubnet(t *testing.T) {
	tests := []struct {
		name, pool string
		bits       int
		busy       []string
		want       string // the only free one
		err        string
	}{
		{"only one there is", "10.0.0.0/24", 24, nil, "10.0.0.0/24", ""},
		{"first left", "10.0.0.0/22", 24, []string{"10.0.1.0/24", "10.0.2.0/23"}, "10.0.0.0/24", ""},
		{"last left", "10.0.0.0/22", 24, []string{"10.0.0.0/23", "10.0.2.0/24"}, "10.0.3.0/24", ""},
		{"between small ones", "10.0.0.0/23", 24, []string{"10.0.0.7/32", "10.0.0.200/30"}, "10.0.1.0/24", ""},
		{"busy inside busy", "10.0.0.0/23", 24, []string{"10.0.0.0/24", "10.0.0.9/32"}, "10.0.1.0/24", ""},
		{"host bits in busy", "10.0.0.0/23", 24, []string{"10.0.0.9/24"}, "10.0.1.0/24", ""},
		{"end of the address space", "255.255.254.0/23", 24, []string{"255.255.255.0/24"}, "255.255.254.0/24", ""},
		{"other family and elsewhere", "10.0.0.0/24", 24, []string{"fd00::/8", "11.0.0.0/8"}, "10.0.0.0/24", ""},
		{"IPv6", "fd00::/63", 64, []string{"fd00::/64"}, "fd00:0:0:1::/64", ""},
		{"pool busy", "10.0.0.0/16", 24, []string{"10.0.0.0/8"}, "", "none of length /24 is left in the pool 10.0.0.0/16"},
		{"all busy", "10.0.0.0/23", 24, []string{"10.0.0.1/32", "10.0.1.1/32"}, "", "none of length /24 is left"},
		{"too short", "10.0.0.0/16", 8, nil, "", "the pool 10.0.0.0/16 holds no subnet of length /8"},
		{"too long", "10.0.0.0/16", 33, nil, "", "holds no subnet of length /33"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var busy []netip.Prefix
			for _, b := range tt.busy {
				busy = append(busy, netip.MustParsePrefix(b))
			}
			for seed := range uint64(20) {
				got, err := FreeSubnet(netip.MustParsePrefix(tt.pool), tt.bits, busy, seeded(seed))
				expect(t, err, tt.err)
				if err == nil && got.String() != tt.want {
					t.Fatalf("FreeSubnet = %s, want %s", got, tt.want)
				}
			}
		})
	}
}

// TestFreeSubnetExhausts asks for subnets until none is left, among random busy prefixes: none overlaps
// what is busy, and at the end every subnet of the pool does.
func TestFreeSubnetExhausts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := netip.MustParsePrefix(rapid.SampledFrom([]string{"10.64.0.0/20", "fd00:1::/52"}).Draw(t, "pool"))
		bits := pool.Bits() + rapid.IntRange(0, 6).Draw(t, "more bits")
		rng := seeded(rapid.Uint64().Draw(t, "seed"))
		var busy []netip.Prefix
		for range rapid.IntRange(0, 8).Draw(t, "busy") {
			length := pool.Bits() + rapid.IntRange(2, 12).Draw(t, "busy bits")
			busy = append(busy, netip.PrefixFrom(randomAddr(rng, pool), length))
		}
		for {
			free, err := FreeSubnet(pool, bits, busy, rng)
			if err != nil {
				break
			}
			if free.Bits() != bits || free != free.Masked() || !pool.Overlaps(free) || overlaps(free, busy) {
				t.Fatalf("FreeSubnet(%s, %d, %v) = %s", pool, bits, busy, free)
			}
			busy = append(busy, free)
		}
		for p := netip.PrefixFrom(pool.Addr(), bits); pool.Contains(p.Addr()); {
			if !overlaps(p, busy) {
				t.Fatalf("%s is free, but was not found beside %v", p, busy)
			}
			p = netip.PrefixFrom(last(p).Next(), bits)
		}
	})
}

func overlaps(p netip.Prefix, busy []netip.Prefix) bool {
	for _, b := range busy {
		if b.Overlaps(p) {
			return true
		}
	}
	return false
}

func TestFreeSubnetSpreads(t *testing.T) {
	seen := make(map[netip.Prefix]bool)
	for seed := range uint64(50) {
		got, err := FreeSubnet(netip.MustParsePrefix("10.192.0.0/11"), 24, nil, seeded(seed))
		if err != nil {
			t.Fatal(err)
		}
		seen[got] = true
	}
	if len(seen) < 45 {
		t.Fatalf("50 searches found only %d subnets", len(seen))
	}
}

func TestRandomULA(t *testing.T) {
	seen := make(map[netip.Prefix]bool)
	for seed := range uint64(100) {
		p := RandomULA(seeded(seed))
		if p.Bits() != 64 || p.Addr().As16()[0] != 0xfd {
			t.Fatalf("RandomULA = %s", p)
		}
		expect(t, CheckSubnet(p), "")
		seen[p] = true
	}
	if len(seen) != 100 {
		t.Fatalf("100 prefixes, %d different", len(seen))
	}
}

// BenchmarkFreeSubnet searches a pool of two million subnets beside many Networks.
func BenchmarkFreeSubnet(b *testing.B) {
	for _, networks := range []int{0, 100, 10_000} {
		b.Run(fmt.Sprint(networks), func(b *testing.B) {
			pool, rng := netip.MustParsePrefix("10.0.0.0/8"), seeded(1)
			var busy []netip.Prefix
			for range networks {
				busy = append(busy, netip.PrefixFrom(randomAddr(rng, pool), 24))
			}
			for b.Loop() {
				if _, err := FreeSubnet(pool, 29, busy, rng); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
