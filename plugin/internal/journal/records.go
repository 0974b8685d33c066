package journal

import (
	"net/netip"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
)

// Pool is one answer to RequestPool: a subnet that the engine holds.
type Pool struct {
	ID     fabric.PoolID `json:"id"`
	Subnet netip.Prefix  `json:"subnet"`
	// Range is --ip-range, which bounds the addresses that we choose; the zero value is all of the subnet.
	Range netip.Prefix `json:"range,omitzero"`
	// Gateway and Aux are what the engine asked for between RequestPool and CreateNetwork: they belong to
	// the Network, not to a container.
	Gateway netip.Addr   `json:"gateway,omitzero"`
	Aux     []netip.Addr `json:"aux,omitempty"`
	// Network is where the subnet leads.
	Network fabric.NetworkID `json:"network"`
	V6      bool             `json:"v6,omitempty"`
	// Scope is cluster or host: the option seaway.scope.
	Scope string `json:"scope,omitempty"`
}

// Copy is one Network as this Host's engine holds it.
type Copy struct {
	EngineID fabric.EngineNetworkID `json:"engineID"`
	Network  fabric.Network         `json:"network"`
	Pools    []fabric.PoolID        `json:"pools,omitempty"`
	// OwnIPAM says that the addresses are handed out by us, and not by the engine.
	OwnIPAM bool `json:"ownIPAM,omitempty"`
	// IfPrefix is the prefix of the interfaces' names in containers.
	IfPrefix string `json:"ifPrefix,omitempty"`
	// Released says that the engine gave a pool of it back: the Network is about to be deleted here.
	Released bool `json:"released,omitempty"`
}

// Endpoint is one container's attachment, as the engine made it here.
type Endpoint struct {
	fabric.Endpoint
	Engine fabric.EngineNetworkID `json:"engine"`
	// IfName is what the user wants the link to be called in the container; empty if it does not matter.
	IfName string `json:"ifName,omitempty"`
	// Sandbox is the SandboxKey, the path of the container's namespace, once it has joined.
	Sandbox string `json:"sandbox,omitempty"`
	// Plug is how the container's end of the link looks, once the engine has plugged it.
	Plug *fabric.Plug `json:"plug,omitempty"`
}

// State says how far this Host's ownership of an address goes.
type State string

const (
	// Intent is an address whose claim was sent, or may have been: until the store has said, the address is
	// neither ours nor free, and is not tried again.
	Intent State = "intent"
	// Bound is an address that is ours and that the engine has been given.
	Bound State = "bound"
	// Owned is an address that is ours and that no container has: held for its last container's return, or
	// in the warm pool for when the store is down.
	Owned State = "owned"
	// Releasing is an address that is being given back: the record may be gone from the store already, so
	// the address is not bound again without a new claim.
	Releasing State = "releasing"
)

// AddressKey is an address's key in the journal: see KeyOf.
type AddressKey string

// KeyOf returns the key of a Network's address.
func KeyOf(network fabric.NetworkID, addr netip.Addr) AddressKey {
	return AddressKey(string(network) + "/" + addr.String())
}

// Address is one address that this Host owns, or may own.
type Address struct {
	Network fabric.NetworkID `json:"network"`
	Addr    netip.Addr       `json:"addr"`
	State   State            `json:"state"`
	// Token is the claim's in the store, and Revision that of the store's record, 0 while it is not known.
	Token    string `json:"token,omitempty"`
	Revision int64  `json:"revision,omitempty"`
	// Container is the name of the container it was last bound for; known from engine 29 on.
	Container string `json:"container,omitempty"`
	// Fixed says that it was asked for with --ip: its container will ask for it again.
	Fixed bool `json:"fixed,omitempty"`
	// Endpoint is who has it, once the engine has made one.
	Endpoint fabric.EndpointID `json:"endpoint,omitempty"`
	// Seq orders the releases (Tx.NextSeq): the address that rested longest is given first.
	Seq uint64 `json:"seq,omitempty"`
	// Replayed says that the engine has asked for it again since its start.
	Replayed bool `json:"replayed,omitempty"`
}

// Key returns the address's key in the journal.
func (a Address) Key() AddressKey { return KeyOf(a.Network, a.Addr) }
