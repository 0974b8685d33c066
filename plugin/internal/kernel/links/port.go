package links

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// putPort makes the port where its endpoint needs it, or hangs the one that is there on its bridge.
func (p *Plane) putPort(want kernel.Port) error {
	bridge, err := p.link(want.Bridge)
	if err != nil {
		return err
	}
	if bridge == nil {
		return fmt.Errorf("bridge %s is not there yet", want.Bridge)
	}
	link, err := p.link(want.Name)
	if err != nil {
		return err
	}
	if link != nil {
		return p.repairPort(want, link, bridge)
	}
	if want.Sandbox == "" {
		return p.addPort(want, want.Name, p.engine().Net(), bridge.Attrs().Index)
	}
	return p.replug(want, bridge)
}

// repairPort hangs a port on its bridge. A port without a bridge may be one that was being plugged in
// again when we were interrupted, so its other end is set up first.
func (p *Plane) repairPort(want kernel.Port, link, bridge netlink.Link) error {
	if err := p.setAlias(link, want.Alias); err != nil {
		return err
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		if want.Sandbox != "" && want.Plug != nil {
			// A far end that is not in the container is on its way there: the engine sets it up.
			if err := p.setUpFarEnd(want); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if err := p.nl.LinkSetMasterByIndex(link, bridge.Attrs().Index); err != nil {
			return fmt.Errorf("hang on bridge %s: %w", want.Bridge, err)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := p.nl.LinkSetUp(link); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	return nil
}

// addPort makes a port whose far end is born in another namespace, in one request: to move a link there
// afterwards costs the kernel some 20 ms.
func (p *Plane) addPort(want kernel.Port, farName string, far *netns.NS, bridge int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = want.Name
	attrs.MTU, attrs.MasterIndex = want.MTU, bridge
	attrs.Flags = net.FlagUp
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = farName, netlink.NsFd(far.FD())
	veth.PeerMTU = uint32(want.MTU)
	veth.PeerHardwareAddr = want.MAC.HardwareAddr()
	if err := p.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("add with far end %s: %w", farName, err)
	}
	return p.setAlias(veth, want.Alias)
}

// replug makes a lost port again and plugs it into the running container that had it. It is hung on its
// bridge last: that is how to see that it is whole. A container that is gone needs no port.
func (p *Plane) replug(want kernel.Port, bridge netlink.Link) error {
	sandbox, err := p.engine().OpenNetns(want.Sandbox)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sandbox.Close()
	if want.Plug == nil {
		return errors.New("lost before it was known how the engine had plugged it in; restart the container")
	}
	if err = p.addPort(want, want.Plug.Name, sandbox, 0); err != nil {
		return err
	}
	link, err := p.link(want.Name)
	if err != nil {
		return err
	}
	if link == nil {
		return errors.New("lost again")
	}
	if err := p.repairPort(want, link, bridge); err != nil {
		return err
	}
	p.log.Info("container plugged back in", "port", want.Name, "sandbox", want.Sandbox, "link", want.Plug.Name)
	return nil
}

// doomed is the link group of ports that are about to be deleted. The kernel deletes a group in one go,
// some 20 times faster than one by one, each of which waits for all readers of the old link to leave.
const doomed = 0x5ea0

// deletePorts removes ports and with them their far ends, wherever those are.
func (p *Plane) deletePorts(names []string) error {
	var failed error
	marked := 0
	for _, name := range names {
		link, err := p.link(name)
		if err == nil && link != nil {
			if err = p.nl.LinkSetGroup(link, doomed); err == nil {
				marked++
			}
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("delete port %s: %w", name, err))
		}
	}
	if marked == 0 {
		return failed
	}
	if err := p.ns.Do(func() error { return deleteGroup(doomed) }); err != nil {
		failed = errors.Join(failed, fmt.Errorf("delete ports: %w", err))
	}
	return failed
}
