package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

func TestContainersGetWhatTheyAskFor(t *testing.T) {
	h := seaway(t)
	blue(t, h, "asked", "--ipv6", "--subnet", "10.21.1.0/24", "--subnet", "fd00:21:1::/64", "--ip-range", "10.21.1.128/25")
	withMAC(t, h, "fixed", "asked", "10.21.1.77", "fd00:21:1::77", "02:11:22:33:44:55")
	container(t, h, "other", "--network", "asked")
	for field, want := range map[string]string{
		"IPAddress": "10.21.1.77", "GlobalIPv6Address": "fd00:21:1::77", "MacAddress": "02:11:22:33:44:55",
	} {
		if got := attached(t, h, "fixed", "asked", field); got != want {
			t.Errorf("inspect shows %s %s; want %s", field, got, want)
		}
	}
	for _, address := range []string{"10.21.1.77/24", "fd00:21:1::77/64", "02:11:22:33:44:55"} {
		onLink(t, h, "fixed", "eth0", address)
	}
	talks(t, h, "other", "10.21.1.77")
	talks(t, h, "other", "fd00:21:1::77")
	talks(t, h, "fixed", "other")
	docker(t, h, "restart", "-t", "1", "fixed")
	onLink(t, h, "fixed", "eth0", "02:11:22:33:44:55")
	onLink(t, h, "fixed", "eth0", "10.21.1.77/24")
	talks(t, h, "other", "fixed")
}

// withMAC starts a container with addresses and a MAC. For an old engine a
// current CLI cannot say the latter.
func withMAC(t *testing.T, h *kit.Host, name, network, ip, ip6, mac string) {
	t.Helper()
	if lab(t).Engine().Modern() {
		container(t, h, name, "--network", network, "--ip", ip, "--ip6", ip6, "--mac-address", mac)
		return
	}
	body := fmt.Sprintf(`{"Image": %q, "MacAddress": %q, "HostConfig": {"NetworkMode": %q},
		"NetworkingConfig": {"EndpointsConfig": {%[3]q: {"IPAMConfig": {"IPv4Address": %[4]q, "IPv6Address": %q}}}}}`,
		kit.Image, mac, network, ip, ip6)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket())
		},
	}}
	request, err := http.NewRequestWithContext(testContext(t), http.MethodPost,
		"http://engine/v1.41/containers/create?name="+name, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusCreated {
		said, err := io.ReadAll(answer.Body)
		t.Fatalf("create %s: %s %s, %v", name, answer.Status, said, err)
	}
	t.Cleanup(func() { cleanDocker(t, h, "rm", "-f", name) })
	docker(t, h, "start", name)
}

// macFor is the MAC of a container with an IPv4 address, unless another was
// asked for.
func macFor(t *testing.T, address string) string {
	t.Helper()
	a, err := netip.ParseAddr(address)
	if err != nil {
		t.Fatal(err)
	}
	octets := a.As4()
	return net.HardwareAddr(append([]byte{0x02, 0x5e}, octets[:]...)).String()
}

func TestARestartKeepsAddressAndMAC(t *testing.T) {
	h := seaway(t)
	blue(t, h, "kept", "--ipv6", "--subnet", "10.21.2.0/24", "--subnet", "fd00:21:2::/64")
	container(t, h, "bob", "--network", "kept")
	container(t, h, "alice", "--network", "kept")
	address, address6 := addressOf(t, h, "alice", "kept"), address6Of(t, h, "alice", "kept")
	mac := attached(t, h, "alice", "kept", "MacAddress")
	if want := macFor(t, address); mac != want {
		t.Errorf("the MAC of %s is %s; want %s", address, mac, want)
	}
	for _, again := range [][]string{{"restart", "-t", "1", "alice"}, {"stop", "-t", "1", "alice"}, {"start", "alice"}} {
		docker(t, h, again...)
		if again[0] == "stop" {
			continue
		}
		if now := addressOf(t, h, "alice", "kept"); now != address {
			t.Errorf("after %s: %s; before: %s", again, now, address)
		}
		for _, want := range []string{address + "/24", address6 + "/64", mac} {
			onLink(t, h, "alice", "eth0", want)
		}
		talks(t, h, "bob", "alice")
		talks(t, h, "alice", address6Of(t, h, "bob", "kept"))
	}
}

func TestAddressesAreKeptByName(t *testing.T) {
	h := seaway(t)
	if !lab(t).Engine().Modern() {
		t.Skip("engines before 29 do not tell a plugin which container asks")
	}
	blue(t, h, "named", "--subnet", "10.21.3.0/24")
	all := []string{"ann", "ben", "cid", "dan"}
	before := map[string]string{}
	for _, name := range all {
		container(t, h, name, "--network", "named")
		before[name] = addressOf(t, h, name, "named")
	}
	docker(t, h, append([]string{"stop", "-t", "1"}, all...)...)
	for _, name := range []string{"cid", "ann", "dan", "ben"} {
		docker(t, h, "start", name)
		if now := addressOf(t, h, name, "named"); now != before[name] {
			t.Errorf("%s has %s; before: %s", name, now, before[name])
		}
	}
}

func TestReservedAddressesAreNeverGiven(t *testing.T) {
	h := seaway(t)
	// Of the six addresses of a /29, three are set aside.
	blue(t, h, "small", "--subnet", "10.21.4.0/29", "--gateway", "10.21.4.3",
		"--aux-address", "printer=10.21.4.4", "--aux-address", "router=10.21.4.1")
	given := []string{}
	for _, name := range []string{"ann", "ben", "cid"} {
		container(t, h, name, "--network", "small")
		given = append(given, addressOf(t, h, name, "small"))
	}
	slices.Sort(given)
	if want := []string{"10.21.4.2", "10.21.4.5", "10.21.4.6"}; !slices.Equal(given, want) {
		t.Errorf("given were %v; want %v", given, want)
	}
	said := runFails(t, h, "--network", "small")
	says(t, said, "no address is free in 10.21.4.0/29", "remove containers, or create a network with a larger --subnet")
	docker(t, h, "rm", "-f", "ben")
	container(t, h, "ben", "--network", "small")
	talks(t, h, "ben", "ann")
}

func TestAnIPRangeBoundsAutomaticAddresses(t *testing.T) {
	h := seaway(t)
	blue(t, h, "ranged", "--subnet", "10.21.5.0/24", "--ip-range", "10.21.5.64/30")
	for _, name := range []string{"ann", "ben", "cid", "dan"} {
		container(t, h, name, "--network", "ranged")
		if a := netip.MustParseAddr(addressOf(t, h, name, "ranged")); !netip.MustParsePrefix("10.21.5.64/30").Contains(a) {
			t.Errorf("%s has %s, outside of the range", name, a)
		}
	}
	says(t, runFails(t, h, "--network", "ranged"), "no address is free", "4 of 4 are in use")
	container(t, h, "eve", "--network", "ranged", "--ip", "10.21.5.9")
	talks(t, h, "eve", "dan")
}

func TestASecondSubnetIsUsedWhenTheFirstIsFull(t *testing.T) {
	h := seaway(t)
	// Each has room for one container. Which comes first is the docker CLI's choice.
	blue(t, h, "double", "--subnet", "10.21.6.0/30", "--subnet", "10.21.6.128/30")
	container(t, h, "first", "--network", "double", "--hostname", "first")
	container(t, h, "second", "--network", "double", "--hostname", "second")
	first, second := addressOf(t, h, "first", "double"), addressOf(t, h, "second", "double")
	if given := []string{min(first, second), max(first, second)}; !slices.Equal(given, []string{"10.21.6.130", "10.21.6.2"}) {
		t.Errorf("addresses %v; want one of each subnet", given)
	}
	if out := talks(t, h, "first", "second"); out != "second "+first {
		t.Errorf("second says %q", out)
	}
	if out := talks(t, h, "second", first); out != "first "+second {
		t.Errorf("first says %q", out)
	}
	says(t, runFails(t, h, "--network", "double"), "no address is free", "4 of 4 are in use")
}

func TestContainersOfSeveralSubnetsReachEachOther(t *testing.T) {
	h := seaway(t)
	blue(t, h, "several", "--ipv6", "--subnet", "10.21.7.0/26", "--subnet", "10.21.7.128/26",
		"--subnet", "fd00:21:7::/64", "--subnet", "fd00:21:8::/64")
	container(t, h, "low", "--network", "several", "--ip", "10.21.7.5", "--ip6", "fd00:21:7::5", "--hostname", "low")
	container(t, h, "high", "--network", "several", "--ip", "10.21.7.135", "--ip6", "fd00:21:8::5", "--hostname", "high")
	for _, c := range []struct{ from, to, answer string }{
		{"low", "10.21.7.135", "high 10.21.7.5"},
		{"high", "10.21.7.5", "low 10.21.7.135"},
		{"low", "fd00:21:8::5", "high fd00:21:7::5"},
		{"high", "fd00:21:7::5", "low fd00:21:8::5"},
	} {
		if out := talks(t, h, c.from, c.to); out != c.answer {
			t.Errorf("%s says %q; want %q", c.to, out, c.answer)
		}
	}
}

func TestWrongAddressesAreRefusedInWords(t *testing.T) {
	h := seaway(t)
	blue(t, h, "strict", "--subnet", "10.21.8.0/24", "--gateway", "10.21.8.1", "--aux-address", "printer=10.21.8.9",
		"--ipv6", "--subnet", "fd00:21:9::/64", "--gateway", "fd00:21:9::1")
	container(t, h, "holder", "--network", "strict", "--ip", "10.21.8.8", "--ip6", "fd00:21:9::8")
	holder := "holder"
	if !lab(t).Engine().Modern() {
		// The engine does not say who asks; the endpoint's id leads to it.
		holder = attached(t, h, "holder", "strict", "EndpointID")[:12]
	}
	for _, c := range []struct {
		address string
		words   []string
	}{
		{"10.21.8.8", []string{"10.21.8.8 is in use", holder, "choose another"}},
		{"10.21.8.1", []string{"10.21.8.1 is the gateway", "choose another"}},
		{"10.21.8.9", []string{"10.21.8.9 is", "printer", "choose another"}},
		{"10.21.8.0", []string{"10.21.8.0 is the network address", "choose another"}},
		{"10.21.8.255", []string{"10.21.8.255 is the broadcast address", "choose another"}},
		{"10.21.9.5", []string{"10.21.9.5"}},
		{"fd00:21:9::8", []string{"fd00:21:9::8 is in use", holder, "choose another"}},
		{"fd00:21:9::1", []string{"fd00:21:9::1 is the gateway", "choose another"}},
	} {
		t.Run(c.address, func(t *testing.T) {
			option := "--ip"
			if strings.Contains(c.address, ":") {
				option = "--ip6"
			}
			says(t, runFails(t, h, "--network", "strict", option, c.address), c.words...)
		})
	}
	container(t, h, "right", "--network", "strict", "--ip", "10.21.8.10")
	talks(t, h, "right", "holder")
}

func TestAReleasedAddressCanBeAskedFor(t *testing.T) {
	h := seaway(t)
	blue(t, h, "reused", "--subnet", "10.21.10.0/24", "--ip-range", "10.21.10.128/25")
	container(t, h, "bob", "--network", "reused")
	for range 2 {
		docker(t, h, "run", "--rm", "--network", "reused", "--ip", "10.21.10.50", kit.Image, "/probe", "get", "bob:8080")
	}
}
