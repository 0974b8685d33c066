package netdriver_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/seaway-net/seaway/plugin/internal/drivertest"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
)

func one(subnet string, options map[string]string) Spec {
	return Spec{Subnets: []Subnet{{Subnet: subnet}}, Options: options}
}

func TestNetworkOptions(t *testing.T) {
	tests := []struct {
		options map[string]string
		err     []string
	}{
		{map[string]string{"com.docker.network.driver.mtu": "1280"}, nil},
		{map[string]string{"com.docker.network.container_iface_prefix": "net"}, nil},
		{map[string]string{"seaway.scope": "host", "seaway.propagate": "false", "seaway.gateway": "engine"}, nil},
		{map[string]string{"other.program": "x", "com.example": ""}, nil},
		{map[string]string{"com.docker.network.driver.mtu": "67"}, []string{"com.docker.network.driver.mtu", `"67"`, "68 to 65535"}},
		{map[string]string{"com.docker.network.driver.mtu": "65536"}, []string{"68 to 65535"}},
		{map[string]string{"com.docker.network.driver.mtu": "big"}, []string{`"big"`}},
		{map[string]string{"com.docker.network.container_iface_prefix": "a/b"}, []string{"container_iface_prefix", "'/'"}},
		{map[string]string{"com.docker.network.container_iface_prefix": "a-very-long-one"}, []string{"1 to 12"}},
		{
			map[string]string{"seaway.vni": "7", "seaway.encrypt": "true", "seaway.gateway": "native", "seaway.colour": "red"},
			[]string{"seaway.vni", "seaway.encrypt", "seaway.gateway", "seaway.colour"},
		},
		{map[string]string{"com.docker.network.bridge.name": "br0"}, []string{"com.docker.network.bridge.name", "bridge driver"}},
	}
	for _, tt := range tests {
		e := New(t, true)
		_, err := e.Create(one("10.1.0.0/24", tt.options))
		Expect(t, err, tt.err...)
		if d := e.Host.Disk(); err != nil && (!d.Empty() || len(e.Host.Kernel.Objects) > 0) {
			t.Errorf("%v was refused and left\n%s", tt.options, d)
		}
	}
}

func TestLeastMTUOfIPv6(t *testing.T) {
	e := New(t, true)
	spec := Spec{Options: map[string]string{"com.docker.network.driver.mtu": "1279"}, Subnets: []Subnet{{}, {V6: true}}}
	_, err := e.Create(spec)
	Expect(t, err, "1280 to 65535")
}

// TestKernelRefuses: a network that the kernel does not take leaves nothing.
func TestKernelRefuses(t *testing.T) {
	e := New(t, true)
	e.Host.Kernel.Refuse = func(key kernel.Key) error {
		if key.Kind == kernel.KindBridge {
			return errors.New("no bridge today")
		}
		return nil
	}
	_, err := e.Create(one("10.1.0.0/24", nil))
	Expect(t, err, "no bridge today")
	if d := e.Host.Disk(); !d.Empty() || len(e.Host.Kernel.Objects) > 0 {
		t.Errorf("left %v\n%s", e.Host.Kernel.Objects, d)
	}
	e.Host.Kernel.Refuse = nil
	e.MustCreate(one("10.1.0.0/24", nil))
}

// TestPortIsRefused: a container whose port the kernel does not take leaves no endpoint.
func TestPortIsRefused(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(one("10.1.0.0/24", nil))
	e.Host.Kernel.Refuse = func(key kernel.Key) error {
		if key.Kind == kernel.KindPort {
			return errors.New("no veth today")
		}
		return nil
	}
	_, err := e.Start(n, Run{Name: "a"})
	Expect(t, err, "no veth today")
	if d := e.Host.Disk(); len(d.Endpoints) > 0 || len(e.Host.Kernel.Objects) != 2 {
		t.Errorf("left %v\n%s", e.Host.Kernel.Objects, d)
	}
}

// bare is what the engine asks for a network with its own IPAM, or with none.
func bare(id, space, subnet string) *pluginapi.CreateNetworkRequest {
	data := pluginapi.IPAMData{AddressSpace: space, Pool: netip.MustParsePrefix(subnet)}
	return &pluginapi.CreateNetworkRequest{NetworkID: id, IPv4Data: []pluginapi.IPAMData{data}}
}

// TestEnginesOwnIPAM: a network without ours works, keeps its subnet from others, and leaves nothing.
func TestEnginesOwnIPAM(t *testing.T) {
	e := New(t, true)
	Expect(t, e.CreateNetwork(bare("bare", "LocalDefault", "172.18.0.0/16")))
	_, err := e.Create(one("172.18.3.0/24", nil))
	Expect(t, err, "172.18.3.0/24 overlaps 172.18.0.0/16")
	n := e.MustCreate(one("10.1.0.0/24", nil))
	Expect(t, e.CreateNetwork(bare("other", "LocalDefault", "10.1.0.0/16")), "10.1.0.0/24", n.ID[:12])
	for _, r := range []pluginapi.CreateEndpointRequest{
		{NetworkID: "bare", EndpointID: "in", Interface: pluginapi.EndpointInterface{Address: "172.18.0.2/16"}},
		{NetworkID: "bare", EndpointID: "out", Interface: pluginapi.EndpointInterface{Address: "172.19.0.2/16"}},
	} {
		var want []string
		if r.EndpointID == "out" {
			want = []string{"172.19.0.2 is in no subnet"}
		}
		Expect(t, e.CreateEndpoint(&r), want...)
	}
	e.Remove(n)
	Expect(t, e.DeleteNetwork("bare"))
	if d := e.Host.Disk(); !d.Empty() || len(e.Host.Kernel.Objects) > 0 {
		t.Errorf("left %v\n%s", e.Host.Kernel.Objects, d)
	}
}

// TestBareNetworkDuringACreate: it may get the subnet first; the other create is refused and does it no harm.
func TestBareNetworkDuringACreate(t *testing.T) {
	e := New(t, true)
	e.Before = func(verb string) error {
		if verb == "CreateNetwork" {
			e.Before = nil
			Expect(t, e.CreateNetwork(bare("bare", "LocalDefault", "10.1.0.0/24")))
		}
		return nil
	}
	_, err := e.Create(one("10.1.0.0/24", nil))
	Expect(t, err, "10.1.0.0/24", "bare")
	_, err = e.Create(one("10.1.0.0/24", nil))
	Expect(t, err, "10.1.0.0/24")
}

func TestNoIPAMAtAll(t *testing.T) {
	e := New(t, true)
	for _, id := range []string{"first", "second"} {
		Expect(t, e.CreateNetwork(bare(id, "null", "0.0.0.0/0")))
		Expect(t, e.CreateEndpoint(&pluginapi.CreateEndpointRequest{NetworkID: id, EndpointID: id + "-endpoint"}))
	}
	for _, id := range []string{"first", "second"} {
		Expect(t, e.DeleteNetwork(id))
	}
	if d := e.Host.Disk(); !d.Empty() || len(e.Host.Kernel.Objects) > 0 {
		t.Errorf("left %v\n%s", e.Host.Kernel.Objects, d)
	}
}

// TestUnknown: what takes down has nothing to do, and what builds up says what to type.
func TestUnknown(t *testing.T) {
	e := New(t, true)
	Expect(t, e.DeleteNetwork("unknown"))
	c := &Container{Network: &Network{ID: "unknown"}, Endpoint: "unknown"}
	e.Stop(c)
	Expect(t, e.Join(c), "unknown", "create it again")
	Expect(t, e.CreateEndpoint(&pluginapi.CreateEndpointRequest{NetworkID: "unknown", EndpointID: "x"}), "create it again")
	c.Network = e.MustCreate(Spec{})
	Expect(t, e.Join(c), "start the container again")
}

// TestAnswersOnlyWhatIsAsked: the engine takes an echo of its own words for a conflict.
func TestAnswersOnlyWhatIsAsked(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(one("10.1.0.0/24", nil))
	for given, want := range map[string]string{"": "02:5e:0a:01:00:", "02:00:00:00:00:07": ""} {
		pool, err := e.RequestAddress(n.Pools[0].ID, "", nil)
		Expect(t, err)
		answer, err := e.Host.Net.CreateEndpoint(context.Background(), &pluginapi.CreateEndpointRequest{
			NetworkID: n.ID, EndpointID: "endpoint" + given,
			Interface: pluginapi.EndpointInterface{Address: pool.String(), MacAddress: given},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := answer.Interface
		if got.Address != "" || got.AddressIPv6 != "" || !strings.HasPrefix(got.MacAddress, want) || (want == "") != (got.MacAddress == "") {
			t.Errorf("given MAC %q: %+v", given, got)
		}
	}
	_, err := e.Start(n, Run{MAC: "01:00:00:00:00:01"})
	Expect(t, err, "01:00:00:00:00:01", "multicast")
}

// TestJoinRoutesToTheOtherSubnets of the same family: they are on the same link.
func TestJoinRoutesToTheOtherSubnets(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(Spec{Subnets: []Subnet{{Subnet: "10.1.0.0/24"}, {Subnet: "10.2.0.0/24"}, {Subnet: "fd00:1::/64", V6: true}}})
	c := e.MustStart(n, Run{Name: "a", IP: "10.1.0.9"})
	answer, err := e.Host.Net.Join(context.Background(), &pluginapi.JoinRequest{NetworkID: n.ID, EndpointID: c.Endpoint, SandboxKey: c.Sandbox})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.StaticRoutes) != 1 || answer.StaticRoutes[0].Destination != "10.2.0.0/24" {
		t.Errorf("%+v", answer)
	}
}

// TestEndpointsWithoutContainers go after a while: that of a container that is gone, one that never
// joined, and one that left and whose deletion was lost. One that is just starting stays.
func TestEndpointsWithoutContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(t, true)
		n := e.MustCreate(one("10.1.0.0/24", nil))
		running, gone, left := e.MustStart(n, Run{Name: "running"}), e.MustStart(n, Run{Name: "gone"}), e.MustStart(n, Run{Name: "left"})
		e.MustSweep() // looks into the containers
		lost := func(verb string) error {
			if verb == "DeleteEndpoint" || verb == "ReleaseAddress" {
				return ErrUnreachable
			}
			return nil
		}
		e.Before = lost
		e.Stop(left)
		e.Lose = func(verb string) bool { return verb == "CreateEndpoint" }
		_, err := e.Start(n, Run{Name: "never"})
		Expect(t, err, "body")
		e.Before, e.Lose = nil, nil
		delete(e.Host.Containers.Alive, gone.Sandbox)
		starting := e.MustStart(n, Run{Name: "starting"})
		delete(e.Host.Containers.Alive, starting.Sandbox) // engines before 28.0 make it later
		for range 4 {
			e.MustSweep()
			Pass(30 * time.Second)
		}
		e.MustSweep()
		have := make(map[string]bool)
		for _, endpoint := range e.Host.Disk().Endpoints {
			have[string(endpoint.ID)] = true
		}
		if len(have) != 2 || !have[running.Endpoint] || !have[starting.Endpoint] {
			t.Errorf("have %v", have)
		}
		for range 20 {
			Pass(30 * time.Second)
			e.MustSweep()
		}
		if d := e.Host.Disk(); len(d.Endpoints) != 1 {
			t.Errorf("have\n%s", d)
		}
	})
}

// TestDesiredAfterRestart is what was desired before.
func TestDesiredAfterRestart(t *testing.T) {
	e := New(t, true)
	n := e.MustCreate(one("10.1.0.0/24", nil))
	e.MustStart(n, Run{Name: "a"})
	before := e.Host.Kernel.Objects
	e.Host.Restart()
	for key := range before {
		if e.Host.Kernel.Objects[key] == nil {
			t.Errorf("%s is forgotten", key)
		}
	}
	if len(e.Host.Kernel.Objects) != 3 {
		t.Errorf("%v", e.Host.Kernel.Objects)
	}
}
