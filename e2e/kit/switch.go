package kit

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// Addresses of the simulated world. They are for documentation and for private
// use, and nothing routes them outside of the Lab's namespaces.
var (
	// WorldAddress and WorldAddress6 stand for the rest of the world: not on
	// the underlay, reached by the default route.
	WorldAddress  = netip.MustParseAddr("203.0.113.1")
	WorldAddress6 = netip.MustParseAddr("2001:db8:113::1")

	// GatewayAddress and GatewayAddress6 are the hosts' default gateway.
	GatewayAddress  = netip.MustParseAddr("192.0.2.1")
	GatewayAddress6 = netip.MustParseAddr("fd5e:a::1")
)

// WorldName is the one name that the simulated world's name server knows. It
// is that of WorldAddress, where the server is. Other names do not exist.
const WorldName = "world.example"

// underlay returns the addresses of the host with a number.
func underlay(number int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + number)}),
		netip.MustParseAddr(fmt.Sprintf("fd5e:a::%x", 10+number))
}

// port is the name of the switch's link to the host with a number.
func port(number int) string { return fmt.Sprintf("port%d", number) }

// setUpSwitch makes the switch and the outside addresses in m.
func setUpSwitch(ctx context.Context, m *Machine) error {
	return m.ip(ctx,
		"link set lo up",
		"link add switch0 type bridge mcast_snooping 0",
		"link set switch0 up",
		fmt.Sprintf("address add %s/24 dev switch0", GatewayAddress),
		fmt.Sprintf("address add %s/64 dev switch0 nodad", GatewayAddress6),
		fmt.Sprintf("address add %s/32 dev lo", WorldAddress),
		fmt.Sprintf("address add %s/128 dev lo nodad", WorldAddress6),
	)
}

// startDNS starts the world's name server. It ends with the machine.
func (m *Machine) startDNS() error {
	_, err := m.background("dns.log", nil, m.lab.Probe, "dns", "-listen", WorldAddress.String()+":53",
		"-name", WorldName, "-address", WorldAddress.String())
	if err != nil {
		return fmt.Errorf("start name server: %w", err)
	}
	return nil
}

// plugIn joins a freshly booted host to the switch.
func (h *Host) plugIn(ctx context.Context) error {
	err := h.lab.Outside.ip(ctx,
		fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d address 02:5e:a0:00:00:%02x netns %d",
			port(h.number), h.opt.MTU, h.opt.MTU, h.number, h.init.Process.Pid),
		fmt.Sprintf("link set %s master switch0 up", port(h.number)),
	)
	if err != nil {
		return err
	}
	return h.ip(ctx,
		"link set lo up",
		fmt.Sprintf("address add %s/24 dev eth0", h.Address),
		fmt.Sprintf("address add %s/64 dev eth0 nodad", h.Address6),
		"link set eth0 up",
		fmt.Sprintf("route add default via %s", GatewayAddress),
		fmt.Sprintf("route add default via %s", GatewayAddress6),
	)
}

// waitUnplugged waits until the link to a host that was switched off is gone:
// the kernel ends a network namespace some time after its last process.
func (h *Host) waitUnplugged(ctx context.Context) error {
	if !h.lab.Outside.Running() {
		return nil
	}
	return WaitFor(ctx, "end of the link to "+h.Name, func(ctx context.Context) error {
		links, err := h.lab.Outside.Exec(ctx, "ip", "-brief", "link")
		if err != nil {
			return err
		}
		if strings.Contains(links, port(h.number)+"@") {
			return fmt.Errorf("%s is there", port(h.number))
		}
		return nil
	})
}

// Cut takes the host off the underlay, as a pulled cable does.
func (h *Host) Cut(ctx context.Context) error {
	return h.lab.Outside.ip(ctx, fmt.Sprintf("link set %s down", port(h.number)))
}

// Heal undoes Cut.
func (h *Host) Heal(ctx context.Context) error {
	return h.lab.Outside.ip(ctx, fmt.Sprintf("link set %s up", port(h.number)))
}
