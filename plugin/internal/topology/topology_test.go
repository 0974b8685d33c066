package topology

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
)

func network(subnets ...string) fabric.Network {
	n := fabric.Network{ID: "0123456789abcdef0123456789abcdef"}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, fabric.Subnet{Prefix: netip.MustParsePrefix(s)})
	}
	return n
}

func copyOf(n fabric.Network) Copy {
	return Copy{
		Network: n, Engine: fabric.EngineNetworkID("feedfeedfeed" + strings.Repeat("0", 52)),
		MTU: 1400, IfPrefix: "eth",
	}
}

func endpoint(addrs ...string) fabric.Endpoint {
	e := fabric.Endpoint{
		ID: fabric.EndpointID("cafecafecafe" + strings.Repeat("0", 52)), Network: network().ID,
		MAC: fabric.MAC{2, 0x5e, 0, 0, 0, 7},
	}
	for _, a := range addrs {
		if p := netip.MustParsePrefix(a); p.Addr().Is4() {
			e.IPv4 = p
		} else {
			e.IPv6 = p
		}
	}
	return e
}

func TestANetworkIsABridgeInTheNamespace(t *testing.T) {
	got := fmt.Sprintf("%+v", Bridge(copyOf(network("10.1.0.0/24"))))
	want := fmt.Sprintf("%+v", []kernel.Object{kernel.Namespace{}, kernel.Bridge{
		Name:  "br-0123456789ab",
		Alias: "seaway network 0123456789abcdef0123456789abcdef docker feedfeedfeed",
	}})
	if got != want {
		t.Errorf("Bridge = %s\nwant     %s", got, want)
	}
}

func TestAPortFollowsItsEndpoint(t *testing.T) {
	read := &fabric.Plug{Name: "eth7", MTU: 900}
	base := kernel.Port{
		Name: "swcafecafecafe", Bridge: "br-0123456789ab", Alias: "seaway endpoint " + string(endpoint().ID),
		MTU: 1400, MAC: endpoint().MAC,
	}
	for _, c := range []struct {
		name    string
		sandbox string
		plug    *fabric.Plug
		want    *fabric.Plug
	}{
		{"before it joins", "", nil, nil},
		{"joined, its plug not read yet", "/run/docker/netns/c1", nil, &fabric.Plug{
			Name: "eth%d", MTU: 1400, MAC: endpoint().MAC, Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.7/24")},
		}},
		{"joined, its plug read", "/run/docker/netns/c1", read, read},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Port(copyOf(network("10.1.0.0/24")), Attachment{
				Endpoint: endpoint("10.1.0.7/24"), Sandbox: c.sandbox, Plug: c.plug,
			})
			want := base
			want.Sandbox, want.Plug = c.sandbox, c.want
			if !reflect.DeepEqual(got, want) {
				t.Errorf("Port = %+v (%+v)\nwant   %+v (%+v)", got, got.Plug, want, want.Plug)
			}
		})
	}
}

func TestOnLinkAreTheOtherSubnetsOfTheEndpointsFamilies(t *testing.T) {
	for _, c := range []struct{ name, subnets, endpoint, want string }{
		{"one subnet", "10.1.0.0/24", "10.1.0.7/24", ""},
		{"two of IPv4", "10.1.0.0/24 10.2.0.0/24", "10.1.0.7/24", "10.2.0.0/24"},
		{"the endpoint in the second", "10.1.0.0/24 10.2.0.0/24", "10.2.0.7/24", "10.1.0.0/24"},
		{"three", "10.1.0.0/24 10.2.0.0/24 10.3.0.0/16", "10.2.0.7/24", "10.1.0.0/24 10.3.0.0/16"},
		{"one of each family", "10.1.0.0/24 fd00::/64", "10.1.0.7/24 fd00::7/64", ""},
		{"two of each", "10.1.0.0/24 10.2.0.0/24 fd00::/64 fd01::/64", "10.1.0.7/24 fd01::7/64", "10.2.0.0/24 fd00::/64"},
		{"an endpoint without IPv6", "10.1.0.0/24 fd00::/64 fd01::/64", "10.1.0.7/24", ""},
		{"an endpoint without addresses", "10.1.0.0/24 10.2.0.0/24", "", ""},
		{"a network without subnets", "", "10.1.0.7/24", ""},
	} {
		var got []string
		for _, p := range OnLink(network(strings.Fields(c.subnets)...), endpoint(strings.Fields(c.endpoint)...)) {
			got = append(got, p.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: OnLink = %v, want %s", c.name, got, c.want)
		}
	}
}

func TestAPlugOfOurOwnMakingReachesTheWholeNetwork(t *testing.T) {
	plug := Plug(copyOf(network("10.1.0.0/24", "10.2.0.0/24")), Attachment{Endpoint: endpoint("10.1.0.7/24")})
	want := []fabric.Route{{Dst: netip.MustParsePrefix("10.2.0.0/24"), Scope: 253, Type: 1}}
	if !reflect.DeepEqual(plug.Routes, want) {
		t.Errorf("routes %+v, want %+v", plug.Routes, want)
	}
}

func TestAPlugOfOurOwnMakingHasTheNameThatTheUserChose(t *testing.T) {
	for chosen, want := range map[string]string{"": "eth%d", "wan": "wan"} {
		if plug := Plug(copyOf(network()), Attachment{Endpoint: endpoint(), IfName: chosen}); plug.Name != want {
			t.Errorf("chosen %q: the name is %q, want %q", chosen, plug.Name, want)
		}
	}
}

func TestTheSameInputGivesTheSameObjects(t *testing.T) {
	c := copyOf(network("10.1.0.0/24", "10.2.0.0/24", "fd00::/64"))
	a := Attachment{Endpoint: endpoint("10.1.0.7/24", "fd00::7/64"), Sandbox: "/run/x"}
	if !reflect.DeepEqual(Port(c, a), Port(c, a)) || !reflect.DeepEqual(Bridge(c), Bridge(c)) {
		t.Error("two looks at the same thing differ")
	}
}
