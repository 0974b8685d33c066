package pluginapi

import (
	"net/http"
	"net/netip"
	"reflect"
	"testing"
)

// TestConstants asks what has one answer, with no drivers there.
func TestConstants(t *testing.T) {
	f := serve(t, Options{})
	noSwarm := `{"Err":"` + errNoSwarm.Error() + `"}`
	for _, c := range []struct {
		verb, body string
		status     int
		want       string
	}{
		{
			"NetworkDriver.GetCapabilities", "", 200,
			`{"Scope":"local","ConnectivityScope":"global","GwAllocChecker":true}`,
		},
		{"IpamDriver.GetCapabilities", "", 200, `{"RequiresMACAddress":false,"RequiresRequestReplay":true}`},
		{
			"IpamDriver.GetDefaultAddressSpaces", "", 200,
			`{"LocalDefaultAddressSpace":"seaway-local","GlobalDefaultAddressSpace":"seaway-global"}`,
		},
		{"Plugin.Activate", "", 200, `{"Implements": ["NetworkDriver", "IpamDriver"]}`},
		{
			"NetworkDriver.DiscoverNew",
			`{"DiscoveryType":1,"DiscoveryData":{"Address":"192.0.2.1","BindAddress":"192.0.2.1","Self":true}}`,
			200, `{}`,
		},
		{"NetworkDriver.DiscoverDelete", `{"DiscoveryType":1,"DiscoveryData":null}`, 200, `{}`},
		{
			"NetworkDriver.ProgramExternalConnectivity",
			`{"NetworkID":"n","EndpointID":"e","Options":{"com.docker.network.portmap":[{"Proto":6,"Port":80}]}}`,
			200, `{}`,
		},
		{"NetworkDriver.RevokeExternalConnectivity", `{"NetworkID":"n","EndpointID":"e"}`, 200, `{}`},
		{"NetworkDriver.AllocateNetwork", `{"NetworkID":"n","IPv4Data":[],"IPv6Data":null}`, 500, noSwarm},
		{"NetworkDriver.FreeNetwork", `{"NetworkID":"n"}`, 500, noSwarm},
	} {
		status, body := f.post(t, c.verb, c.body)
		if status != c.status || body != c.want {
			t.Errorf("%s: %d %s, want %d %s", c.verb, status, body, c.status, c.want)
		}
	}
}

// wireCases are requests as engines send them (reference/engine-protocol.md, 1.2 and 12), what the driver
// must see, and what leaves of its answer.
var wireCases = []struct {
	name, verb, body string
	request          any
	response         any
	want             string
}{
	{
		"28.0 and later ask about the gateway", "NetworkDriver.GwAllocCheck",
		`{"Options":{"com.docker.network.generic":{"k":"v"}}}`,
		&GwAllocCheckRequest{Options: NetworkOptions{Driver: map[string]string{"k": "v"}}},
		&GwAllocCheckResponse{SkipIPv4: true},
		`{"SkipIPv4":true,"SkipIPv6":false}`,
	},
	{
		"create", "NetworkDriver.CreateNetwork",
		`{"NetworkID":"n","Options":{"com.docker.network.enable_ipv4":true,"com.docker.network.enable_ipv6":true,
		  "com.docker.network.internal":true,"com.docker.network.generic":{"seaway.vni":"77"}},
		  "IPv4Data":[{"AddressSpace":"seaway-local","Gateway":"10.77.0.9/24","Pool":"10.77.0.0/24",
		  "AuxAddresses":{"router":"10.77.0.5/24"}}],
		  "IPv6Data":[{"AddressSpace":"seaway-local","Pool":"fd00:77::/64"}]}`,
		&CreateNetworkRequest{
			NetworkID: "n",
			Options:   NetworkOptions{Driver: map[string]string{"seaway.vni": "77"}, Internal: true},
			IPv4Data: []IPAMData{{
				AddressSpace: LocalAddressSpace,
				Pool:         netip.MustParsePrefix("10.77.0.0/24"),
				Gateway:      netip.MustParsePrefix("10.77.0.9/24"),
				AuxAddresses: map[string]netip.Prefix{"router": netip.MustParsePrefix("10.77.0.5/24")},
			}},
			IPv6Data: []IPAMData{{AddressSpace: LocalAddressSpace, Pool: netip.MustParsePrefix("fd00:77::/64")}},
		},
		nil, `{}`,
	},
	{
		"nulls, other cases and unknown fields", "NetworkDriver.CreateNetwork",
		`{"networkid":"n","Options":null,"IPV4DATA":[null],"IPv6Data":null,"Labels":{"x":1}}`,
		&CreateNetworkRequest{NetworkID: "n", IPv4Data: []IPAMData{{}}},
		nil, `{}`,
	},
	{
		"remove", "NetworkDriver.DeleteNetwork", `{"NetworkID":"n"}`,
		&DeleteNetworkRequest{NetworkID: "n"}, nil, `{}`,
	},
	{
		"endpoint with a MAC to be chosen", "NetworkDriver.CreateEndpoint",
		`{"NetworkID":"n","EndpointID":"e","Interface":{"Address":"10.77.0.9/24","AddressIPv6":"","MacAddress":""},
		  "Options":{"com.docker.network.endpoint.macaddress":"AkKsEQAC","user.opt":"x",
		  "com.docker.network.endpoint.dnsservers":["1.1.1.1"]}}`,
		&CreateEndpointRequest{
			NetworkID: "n", EndpointID: "e",
			Interface: EndpointInterface{Address: "10.77.0.9/24"},
			Options: map[string]any{
				"com.docker.network.endpoint.macaddress": "AkKsEQAC", "user.opt": "x",
				"com.docker.network.endpoint.dnsservers": []any{"1.1.1.1"},
			},
		},
		&CreateEndpointResponse{Interface: &EndpointInterface{MacAddress: "02:5e:0a:4d:00:09"}},
		`{"Interface":{"Address":"","AddressIPv6":"","MacAddress":"02:5e:0a:4d:00:09"}}`,
	},
	{
		"endpoint without an interface", "NetworkDriver.CreateEndpoint",
		`{"NetworkID":"n","EndpointID":"e","Interface":null,"Options":{}}`,
		&CreateEndpointRequest{NetworkID: "n", EndpointID: "e", Options: map[string]any{}}, nil, `{}`,
	},
	{
		"operational", "NetworkDriver.EndpointOperInfo", `{"NetworkID":"n","EndpointID":"e"}`,
		&InfoRequest{NetworkID: "n", EndpointID: "e"}, nil, `{}`,
	},
	{
		"remove endpoint", "NetworkDriver.DeleteEndpoint", `{"NetworkID":"n","EndpointID":"e"}`,
		&DeleteEndpointRequest{NetworkID: "n", EndpointID: "e"}, nil, `{}`,
	},
	{
		"join", "NetworkDriver.Join",
		`{"NetworkID":"n","EndpointID":"e","SandboxKey":"/var/run/docker/netns/0a1b","Options":
		  {"com.docker.network.portmap":[]}}` + "\n",
		&JoinRequest{
			NetworkID: "n", EndpointID: "e", SandboxKey: "/var/run/docker/netns/0a1b",
			Options: map[string]any{"com.docker.network.portmap": []any{}},
		},
		&JoinResponse{
			InterfaceName: InterfaceName{SrcName: "swc0", DstPrefix: "eth", DstName: "lan0"},
			StaticRoutes: []*StaticRoute{
				{Destination: "10.78.0.0/24", RouteType: RouteNextHop, NextHop: "10.77.0.1"},
				{Destination: "10.77.0.0/24", RouteType: RouteConnected},
			},
		},
		`{"InterfaceName":{"SrcName":"swc0","DstPrefix":"eth","DstName":"lan0"},` +
			`"StaticRoutes":[{"Destination":"10.78.0.0/24","RouteType":0,"NextHop":"10.77.0.1"},` +
			`{"Destination":"10.77.0.0/24","RouteType":1,"NextHop":""}]}`,
	},
	{
		"leave", "NetworkDriver.Leave", `{"NetworkID":"n","EndpointID":"e"}`,
		&LeaveRequest{NetworkID: "n", EndpointID: "e"}, nil, `{}`,
	},
	{
		"pool", "IpamDriver.RequestPool",
		`{"AddressSpace":"seaway-local","Pool":"","SubPool":"","Options":{"io":"1"},"V6":false}`,
		&RequestPoolRequest{AddressSpace: LocalAddressSpace, Options: map[string]string{"io": "1"}},
		&RequestPoolResponse{PoolID: "P1", Pool: "10.77.0.0/24"},
		`{"PoolID":"P1","Pool":"10.77.0.0/24","Data":null}`,
	},
	{
		"release pool", "IpamDriver.ReleasePool", `{"PoolID":"P1"}`,
		&ReleasePoolRequest{PoolID: "P1"}, nil, `{}`,
	},
	{
		"gateway address", "IpamDriver.RequestAddress",
		`{"PoolID":"P1","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}`,
		&RequestAddressRequest{
			PoolID: "P1", Options: map[string]string{"RequestAddressType": "com.docker.network.gateway"},
		},
		&RequestAddressResponse{Address: "10.77.0.1/24", Data: map[string]string{"a": "b"}},
		`{"Address":"10.77.0.1/24","Data":{"a":"b"}}`,
	},
	{
		"replayed address", "IpamDriver.RequestAddress", `{"PoolID":"P1","Address":"10.77.0.9","Options":null}`,
		&RequestAddressRequest{PoolID: "P1", Address: "10.77.0.9"},
		&RequestAddressResponse{Address: "10.77.0.9/24"},
		`{"Address":"10.77.0.9/24","Data":null}`,
	},
	{
		"release address", "IpamDriver.ReleaseAddress", `{"PoolID":"P1","Address":"10.77.0.9"}`,
		&ReleaseAddressRequest{PoolID: "P1", Address: "10.77.0.9"}, nil, `{}`,
	},
}

func TestWire(t *testing.T) {
	for _, c := range wireCases {
		t.Run(c.verb+"/"+c.name, func(t *testing.T) {
			driver := &recorder{response: c.response}
			f := serve(t, Options{})
			f.Use(driver, driver)
			status, body := f.post(t, c.verb, c.body)
			if status != http.StatusOK || body != c.want {
				t.Errorf("got %d %s, want 200 %s", status, body, c.want)
			}
			if got := driver.lastRequest(); !reflect.DeepEqual(got, c.request) {
				t.Errorf("the driver got %+v, want %+v", got, c.request)
			}
		})
	}
}
