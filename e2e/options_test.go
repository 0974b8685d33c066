package e2e

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

func TestAWrongNetworkIsRefusedInWords(t *testing.T) {
	h := seaway(t)
	blue(t, h, "holder", "--subnet", "10.22.1.0/24")
	holder := idOf(t, h, "holder")
	own := netip.PrefixFrom(h.Address, 24).Masked().String()
	for _, c := range []struct {
		name  string
		args  []string
		words []string
	}{
		{"host bits", []string{"--subnet", "10.22.2.1/24"}, []string{"10.22.2.1/24", "10.22.2.0/24"}},
		{"too small", []string{"--subnet", "10.22.2.0/31"}, []string{"10.22.2.0/31", "too small", "/30"}},
		{"multicast", []string{"--subnet", "224.1.0.0/24"}, []string{"224.1.0.0/24", "multicast", "10.1.0.0/24"}},
		{"taken", []string{"--subnet", "10.22.1.0/24"}, []string{"10.22.1.0/24", "network " + holder, "choose another --subnet"}},
		{"taken in part", []string{"--subnet", "10.22.0.0/16"}, []string{"10.22.1.0/24", "network " + holder, "choose another --subnet"}},
		{"the host's", []string{"--subnet", own}, []string{own, "eth0", "choose another --subnet"}},
		{"inside the host's", []string{"--subnet", "192.0.2.64/26"}, []string{own, "eth0", "choose another --subnet"}},
		{
			"unknown options",
			[]string{"--subnet", "10.22.2.0/24", "-o", "seaway.colour=red", "-o", "seaway.size=9", "-o", "com.docker.network.driver.mtu=12"},
			[]string{"seaway.colour", "seaway.size", "com.docker.network.driver.mtu", "from 68 to 65535"},
		},
		{
			"options that do not work yet",
			[]string{"--subnet", "10.22.2.0/24", "-o", "seaway.gateway=native", "-o", "seaway.vni=7", "-o", "seaway.encrypt=true", "-o", "seaway.scope=cluster"},
			[]string{"seaway.gateway", "native", "only engine", "seaway.vni", "seaway.encrypt", "seaway.scope", "only host"},
		},
		{
			"options of the bridge driver",
			[]string{"--subnet", "10.22.2.0/24", "-o", "com.docker.network.bridge.name=b0"},
			[]string{"com.docker.network.bridge.name", "bridge driver"},
		},
		{
			"IPAM options",
			[]string{"--subnet", "10.22.2.0/24", "--ipam-opt", "seaway.colour=red", "--ipam-opt", "seaway.network=x"},
			[]string{"seaway.colour", "seaway.network", "seaway.scope=host"},
		},
		{"MTU too small for IPv6", []string{"--ipv6", "--subnet", "10.22.2.0/24", "-o", "com.docker.network.driver.mtu=1000"}, []string{"1000", "from 1280"}},
		{"MTU in words", []string{"--subnet", "10.22.2.0/24", "-o", "com.docker.network.driver.mtu=big"}, []string{"big", "number of bytes"}},
		{"link prefix", []string{"--subnet", "10.22.2.0/24", "-o", "com.docker.network.container_iface_prefix=a/b"}, []string{"com.docker.network.container_iface_prefix", "the name of a link"}},
		{"two addresses in one", []string{"--subnet", "10.22.2.0/24", "--gateway", "10.22.2.1", "--aux-address", "a=10.22.2.1"}, []string{"10.22.2.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, h, withIPAM(c.args...), c.words...)
		})
	}
	// Nothing of the refused ones is in the way.
	blue(t, h, "right", "--subnet", "10.22.2.0/24")
	container(t, h, "alice", "--network", "right")
	container(t, h, "bob", "--network", "right")
	talks(t, h, "alice", "bob")
}

func TestAnIPv4MappedSubnetIsTheIPv4SubnetOrRefused(t *testing.T) {
	h := seaway(t)
	create := append(append([]string{"network", "create"}, withIPAM("--subnet", "::ffff:10.22.10.0/120")...), "mapped")
	if _, err := h.Docker(testContext(t), create...); err != nil {
		if said := new(kit.CommandError); errors.As(err, &said) {
			says(t, said.Stderr, "write 10.22.10.0/24")
		}
		return
	}
	t.Cleanup(func() { cleanDocker(t, h, "network", "rm", "mapped") })
	if subnet := subnetOf(t, h, "mapped"); subnet != "10.22.10.0/24" {
		t.Errorf("the subnet is %s", subnet)
	}
}

// subnetOf is the first subnet of a network, as docker shows it.
func subnetOf(t *testing.T, h *kit.Host, network string) string {
	t.Helper()
	return docker(t, h, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", network)
}

func TestTheSameSubnetTwiceHarmsNobody(t *testing.T) {
	h := seaway(t)
	blue(t, h, "first", "--subnet", "10.22.3.0/24")
	container(t, h, "alice", "--network", "first")
	container(t, h, "bob", "--network", "first")
	for range 2 {
		refused(t, h, withIPAM("--subnet", "10.22.3.0/24"), "10.22.3.0/24", idOf(t, h, "first"))
		// The engine's IPAM does not know of ours.
		refused(t, h, []string{"-d", kit.Plugin, "--subnet", "10.22.3.0/25"}, "10.22.3.0/24", idOf(t, h, "first"))
		talks(t, h, "alice", "bob")
	}
	container(t, h, "carol", "--network", "first")
	for _, other := range []string{"alice", "bob"} {
		if addressOf(t, h, "carol", "first") == addressOf(t, h, other, "first") {
			t.Errorf("carol has the address of %s", other)
		}
		talks(t, h, "carol", other)
	}
	docker(t, h, "restart", "-t", "1", "bob")
	talks(t, h, "alice", "bob")
}

func TestAWrongAttachmentIsRefusedInWords(t *testing.T) {
	h := seaway(t)
	blue(t, h, "picky", "--subnet", "10.22.4.0/24")
	container(t, h, "alice", "--network", "picky")
	docker(t, h, "create", "--name", "bob", kit.Image)
	t.Cleanup(func() { cleanDocker(t, h, "rm", "-f", "bob") })
	docker(t, h, "start", "bob")
	said := dockerFails(t, h, "network", "connect", "--driver-opt", "seaway.colour=red", "--driver-opt", "seaway.size=9", "picky", "bob")
	says(t, said, "seaway.colour", "seaway.size", "--driver-opt")
	docker(t, h, "network", "connect", "picky", "bob")
	talks(t, h, "bob", "alice")
}

func TestAnMTUIsWhatTheLinkHas(t *testing.T) {
	h := seaway(t)
	blue(t, h, "narrow", "--subnet", "10.22.5.0/24", "-o", "com.docker.network.driver.mtu=1400")
	container(t, h, "alice", "--network", "narrow")
	container(t, h, "bob", "--network", "narrow")
	for _, name := range []string{"alice", "bob"} {
		if mtu := linkMTU(t, h, name); mtu != 1400 {
			t.Errorf("the MTU of %s is %d", name, mtu)
		}
	}
	wholePackets(t, h, "alice", "bob:8080", 1400, 28)
}

func TestALinkPrefixIsWhatTheLinkIsCalled(t *testing.T) {
	h := seaway(t)
	blue(t, h, "called", "--subnet", "10.22.6.0/24", "-o", "com.docker.network.container_iface_prefix=sea")
	container(t, h, "alice", "--network", "called")
	onLink(t, h, "alice", "sea0", addressOf(t, h, "alice", "called")+"/24")
}

func TestASubnetIsFoundThatNobodyHas(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{MTU: 1450}, "SUBNET_POOL=10.99.0.0/22", "SUBNET_SIZE=24")
	// Of the four subnets one is routed, and one is Docker's own.
	onHost(t, h, "ip", "route", "add", "10.99.0.0/25", "via", kit.GatewayAddress.String())
	network(t, h, "docks", "--subnet", "10.99.3.0/24")
	got := map[string]bool{}
	for _, name := range []string{"one", "two"} {
		blue(t, h, name)
		got[subnetOf(t, h, name)] = true
	}
	if !got["10.99.1.0/24"] || !got["10.99.2.0/24"] {
		t.Errorf("found were %v", got)
	}
	refused(t, h, withIPAM(), "10.99.0.0/22", "/24")
	container(t, h, "alice", "--network", "one")
	container(t, h, "bob", "--network", "one")
	talks(t, h, "alice", "bob")
	if mtu := linkMTU(t, h, "alice"); mtu != 1450 {
		t.Errorf("MTU %d; that of the uplink is 1450", mtu)
	}
}

// set changes settings of the plugin.
func set(t *testing.T, h *kit.Host, settings ...string) {
	t.Helper()
	docker(t, h, "plugin", "disable", "-f", kit.Plugin)
	docker(t, h, append([]string{"plugin", "set", kit.Plugin}, settings...)...)
	docker(t, h, "plugin", "enable", kit.Plugin)
}

func TestSettingsAreHonouredOrComplainedOf(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{}, "MTU=1234")
	blue(t, h, "before", "--subnet", "10.22.7.0/24")
	container(t, h, "alice", "--network", "before")
	container(t, h, "bob", "--network", "before")
	if mtu := linkMTU(t, h, "alice"); mtu != 1234 {
		t.Errorf("MTU %d; the setting is 1234", mtu)
	}
	set(t, h, "SUBNET_POOL=10.1.2.3/8", "SUBNET_SIZE=99", "MTU=huge", "LOG_LEVEL=loud")
	if on := docker(t, h, "plugin", "inspect", "-f", "{{.Enabled}}", kit.Plugin); on != "true" {
		t.Errorf("with bad settings, enabled is %s", on)
	}
	refused(t, h, withIPAM("--subnet", "10.22.8.0/24"), "SUBNET_POOL", "10.0.0.0/8", "SUBNET_SIZE", "MTU", "LOG_LEVEL", "docker plugin set")
	talks(t, h, "alice", "bob")
	set(t, h, "SUBNET_POOL=10.64.0.0/12", "SUBNET_SIZE=26", "MTU=auto", "LOG_LEVEL=debug")
	blue(t, h, "after")
	subnet := netip.MustParsePrefix(subnetOf(t, h, "after"))
	if !netip.MustParsePrefix("10.64.0.0/12").Contains(subnet.Addr()) || subnet.Bits() != 26 {
		t.Errorf("the subnet is %s", subnet)
	}
	container(t, h, "carol", "--network", "after")
	if mtu := linkMTU(t, h, "carol"); mtu != 1500 {
		t.Errorf("MTU %d; that of the uplink is 1500", mtu)
	}
	talks(t, h, "alice", "bob")
}

func TestWithoutIPAMContainersHaveNoAddressButALink(t *testing.T) {
	h := seaway(t)
	ctx := context.WithoutCancel(testContext(t))
	if _, err := h.Docker(ctx, "network", "create", "-d", kit.Plugin, "--ipam-driver", "null", "null"); err != nil {
		if !strings.Contains(err.Error(), "null") {
			t.Fatal(err)
		}
		t.Skipf("this engine has no such IPAM: %v", err)
	}
	t.Cleanup(func() { cleanDocker(t, h, "network", "rm", "null") })
	container(t, h, "alice", "--network", "null", "--cap-add", "NET_ADMIN")
	container(t, h, "bob", "--network", "null", "--cap-add", "NET_ADMIN")
	for name, address := range map[string]string{"alice": "10.22.9.1/24", "bob": "10.22.9.2/24"} {
		if out := in(t, h, name, "ip", "-4", "address", "show", "eth0"); strings.Contains(out, "inet") {
			t.Errorf("%s has an address: %s", name, out)
		}
		in(t, h, name, "ip", "address", "add", address, "dev", "eth0")
	}
	talks(t, h, "alice", "10.22.9.2")
}
