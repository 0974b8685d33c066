package ipam

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func newSpace(t rapid.TB, subnet, bounds string) *Space {
	t.Helper()
	var b netip.Prefix
	if bounds != "" {
		b = netip.MustParsePrefix(bounds)
	}
	s, err := NewSpace(netip.MustParsePrefix(subnet), b)
	if err != nil {
		t.Fatalf("NewSpace(%s, %s): %v", subnet, bounds, err)
	}
	return s
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func TestNewSpaceRefusesBounds(t *testing.T) {
	subnet := netip.MustParsePrefix("10.1.0.0/24")
	for _, bounds := range []string{"10.2.0.0/28", "10.1.0.0/16", "fd00::/96", "0.0.0.0/0"} {
		_, err := NewSpace(subnet, netip.MustParsePrefix(bounds))
		expect(t, err, "does not lie inside the subnet 10.1.0.0/24")
	}
	_, err := NewSpace(netip.Prefix{}, netip.Prefix{})
	expect(t, err, "the subnet is no prefix")
}

func TestUsable(t *testing.T) {
	tests := []struct{ subnet, addr, want string }{
		{"10.1.0.0/24", "10.1.0.1", ""},
		{"10.1.0.0/24", "10.1.0.254", ""},
		{"10.1.0.0/24", "10.1.0.0", "the network address of 10.1.0.0/24"},
		{"10.1.0.0/24", "10.1.0.255", "the broadcast address of 10.1.0.0/24"},
		{"10.1.0.0/16", "10.1.0.255", ""},
		{"10.1.0.0/24", "10.2.0.1", "10.2.0.1 is outside the subnet 10.1.0.0/24"},
		{"10.1.0.0/24", "::ffff:10.1.0.1", "outside"},
		{"10.1.0.0/24", "fd00::1", "outside"},
		{"fd00::/64", "fd00::", "the subnet-router anycast address of fd00::/64"},
		{"fd00::/64", "fd00::ffff:ffff:ffff:ffff", ""},
		{"fd00::/64", "fd00::1%eth0", "outside"},
	}
	for _, tt := range tests {
		s := newSpace(t, tt.subnet, "")
		addr := netip.MustParseAddr(tt.addr)
		expect(t, s.Usable(addr), tt.want)
		if took := s.Take(addr); took != (tt.want == "") {
			t.Errorf("Take(%s) in %s = %v", addr, tt.subnet, took)
		}
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		subnet, bounds string
		want           uint64
	}{
		{"10.1.0.0/24", "", 254},
		{"10.0.0.0/8", "", 1<<24 - 2},
		{"10.1.0.0/30", "", 2},
		{"10.1.0.0/24", "10.1.0.0/28", 15},
		{"10.1.0.0/24", "10.1.0.16/28", 16},
		{"10.1.0.0/24", "10.1.0.240/28", 15},
		{"10.1.0.0/24", "10.1.0.0/32", 0},
		{"10.1.0.0/24", "10.1.0.7/32", 1},
		{"fd00::/64", "fd00::/126", 3},
		{"fd00::/64", "fd00::4/126", 4},
		{"fd00::/64", "", math.MaxUint64},
		{"fd00::/32", "", math.MaxUint64},
	}
	for _, tt := range tests {
		if got := newSpace(t, tt.subnet, tt.bounds).Size(); got != tt.want {
			t.Errorf("Size of %s in %s = %d, want %d", tt.bounds, tt.subnet, got, tt.want)
		}
	}
}

func TestTakenOutsideTheBoundsIsNotUsed(t *testing.T) {
	s := newSpace(t, "10.1.0.0/24", "10.1.0.128/25")
	outside, inside := netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("10.1.0.200")
	if !s.Take(outside) || !s.Take(inside) || s.Take(inside) {
		t.Fatal("Take does not say what changed")
	}
	if got := s.Used(); got != 1 {
		t.Fatalf("Used() = %d, want 1", got)
	}
	for range 2 { // a second release changes nothing
		s.Free(outside)
		s.Free(inside)
	}
	if got := s.Used(); got != 0 || s.Taken(outside) {
		t.Fatalf("after Free: Used() = %d, Taken = %v", got, s.Taken(outside))
	}
}

func TestPickLooksInTheHintedChunkFirst(t *testing.T) {
	for _, tt := range []struct{ subnet, chunk string }{
		{"10.1.0.0/16", "10.1.48.0/20"},
		{"fd00::/64", "fd00:0:0:0:3000::/68"},
		{"fd00::/32", "fd00:0:3000::/36"},
	} {
		s, chunk := newSpace(t, tt.subnet, ""), netip.MustParsePrefix(tt.chunk)
		for seed := range uint64(100) {
			if addr, ok := s.Pick(seeded(seed), 16+3); !ok || !chunk.Contains(addr) {
				t.Fatalf("Pick in %s = %s, %v; want an address of %s", tt.subnet, addr, ok, chunk)
			}
		}
	}
}

func TestPickSpreads(t *testing.T) {
	s, rng := newSpace(t, "10.1.0.0/16", ""), seeded(1)
	seen := make(map[netip.Addr]bool)
	for range 100 {
		addr, _ := s.Pick(rng, 0)
		seen[addr] = true
	}
	if len(seen) < 90 {
		t.Fatalf("100 picks gave only %d addresses", len(seen))
	}
}

// TestPickExhausts picks until nothing is left: every usable address of the bounds came exactly once.
func TestPickExhausts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSpace(t, 9)
		rng, hint := seeded(rapid.Uint64().Draw(t, "seed")), rapid.Uint64().Draw(t, "hint")
		for n := range s.Size() {
			addr, ok := s.Pick(rng, hint)
			if !ok || s.Usable(addr) != nil || !s.bounds.Contains(addr) || !s.Take(addr) {
				t.Fatalf("pick %d of %d: %s, %v", n, s.Size(), addr, ok)
			}
		}
		if addr, ok := s.Pick(rng, hint); ok {
			t.Fatalf("Pick found %s in a full space", addr)
		}
		usable := uint64(0)
		for addr := s.bounds.Addr(); s.bounds.Contains(addr); addr = addr.Next() {
			if s.Usable(addr) == nil {
				usable++
			}
		}
		if usable != s.Size() || usable != s.Used() {
			t.Fatalf("usable %d, Size %d, Used %d", usable, s.Size(), s.Used())
		}
	})
}

// TestSpaceModel walks a space and a plain map side by side.
func TestSpaceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model := drawSpace(t, 96), make(map[netip.Addr]bool)
		rng := seeded(rapid.Uint64().Draw(t, "seed"))
		anyAddr := func(t *rapid.T) netip.Addr {
			return withHost(s.subnet, uint128{lo: rapid.Uint64Range(0, 300).Draw(t, "host")})
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				addr := anyAddr(t)
				want := !model[addr] && s.Usable(addr) == nil
				if got := s.Take(addr); got != want {
					t.Fatalf("Take(%s) = %v, want %v", addr, got, want)
				}
				model[addr] = model[addr] || want
			},
			"free": func(t *rapid.T) {
				addr := anyAddr(t)
				s.Free(addr)
				delete(model, addr)
			},
			"pick": func(t *rapid.T) {
				addr, ok := s.Pick(rng, rapid.Uint64().Draw(t, "hint"))
				if ok != (s.Used() < s.Size()) {
					t.Fatalf("Pick found %v with %d of %d used", ok, s.Used(), s.Size())
				}
				if !ok {
					return
				}
				if model[addr] || !s.bounds.Contains(addr) || s.Usable(addr) != nil || !s.Take(addr) {
					t.Fatalf("Pick = %s: taken %v, bounds %s, %v", addr, model[addr], s.bounds, s.Usable(addr))
				}
				model[addr] = true
			},
			"": func(t *rapid.T) { s.check(t, model) },
		})
	})
}

// check compares a space with the model of what is taken.
func (s *Space) check(t *rapid.T, model map[netip.Addr]bool) {
	used := uint64(0)
	for addr, taken := range model {
		if s.Taken(addr) != taken {
			t.Fatalf("Taken(%s) = %v", addr, s.Taken(addr))
		}
		if taken && s.bounds.Contains(addr) {
			used++
		}
	}
	if s.Used() != used || s.Used() > s.Size() {
		t.Fatalf("Used() = %d, model %d, Size %d", s.Used(), used, s.Size())
	}
}

// drawSpace draws a space of either family whose bounds have at most the given host bits.
func drawSpace(t *rapid.T, most int) *Space {
	base, longest := netip.MustParseAddr("10.0.0.0"), longest4
	if rapid.Bool().Draw(t, "v6") {
		base, longest = netip.MustParseAddr("fd00::"), longest6
	}
	host := rapid.IntRange(base.BitLen()-longest, min(most, base.BitLen()-shortest4)).Draw(t, "host bits")
	subnet := netip.PrefixFrom(base, base.BitLen()-host)
	rng := seeded(rapid.Uint64().Draw(t, "place"))
	inner := rapid.IntRange(subnet.Bits(), base.BitLen()).Draw(t, "bounds")
	s, err := NewSpace(subnet, netip.PrefixFrom(randomAddr(rng, subnet), inner))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func BenchmarkPick(b *testing.B) {
	for _, percent := range []uint64{0, 50, 99} {
		b.Run(fmt.Sprintf("%d%%", percent), func(b *testing.B) {
			s, rng := newSpace(b, "10.1.0.0/16", ""), seeded(1)
			for s.Used() < s.Size()*percent/100 {
				s.Take(randomAddr(rng, s.bounds))
			}
			for b.Loop() {
				if _, ok := s.Pick(rng, 5); !ok {
					b.Fatal("full")
				}
			}
		})
	}
}
