package netdriver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
	"github.com/seaway-net/seaway/plugin/internal/topology"
)

// CreateEndpoint writes down that the container needs a port, which the loop begins to make. It answers
// the MAC unless the user gave one; the engine takes an echo of what it said itself for a conflict.
func (d *Driver) CreateEndpoint(_ context.Context, r *pluginapi.CreateEndpointRequest) (*pluginapi.CreateEndpointResponse, error) {
	c, err := d.copyOf(r.NetworkID)
	if err != nil {
		return nil, err
	}
	if r.EndpointID == "" {
		return nil, errors.New("the request names no endpoint")
	}
	if err = checkEndpointOptions(r.Options); err != nil {
		return nil, err
	}
	e, err := readEndpoint(c, r)
	if err != nil {
		return nil, err
	}
	e.IfName, _ = r.Options[optionIfName].(string)
	answer := &pluginapi.CreateEndpointResponse{Interface: &pluginapi.EndpointInterface{}}
	if r.Interface.MacAddress == "" {
		answer.Interface.MacAddress = e.MAC.String()
	}
	err = d.Journal.Update(func(tx *journal.Tx) error {
		if c.OwnIPAM {
			if attachErr := d.attach(tx, c, e); attachErr != nil {
				return attachErr
			}
		}
		return tx.Endpoints().Put(e.ID, e)
	})
	if err != nil {
		return nil, fmt.Errorf("journal endpoint %s: %w", fabric.Short(e.ID), err)
	}
	d.Kernel.Set(topology.Port(d.plan(c), attachment(e)))
	return answer, nil
}

// attach notes that the endpoint has its addresses, and refuses those that are not for it: RequestAddress
// may have said yes to one of the network itself or of a running container, because it cannot tell --ip
// from what an engine asks again at its start; or the engine took so long that the address was taken back.
func (d *Driver) attach(tx *journal.Tx, c journal.Copy, e journal.Endpoint) error {
	for _, prefix := range e.Addrs() {
		addr := prefix.Addr()
		subnet, _ := c.Network.Subnet(addr)
		if why := subnet.Reserved(addr); why != "" {
			return fmt.Errorf("address %s is %s: choose another", addr, why)
		}
		a, known, err := tx.Addresses().Get(journal.KeyOf(e.Network, addr))
		if err != nil {
			return err
		}
		if !known || a.State != journal.Bound {
			return fmt.Errorf("address %s is not held for a container (any more): start the container again", addr)
		}
		other, known, err := tx.Endpoints().Get(a.Endpoint)
		if err != nil {
			return err
		}
		if known && other.ID != e.ID && slices.Contains(other.Addrs(), prefix) && d.alive(other) {
			return fmt.Errorf("address %s is in use (endpoint %s, which docker network inspect %s shows with its container): choose another, or none to have one chosen",
				addr, fabric.Short(other.ID), fabric.Short(other.Engine))
		}
		a.Endpoint = e.ID
		if err := tx.Addresses().Put(a.Key(), a); err != nil {
			return err
		}
	}
	return nil
}

// alive reports whether an endpoint's container is there, or is just being started: before engine 28.0 its
// namespace is made after Join.
func (d *Driver) alive(e journal.Endpoint) bool {
	return e.Plug == nil || d.Containers.CheckSandbox(e.Sandbox) == nil
}

// readEndpoint turns the engine's request into an endpoint.
func readEndpoint(c journal.Copy, r *pluginapi.CreateEndpointRequest) (journal.Endpoint, error) {
	e := journal.Endpoint{Engine: c.EngineID}
	e.ID, e.Network = fabric.EndpointID(r.EndpointID), c.Network.ID
	for _, one := range []struct {
		text string
		into *netip.Prefix
	}{{r.Interface.Address, &e.IPv4}, {r.Interface.AddressIPv6, &e.IPv6}} {
		if one.text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(one.text)
		if err != nil {
			return e, fmt.Errorf("%q is no address with the length of its subnet", one.text)
		}
		if _, inside := c.Network.Subnet(prefix.Addr()); !inside && len(c.Network.Subnets) > 0 {
			return e, fmt.Errorf("address %s is in no subnet of the network", prefix.Addr())
		}
		*one.into = prefix
	}
	mac, err := readMAC(e, r.Interface.MacAddress)
	e.MAC = mac
	return e, err
}

// readMAC returns the user's MAC, or derives one from the container's address.
func readMAC(e journal.Endpoint, given string) (fabric.MAC, error) {
	switch addrs := e.Addrs(); {
	case given != "":
		return fabric.ParseMAC(given)
	case len(addrs) > 0:
		return fabric.MACFor(addrs[0].Addr()), nil
	}
	return fabric.MACForName(string(e.ID)), nil // --ipam-driver null: there is no address
}

// Join answers with the link that the engine is to move into the container, once it is there. There is
// no gateway in the answer: the engine then joins the container to docker_gwbridge too, which has the
// way out and the published ports, unless the network is internal.
func (d *Driver) Join(ctx context.Context, r *pluginapi.JoinRequest) (*pluginapi.JoinResponse, error) {
	c, err := d.copyOf(r.NetworkID)
	if err != nil {
		return nil, err
	}
	e, known, err := d.endpoint(r.EndpointID)
	if err != nil {
		return nil, err
	}
	if !known || e.Engine != c.EngineID {
		return nil, fmt.Errorf("endpoint %s is not known to this Seaway: start the container again", fabric.Short(r.EndpointID))
	}
	// The port first: one with a sandbox is never made in the engine's namespace, where the engine now
	// looks for it, but taken for lost.
	port := kernel.Key{Kind: kernel.KindPort, Name: kernel.PortName(e.ID)}
	if err = d.Kernel.Wait(ctx, port); err != nil {
		return nil, fmt.Errorf("plug in endpoint %s: %w", fabric.Short(e.ID), err)
	}
	err = d.changeEndpoint(r.EndpointID, func(e *journal.Endpoint) { e.Sandbox, e.Plug = r.SandboxKey, nil })
	if err != nil {
		return nil, err
	}
	answer := &pluginapi.JoinResponse{
		InterfaceName: pluginapi.InterfaceName{SrcName: port.Name, DstPrefix: c.IfPrefix, DstName: e.IfName},
	}
	for _, prefix := range topology.OnLink(c.Network, e.Endpoint) {
		answer.StaticRoutes = append(answer.StaticRoutes, &pluginapi.StaticRoute{
			Destination: prefix.String(), RouteType: pluginapi.RouteConnected,
		})
	}
	return answer, nil
}

// EndpointOperInfo has nothing to tell.
func (d *Driver) EndpointOperInfo(context.Context, *pluginapi.InfoRequest) error { return nil }

// Leave notes that the engine is about to take the link out of the container.
func (d *Driver) Leave(_ context.Context, r *pluginapi.LeaveRequest) error {
	return d.changeEndpoint(r.EndpointID, func(e *journal.Endpoint) { e.Sandbox, e.Plug = "", nil })
}

// DeleteEndpoint removes the port. An endpoint that is not known is removed already.
func (d *Driver) DeleteEndpoint(_ context.Context, r *pluginapi.DeleteEndpointRequest) error {
	return d.removeEndpoint(fabric.EndpointID(r.EndpointID))
}

func (d *Driver) removeEndpoint(id fabric.EndpointID) error {
	_, known, err := d.endpoint(string(id))
	if err != nil || !known {
		return err
	}
	if err := d.Journal.Update(func(tx *journal.Tx) error { return tx.Endpoints().Delete(id) }); err != nil {
		return fmt.Errorf("journal the end of endpoint %s: %w", fabric.Short(id), err)
	}
	d.Kernel.Remove(kernel.Key{Kind: kernel.KindPort, Name: kernel.PortName(id)})
	return nil
}

// containerGone reports whether an endpoint has no container: it never joined one or has left it, or the
// container is not there, or not there yet.
func (d *Driver) containerGone(e journal.Endpoint) bool {
	return e.Sandbox == "" || errors.Is(d.Containers.CheckSandbox(e.Sandbox), os.ErrNotExist)
}
