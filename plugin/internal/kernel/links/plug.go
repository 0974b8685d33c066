package links

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// ReadPlug reads how a port's far end looks inside its container: what it takes to plug the container in
// again. The error is os.ErrNotExist if the port has no far end there (yet, or any more).
func (p *Plane) ReadPlug(ctx context.Context, port, sandbox string) (fabric.Plug, error) {
	plug, err := p.readPlug(ctx, port, sandbox)
	if err != nil {
		return fabric.Plug{}, fmt.Errorf("read the container's end of port %s: %w", port, err)
	}
	return plug, nil
}

func (p *Plane) readPlug(ctx context.Context, port, sandbox string) (fabric.Plug, error) {
	ns, err := p.engine().OpenNetns(sandbox)
	if err != nil {
		return fabric.Plug{}, err
	}
	defer ns.Close()
	far, err := p.lockedFarEnd(port, ns)
	if err != nil {
		return fabric.Plug{}, err
	}
	var plug fabric.Plug
	err = ns.Do(func() error {
		plug, err = describeAt(ctx, far)
		return err
	})
	return plug, err
}

func (p *Plane) lockedFarEnd(port string, sandbox *netns.NS) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.attach(); err != nil {
		return 0, err
	}
	return p.farEnd(port, sandbox)
}

// farEnd returns the index of a port's far end in a container's namespace. The error is os.ErrNotExist if
// it is not there: the near end knows in which namespace its far end is, while the index alone may be that
// of a stranger, even of one whose own far end has the near end's number somewhere else.
func (p *Plane) farEnd(port string, sandbox *netns.NS) (int, error) {
	near, err := p.link(port)
	if err != nil {
		return 0, err
	}
	if near == nil {
		return 0, os.ErrNotExist
	}
	id, err := p.nl.GetNetNsIdByFd(sandbox.FD())
	if err != nil {
		return 0, fmt.Errorf("find the container's namespace: %w", err)
	}
	if id < 0 || id != near.Attrs().NetNsID {
		return 0, os.ErrNotExist
	}
	return near.Attrs().ParentIndex, nil
}

// linkAt finds the link with that index in the namespace of the handle.
func linkAt(handle *netlink.Handle, index int) (netlink.Link, error) {
	link, err := handle.LinkByIndex(index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, os.ErrNotExist
	}
	return link, err
}

// describeAt reads the link with that index in the namespace of the calling thread.
func describeAt(ctx context.Context, index int) (fabric.Plug, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fabric.Plug{}, err
	}
	defer handle.Close()
	link, err := linkAt(handle, index)
	if err != nil {
		return fabric.Plug{}, err
	}
	return describe(ctx, handle, link)
}

// describe reads a link of the namespace of the calling thread.
func describe(ctx context.Context, handle *netlink.Handle, link netlink.Link) (fabric.Plug, error) {
	attrs := link.Attrs()
	plug := fabric.Plug{Name: attrs.Name, MTU: attrs.MTU, Sysctls: ownSysctls(attrs.Name)}
	copy(plug.MAC[:], attrs.HardwareAddr)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		addrs, err := dump(ctx, func() ([]netlink.Addr, error) { return handle.AddrList(link, family) })
		if err != nil {
			return plug, fmt.Errorf("list addresses: %w", err)
		}
		for _, addr := range addrs {
			if prefix, ok := given(addr); ok {
				plug.Addrs = append(plug.Addrs, prefix)
			}
		}
		filter := &netlink.Route{LinkIndex: attrs.Index, Table: unix.RT_TABLE_UNSPEC}
		routes, err := dump(ctx, func() ([]netlink.Route, error) {
			return handle.RouteListFiltered(family, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return plug, fmt.Errorf("list routes: %w", err)
		}
		for _, route := range routes {
			// The kernel makes its own again when the addresses are back.
			if route.Protocol != unix.RTPROT_KERNEL && route.Table != unix.RT_TABLE_LOCAL {
				plug.Routes = append(plug.Routes, routeOf(route))
			}
		}
	}
	return plug, nil
}

// given returns the prefix of an address that somebody gave to the link, as against one that the kernel
// makes from the MAC or from a router's advertisement.
func given(addr netlink.Addr) (netip.Prefix, bool) {
	ip, ok := netip.AddrFromSlice(addr.IP)
	if !ok || addr.Flags&unix.IFA_F_PERMANENT == 0 {
		return netip.Prefix{}, false
	}
	if ip.Is6() && !ip.Is4In6() && ip.IsLinkLocalUnicast() {
		return netip.Prefix{}, false
	}
	bits, _ := addr.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits), true
}

func routeOf(r netlink.Route) fabric.Route {
	route := fabric.Route{
		Scope: int(r.Scope), Table: r.Table, Priority: r.Priority, Protocol: int(r.Protocol), Type: r.Type,
		OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0,
	}
	if r.Dst != nil {
		if ip, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			bits, _ := r.Dst.Mask.Size()
			route.Dst = netip.PrefixFrom(ip.Unmap(), bits)
		}
	}
	if gw, ok := netip.AddrFromSlice(r.Gw); ok {
		route.Gateway = gw.Unmap()
	}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		route.Source = src.Unmap()
	}
	return route
}

// setUpFarEnd gives a port's far end what the recorded plug says. Doing it twice changes nothing.
func (p *Plane) setUpFarEnd(port kernel.Port) error {
	sandbox, err := p.engine().OpenNetns(port.Sandbox)
	if err != nil {
		return err
	}
	defer sandbox.Close()
	far, err := p.farEnd(port.Name, sandbox)
	if err != nil {
		return fmt.Errorf("find the container's end: %w", err)
	}
	if err := p.engine().WriteSysctls(sandbox, port.Plug.Sysctls); err != nil {
		p.log.Warn("not every setting of a container's link could be restored", "port", port.Name, "error", err)
	}
	return sandbox.Do(func() error {
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer handle.Close()
		link, err := linkAt(handle, far)
		if err != nil {
			return fmt.Errorf("find the container's end: %w", err)
		}
		if err := restore(handle, link, *port.Plug); err != nil {
			return err
		}
		if err := restoreRoutes(handle, link, port.Plug.Routes); err != nil {
			p.log.Warn("not every route of a container could be restored", "port", port.Name, "error", err)
		}
		return nil
	})
}

// restore gives a link its MAC, MTU and addresses.
func restore(handle *netlink.Handle, link netlink.Link, plug fabric.Plug) error {
	if !plug.MAC.IsZero() && link.Attrs().HardwareAddr.String() != plug.MAC.String() {
		if err := handle.LinkSetHardwareAddr(link, plug.MAC.HardwareAddr()); err != nil {
			return fmt.Errorf("set MAC %s: %w", plug.MAC, err)
		}
	}
	if plug.MTU != 0 && link.Attrs().MTU != plug.MTU {
		if err := handle.LinkSetMTU(link, plug.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", plug.MTU, err)
		}
	}
	for _, prefix := range inOrderOfAdding(plug.Addrs) {
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // it was checked the first time; a wait would cost a second
		}
		if err := handle.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s: %w", prefix, err)
		}
	}
	if err := handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// inOrderOfAdding returns addresses in the order in which they are to be added so that the kernel lists
// them as before: it appends one of IPv4, and puts one of IPv6 first.
func inOrderOfAdding(addrs []netip.Prefix) []netip.Prefix {
	var v4, v6 []netip.Prefix
	for _, prefix := range addrs {
		if prefix.Addr().Is4() {
			v4 = append(v4, prefix)
		} else {
			v6 = append(v6, prefix)
		}
	}
	slices.Reverse(v6)
	return append(v4, v6...)
}

// restoreRoutes gives a link its routes: those without a gateway first, for a gateway may be reached by
// one. It tries them all: a container with one route less is better off than one without its link.
func restoreRoutes(handle *netlink.Handle, link netlink.Link, routes []fabric.Route) error {
	var failed error
	for _, direct := range []bool{true, false} {
		for _, route := range routes {
			if route.Gateway.IsValid() == direct {
				continue
			}
			if err := handle.RouteReplace(netlinkRoute(route, link.Attrs().Index)); err != nil {
				failed = errors.Join(failed, fmt.Errorf("add route to %s: %w", route.Dst, err))
			}
		}
	}
	return failed
}

func netlinkRoute(r fabric.Route, link int) *netlink.Route {
	route := &netlink.Route{
		LinkIndex: link, Scope: netlink.Scope(r.Scope), Table: r.Table, Priority: r.Priority,
		Protocol: netlink.RouteProtocol(r.Protocol), Type: r.Type,
	}
	if r.OnLink {
		route.SetFlag(netlink.FLAG_ONLINK)
	}
	if r.Dst.IsValid() {
		route.Dst = ipNet(r.Dst)
	}
	if r.Gateway.IsValid() {
		route.Gw = r.Gateway.AsSlice()
	}
	if r.Source.IsValid() {
		route.Src = r.Source.AsSlice()
	}
	return route
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// sysctlDirs are where a link has settings of its own, below /proc/sys/net.
var sysctlDirs = []string{"ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"}

// ownSysctls returns the settings in which a link differs from what a new link of its namespace gets,
// by their paths below /proc/sys/net. It reads those of the calling thread's namespace.
func ownSysctls(link string) map[string]string {
	own := make(map[string]string)
	for _, dir := range sysctlDirs {
		base := filepath.Join("/proc/sys/net", dir)
		entries, err := os.ReadDir(filepath.Join(base, link))
		if err != nil {
			continue // no IPv6
		}
		for _, entry := range entries {
			value, err := os.ReadFile(filepath.Join(base, link, entry.Name()))
			usual, usualErr := usualSysctl(base, entry.Name())
			// Some can only be written, and the MTU is the link's.
			if err != nil || usualErr != nil || entry.Name() == "mtu" || string(value) == string(usual) {
				continue
			}
			own[filepath.Join(dir, link, entry.Name())] = strings.TrimSpace(string(value))
		}
	}
	return own
}

// usualSysctl returns what a new link gets. Only the first namespace has a default for neighbours; the
// loopback device, to which nobody gives settings of that kind, has what it was born with.
func usualSysctl(base, name string) ([]byte, error) {
	usual, err := os.ReadFile(filepath.Join(base, "default", name))
	if errors.Is(err, os.ErrNotExist) {
		usual, err = os.ReadFile(filepath.Join(base, "lo", name))
	}
	return usual, err
}
