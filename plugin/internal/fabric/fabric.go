// Package fabric is Seaway's vocabulary: the things that the rest of the program talks about, as plain
// comparable values. It imports nothing but the standard library, so every other room may import it.
//
// The words are those of docs/ARCHITECTURE.md. A few are worth repeating because Docker uses them too:
// a Network is known by the id that its first creator made, and a Copy is that Network as one Host's
// engine holds it, under the random NetworkID which that engine gave it.
package fabric

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
)

// HostID is the random identity that a Host makes at its first start and keeps with its journal: 32
// hexadecimal digits. It never comes from a host name or a machine-id, which clones share.
type HostID string

// NetworkID is a Network's identity, made by its first creator: 32 hexadecimal digits. It is not the
// engine's NetworkID, which differs on every Host (see EngineNetworkID).
type NetworkID string

// EngineNetworkID is the 64-digit id by which one Host's engine knows its Copy of a Network.
type EngineNetworkID string

// EndpointID is the 64-digit id that an engine gives to one container's attachment to one Network. A
// container that is stopped and started again has a new one.
type EndpointID string

// PoolID names one answer to RequestPool. The engine hands it back in every later call about that pool
// and keeps it for as long as the network lives, so its form (subnet#token) is part of what is on disk.
type PoolID string

// NewID returns a fresh random identity of 32 hexadecimal digits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails (Go 1.24)
	return hex.EncodeToString(b[:])
}

// Short returns the part of an engine's id that `docker network ls` and `docker ps` show: 12 digits.
func Short[T ~string](id T) string {
	if len(id) > 12 {
		return string(id[:12])
	}
	return string(id)
}

// Subnet is one address range of a Network, with the addresses that belong to the Network itself and
// are therefore the same on every Host.
type Subnet struct {
	// Prefix is the range, masked.
	Prefix netip.Prefix `json:"prefix"`
	// Gateway is the address reserved as the gateway; invalid if the engine reserved none.
	Gateway netip.Addr `json:"gateway,omitzero"`
	// Aux are the addresses that the user set aside with --aux-address, by their names.
	Aux map[string]netip.Addr `json:"aux,omitempty"`
}

// Reserved says for what the Network itself keeps an address of the subnet, or "" if it does not.
func (s Subnet) Reserved(addr netip.Addr) string {
	if addr == s.Gateway {
		return "the gateway of the network"
	}
	for name, aux := range s.Aux {
		if addr == aux {
			return "reserved by --aux-address " + name
		}
	}
	return ""
}

// Network is one Docker network made with our driver, the same one on every Host.
type Network struct {
	ID      NetworkID `json:"id"`
	Subnets []Subnet  `json:"subnets"`
	// Internal is docker network create --internal: no way out.
	Internal bool `json:"internal,omitempty"`
	// MTU is the containers' MTU in bytes as the user asked for it with -o
	// com.docker.network.driver.mtu; 0 leaves the choice to each Host's setting.
	MTU int `json:"mtu,omitempty"`
}

// Subnet returns the subnet of the Network that holds the address.
func (n Network) Subnet(addr netip.Addr) (Subnet, bool) {
	for _, s := range n.Subnets {
		if s.Prefix.Contains(addr) {
			return s, true
		}
	}
	return Subnet{}, false
}

// Endpoint is one container's attachment to one Network.
type Endpoint struct {
	ID      EndpointID `json:"id"`
	Network NetworkID  `json:"network"`
	// IPv4 and IPv6 are the container's addresses with the length of their subnets; invalid if it has
	// none of that family.
	IPv4 netip.Prefix `json:"ipv4,omitzero"`
	IPv6 netip.Prefix `json:"ipv6,omitzero"`
	MAC  MAC          `json:"mac"`
}

// Addrs returns the endpoint's addresses, IPv4 first.
func (e Endpoint) Addrs() []netip.Prefix {
	var addrs []netip.Prefix
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		if p.IsValid() {
			addrs = append(addrs, p)
		}
	}
	return addrs
}

// AddressRecord is the one record of the store for one address of a Network: the claim on the address
// and what other Hosts need to reach it.
type AddressRecord struct {
	Addr  netip.Addr `json:"addr"`
	Host  HostID     `json:"host"`
	Token string     `json:"token"`
	MAC   MAC        `json:"mac,omitzero"`
}
