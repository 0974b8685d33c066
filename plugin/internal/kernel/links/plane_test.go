package links_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/kernel/kerneltest"
	"github.com/seaway-net/seaway/plugin/internal/kernel/links"
)

func TestTheNamespaceIsMadeMarkedNamedAndSet(t *testing.T) {
	l := newLab(t)
	if found := l.read(t); len(found) != 0 {
		t.Errorf("before anything is made, Read = %v", found)
	}
	l.put(t, kernel.Namespace{})
	l.mustHold(t, kernel.Namespace{})
	if lo := l.in(t, "ip link show lo"); !strings.Contains(lo, "alias seaway host "+string(hostID)) {
		t.Errorf("lo is not marked: %s", lo)
	}
	for name, want := range map[string]string{
		"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0",
		"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1",
		"net.bridge.bridge-nf-call-iptables": "0", "net.bridge.bridge-nf-call-ip6tables": "0",
		"net.bridge.bridge-nf-call-arptables": "0",
	} {
		out, err := l.engine.Try("ip netns exec seaway sysctl -n " + name)
		if err != nil && strings.HasPrefix(name, "net.bridge") {
			continue // without br_netfilter nothing is called
		}
		if strings.TrimSpace(out) != want {
			t.Errorf("%s = %q (%v), want %s", name, out, err, want)
		}
	}
}

func TestANextProcessAdoptsThePlaneAndChangesNothing(t *testing.T) {
	first := newLab(t)
	desired := []kernel.Object{kernel.Namespace{}, blue, portOf(1)}
	first.put(t, desired...)
	before := first.dump(t)
	first.Close()
	second := newLabOn(t, first.engine, hostID)
	second.mustHold(t, desired...)
	second.put(t, desired...)
	mustEqual(t, "the plane", before, second.dump(t))
}

func TestWhatIsNotOursIsNeverTouched(t *testing.T) {
	other := newLab(t)
	other.put(t, kernel.Namespace{}, blue, portOf(1))
	foreign := kerneltest.NewEngineWith(t, "ip netns add seaway;")
	for name, engine := range map[string]*kerneltest.Engine{
		"another Host's": other.engine, "somebody else's": foreign,
	} {
		t.Run(name, func(t *testing.T) {
			before := (&lab{engine: engine}).dump(t)
			l := newLabOn(t, engine, "another")
			for _, object := range []kernel.Object{kernel.Namespace{}, blue, portOf(1)} {
				if err := l.Put(t.Context(), object); !errors.Is(err, links.ErrForeign) {
					t.Errorf("Put %s = %v, want ErrForeign", object.Key(), err)
				}
				if err := l.Delete(t.Context(), []kernel.Key{object.Key()}); !errors.Is(err, links.ErrForeign) {
					t.Errorf("Delete %s = %v, want ErrForeign", object.Key(), err)
				}
			}
			if _, err := l.Read(t.Context()); !errors.Is(err, links.ErrForeign) {
				t.Errorf("Read = %v, want ErrForeign", err)
			}
			mustEqual(t, name, before, (&lab{engine: engine}).dump(t))
		})
	}
}

func TestANameThatSomebodyElseTookIsLeftToHim(t *testing.T) {
	l := newLab(t)
	l.put(t, kernel.Namespace{}, blue)
	l.engine.Run(t, "ip netns del seaway")
	l.engine.Run(t, "ip netns add seaway")
	if err := l.Put(t.Context(), kernel.Namespace{}); !errors.Is(err, links.ErrForeign) {
		t.Errorf("Put = %v, want ErrForeign", err)
	}
	if l.holds(t, kernel.Namespace{}) {
		t.Error("Read takes another's name for ours")
	}
	l.delete(t, kernel.Namespace{}.Key())
	l.engine.Run(t, "ip netns exec seaway true")
}

func TestALostNameIsBoundAgainToTheSameNamespace(t *testing.T) {
	for _, loss := range []string{"ip netns del seaway", "umount -l /run/netns/seaway"} {
		l := newLab(t)
		l.put(t, kernel.Namespace{}, blue, portOf(1))
		before := l.dump(t)
		l.engine.Run(t, loss)
		if l.holds(t, kernel.Namespace{}) {
			t.Errorf("after %q, Read sees no loss", loss)
		}
		l.put(t, kernel.Namespace{})
		mustEqual(t, loss, before, l.dump(t))
	}
}

func TestAPutDoneTwiceChangesNothing(t *testing.T) {
	l := newLab(t)
	c := l.plugIn(t, 1)
	desired := []kernel.Object{kernel.Namespace{}, blue, portOf(2), l.joined(t, c)}
	l.put(t, desired...)
	before, inside := l.dump(t), c.look(t)
	for range 2 {
		l.put(t, desired...)
	}
	mustEqual(t, "the plane", before, l.dump(t))
	mustEqual(t, "the container", inside, c.look(t))
	l.mustHold(t, desired...)
}

func TestAPortIsWhereTheEngineLooksForIt(t *testing.T) {
	l := newLab(t)
	port := portOf(1)
	l.put(t, kernel.Namespace{}, blue, port)
	far := l.engine.Run(t, "ip -d link show "+port.Name)
	for _, want := range []string{"veth", "mtu 1400", port.MAC.String()} {
		if !strings.Contains(far, want) {
			t.Errorf("the engine's end has no %q: %s", want, far)
		}
	}
	near := l.in(t, "ip -d link show "+port.Name)
	for _, want := range []string{"master " + blue.Name, "mtu 1400", "alias " + port.Alias, "UP"} {
		if !strings.Contains(near, want) {
			t.Errorf("the end in the data plane has no %q: %s", want, near)
		}
	}
}

func TestAPortWithoutItsBridgeIsAnErrorThatSaysSo(t *testing.T) {
	l := newLab(t)
	l.put(t, kernel.Namespace{})
	if err := l.Put(t.Context(), portOf(1)); err == nil || !strings.Contains(err.Error(), blue.Name) {
		t.Errorf("Put = %v", err)
	}
}

func TestDamageIsSeenAndRepaired(t *testing.T) {
	port := portOf(1)
	for _, c := range []struct{ name, damage string }{
		{"bridge deleted", "ip link del " + blue.Name},
		{"port deleted", "ip link del " + port.Name},
		{"port without its bridge", "ip link set " + port.Name + " nomaster"},
		{"bridge without its alias", "ip link set " + blue.Name + " alias mine"},
		{"bridge down", "ip link set " + blue.Name + " down"},
		{"port down", "ip link set " + port.Name + " down"},
		{"port on another bridge", "ip link set " + port.Name + " master other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			desired := []kernel.Object{kernel.Namespace{}, blue, port}
			l.put(t, desired...)
			l.in(t, "ip link add other type bridge")
			before := relevant(l.in(t, "ip -o link"))
			l.in(t, c.damage)
			if l.holds(t, blue) && l.holds(t, port) {
				t.Error("Read sees no damage")
			}
			l.put(t, desired...)
			l.mustHold(t, desired...)
			mustEqual(t, c.damage, before, relevant(l.in(t, "ip -o link")))
		})
	}
}

// relevant is the output of `ip -o link` without the numbers of links and what a moment decides.
func relevant(links string) string {
	var lines []string
	for line := range strings.Lines(links) {
		f := strings.Fields(line)
		if i := slices.Index(f, "state"); i > 0 {
			name, _, _ := strings.Cut(f[1], "@")
			lines = append(lines, strings.TrimSuffix(name, ":")+" "+f[2]+" "+strings.Join(f[3:i], " "))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestALinkOfAnotherKindUnderABridgesNameIsNotTouched(t *testing.T) {
	l := newLab(t)
	l.put(t, kernel.Namespace{})
	l.in(t, "ip link add "+blue.Name+" type veth")
	if err := l.Put(t.Context(), blue); !errors.Is(err, links.ErrForeign) {
		t.Errorf("Put = %v, want ErrForeign", err)
	}
	l.in(t, "ip link show "+blue.Name)
}

func TestForeignLinksInTheNamespaceAreNotOurs(t *testing.T) {
	l := newLab(t)
	l.put(t, kernel.Namespace{}, blue, portOf(1))
	ours := len(l.read(t))
	l.in(t, "ip link add theirs type bridge")
	l.in(t, "ip link add theirs0 type veth peer name theirs1")
	l.in(t, "ip link set theirs0 master "+blue.Name)
	if found := l.read(t); len(found) != ours {
		t.Errorf("Read = %v: it has links that are not ours", found)
	}
	l.delete(t, portOf(1).Key())
	for _, name := range []string{"theirs", "theirs0", "theirs1", blue.Name} {
		l.in(t, "ip link show "+name)
	}
}

func TestFiftyPortsAreDeletedAndNoOther(t *testing.T) {
	l := newLab(t)
	l.put(t, kernel.Namespace{}, blue)
	var doomed []kernel.Key
	for n := 1; n <= 60; n++ {
		l.put(t, portOf(n))
		if n <= 50 {
			doomed = append(doomed, portOf(n).Key())
		}
	}
	l.delete(t, doomed...)
	found := l.read(t)
	for n := 1; n <= 60; n++ {
		if _, ok := found[portOf(n).Key()]; ok != (n > 50) {
			t.Errorf("port %d is there: %v", n, ok)
		}
	}
	if out := l.engine.Run(t, "ip -o link"); strings.Count(out, "sw0") != 10 {
		t.Errorf("in the engine's namespace:\n%s", out)
	}
}

func TestDeletingWhatIsNotThereIsNoError(t *testing.T) {
	l := newLab(t)
	all := []kernel.Key{portOf(1).Key(), blue.Key(), kernel.Namespace{}.Key()}
	l.delete(t, all...)
	l.put(t, kernel.Namespace{})
	l.delete(t, all[:2]...)
	l.put(t, blue, portOf(1))
	for range 2 {
		l.delete(t, all...)
	}
	if found := l.read(t); len(found) != 0 {
		t.Errorf("Read = %v", found)
	}
}

func TestADeletedNamespaceIsGoneWithAllThatIsInIt(t *testing.T) {
	l := newLab(t)
	c := l.plugIn(t, 1)
	l.delete(t, kernel.Namespace{}.Key())
	if list := l.engine.Run(t, "ip netns list"); strings.Contains(list, "seaway") {
		t.Errorf("ip netns list: %s", list)
	}
	kerneltest.Eventually(t, "the container's link is gone with the namespace", func() bool {
		return !strings.Contains(kerneltest.Run(t, c.ns, "ip link"), "eth0")
	})
	l.put(t, kernel.Namespace{}, blue, portOf(1))
	l.mustHold(t, kernel.Namespace{}, blue, portOf(1))
}

func TestEventsTellOfWhatIsChangedByHand(t *testing.T) {
	port := portOf(1)
	for _, c := range []struct {
		name, damage string
		key          kernel.Key
	}{
		{"port deleted", "ip link del " + port.Name, port.Key()},
		{"bridge deleted", "ip link del " + blue.Name, blue.Key()},
		{"bridge deleted: its port", "ip link del " + blue.Name, port.Key()},
		{"port taken from its bridge", "ip link set " + port.Name + " nomaster", port.Key()},
		{"port down", "ip link set " + port.Name + " down", port.Key()},
		{"bridge down", "ip link set " + blue.Name + " down", blue.Key()},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.put(t, kernel.Namespace{}, blue, port)
			// What is said of our own changes is said by the time that this one's is.
			l.in(t, "ip link add mark type bridge")
			kerneltest.Eventually(t, "our own changes are told", func() bool {
				return l.heard.changes(kernel.Key{Kind: kernel.KindBridge, Name: "mark"}) > 0
			})
			before := l.heard.changes(c.key)
			l.in(t, c.damage)
			kerneltest.Eventually(t, "an event says so", func() bool { return l.heard.changes(c.key) > before })
		})
	}
}

func TestAnEventTellsThatAContainerWasPluggedIn(t *testing.T) {
	l := newLab(t)
	c := l.plugIn(t, 1)
	kerneltest.Eventually(t, "the port is plugged", func() bool { return l.heard.plugs(c.port.Name) > 0 })
}

func TestClosingEndsEveryGoroutineAndDescriptor(t *testing.T) {
	engine := kerneltest.NewEngine(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	use := func() {
		l := newLabOn(t, engine, hostID)
		l.put(t, kernel.Namespace{}, blue, portOf(1))
		l.read(t)
		l.Close()
		l.Close() // twice is once
	}
	use()
	before := kerneltest.Descriptors(t)
	for range 10 {
		use()
	}
	kerneltest.Eventually(t, fmt.Sprintf("only %d descriptors open", before), func() bool {
		return kerneltest.Descriptors(t) <= before
	})
}

func TestReachedNamesWhatTheHostReaches(t *testing.T) {
	l := newLab(t)
	for _, line := range []string{
		"ip link add up0 type bridge", "ip link set up0 up",
		"ip addr add 192.0.2.10/24 dev up0", "ip addr add 2001:db8::10/64 dev up0 nodad",
		"ip route add default via 192.0.2.1", "ip route add 198.51.100.0/24 via 192.0.2.2",
		"ip route add 203.0.113.0/24 dev up0 table 77", "ip route add blackhole 100.64.0.0/10",
	} {
		l.engine.Run(t, line)
	}
	reached, err := l.Reached(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range reached {
		got = append(got, fmt.Sprintf("%s %s %v", r.Prefix, r.Link, r.Direct))
	}
	slices.Sort(got)
	want := []string{
		"100.64.0.0/10  false", "192.0.2.0/24 up0 true", "198.51.100.0/24 up0 false",
		"2001:db8::/64 up0 true", "203.0.113.0/24 up0 false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("Reached = %q\nwant      %q", got, want)
	}
}

func TestUplinkMTUIsThatOfTheDefaultRoutesLink(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  int
	}{
		{"no default route", nil, 0},
		{"IPv4", []string{"ip route add default dev up4"}, 1381},
		{"IPv6", []string{"ip -6 route add default dev up6"}, 1382},
		{"both", []string{"ip -6 route add default dev up6", "ip route add default dev up4"}, 1381},
		{"the cheaper of two", []string{
			"ip route add default dev up6 metric 200", "ip route add default dev up4 metric 100",
		}, 1381},
		{"forbidden, then IPv6", []string{"ip route add unreachable default", "ip -6 route add default dev up6"}, 1382},
		{"forbidden", []string{"ip -6 route add unreachable default metric 9999"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			setup := []string{
				"ip link add up4 type bridge", "ip link set up4 mtu 1381 up",
				"ip link add up6 type bridge", "ip link set up6 mtu 1382 up",
			}
			for _, line := range append(setup, c.lines...) {
				l.engine.Run(t, line)
			}
			if mtu, err := l.UplinkMTU(t.Context()); err != nil || mtu != c.want {
				t.Errorf("UplinkMTU = %d, %v, want %d", mtu, err, c.want)
			}
		})
	}
}
