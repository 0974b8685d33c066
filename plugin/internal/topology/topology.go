// Package topology says what the kernel of this Host should hold for given Networks and Endpoints. It is
// pure: data in, data out.
package topology

import (
	"cmp"
	"net/netip"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
)

// Copy is a Network on this Host, and what this Host decides about it.
type Copy struct {
	Network fabric.Network
	// Engine is the id by which this Host's engine knows the Network.
	Engine fabric.EngineNetworkID
	// MTU of the containers' links in bytes.
	MTU int
	// IfPrefix begins the names of links in containers.
	IfPrefix string
}

// Attachment is an Endpoint on this Host, and where its container is.
type Attachment struct {
	Endpoint fabric.Endpoint
	// IfName is what the container's link is called, if the user has chosen.
	IfName string
	// Sandbox is the path of the container's namespace; empty before it joins.
	Sandbox string
	// Plug is how the engine plugged the container in; nil before it has.
	Plug *fabric.Plug
}

// Bridge returns what a Network needs, the data-plane namespace included.
func Bridge(c Copy) []kernel.Object {
	return []kernel.Object{
		kernel.Namespace{},
		kernel.Bridge{
			Name:  kernel.BridgeName(c.Network.ID),
			Alias: "seaway network " + string(c.Network.ID) + " docker " + fabric.Short(c.Engine),
		},
	}
}

// Port returns what an Endpoint of a Network needs.
func Port(c Copy, a Attachment) kernel.Port {
	port := kernel.Port{
		Name:    kernel.PortName(a.Endpoint.ID),
		Bridge:  kernel.BridgeName(c.Network.ID),
		Alias:   "seaway endpoint " + string(a.Endpoint.ID),
		MTU:     c.MTU,
		MAC:     a.Endpoint.MAC,
		Sandbox: a.Sandbox,
		Plug:    a.Plug,
	}
	if port.Plug == nil && port.Sandbox != "" {
		plug := Plug(c, a)
		port.Plug = &plug
	}
	return port
}

// Plug says how a container is plugged in as far as we know it ourselves, for one that was lost before
// its own state could be read: the kernel then chooses the first free name.
func Plug(c Copy, a Attachment) fabric.Plug {
	e := a.Endpoint
	plug := fabric.Plug{Name: cmp.Or(a.IfName, c.IfPrefix+"%d"), MTU: c.MTU, MAC: e.MAC, Addrs: e.Addrs()}
	for _, prefix := range OnLink(c.Network, e) {
		plug.Routes = append(plug.Routes, fabric.Route{Dst: prefix, Scope: scopeLink, Type: typeUnicast})
	}
	return plug
}

// What rtnetlink(7) calls RT_SCOPE_LINK and RTN_UNICAST.
const (
	scopeLink   = 253
	typeUnicast = 1
)

// OnLink returns the Network's other subnets that an endpoint reaches without a gateway: they are on the
// same segment, but the engine gives the container a route to its own subnet only.
func OnLink(n fabric.Network, e fabric.Endpoint) []netip.Prefix {
	var others []netip.Prefix
	for _, own := range e.Addrs() {
		for _, s := range n.Subnets {
			if s.Prefix.Addr().Is4() == own.Addr().Is4() && s.Prefix != own.Masked() {
				others = append(others, s.Prefix)
			}
		}
	}
	return others
}
