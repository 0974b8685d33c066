// Package kernel holds what the kernel should contain as data: objects with keys that can be compared
// with what is really there. Rooms below it read and apply such data; this one only says what there is.
package kernel

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
)

// Kind orders objects: an object may need those of lower kinds, so puts go up and deletes go down.
type Kind int

// The kinds of objects, lowest first.
const (
	KindNamespace Kind = iota
	KindBridge
	KindPort
)

// String names the kind as an operator would.
func (k Kind) String() string {
	switch k {
	case KindNamespace:
		return "namespace"
	case KindBridge:
		return "bridge"
	case KindPort:
		return "port"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Key names one object of the data plane.
type Key struct {
	Kind Kind
	Name string
}

// String is for logs and dumps: "bridge br-0123456789ab".
func (k Key) String() string { return k.Kind.String() + " " + k.Name }

// Compare orders keys by kind, then by name.
func (k Key) Compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Kind, other.Kind), cmp.Compare(k.Name, other.Name))
}

// Object is one thing that the kernel should hold. It is comparable with ==.
type Object interface {
	Key() Key
	// Holds reports whether what was read from the kernel serves as this object.
	Holds(actual Object) bool
}

// Used is what an object that was read may say of itself: that traffic needs it. Nobody removes it then
// only because he does not know it; it was lost with a journal, and goes when its containers have gone.
type Used interface{ InUse() bool }

// NamespaceName is the data-plane namespace: `ip netns exec seaway bridge fdb`.
const NamespaceName = "seaway"

// Namespace is the network namespace that holds this Host's bridges, under its name.
type Namespace struct {
	used bool
}

var _ Object = Namespace{}

// Key returns the one key there is.
func (Namespace) Key() Key { return Key{KindNamespace, NamespaceName} }

// Holds reports whether the namespace is there: one is like another.
func (Namespace) Holds(actual Object) bool {
	_, ok := actual.(Namespace)
	return ok
}

// InUse reports whether a port in it is.
func (n Namespace) InUse() bool { return n.used }

// Bridge is the Ethernet segment of one Network on this Host. It has no address and routes nothing.
type Bridge struct {
	Name string
	// Alias tells an operator, and nobody else, which network the bridge carries.
	Alias string
	used  bool
}

var _ Object = Bridge{}

// BridgeName is the name of a Network's bridge: the same on every Host.
func BridgeName(id fabric.NetworkID) string { return "br-" + fabric.Short(id) }

// Key returns the bridge's key.
func (b Bridge) Key() Key { return Key{KindBridge, b.Name} }

// Holds reports whether the bridge that was read is the same.
func (b Bridge) Holds(actual Object) bool {
	a, ok := actual.(Bridge)
	return ok && a.Name == b.Name && a.Alias == b.Alias
}

// InUse reports whether a port of it is.
func (b Bridge) InUse() bool { return b.used }

// Port joins a container to a bridge: a veth with one end on the bridge and the other in the container,
// or, until the engine has moved it there, in the engine's namespace under the same name.
type Port struct {
	Name   string
	Bridge string
	Alias  string
	// MTU in bytes, for both ends. It is given when the port is made and not enforced afterwards: a
	// container may lower its own.
	MTU int
	// MAC of the container's end; likewise.
	MAC fabric.MAC
	// Sandbox is the path of the container's namespace, as the engine names it; empty until it joins.
	Sandbox string
	// Plug is what it takes to plug the container in again.
	Plug *fabric.Plug
	used bool
}

var _ Object = Port{}

// PortName is the name of an endpoint's link, in `seaway` and in Join's answer to the engine. It has 14
// of the 15 characters that the kernel allows.
func PortName(id fabric.EndpointID) string { return portPrefix + fabric.Short(id) }

const portPrefix = "sw"

// PortOwner is the beginning of the id of the endpoint that a port of that name belongs to.
func PortOwner(port string) string { return strings.TrimPrefix(port, portPrefix) }

// Key returns the port's key.
func (p Port) Key() Key { return Key{KindPort, p.Name} }

// Holds reports whether the port that was read hangs on the right bridge. What lies in the container is
// the container's.
func (p Port) Holds(actual Object) bool {
	a, ok := actual.(Port)
	return ok && a.Name == p.Name && a.Bridge == p.Bridge
}

// InUse reports whether the far end is up, as it is in a container only.
func (p Port) InUse() bool { return p.used }

// FoundNamespace returns the namespace as it was read.
func FoundNamespace(used bool) Namespace { return Namespace{used: used} }

// FoundBridge returns a bridge as it was read.
func FoundBridge(name, alias string, used bool) Bridge {
	return Bridge{Name: name, Alias: alias, used: used}
}

// FoundPort returns a port as it was read.
func FoundPort(name, bridge string, used bool) Port {
	return Port{Name: name, Bridge: bridge, used: used}
}
