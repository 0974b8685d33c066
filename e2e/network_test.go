package e2e

import (
	"strconv"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

func TestContainersReachEachOther(t *testing.T) {
	h := seaway(t)
	blue(t, h, "blue", "--subnet", "10.20.1.0/24", "--ip-range", "10.20.1.0/25")
	container(t, h, "alice", "--network", "blue", "--hostname", "a")
	container(t, h, "bob", "--network", "blue", "--hostname", "b")
	for _, c := range []struct{ from, to, answer string }{
		{"alice", "bob", "b " + addressOf(t, h, "alice", "blue")},
		{"bob", "alice.blue", "a " + addressOf(t, h, "bob", "blue")},
		{"alice", addressOf(t, h, "bob", "blue"), "b " + addressOf(t, h, "alice", "blue")},
		{"bob", addressOf(t, h, "alice", "blue"), "a " + addressOf(t, h, "bob", "blue")},
	} {
		if out := talks(t, h, c.from, c.to); out != c.answer {
			t.Errorf("from %s, %s says %q; want %q", c.from, c.to, out, c.answer)
		}
		in(t, h, c.from, "/probe", "echo", "-size", "8192", c.to+":8080")
	}
	unknown(t, h, "alice", "nobody")
	cannotReach(t, h, "alice", "10.20.1.250")
}

// linkMTU is the MTU of a container's first link.
func linkMTU(t *testing.T, h *kit.Host, container string) int {
	t.Helper()
	mtu, err := strconv.Atoi(in(t, h, container, "cat", "/sys/class/net/eth0/mtu"))
	if err != nil {
		t.Fatal(err)
	}
	return mtu
}

// wholePackets checks that packets as long as the MTU pass in one piece, and
// that it is the MTU.
func wholePackets(t *testing.T, h *kit.Host, from, to string, mtu, headers int) {
	t.Helper()
	fits := strconv.Itoa(mtu - headers)
	in(t, h, from, "/probe", "echo", "-whole", "-size", fits, to)
	inFails(t, h, from, "/probe", "echo", "-whole", "-size", strconv.Itoa(mtu-headers+1), to)
}

func TestPacketsOfTheWholeMTUPass(t *testing.T) {
	h := seaway(t)
	blue(t, h, "wide", "--ipv6", "--subnet", "10.20.2.0/24", "--subnet", "fd00:20:2::/64")
	container(t, h, "alice", "--network", "wide")
	container(t, h, "bob", "--network", "wide")
	mtu := linkMTU(t, h, "alice")
	if mtu != 1500 {
		t.Errorf("MTU %d; that of the uplink is 1500", mtu)
	}
	wholePackets(t, h, "alice", addressOf(t, h, "bob", "wide")+":8080", mtu, 28)
	wholePackets(t, h, "alice", "["+address6Of(t, h, "bob", "wide")+"]:8080", mtu, 48)
}

func TestContainersReachEachOtherByIPv6(t *testing.T) {
	h := seaway(t)
	for name, subnet := range map[string][]string{
		"chosen": {"--subnet", "10.20.3.0/24", "--subnet", "fd00:20:3::/64"},
		"random": {"--subnet", "10.20.4.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			blue(t, h, name, append(subnet, "--ipv6")...)
			container(t, h, "alice", "--network", name)
			container(t, h, "bob", "--network", name, "--hostname", "b")
			alice, bob := address6Of(t, h, "alice", name), address6Of(t, h, "bob", name)
			if !strings.HasPrefix(alice, "fd") {
				t.Errorf("alice has %q, which is no private address", alice)
			}
			onLink(t, h, "alice", "eth0", alice+"/64")
			if out := talks(t, h, "alice", bob); out != "b "+alice {
				t.Errorf("bob says %q; want the client %s", out, alice)
			}
			talks(t, h, "alice", addressOf(t, h, "bob", name))
		})
	}
}

func TestMulticastReachesTheOtherContainer(t *testing.T) {
	h := seaway(t)
	const group = "239.20.5.1"
	blue(t, h, "cast", "--internal", "--subnet", "10.20.5.0/24")
	container(t, h, "member", "--network", "cast", "--", "/probe", "serve", "-group", group)
	container(t, h, "caster", "--network", "cast", "--cap-add", "NET_ADMIN")
	in(t, h, "caster", "ip", "route", "add", "239.0.0.0/8", "dev", "eth0")
	in(t, h, "caster", "/probe", "get", "member:8080") // it is a member by now
	if from := in(t, h, "caster", "/probe", "echo", group+":8081"); from != addressOf(t, h, "member", "cast") {
		t.Errorf("the answer comes from %s", from)
	}
	inFails(t, h, "caster", "/probe", "echo", "-timeout", "500ms", "239.20.5.2:8081")
}

func TestContainersReachTheWorld(t *testing.T) {
	h := seaway(t)
	serveOutside(t, "7100")
	blue(t, h, "open", "--subnet", "10.20.6.0/24")
	container(t, h, "alice", "--network", "open")
	for _, to := range []string{kit.WorldAddress.String(), kit.WorldName} {
		in(t, h, "alice", "ping", "-c", "1", "-W", "3", to)
		if out := in(t, h, "alice", "/probe", "get", to+":7100"); out != "outside "+h.Address.String() {
			t.Errorf("%s says %q; want the client %s", to, out, h.Address)
		}
	}
}

func TestInternalNetworksAreCutOff(t *testing.T) {
	h := seaway(t)
	serveOutside(t, "7101")
	blue(t, h, "inner", "--internal", "--ipv6", "--subnet", "10.20.7.0/24", "--subnet", "fd00:20:7::/64")
	container(t, h, "alice", "--network", "inner", "-p", "8007:8080")
	container(t, h, "bob", "--network", "inner")
	talks(t, h, "alice", "bob")
	talks(t, h, "bob", address6Of(t, h, "alice", "inner"))

	for _, family := range []string{"-4", "-6"} {
		if out := in(t, h, "alice", "ip", family, "route", "show", "default"); out != "" {
			t.Errorf("alice has a default route: %s", out)
		}
	}
	for _, to := range []string{
		kit.WorldAddress.String(), kit.WorldAddress6.String(), h.Address.String(), h.Address6.String(),
	} {
		inFails(t, h, "alice", "ping", "-c", "1", "-W", "1", to)
	}
	inFails(t, h, "alice", "/probe", "get", "-timeout", "1s", kit.WorldAddress.String()+":7101")
	for _, address := range []string{h.Address.String() + ":8007", addressOf(t, h, "alice", "inner") + ":8080"} {
		if out, err := outsideGets(t, address); err == nil {
			t.Errorf("%s answers outside: %s", address, out)
		}
		if out, err := h.Exec(testContext(t), lab(t).Probe, "get", "-timeout", "1s", address); err == nil {
			t.Errorf("%s answers on the host: %s", address, out)
		}
	}
}

func TestNetworksCannotReachEachOther(t *testing.T) {
	h := seaway(t)
	blue(t, h, "here", "--internal", "--ipv6", "--subnet", "10.20.8.0/24", "--subnet", "fd00:20:8::/64")
	blue(t, h, "there", "--internal", "--ipv6", "--subnet", "10.20.9.0/24", "--ip-range", "10.20.9.0/25", "--subnet", "fd00:20:9::/64")
	container(t, h, "alice", "--network", "here", "--cap-add", "NET_ADMIN")
	container(t, h, "bob", "--network", "there", "--cap-add", "NET_ADMIN")
	bob, bob6 := addressOf(t, h, "bob", "there"), address6Of(t, h, "bob", "there")

	unknown(t, h, "alice", "bob")
	unknown(t, h, "alice", "bob.there")
	unknown(t, h, "bob", "alice.here")
	cannotReach(t, h, "alice", bob)
	cannotReach(t, h, "alice", bob6)
	// Not even when both believe to be on one link.
	in(t, h, "alice", "ip", "route", "add", bob, "dev", "eth0")
	in(t, h, "alice", "ip", "route", "add", bob6, "dev", "eth0")
	in(t, h, "bob", "ip", "route", "add", addressOf(t, h, "alice", "here"), "dev", "eth0")
	in(t, h, "bob", "ip", "route", "add", address6Of(t, h, "alice", "here"), "dev", "eth0")
	cannotReach(t, h, "alice", bob)
	cannotReach(t, h, "alice", bob6)
	in(t, h, "alice", "ip", "address", "add", "10.20.9.200/24", "dev", "eth0")
	inFails(t, h, "alice", "arping", "-c", "1", "-w", "1", "-I", "eth0", bob)
	// It is the network that parts them: on the same one, arping is answered.
	container(t, h, "carol", "--network", "there")
	in(t, h, "carol", "arping", "-c", "1", "-w", "3", "-I", "eth0", bob)
}

func TestNetworksWithTheEnginesIPAMWork(t *testing.T) {
	h := seaway(t)
	for name, args := range map[string][]string{
		"plain": nil, "asked": {"--subnet", "10.20.10.0/24", "--ip-range", "10.20.10.64/26"},
	} {
		t.Run(name, func(t *testing.T) {
			bare(t, h, name, args...)
			container(t, h, "alice", "--network", name)
			container(t, h, "bob", "--network", name, "--hostname", "b")
			alice := addressOf(t, h, "alice", name)
			for _, to := range []string{"bob", "bob." + name, addressOf(t, h, "bob", name)} {
				if out := talks(t, h, "alice", to); out != "b "+alice {
					t.Errorf("%s says %q", to, out)
				}
			}
		})
	}
}
