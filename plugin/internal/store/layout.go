package store

import (
	"net/netip"
	"strings"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
)

// The layout of the store. All keys of one Network's addresses share a prefix, so that they can be
// listed, and later followed, together.
const (
	// SubnetPrefix begins the keys of subnets.
	SubnetPrefix = "subnets/"
	// SubnetGuard changes whenever a subnet comes or goes. Overlap is not equality of keys, so whoever
	// adds a subnet makes his transaction depend on the guard's revision.
	SubnetGuard = "subnet-guard"
	// NetworkPrefix begins the keys of Networks.
	NetworkPrefix = "networks/"
	// AddressPrefix begins the keys of address records.
	AddressPrefix = "addresses/"
	// CopyPrefix begins the keys of what each Host remembers of its Copies, should its journal be lost.
	CopyPrefix = "copies/"
)

// SubnetRecord says which Network a subnet leads to.
type SubnetRecord struct {
	Version int              `json:"version"`
	Network fabric.NetworkID `json:"network"`
	// Host is who claimed the subnet.
	Host fabric.HostID `json:"host"`
}

// RecordVersion is the major version of the records that this program writes.
const RecordVersion = 1

// SubnetKey is where a subnet's record is.
func SubnetKey(subnet netip.Prefix) string { return SubnetPrefix + subnet.String() }

// SubnetOf reads a subnet from its key.
func SubnetOf(key string) (netip.Prefix, error) {
	return netip.ParsePrefix(strings.TrimPrefix(key, SubnetPrefix))
}

// NetworkKey is where a Network's record is.
func NetworkKey(id fabric.NetworkID) string { return NetworkPrefix + string(id) }

// CopiesOf begins the keys of a Host's Copies.
func CopiesOf(host fabric.HostID) string { return CopyPrefix + string(host) + "/" }

// CopyKey is where a Host's Copy of a Network is, under its engine's id for it.
func CopyKey(host fabric.HostID, id fabric.EngineNetworkID) string {
	return CopiesOf(host) + string(id)
}

// AddressesOf begins the keys of a Network's address records.
func AddressesOf(id fabric.NetworkID) string { return AddressPrefix + string(id) + "/" }

// AddressKey is where the record of one address is.
func AddressKey(id fabric.NetworkID, addr netip.Addr) string { return AddressesOf(id) + addr.String() }
