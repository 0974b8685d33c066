package links

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
)

// putBridge makes the bridge, or repairs the one that is there.
func (p *Plane) putBridge(want kernel.Bridge) error {
	link, err := p.link(want.Name)
	if err != nil {
		return err
	}
	if link != nil && link.Type() != "bridge" {
		return fmt.Errorf("a %s of that name is in the way: %w", link.Type(), ErrForeign)
	}
	if link == nil {
		return p.addBridge(want)
	}
	if err := p.setAlias(link, want.Alias); err != nil {
		return err
	}
	if err := p.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// addBridge makes a bridge with a MAC of its own, which else would be that of its lowest port and change
// as ports come and go. Multicast is flooded: snooping would need a querier, which nobody runs here.
func (p *Plane) addBridge(want kernel.Bridge) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = want.Name
	attrs.HardwareAddr = fabric.MACForName(want.Name).HardwareAddr()
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := p.nl.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add: %w", err)
	}
	if err := p.setAlias(bridge, want.Alias); err != nil {
		return err
	}
	if err := p.nl.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// setAlias marks a link as ours. It takes a request of its own: the kernel sets none on a link that it
// makes. A link that was left without is marked when it is put again.
func (p *Plane) setAlias(link netlink.Link, alias string) error {
	if link.Attrs().Alias == alias {
		return nil
	}
	if err := p.nl.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	return nil
}

// link finds a link of the data plane by its name; nil if there is none.
func (p *Plane) link(name string) (netlink.Link, error) {
	link, err := p.nl.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	return link, nil
}
