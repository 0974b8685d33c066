package fabric

import (
	"maps"
	"net/netip"
	"slices"
)

// Plug is how a container's end of a link looked once the engine had plugged it in: all that it takes to
// plug it in again, should the link be lost under a running container.
type Plug struct {
	// Name is the interface's name in the container, as in eth0.
	Name string `json:"name"`
	// MTU is in bytes.
	MTU    int            `json:"mtu"`
	MAC    MAC            `json:"mac"`
	Addrs  []netip.Prefix `json:"addrs,omitempty"`
	Routes []Route        `json:"routes,omitempty"`
	// Sysctls are the interface's own settings, by their paths below /proc/sys/net, as in
	// ipv6/conf/eth0/disable_ipv6.
	Sysctls map[string]string `json:"sysctls,omitempty"`
}

// Route is one route through a plugged interface. The numbers are rtnetlink's (linux/rtnetlink.h).
type Route struct {
	// Dst is the destination; the zero value is the default route, of the Gateway's family.
	Dst netip.Prefix `json:"dst,omitzero"`
	// Gateway and Source are invalid if the route has none.
	Gateway  netip.Addr `json:"gateway,omitzero"`
	Source   netip.Addr `json:"source,omitzero"`
	Scope    int        `json:"scope,omitempty"`
	Table    int        `json:"table,omitempty"`
	Priority int        `json:"priority,omitempty"`
	Protocol int        `json:"protocol,omitempty"`
	Type     int        `json:"type,omitempty"`
	// OnLink says that the Gateway is a neighbour though no subnet of the link holds it.
	OnLink bool `json:"onLink,omitempty"`
}

// Equal reports whether two plugs are alike: the same addresses and routes in the same order, for the order
// in which the kernel lists addresses says which is the first.
func (p Plug) Equal(q Plug) bool {
	return p.Name == q.Name && p.MTU == q.MTU && p.MAC == q.MAC &&
		slices.Equal(p.Addrs, q.Addrs) &&
		slices.Equal(p.Routes, q.Routes) &&
		maps.Equal(p.Sysctls, q.Sysctls)
}
