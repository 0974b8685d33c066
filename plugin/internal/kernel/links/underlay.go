package links

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Connected is a prefix that the engine's namespace reaches, and the link through which it does.
type Connected struct {
	Prefix netip.Prefix
	Link   string
	// Direct says that the prefix is that of an address of the link: its neighbours are there.
	Direct bool
}

// Reached returns every prefix that the engine's namespace has a route to, the default routes aside.
func (p *Plane) Reached(ctx context.Context) ([]Connected, error) {
	handle, err := handleIn(p.engine().Net())
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	links, err := dump(ctx, handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the host's links: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	routes, err := dump(ctx, func() ([]netlink.Route, error) {
		filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		return handle.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	var reached []Connected
	for _, route := range routes {
		prefix := routeOf(route).Dst
		if route.Table == unix.RT_TABLE_LOCAL || !prefix.IsValid() || prefix.Bits() == 0 || !global(prefix) {
			continue
		}
		reached = append(reached, Connected{
			Prefix: prefix.Masked(), Link: names[route.LinkIndex], Direct: route.Protocol == unix.RTPROT_KERNEL,
		})
	}
	return reached, nil
}

// global tells prefixes that a network could collide with from those that every link has.
func global(p netip.Prefix) bool {
	return !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() && !p.Addr().IsLoopback()
}

// UplinkMTU returns the MTU in bytes of the link that the engine's default route leaves by, IPv4 before
// IPv6; 0 if there is no default route.
func (p *Plane) UplinkMTU(ctx context.Context) (int, error) {
	handle, err := handleIn(p.engine().Net())
	if err != nil {
		return 0, err
	}
	defer handle.Close()
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := dump(ctx, func() ([]netlink.Route, error) {
			filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
			return handle.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return 0, fmt.Errorf("list the host's routes: %w", err)
		}
		for _, route := range routes {
			if dst := routeOf(route).Dst; route.LinkIndex == 0 || route.Type != unix.RTN_UNICAST || dst.IsValid() && dst.Bits() > 0 {
				continue
			}
			link, err := handle.LinkByIndex(route.LinkIndex)
			if err != nil {
				return 0, fmt.Errorf("find the default route's link: %w", err)
			}
			return link.Attrs().MTU, nil
		}
	}
	return 0, nil
}
