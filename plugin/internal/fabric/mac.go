package fabric

import (
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
)

// MAC is a 48-bit Ethernet address, comparable. Its zero value means none.
type MAC [6]byte

// The two first octets of the addresses that we make up: locally administered, unicast (IEEE 802,
// second least significant bit set, least significant bit clear), and unlike Docker's own 02:42.
const (
	macContainer byte = 0x02
	macSeaway    byte = 0x5e
)

// MACFor derives a container's MAC from its address, so that an address that is given again, here or on
// another Host, keeps its MAC and no neighbour entry goes stale. IPv4 fits whole; IPv6 is hashed.
func MACFor(addr netip.Addr) MAC {
	addr = addr.Unmap()
	if addr.Is4() {
		a := addr.As4()
		return MAC{macContainer, macSeaway, a[0], a[1], a[2], a[3]}
	}
	return hashMAC(addr.AsSlice())
}

// MACForName derives a MAC from a name: for links of ours that have no address of their own.
func MACForName(name string) MAC {
	return hashMAC([]byte(name))
}

func hashMAC(b []byte) MAC {
	h := fnv.New64a()
	_, _ = h.Write(b) // never fails (hash.Hash)
	s := h.Sum64()
	return MAC{macContainer, macSeaway, byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s)}
}

// ParseMAC reads a unicast Ethernet address in any notation that net.ParseMAC knows.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("%q is no Ethernet address: write six octets, as in 02:5e:00:00:00:01", s)
	}
	m := MAC(hw)
	if m[0]&1 != 0 || m.IsZero() {
		return MAC{}, fmt.Errorf("%s cannot be a container's address: it is a multicast address or zero", m)
	}
	return m, nil
}

// IsZero reports whether m is the zero value: no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// HardwareAddr returns m as the standard library's type.
func (m MAC) HardwareAddr() net.HardwareAddr { return net.HardwareAddr(m[:]) }

// String writes m as six octets with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText writes m as String does; the zero value as nothing.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (m *MAC) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = MAC{}
		return nil
	}
	parsed, err := ParseMAC(string(text))
	if err != nil {
		return err
	}
	*m = parsed
	return nil
}
