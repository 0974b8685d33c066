package links_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/kernel/kerneltest"
)

func TestTwoContainersReachEachOther(t *testing.T) {
	l := newLab(t)
	mustReach(t, l.plugIn(t, 1), l.plugIn(t, 2))
}

func TestReadPlugReadsWhatWasSet(t *testing.T) {
	l := newLab(t)
	c := l.plugIn(t, 1)
	for _, line := range []string{
		"ip addr add 10.1.0.101/24 brd + dev eth0", "ip addr add 192.0.2.5/32 dev eth0",
		"ip addr add fd00:1::101/64 dev eth0 nodad",
		"ip link set eth0 mtu 1300",
		"ip route add 198.51.100.0/24 dev eth0 scope link",
		"ip route add default via 10.1.0.254 src 10.1.0.1 metric 7",
		"ip route add default via 203.0.113.1 dev eth0 onlink table 77 proto 42",
		"ip -6 route add default via fd00:1::fe dev eth0 metric 9",
		"sysctl -q net.ipv4.conf.eth0.rp_filter=2", "sysctl -q net.ipv6.neigh.eth0.gc_stale_time=77",
	} {
		kerneltest.Run(t, c.ns, line)
	}
	plug := *l.joined(t, c).Plug
	for name, want := range map[string]string{
		"ipv4/conf/eth0/rp_filter": "2", "ipv6/neigh/eth0/gc_stale_time": "77",
	} {
		if plug.Sysctls[name] != want {
			t.Errorf("sysctl %s = %q, want %s", name, plug.Sysctls[name], want)
		}
		delete(plug.Sysctls, name)
	}
	if len(plug.Sysctls) != 0 {
		t.Errorf("sysctls that nobody set: %v", plug.Sysctls)
	}
	slices.SortFunc(plug.Routes, func(a, b fabric.Route) int { return a.Table*1000 + a.Priority - b.Table*1000 - b.Priority })
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	want := fabric.Plug{
		Name: "eth0", MTU: 1300, MAC: c.port.MAC, Sysctls: map[string]string{},
		Addrs: []netip.Prefix{
			prefix("10.1.0.1/24"), prefix("192.0.2.5/32"), prefix("10.1.0.101/24"),
			prefix("fd00:1::101/64"), prefix("fd00:1::1/64"),
		},
		Routes: []fabric.Route{
			{Dst: prefix("0.0.0.0/0"), Gateway: addr("203.0.113.1"), Table: 77, Protocol: 42, Type: 1, OnLink: true},
			{Dst: prefix("198.51.100.0/24"), Scope: 253, Table: 254, Protocol: 3, Type: 1},
			{Dst: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.254"), Source: addr("10.1.0.1"), Table: 254, Priority: 7, Protocol: 3, Type: 1},
			{Dst: prefix("::/0"), Gateway: addr("fd00:1::fe"), Table: 254, Priority: 9, Protocol: 3, Type: 1},
		},
	}
	byAddr := func(a, b netip.Prefix) int { return a.Compare(b) }
	slices.SortFunc(plug.Addrs, byAddr)
	slices.SortFunc(want.Addrs, byAddr)
	if !plug.Equal(want) {
		t.Errorf("ReadPlug\n%+v\nwant\n%+v", plug, want)
	}
}

func TestReadPlugSaysThatThereIsNothingToRead(t *testing.T) {
	l := newLab(t)
	sandbox, ns := l.engine.NewContainer(t, "empty")
	read := func(when, port, sandbox string) {
		t.Helper()
		if plug, err := l.ReadPlug(t.Context(), port, sandbox); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: ReadPlug = %v, %v, want os.ErrNotExist", when, plug, err)
		}
	}
	port := portOf(1)
	read("no data plane", port.Name, sandbox)
	l.put(t, kernel.Namespace{}, blue)
	read("no port", port.Name, sandbox)
	l.put(t, port)
	read("not plugged yet", port.Name, sandbox)
	kerneltest.Run(t, ns, "ip link add eth0 type veth") // a stranger that may have the same index
	read("a stranger in its place", port.Name, sandbox)
	read("no container", port.Name, "/run/docker/netns/missing")
}

// losses are the ways in which a running container loses its link.
var losses = map[string]string{
	"port deleted":              "ip netns exec seaway ip link del " + portOf(1).Name,
	"bridge and port deleted":   "ip netns exec seaway ip link del " + blue.Name,
	"deleted in the container":  "nsenter --net=/run/docker/netns/c1 ip link del eth0",
	"port taken off its bridge": "ip netns exec seaway ip link set " + portOf(1).Name + " nomaster",
}

func TestALostContainerIsPluggedInAsItWas(t *testing.T) {
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			c, other := l.plugIn(t, 1), l.plugIn(t, 2)
			for _, line := range []string{
				"ip addr add 10.1.0.101/24 brd + dev eth0", "ip addr add fd00:1::101/64 dev eth0 nodad",
				"ip addr add 192.0.2.5/32 dev eth0",
				"ip link set eth0 mtu 1300",
				"ip route add 198.51.100.1 dev eth0 scope link",
				"ip route add default via 198.51.100.1",
				"ip route add 203.0.113.0/24 via 172.31.0.1 dev eth0 onlink",
				"ip -6 route add default via fd00:1::fe dev eth0",
				"sysctl -q net.ipv4.conf.eth0.rp_filter=2",
			} {
				kerneltest.Run(t, c.ns, line)
			}
			desired := []kernel.Object{blue, l.joined(t, c), l.joined(t, other)}
			before := c.look(t)
			l.engine.Run(t, loss)
			if l.holds(t, desired[0]) && l.holds(t, desired[1]) {
				t.Error("Read sees no loss")
			}
			l.put(t, desired...)
			l.mustHold(t, desired...)
			mustEqual(t, "the container", before, c.look(t))
			if got := kerneltest.Run(t, c.ns, "sysctl -n net.ipv4.conf.eth0.rp_filter"); got != "2\n" {
				t.Errorf("rp_filter = %s", got)
			}
			was := *desired[1].(kernel.Port).Plug
			if is := *l.joined(t, c).Plug; !is.Equal(was) {
				t.Errorf("ReadPlug\n%+v\nbefore\n%+v", is, was)
			}
			mustReach(t, other, c)
			mustReach(t, c, other)
		})
	}
}

func TestALostNamespaceIsBuiltAnewAndContainersPluggedIn(t *testing.T) {
	first := newLab(t)
	a, b := first.plugIn(t, 1), first.plugIn(t, 2)
	desired := []kernel.Object{kernel.Namespace{}, blue, first.joined(t, a), first.joined(t, b)}
	before := a.look(t)
	first.Close() // nobody holds it then
	first.engine.Run(t, "ip netns del seaway")
	kerneltest.Eventually(t, "the containers have lost their links", func() bool {
		out := kerneltest.Run(t, a.ns, "ip link") + kerneltest.Run(t, b.ns, "ip link")
		return !strings.Contains(out, "eth0")
	})
	second := newLabOn(t, first.engine, hostID)
	second.put(t, desired...)
	second.mustHold(t, desired...)
	mustEqual(t, "the container", before, a.look(t))
	mustReach(t, a, b)
}

func TestAnInterruptedReplugIsCompleted(t *testing.T) {
	l := newLab(t)
	c, other := l.plugIn(t, 1), l.plugIn(t, 2)
	port, before := l.joined(t, c), c.look(t)
	l.in(t, "ip link del "+port.Name)
	// What the first request of a replug makes, and no more: it has no alias, no bridge, no addresses.
	l.in(t, "ip link add "+port.Name+" type veth peer name eth0 netns "+c.sandbox)
	if l.holds(t, port) {
		t.Error("Read takes it for whole")
	}
	l.put(t, port)
	l.mustHold(t, port)
	mustEqual(t, "the container", before, c.look(t))
	mustReach(t, c, other)
}

func TestAContainerThatIsGoneIsNoErrorAndGetsNothing(t *testing.T) {
	l := newLab(t)
	c := l.plugIn(t, 1)
	port := l.joined(t, c)
	l.engine.RemoveContainer(t, c.sandbox, c.ns)
	kerneltest.Eventually(t, "the port went with its container", func() bool {
		_, ok := l.read(t)[port.Key()]
		return !ok
	})
	l.put(t, port)
	if found, ok := l.read(t)[port.Key()]; ok {
		t.Errorf("there is a port for nobody: %v", found)
	}
	if out := l.engine.Run(t, "ip link"); strings.Contains(out, port.Name) {
		t.Errorf("in the engine's namespace: %s", out)
	}
}

func TestALossBeforeThePlugWasReadIsAnErrorThatSaysSo(t *testing.T) {
	l := newLab(t)
	c := l.plugIn(t, 1)
	port := c.port
	port.Sandbox = c.sandbox
	l.in(t, "ip link del "+port.Name)
	if err := l.Put(t.Context(), port); err == nil || !strings.Contains(err.Error(), "restart the container") {
		t.Errorf("Put = %v", err)
	}
}

func TestAPlugOfOurOwnMakingTakesTheFirstFreeName(t *testing.T) {
	l := newLab(t)
	c, other := l.plugIn(t, 1), l.plugIn(t, 2)
	l.in(t, "ip link del "+c.port.Name)
	kerneltest.Run(t, c.ns, "ip link add eth0 type bridge") // of another network
	port := c.port
	port.Sandbox = c.sandbox
	port.Plug = &fabric.Plug{
		Name: "eth%d", MTU: 1400, MAC: port.MAC,
		Addrs: []netip.Prefix{netip.PrefixFrom(c.v4, 24), netip.PrefixFrom(c.v6, 64)},
	}
	l.put(t, port)
	if out := kerneltest.Run(t, c.ns, "ip addr show dev eth1"); !strings.Contains(out, c.v4.String()) {
		t.Errorf("eth1: %s", out)
	}
	mustReach(t, other, c)
}

func TestAPortOffItsBridgeIsRepairedWhileTheEnginePlugsItIn(t *testing.T) {
	l := newLab(t)
	port := portOf(1)
	l.put(t, kernel.Namespace{}, blue, port)
	port.Sandbox, _ = l.engine.NewContainer(t, "c1") // its link is not there yet
	port.Plug = &fabric.Plug{Name: "eth%d", MTU: 1400, MAC: port.MAC}
	l.in(t, "ip link set "+port.Name+" nomaster")
	l.put(t, port)
	l.mustHold(t, port)
}

func TestARouteThatCannotBeRestoredDoesNotKeepAContainerOff(t *testing.T) {
	l := newLab(t)
	c, other := l.plugIn(t, 1), l.plugIn(t, 2)
	port := l.joined(t, c)
	port.Plug.Routes = append([]fabric.Route{{
		Dst: netip.MustParsePrefix("198.51.100.0/24"), Gateway: netip.MustParseAddr("203.0.113.1"), Type: 1,
	}}, port.Plug.Routes...)
	l.in(t, "ip link del "+port.Name)
	l.put(t, port)
	mustReach(t, c, other)
	if !strings.Contains(l.log.String(), "198.51.100.0/24") {
		t.Errorf("the log says nothing of it: %s", l.log)
	}
}

// walls are what hosts' firewalls do to forwarded and bridged packets, in the engine's namespace.
var walls = []struct {
	tool  string
	lines []string
}{
	{"sysctl", []string{"sysctl -q -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"}},
	{"iptables", []string{"iptables -P FORWARD DROP", "iptables -I FORWARD -j DROP", "iptables -t raw -I PREROUTING -p udp -j DROP"}},
	{"ip6tables", []string{"ip6tables -P FORWARD DROP", "ip6tables -I FORWARD -j DROP"}},
	{"nft", []string{
		"nft add table inet wall", "nft add chain inet wall stop { type filter hook forward priority -500 ; policy drop ; }",
		"nft add table bridge wall", "nft add chain bridge wall stop { type filter hook forward priority -500 ; policy drop ; }",
	}},
}

func TestNoFirewallOfTheHostCostsAPacketBetweenContainers(t *testing.T) {
	for _, wall := range walls {
		t.Run(wall.tool, func(t *testing.T) {
			kerneltest.Tool(t, wall.tool)
			l := newLab(t)
			a, b := l.plugIn(t, 1), l.plugIn(t, 2)
			for _, line := range append(slices.Clone(walls[0].lines), wall.lines...) {
				if out, err := l.engine.Try(line); err != nil {
					kerneltest.Missing(t, "%v: %s", err, out)
				}
			}
			mustReach(t, a, b)
			mustReach(t, b, a)
			if strings.Contains(strings.ToLower(wall.lines[0]+wall.lines[len(wall.lines)-1]), "drop") {
				mustStopOthers(t, l, a, b)
			}
		})
	}
}

// mustStopOthers shows that the wall stands: it stops the same containers on a bridge of the engine's
// namespace, in at least one address family.
func mustStopOthers(t *testing.T, l *lab, a, b *container) {
	t.Helper()
	l.engine.Run(t, "ip link add usual type bridge")
	l.engine.Run(t, "ip link set usual up")
	for i, c := range []*container{a, b} {
		c.v4, c.v6 = netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), netip.MustParseAddr(fmt.Sprintf("fd00:9::%d", i+1))
		l.engine.Run(t, fmt.Sprintf("ip link add u%d type veth peer name eth9 netns %s", i, c.sandbox))
		l.engine.Run(t, fmt.Sprintf("ip link set u%d master usual up", i))
		for _, line := range []string{
			"ip addr add " + c.v4.String() + "/24 dev eth9", "ip addr add " + c.v6.String() + "/64 dev eth9 nodad",
			"ip link set eth9 up",
		} {
			kerneltest.Run(t, c.ns, line)
		}
	}
	if exchange(t, a, b, a.v4, b.v4, 2) == 0 && exchange(t, a, b, a.v6, b.v6, 2) == 0 {
		t.Error("the wall stops nobody, so that our containers pass says nothing")
	}
}
