package ipamdriver_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/seaway-net/seaway/plugin/internal/drivertest"
)

func addr(c *Container) string { return c.Addr(false).String() }

func TestFixedAddress(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(Spec{Subnets: []Subnet{
		{Subnet: "10.1.0.0/24", Range: "10.1.0.128/25", Aux: map[string]string{"printer": "10.1.0.7"}},
		{Subnet: "fd00:1::/64", V6: true},
	}})
	web := e.MustStart(n, Run{Name: "web", IP: "10.1.0.9", IP6: "fd00:1::9"})
	cooling := e.MustStart(n, Run{Name: "gone"})
	e.Stop(cooling)
	for _, tt := range []struct {
		run Run
		err []string
	}{
		{Run{IP: "10.1.0.10"}, nil}, // outside --ip-range, which bounds automatic ones only
		{Run{IP: addr(cooling)}, nil},
		{Run{IP: addr(web)}, []string{"10.1.0.9 is in use by container web"}},
		{Run{IP6: "fd00:1::9"}, []string{"fd00:1::9 is in use by container web"}},
		{Run{IP: "10.1.0.1"}, []string{"10.1.0.1 is the gateway"}},
		{Run{IP: "10.1.0.7"}, []string{"10.1.0.7 is reserved by --aux-address printer"}},
		{Run{IP: "10.1.0.0"}, []string{"network address"}},
		{Run{IP: "10.1.0.255"}, []string{"broadcast"}},
		{Run{IP6: "fd00:1::"}, []string{"subnet-router anycast"}},
	} {
		before := len(e.Host.Disk().Endpoints)
		c, err := e.Start(n, tt.run)
		Expect(t, err, tt.err...)
		if err == nil {
			e.Stop(c)
		}
		if after := len(e.Host.Disk().Endpoints); after != before {
			t.Errorf("%+v left an endpoint", tt.run)
		}
	}
	_, err := e.RequestAddress(n.Pools[0].ID, "10.9.0.1", nil)
	Expect(t, err, "10.9.0.1 is in no subnet", "10.1.0.0/24")
	_, err = e.RequestAddress(n.Pools[0].ID, "10.1.0.300", nil)
	Expect(t, err, `"10.1.0.300" is no address`)
}

// TestHolderIsNamedWithoutNames: engines before 29.0 do not say whose an address is.
func TestHolderIsNamedWithoutNames(t *testing.T) {
	e := New(t, false)
	n := e.MustCreate(one("10.1.0.0/24"))
	c := e.MustStart(n, Run{Name: "web", IP: "10.1.0.9"})
	_, err := e.Start(n, Run{IP: "10.1.0.9"})
	Expect(t, err, "10.1.0.9 is in use", c.Endpoint[:12], "docker network inspect "+n.ID[:12])
}

func TestAutomaticAddressesStayInTheRange(t *testing.T) {
	e := New(t, true)
	bounds := netip.MustParsePrefix("10.1.0.128/29")
	n := e.MustCreate(Spec{Subnets: []Subnet{{
		Subnet: "10.1.0.0/24", Range: bounds.String(), Gateway: "10.1.0.130", Aux: map[string]string{"a": "10.1.0.131"},
	}}})
	outside := e.MustStart(n, Run{Name: "outside", IP: "10.1.0.9"})
	e.Stop(outside)
	seen := map[string]bool{"10.1.0.130": true, "10.1.0.131": true}
	for i := range 6 {
		c := e.MustStart(n, Run{Name: fmt.Sprint(i)})
		if !bounds.Contains(c.Addr(false)) || seen[addr(c)] {
			t.Errorf("%s was given", addr(c))
		}
		seen[addr(c)] = true
	}
	_, err := e.Start(n, Run{Name: "outside"})
	Expect(t, err, "no address is free in 10.1.0.0/24", "--ip-range")
}

// TestSecondSubnetIsUsedWhenTheFirstIsFull: the engine asks the first one only.
func TestSecondSubnetIsUsedWhenTheFirstIsFull(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(Spec{Subnets: []Subnet{{Subnet: "10.1.0.0/30"}, {Subnet: "10.2.0.0/30"}}})
	got := []string{addr(e.MustStart(n, Run{Name: "a"})), addr(e.MustStart(n, Run{Name: "b"}))}
	if got[0] != "10.1.0.2" || got[1] != "10.2.0.2" {
		t.Errorf("addresses %v", got)
	}
	_, err := e.Start(n, Run{Name: "c"})
	Expect(t, err, "no address is free", "4 of 4 are in use")
	fixed, err := e.Start(n, Run{Name: "d", IP: "10.2.0.2"})
	Expect(t, err, "in use by container b")
	if fixed != nil {
		t.Error("given twice")
	}
}

// TestCoolingAddressesAreGivenBeforeFull: the one that rested longest first.
func TestCoolingAddressesAreGivenBeforeFull(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(one("10.1.0.0/29")) // five addresses beside the gateway
	var all []*Container
	for i := range 5 {
		all = append(all, e.MustStart(n, Run{Name: fmt.Sprint(i)}))
	}
	_, err := e.Start(n, Run{Name: "x"})
	Expect(t, err, "no address is free")
	for _, i := range []int{3, 1, 4} {
		e.Stop(all[i])
	}
	for i, want := range []int{3, 1, 4} {
		if c := e.MustStart(n, Run{Name: fmt.Sprint("new", i)}); addr(c) != addr(all[want]) {
			t.Errorf("%d: got %s, want %s", i, addr(c), addr(all[want]))
		}
	}
}

// TestContainersKeepTheirAddresses across stop and start, in either order and over restarts of ours.
func TestContainersKeepTheirAddresses(t *testing.T) {
	for _, restart := range []bool{false, true} {
		e := New(t, true)
		n := e.MustCreate(Spec{Subnets: []Subnet{{Subnet: "10.1.0.0/24"}, {Subnet: "fd00:1::/64", V6: true}}})
		a, b := e.MustStart(n, Run{Name: "a"}), e.MustStart(n, Run{Name: "b"})
		e.Stop(a)
		e.Stop(b)
		if restart {
			e.Host.Restart()
		}
		if c := e.MustStart(n, Run{Name: "c"}); addr(c) == addr(a) || addr(c) == addr(b) || c.Addr(true) == a.Addr(true) {
			t.Errorf("c got %v", c.Addrs)
		}
		for _, old := range []*Container{a, b} {
			again := e.MustStart(n, Run{Name: old.Name})
			if addr(again) != addr(old) || again.Addr(true) != old.Addr(true) {
				t.Errorf("%s had %v and got %v", old.Name, old.Addrs, again.Addrs)
			}
		}
	}
}

// TestLoneRestartKeepsItsAddress where the engine does not tell names: the last released is given first.
func TestLoneRestartKeepsItsAddress(t *testing.T) {
	e := New(t, false)
	n := e.MustCreate(one("10.1.0.0/24"))
	a, b := e.MustStart(n, Run{}), e.MustStart(n, Run{})
	e.Stop(a)
	e.Stop(b)
	for _, want := range []*Container{b, a} {
		if again := e.MustStart(n, Run{}); addr(again) != addr(want) {
			t.Errorf("got %s, want %s", addr(again), addr(want))
		}
	}
}

func TestReleaseTwice(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(one("10.1.0.0/24"))
	c := e.MustStart(n, Run{Name: "a"})
	e.Stop(c)
	before := e.Host.Disk().String()
	e.Stop(c)
	if after := e.Host.Disk().String(); after != before {
		t.Errorf("changed\n%sto\n%s", before, after)
	}
}

// TestCoolDown: a released address is not given to another for five minutes, also over a restart, and is
// free afterwards, in the journal and in the store.
func TestCoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(t, true)
		n := e.MustCreate(one("10.1.0.0/28"))
		a := e.MustStart(n, Run{Name: "a"})
		e.Stop(a)
		for i, wait := range []time.Duration{0, 4 * time.Minute} {
			Pass(wait)
			e.MustSweep()
			e.Stop(e.MustStart(n, Run{Name: fmt.Sprint("other", i)}))
		}
		e.Host.Restart()
		e.MustSweep()
		Pass(4 * time.Minute)
		e.MustSweep()
		if d := e.Host.Disk(); len(d.Addresses) != 3 {
			t.Errorf("after 4 minutes of a new process:\n%s", d)
		}
		Pass(2 * time.Minute)
		e.MustSweep()
		if d := e.Host.Disk(); len(d.Addresses) != 0 {
			t.Errorf("after the cool-down:\n%s", d)
		}
		e.Remove(n)
		if d := e.Host.Disk(); !d.Empty() {
			t.Errorf("left\n%s", d)
		}
	})
}

// TestAddressWithoutEndpoint: the engine gave up after it had the address and could not say so.
func TestAddressWithoutEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(t, true)
		n := e.MustCreate(one("10.1.0.0/30")) // one address
		kept := e.MustStart(n, Run{Name: "kept"})
		e.Stop(kept)
		_, err := e.RequestAddress(n.Pools[0].ID, "", nil)
		Expect(t, err)
		e.MustSweep()
		Pass(50 * time.Second)
		e.MustSweep()
		_, err = e.Start(n, Run{Name: "early"})
		Expect(t, err, "no address is free")
		Pass(20 * time.Second)
		e.MustSweep()
		e.MustStart(n, Run{Name: "late"})
	})
}

// TestReplayChangesNothing at any start of the engine, under whichever name it goes on with the pools.
func TestReplayChangesNothing(t *testing.T) {
	for _, modern := range []bool{false, true} {
		e := New(t, modern)
		n := e.MustCreate(Spec{Subnets: []Subnet{
			{Subnet: "10.1.0.0/24", Range: "10.1.0.0/26", Aux: map[string]string{"a": "10.1.0.7"}},
			{Subnet: "fd00:1::/64", V6: true},
		}})
		a := e.MustStart(n, Run{Name: "a"})
		e.Stop(e.MustStart(n, Run{Name: "b"}))
		before := e.Host.Disk().String()
		for range 2 {
			Expect(t, e.Replay())
			e.Host.Restart()
			Expect(t, e.Replay())
		}
		if after := e.Host.Disk().String(); after != before {
			t.Errorf("changed\n%sto\n%s", before, after)
		}
		e.Stop(a)
		e.Remove(n)
		if d := e.Host.Disk(); !d.Empty() {
			t.Errorf("left\n%s", d)
		}
	}
}

// TestReplayTakesBack what the engine says is in use and the journal does not know.
func TestReplayTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(t, true)
		n := e.MustCreate(one("10.1.0.0/29"))
		ghost := &Container{
			Endpoint: "ghost", Network: n, Name: "ghost",
			Addrs: []Granted{{Pool: n.Pools[0].ID, Addr: netip.MustParseAddr("10.1.0.3")}},
		}
		e.Containers["ghost"] = ghost
		Expect(t, e.Replay())
		for range 3 { // it is no address without an endpoint
			Pass(10 * time.Minute)
			e.MustSweep()
		}
		for i := range 4 {
			if c := e.MustStart(n, Run{Name: fmt.Sprint(i)}); addr(c) == "10.1.0.3" {
				t.Error("the address was given")
			}
		}
		_, err := e.Start(n, Run{Name: "x"})
		Expect(t, err, "no address is free")
		e.Stop(ghost)
		if c := e.MustStart(n, Run{Name: "x"}); addr(c) != "10.1.0.3" {
			t.Errorf("got %s", addr(c))
		}
	})
}

// TestRestingFixedAddressWaitsForItsContainer: where the engine does not tell names, the address of a
// container with --ip is not the last released one that somebody else gets, as when a host boots.
func TestRestingFixedAddressWaitsForItsContainer(t *testing.T) {
	e := New(t, false)
	n := e.MustCreate(one("10.1.0.0/24"))
	a, fixed := e.MustStart(n, Run{}), e.MustStart(n, Run{IP: "10.1.0.66"})
	e.Stop(a)
	e.Stop(fixed)
	if again := e.MustStart(n, Run{}); addr(again) != addr(a) {
		t.Errorf("got %s, want %s", addr(again), addr(a))
	}
	for range 3 {
		if c := e.MustStart(n, Run{}); addr(c) == addr(fixed) {
			t.Errorf("%s is given away", addr(c))
		}
	}
	e.MustStart(n, Run{IP: "10.1.0.66"})
}

// TestAddressOfAStartingContainerIsInUse, also for --ip under a pool's name from the engine's last start,
// and although the container's namespace is not there yet (before engine 28.0).
func TestAddressOfAStartingContainerIsInUse(t *testing.T) {
	e := New(t, false)
	e.Renames = true
	n := e.MustCreate(one("10.1.0.0/24"))
	if err := e.Replay(); err != nil {
		t.Fatal(err)
	}
	starting := e.MustStart(n, Run{IP: "10.1.0.66"})
	delete(e.Host.Containers.Alive, starting.Sandbox)
	_, err := e.Start(n, Run{IP: "10.1.0.66"})
	Expect(t, err, "10.1.0.66", "in use")
	_, err = e.Start(n, Run{IP: "10.1.0.66"})
	Expect(t, err, "10.1.0.66", "in use") // the first refusal has not given it back
}
