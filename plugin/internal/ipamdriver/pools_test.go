package ipamdriver_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/seaway-net/seaway/plugin/internal/drivertest"
	"github.com/seaway-net/seaway/plugin/internal/ipamdriver"
)

// one is the spec of a network with one subnet.
func one(subnet string) Spec { return Spec{Subnets: []Subnet{{Subnet: subnet}}} }

func TestSubnetThatIsAskedFor(t *testing.T) {
	tests := []struct {
		subnet Subnet
		want   string // the gateway
		err    []string
	}{
		{Subnet{Subnet: "10.1.0.0/24"}, "10.1.0.1/24", nil},
		{Subnet{Subnet: "10.1.0.0/24", Range: "10.1.0.128/25"}, "10.1.0.1/24", nil},
		{Subnet{Subnet: "10.1.0.0/24", Gateway: "10.1.0.254"}, "10.1.0.254/24", nil},
		{Subnet{Subnet: "10.1.0.0/24", Gateway: "10.1.0.9", Aux: map[string]string{"a": "10.1.0.1"}}, "10.1.0.9/24", nil},
		{Subnet{Subnet: "10.1.0.0/30"}, "10.1.0.1/30", nil},
		{Subnet{Subnet: "fd00:1::/64", V6: true}, "fd00:1::1/64", nil},

		{Subnet{Subnet: "10.1.0.5/24"}, "", []string{"host bits", "10.1.0.0/24"}},
		{Subnet{Subnet: "10.1.0.0"}, "", []string{`"10.1.0.0"`, "10.1.0.0/24"}},
		{Subnet{Subnet: "10.1.0.0/31"}, "", []string{"too small", "/30"}},
		{Subnet{Subnet: "10.0.0.0/7"}, "", []string{"too large", "/8"}},
		{Subnet{Subnet: "127.1.0.0/24"}, "", []string{"loopback"}},
		{Subnet{Subnet: "224.1.0.0/24"}, "", []string{"multicast"}},
		{Subnet{Subnet: "fe80::/64", V6: true}, "", []string{"link-local"}},
		{Subnet{Subnet: "::ffff:10.1.0.0/120", V6: true}, "", []string{"write 10.1.0.0/24"}},
		{Subnet{Subnet: "10.1.0.0/24", Range: "10.2.0.0/25"}, "", []string{"--ip-range 10.2.0.0/25", "10.1.0.0/24"}},
		{Subnet{Subnet: "10.1.0.0/24", Range: "x"}, "", []string{"--ip-range", `"x"`}},
		{Subnet{Range: "10.1.0.0/25"}, "", []string{"--ip-range 10.1.0.0/25", "--subnet"}},
		{Subnet{Subnet: "10.1.0.0/24", Gateway: "10.2.0.1"}, "", []string{"10.2.0.1 is outside"}},
		{Subnet{Subnet: "10.1.0.0/24", Gateway: "10.1.0.0"}, "", []string{"network address"}},
		{Subnet{Subnet: "10.1.0.0/24", Gateway: "10.1.0.255"}, "", []string{"broadcast"}},
		{Subnet{Subnet: "10.1.0.0/24", Gateway: "here"}, "", []string{`"here" is no address`}},
		{Subnet{Subnet: "10.1.0.0/24", Aux: map[string]string{"a": "10.1.0.1"}}, "", []string{"10.1.0.1 is asked for twice", "--aux-address"}},
		{Subnet{Subnet: "10.1.0.0/24", Aux: map[string]string{"a": "10.1.0.7", "b": "10.1.0.7"}}, "", []string{"10.1.0.7 is asked for twice"}},
		{Subnet{Subnet: "10.1.0.0/24", Aux: map[string]string{"a": "10.2.0.7"}}, "", []string{"10.2.0.7 is outside"}},
	}
	for _, tt := range tests {
		t.Run("", func(t *testing.T) {
			e := New(t, true)
			n, err := e.Create(Spec{Subnets: []Subnet{tt.subnet}})
			Expect(t, err, tt.err...)
			if err != nil {
				if d := e.Host.Disk(); !d.Empty() {
					t.Errorf("%+v was refused and left\n%s", tt.subnet, d)
				}
				return
			}
			if got := n.Pools[0].Gateway; got.String() != tt.want {
				t.Errorf("gateway of %+v is %s, want %s", tt.subnet, got, tt.want)
			}
		})
	}
}

// TestFreeSubnet: without --subnet there is one that overlaps nothing that is known, and each is another.
func TestFreeSubnet(t *testing.T) {
	e := New(t, true)
	e.Host.Near = []ipamdriver.Neighbour{
		{Prefix: netip.MustParsePrefix("10.200.0.0/21"), What: "eth0", Direct: true},
		{Prefix: netip.MustParsePrefix("10.200.8.0/22"), What: "a router"},
		{Prefix: netip.MustParsePrefix("10.200.12.53/32"), What: "a name server"},
	}
	e.MustCreate(one("10.200.13.128/25"))
	var all []string
	for range 2 { // of 16 in the pool, these are left
		n := e.MustCreate(Spec{})
		all = append(all, n.Pools[0].Subnet.String())
	}
	slices.Sort(all)
	if !slices.Equal(all, []string{"10.200.14.0/24", "10.200.15.0/24"}) {
		t.Errorf("subnets %v", all)
	}
	_, err := e.Create(Spec{})
	Expect(t, err, "none of length /24 is left in the pool 10.200.0.0/20")
}

// TestEngineAsksAgain: the engine keeps the subnets it does not like until it has one that it likes.
func TestEngineAsksAgain(t *testing.T) {
	e := New(t, true)
	seen := make(map[netip.Prefix]bool)
	var pools []Pool
	for range 16 {
		p, err := e.RequestPool(Subnet{}, nil)
		if err != nil || seen[p.Subnet] {
			t.Fatalf("%v again, or %v", p, err)
		}
		seen[p.Subnet] = true
		pools = append(pools, p)
	}
	for _, p := range pools {
		Expect(t, e.ReleasePool(p.ID))
	}
	if d := e.Host.Disk(); !d.Empty() {
		t.Errorf("left\n%s", d)
	}
}

func TestIPv6WithoutSubnetIsUniqueLocal(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(Spec{Subnets: []Subnet{{}, {V6: true}}})
	if got := n.Pools[1].Subnet; got.Addr().As16()[0] != 0xfd || got.Bits() != 64 {
		t.Errorf("subnet %s", got)
	}
	c := e.MustStart(n, Run{Name: "a"})
	if !n.Pools[0].Subnet.Contains(c.Addr(false)) || !n.Pools[1].Subnet.Contains(c.Addr(true)) {
		t.Errorf("addresses %v", c.Addrs)
	}
}

func TestOverlapNamesWhoHasTheSubnet(t *testing.T) {
	e := New(t, true)
	e.Host.Near = []ipamdriver.Neighbour{
		{Prefix: netip.MustParsePrefix("192.168.1.0/24"), What: "eth0", Direct: true},
		{Prefix: netip.MustParsePrefix("172.16.0.0/12"), What: "a router"},
	}
	n := e.MustCreate(one("10.1.0.0/24"))
	for subnet, want := range map[string][]string{
		"10.1.0.0/16":    {"10.1.0.0/16 overlaps 10.1.0.0/24", n.ID[:12]},
		"10.1.0.0/25":    {"10.1.0.0/25 overlaps 10.1.0.0/24", n.ID[:12]},
		"10.1.0.0/24":    {"10.1.0.0/24 overlaps 10.1.0.0/24", n.ID[:12]},
		"192.168.0.0/16": {"192.168.1.0/24", "eth0"},
		"172.17.0.0/24":  nil, // reached through a router: it may be asked for
	} {
		_, err := e.Create(one(subnet))
		Expect(t, err, want...)
	}
}

// TestSecondNetworkOnOneSubnet: it is refused, and the first one lives on unharmed.
func TestSecondNetworkOnOneSubnet(t *testing.T) {
	e := New(t, false)
	spec := Spec{Subnets: []Subnet{{Subnet: "10.1.0.0/24", Aux: map[string]string{"printer": "10.1.0.7"}}}}
	n := e.MustCreate(spec)
	c := e.MustStart(n, Run{})
	before := e.Host.Disk().String()
	for _, second := range []Subnet{
		{Subnet: "10.1.0.0/24"},
		{Subnet: "10.1.0.0/24", Gateway: "10.1.0.200", Aux: map[string]string{"a": "10.1.0.7"}},
		{Subnet: "10.1.0.0/24", Gateway: "10.1.0.1", Aux: map[string]string{"a": c.Addr(false).String()}},
	} {
		_, err := e.Create(Spec{Subnets: []Subnet{second}})
		Expect(t, err, "10.1.0.0/24", n.ID[:12])
		if after := e.Host.Disk().String(); after != before {
			t.Errorf("%+v changed\n%sto\n%s", second, before, after)
		}
	}
	for range 10 {
		if got := e.MustStart(n, Run{}).Addr(false).String(); got == "10.1.0.1" || got == "10.1.0.7" || got == c.Addr(false).String() {
			t.Errorf("%s was given", got)
		}
	}
}

// TestSecondCreateGivesBackWhatItTook: its --aux-address may have been free.
func TestSecondCreateGivesBackWhatItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(t, true)
		n := e.MustCreate(one("10.1.0.0/24"))
		_, err := e.Create(Spec{Subnets: []Subnet{{Subnet: "10.1.0.0/24", Aux: map[string]string{"a": "10.1.0.7"}}}})
		Expect(t, err, n.ID[:12])
		if c := e.MustStart(n, Run{Name: "c", IP: "10.1.0.7"}); c.Addr(false).String() != "10.1.0.7" {
			t.Error(c.Addrs)
		}
	})
}

func TestTwoCreatesOfOneSubnetAtOnce(t *testing.T) {
	e := New(t, true)
	first, err := e.RequestPool(Subnet{Subnet: "10.1.0.0/24"}, nil)
	Expect(t, err)
	_, err = e.Create(one("10.1.0.0/24"))
	Expect(t, err, "10.1.0.0/24", "just taking", "try again")
	_, err = e.Create(Spec{Subnets: []Subnet{{Subnet: "10.2.0.0/24"}, {Subnet: "10.2.0.0/25"}}})
	Expect(t, err, "10.2.0.0/25 overlaps 10.2.0.0/24")
	Expect(t, e.ReleasePool(first.ID))
	e.MustCreate(one("10.1.0.0/24"))
}

// TestUnknownOptionsAreAllNamed also holds for those that do not work yet.
func TestUnknownOptionsAreAllNamed(t *testing.T) {
	e := New(t, true)
	_, err := e.Create(Spec{IPAM: map[string]string{
		"seaway.network": "blue", "seaway.scope": "cluster", "seaway.colour": "red", "other.program": "1",
	}})
	Expect(t, err, "--ipam-opt", "seaway.network", "seaway.scope=cluster", "seaway.colour", "known is seaway.scope=host")
	e.MustCreate(Spec{IPAM: map[string]string{"seaway.scope": "host", "other.program": "1"}})
}

func TestReleaseOfTheUnknownIsDone(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(one("10.1.0.0/24"))
	before := e.Host.Disk().String()
	for _, pool := range []string{"10.9.0.0/24#0", "10.1.0.0/24#0", "nonsense", ""} {
		Expect(t, e.Release(pool, netip.MustParseAddr("10.1.0.1")))
		Expect(t, e.ReleasePool(pool))
	}
	Expect(t, e.Release(n.Pools[0].ID, netip.MustParseAddr("10.1.0.99")))
	Expect(t, e.Release(n.Pools[0].ID, netip.MustParseAddr("10.1.0.1")))
	if after := e.Host.Disk().String(); after != before {
		t.Errorf("changed\n%sto\n%s", before, after)
	}
}

// TestPoolWithoutNetwork: a create that ended without telling us holds its subnet for a minute.
func TestPoolWithoutNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(t, true)
		_, err := e.RequestPool(Subnet{Subnet: "10.1.0.0/24"}, nil)
		Expect(t, err)
		Pass(2 * time.Minute)
		e.MustSweep()
		if d := e.Host.Disk(); !d.Empty() {
			t.Errorf("left\n%s", d)
		}
	})
}

// TestGatewayOfAFullSubnet: addresses that are set aside first can leave none.
func TestGatewayOfAFullSubnet(t *testing.T) {
	e := New(t, true)
	p, err := e.RequestPool(Subnet{Subnet: "10.1.0.0/30"}, nil)
	Expect(t, err)
	for _, addr := range []string{"10.1.0.1", "10.1.0.2"} {
		_, err = e.RequestAddress(p.ID, addr, nil)
		Expect(t, err)
	}
	_, err = e.RequestAddress(p.ID, "", GatewayOptions())
	Expect(t, err, "10.1.0.0/30")
}

// TestNetworkWhoseDeletionWasLost: the engine gave its pool back and could not say more. It can be created
// again at once, and whatever is left of it goes.
func TestNetworkWhoseDeletionWasLost(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "after the sweep": 3 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := New(t, true)
				spec := Spec{Subnets: []Subnet{{Subnet: "10.1.0.0/24", Aux: map[string]string{"a": "10.1.0.7"}}}}
				n := e.MustCreate(spec)
				e.MustStart(n, Run{Name: "a"})
				e.Stop(e.MustStart(n, Run{Name: "b"}))
				e.Before = func(verb string) error {
					if verb == "DeleteNetwork" || verb == "DeleteEndpoint" {
						return ErrUnreachable
					}
					return nil
				}
				e.Remove(n)
				e.Before = nil
				e.MustSweep()
				Pass(wait)
				e.MustSweep()
				if d := e.Host.Disk(); wait > 0 && !d.Empty() {
					t.Errorf("left\n%s", d)
				}
				again := e.MustCreate(spec)
				c := e.MustStart(again, Run{Name: "c", IP: "10.1.0.9"})
				e.Host.Restart()
				Pass(3 * time.Minute)
				e.MustSweep()
				Pass(3 * time.Minute)
				e.MustSweep()
				if len(e.Host.Disk().Copies) != 1 {
					t.Errorf("have\n%s", e.Host.Disk())
				}
				if _, err := e.Start(again, Run{Name: "d", IP: "10.1.0.9"}); err == nil {
					t.Error("an address was given twice")
				}
				e.Stop(c)
				e.Remove(again)
				if d := e.Host.Disk(); !d.Empty() || len(e.Host.Kernel.Objects) > 0 {
					t.Errorf("left\n%s%v", d, e.Host.Kernel.Objects)
				}
			})
		})
	}
}

// TestCreateAfterAnotherTookOver: a create that took so long that its subnet was given up does not make a
// network that has no pool.
func TestCreateAfterAnotherTookOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(t, true)
		e.Before = func(verb string) error {
			if verb == "CreateNetwork" {
				Pass(2 * time.Minute)
				e.MustSweep()
			}
			return nil
		}
		_, err := e.Create(one("10.1.0.0/24"))
		Expect(t, err, "10.1.0.0/24", "again")
		if d := e.Host.Disk(); !d.Empty() {
			t.Errorf("left\n%s", d)
		}
	})
}

// TestRestartDuringCreate: the plugin may be replaced between any two calls of a create; another create
// meanwhile does not take its subnet.
func TestRestartDuringCreate(t *testing.T) {
	for _, at := range []string{"RequestPool", "RequestAddress", "CreateNetwork"} {
		t.Run(at, func(t *testing.T) {
			e := New(t, true)
			e.Before = func(verb string) error {
				if verb != at {
					return nil
				}
				e.Before = nil
				e.Host.Restart()
				_, _ = e.RequestPool(Subnet{Subnet: "10.2.0.0/24"}, nil)
				if at == "CreateNetwork" {
					_, err := e.Create(one("10.1.0.0/24"))
					Expect(t, err, "just taking")
				}
				return nil
			}
			n, err := e.Create(one("10.1.0.0/24"))
			if err != nil && at == "RequestAddress" { // nobody can tell it from one that was given up
				Expect(t, err, "create the network again")
				n, err = e.Create(one("10.1.0.0/24"))
			}
			if err != nil {
				t.Fatal(err)
			}
			e.MustStart(n, Run{Name: "a"})
		})
	}
}

// TestLostJournal: what was given before is not given again, to nobody.
func TestLostJournal(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(one("10.1.0.0/29"))
	for range 3 {
		e.MustStart(n, Run{})
	}
	e.Host.RestartWithoutJournal()
	_ = e.Replay()
	before := make(map[netip.Addr]bool)
	for _, c := range e.Containers {
		before[c.Addr(false)] = true
	}
	for range 6 {
		if c, err := e.Start(n, Run{}); err == nil && before[c.Addr(false)] {
			t.Errorf("%s was given again", c.Addr(false))
		}
	}
}
