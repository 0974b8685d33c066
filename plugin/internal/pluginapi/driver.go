package pluginapi

import (
	"context"
	"net/netip"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
)

// NetworkDriver is what Seaway does for a network. The verbs of the protocol that are missing here have
// one answer for all networks, which the server gives itself.
//
// Every verb may be asked again for what it has already done, and has to say the same. An error is shown
// to the user by the engine where it listens to errors: it ignores those of DeleteNetwork, DeleteEndpoint
// and Leave.
type NetworkDriver interface {
	// GwAllocCheck says whether the network will do without gateway addresses. Asked before anything
	// else of a new network, by engine 28.0 and later only.
	GwAllocCheck(context.Context, *GwAllocCheckRequest) (*GwAllocCheckResponse, error)
	// CreateNetwork is called once in a network's life, never again after a restart of the engine.
	CreateNetwork(context.Context, *CreateNetworkRequest) error
	DeleteNetwork(context.Context, *DeleteNetworkRequest) error
	// CreateEndpoint answers only what the request left empty: the engine takes an echo for a conflict.
	CreateEndpoint(context.Context, *CreateEndpointRequest) (*CreateEndpointResponse, error)
	// EndpointOperInfo tells, on engine 28.0 and later, that the container's link is in place and its
	// process is not started yet. It returns no values, since the engine drops what JSON can carry. An
	// error fails `docker run` up to engine 27 and is ignored later.
	EndpointOperInfo(context.Context, *InfoRequest) error
	DeleteEndpoint(context.Context, *DeleteEndpointRequest) error
	// Join is called before the container's namespace exists up to engine 27, afterwards later.
	Join(context.Context, *JoinRequest) (*JoinResponse, error)
	// Leave comes before the engine takes the link out of the container.
	Leave(context.Context, *LeaveRequest) error
}

// IPAMDriver is what Seaway does for addresses. All four verbs are also replayed at each start of the
// engine or follow such a replay, without what was known at the first time, so they are idempotent.
type IPAMDriver interface {
	// RequestPool must not answer a subnet again that the engine has just asked to replace: the
	// engine asks until it likes one.
	RequestPool(context.Context, *RequestPoolRequest) (*RequestPoolResponse, error)
	ReleasePool(context.Context, *ReleasePoolRequest) error
	// RequestAddress answers an address with the length of its prefix.
	RequestAddress(context.Context, *RequestAddressRequest) (*RequestAddressResponse, error)
	ReleaseAddress(context.Context, *ReleaseAddressRequest) error
}

// The messages that are right in the library, under names of ours: so the drivers need this room only,
// and a message that has to be replaced one day is replaced here.
type (
	// DeleteNetworkRequest names the network that is removed.
	DeleteNetworkRequest = network.DeleteNetworkRequest
	// CreateEndpointResponse is what the driver adds to the request's Interface; none is nothing.
	CreateEndpointResponse = network.CreateEndpointResponse
	// EndpointInterface is an endpoint's addresses (with the length of their subnets) and MAC.
	EndpointInterface = network.EndpointInterface
	// InfoRequest names an endpoint: that of EndpointOperInfo.
	InfoRequest = network.InfoRequest
	// DeleteEndpointRequest names an endpoint.
	DeleteEndpointRequest = network.DeleteEndpointRequest
	// JoinRequest names an endpoint and the path of its container's namespace.
	JoinRequest = network.JoinRequest
	// StaticRoute is a route in the container; a default route must be a Gateway instead (engine 28.0).
	StaticRoute = network.StaticRoute
	// LeaveRequest names an endpoint.
	LeaveRequest = network.LeaveRequest

	// RequestPoolRequest asks for a subnet: the one in Pool, or any.
	RequestPoolRequest = ipam.RequestPoolRequest
	// RequestPoolResponse is a subnet and the name under which the engine will speak of it.
	RequestPoolResponse = ipam.RequestPoolResponse
	// ReleasePoolRequest names a pool.
	ReleasePoolRequest = ipam.ReleasePoolRequest
	// RequestAddressRequest asks a pool for an address: the one in Address, or any.
	RequestAddressRequest = ipam.RequestAddressRequest
	// RequestAddressResponse is an address with the length of its subnet.
	RequestAddressResponse = ipam.RequestAddressResponse
	// ReleaseAddressRequest names an address of a pool, without a length.
	ReleaseAddressRequest = ipam.ReleaseAddressRequest
)

// What StaticRoute.RouteType can be (moby types.NEXTHOP and types.CONNECTED).
const (
	RouteNextHop   = 0 // by way of NextHop
	RouteConnected = 1 // on the link itself
)

// GwAllocCheckRequest came with engine 28.0; the library does not have it.
type GwAllocCheckRequest struct {
	Options NetworkOptions
}

// GwAllocCheckResponse came with engine 28.0; the library does not have it. True means that the engine
// need not reserve a gateway address of that family (it still does if the user gave one).
type GwAllocCheckResponse struct {
	SkipIPv4, SkipIPv6 bool
}

// CreateNetworkRequest replaces the library's: its addresses are parsed, its options have names, and it
// holds no pointer that a hostile request could leave nil.
type CreateNetworkRequest struct {
	NetworkID string
	Options   NetworkOptions
	// IPv4Data and IPv6Data hold one element for each subnet of the family; none if it is switched off.
	IPv4Data, IPv6Data []IPAMData
}

// NetworkOptions are the options of a network under the engine's labels. Others that the engine may send
// repeat what CreateNetworkRequest says by its subnets (enable_ipv4, enable_ipv6).
type NetworkOptions struct {
	// Driver are the user's `-o` options, and the engine's default-network-opts (24.0 and later).
	Driver map[string]string `json:"com.docker.network.generic"`
	// Internal is `docker network create --internal`.
	Internal bool `json:"com.docker.network.internal"`
}

// IPAMData is one subnet as its IPAM driver gave it to the engine. It replaces the library's, whose
// auxiliary addresses are of any type; the engine sends strings (moby driverapi/ipamdata.go).
type IPAMData struct {
	// AddressSpace tells the IPAM driver: LocalAddressSpace is Seaway's.
	AddressSpace string
	// Pool is the subnet.
	Pool netip.Prefix
	// Gateway is the gateway's address with the length of the subnet; invalid if there is none.
	Gateway netip.Prefix
	// AuxAddresses are the user's --aux-address, by their names.
	AuxAddresses map[string]netip.Prefix
}

// CreateEndpointRequest replaces the library's, whose Interface is a pointer that a hostile request could
// leave nil.
type CreateEndpointRequest struct {
	NetworkID, EndpointID string
	// Interface holds what IPAM and the user decided. Addresses carry the length of their subnets.
	Interface EndpointInterface
	// Options are the user's --driver-opt at the top level, as strings, and the engine's own under
	// com.docker.network labels, as encoding/json decodes them.
	Options map[string]any
}

// JoinResponse names the link that the engine moves into the container, and the routes that it adds. The
// library's has no DstName. A Gateway, were there one, would make Seaway the container's way out; without
// one the engine connects docker_gwbridge.
type JoinResponse struct {
	InterfaceName InterfaceName
	StaticRoutes  []*StaticRoute `json:",omitempty"`
}

// InterfaceName is a link's name on the host, and its name in the container or that name's beginning.
type InterfaceName struct {
	SrcName   string
	DstPrefix string
	// DstName is the whole name; engine 29.8 and later, ignored by older ones. Empty: DstPrefix counts.
	DstName string `json:",omitempty"`
}

// The names of Seaway's address spaces. They differ, as engine 27 and later tells by them which of the
// subnets that IPAM chose it has to compare with the routes of the host.
const (
	// LocalAddressSpace is that of all of Seaway's pools, as our networks have local scope.
	LocalAddressSpace = "seaway-local"
	// GlobalAddressSpace is asked for only by a Swarm, which has no business here.
	GlobalAddressSpace = "seaway-global"
)

// networkCapabilities is the library's answer with GwAllocChecker, which makes engine 28.0 and later ask
// GwAllocCheck.
type networkCapabilities struct {
	network.CapabilitiesResponse
	GwAllocChecker bool
}

// ipamCapabilities is the library's answer with RequiresRequestReplay, which makes the engine repeat at
// each of its starts the requests behind what it has stored.
type ipamCapabilities struct {
	ipam.CapabilitiesResponse
	RequiresRequestReplay bool
}
