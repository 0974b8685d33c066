package netdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
	"github.com/seaway-net/seaway/plugin/internal/store"
	"github.com/seaway-net/seaway/plugin/internal/topology"
)

// nullAddressSpace is that of the engine's `--ipam-driver null`: containers get no address.
const nullAddressSpace = "null"

// GwAllocCheck has the engine reserve gateway addresses, always: engines before 28.0 do not ask, and a
// Network's gateway is the same on every Host.
func (d *Driver) GwAllocCheck(context.Context, *pluginapi.GwAllocCheckRequest) (*pluginapi.GwAllocCheckResponse, error) {
	return &pluginapi.GwAllocCheckResponse{}, nil
}

// CreateNetwork makes the network's Copy here: in the store, in the journal, and in the kernel. If it
// fails, the engine forgets the network, and so do we.
func (d *Driver) CreateNetwork(ctx context.Context, r *pluginapi.CreateNetworkRequest) error {
	d.networks.Lock()
	defer d.networks.Unlock()
	c, err := readNetwork(r)
	if err != nil {
		return err
	}
	if c, err = d.admit(ctx, c); err != nil {
		return err
	}
	if err := d.record(ctx, c); err != nil {
		return errors.Join(err, d.erase(context.WithoutCancel(ctx), c)) // ReleasePool does the rest
	}
	objects := topology.Bridge(d.plan(c))
	d.Kernel.Set(objects...)
	for _, object := range objects {
		if err := d.Kernel.Wait(ctx, object.Key()); err != nil {
			return errors.Join(err, d.remove(context.WithoutCancel(ctx), c))
		}
	}
	return nil
}

// readNetwork turns the engine's request into a Copy that has no identity yet.
func readNetwork(r *pluginapi.CreateNetworkRequest) (journal.Copy, error) {
	c := journal.Copy{
		EngineID: fabric.EngineNetworkID(r.NetworkID),
		Network:  fabric.Network{Internal: r.Options.Internal},
		IfPrefix: defaultIfPrefix,
	}
	if r.NetworkID == "" {
		return c, errors.New("the request names no network")
	}
	for _, one := range slices.Concat(r.IPv4Data, r.IPv6Data) {
		if one.AddressSpace == nullAddressSpace {
			continue
		}
		if !one.Pool.IsValid() {
			return c, errors.New("the request has a pool without a subnet")
		}
		c.OwnIPAM = c.OwnIPAM || one.AddressSpace == pluginapi.LocalAddressSpace
		c.Network.Subnets = append(c.Network.Subnets, subnetOf(one))
	}
	return c, readOptions(r.Options.Driver, &c)
}

func subnetOf(data pluginapi.IPAMData) fabric.Subnet {
	s := fabric.Subnet{Prefix: data.Pool.Masked(), Gateway: data.Gateway.Addr()}
	for name, prefix := range data.AuxAddresses {
		if s.Aux == nil {
			s.Aux = make(map[string]netip.Addr)
		}
		s.Aux[name] = prefix.Addr()
	}
	return s
}

// admit gives the Copy its identity, or refuses it because another network here has its subnet.
func (d *Driver) admit(ctx context.Context, c journal.Copy) (journal.Copy, error) {
	if err := d.removeDead(ctx, c); err != nil {
		return c, err
	}
	err := d.Journal.View(func(tx *journal.Tx) error {
		copies, err := tx.Copies().All()
		for _, other := range copies {
			err = errors.Join(err, collide(c, other))
		}
		if err != nil {
			return err
		}
		pools, err := tx.Pools().All()
		for _, p := range pools {
			for _, s := range c.Network.Subnets {
				if c.OwnIPAM && p.Subnet == s.Prefix {
					c.Pools = append(c.Pools, p.ID)
					c.Network.ID = p.Network // the last one's; record has all subnets lead to it
				}
			}
		}
		if err == nil && c.OwnIPAM && len(c.Pools) < len(c.Network.Subnets) {
			err = fmt.Errorf("subnet %s is not held for this network any more, as its creation took too long: create it again",
				c.Network.Subnets[0].Prefix)
		}
		return err
	})
	if c.Network.ID == "" {
		c.Network.ID = fabric.NetworkID(fabric.NewID())
	}
	return c, err
}

// collide refuses a second network of this host on the same addresses. A create that is repeated, its
// answer having been lost, does not collide with itself.
func collide(c, other journal.Copy) error {
	if c.EngineID == other.EngineID {
		return nil
	}
	for _, s := range c.Network.Subnets {
		for _, o := range other.Network.Subnets {
			if s.Prefix.Overlaps(o.Prefix) {
				return fmt.Errorf("subnet %s overlaps %s of network %s: choose another --subnet, or use that network (docker network ls --filter id=%s)",
					s.Prefix, o.Prefix, fabric.Short(other.EngineID), fabric.Short(other.EngineID))
			}
		}
	}
	return nil
}

// removeDead removes networks that stand in the way and that the engine has removed without being able
// to tell us: those whose pool it has given back, and those without our IPAM whose subnet the engine's
// own IPAM, which never gives a subnet twice, has now given again.
func (d *Driver) removeDead(ctx context.Context, c journal.Copy) error {
	var dead []journal.Copy
	copies, err := journal.Copies(d.Journal)
	for _, other := range copies {
		if collide(c, other) != nil && (other.Released || !other.OwnIPAM && !c.OwnIPAM) {
			dead = append(dead, other)
		}
	}
	for _, other := range dead {
		d.Log.Info("a network that the engine removed without telling is removed", "network", other.EngineID)
		err = errors.Join(err, d.remove(ctx, other))
	}
	return err
}

// record writes the network down: first where other Hosts will look, then in the journal.
func (d *Driver) record(ctx context.Context, c journal.Copy) error {
	network, err := json.Marshal(c.Network)
	if err != nil {
		return err
	}
	memory, err := d.remember(c)
	if err != nil {
		return err
	}
	then := []store.Op{store.Put(store.NetworkKey(c.Network.ID), network), memory}
	leads, err := json.Marshal(store.SubnetRecord{
		Version: store.RecordVersion, Network: c.Network.ID, Host: d.Journal.Host(),
	})
	if err != nil {
		return err
	}
	for _, s := range c.Network.Subnets {
		then = append(then, store.Put(store.SubnetKey(s.Prefix), leads))
	}
	then = append(then, store.Put(store.SubnetGuard, []byte(c.Network.ID)))
	if _, err := d.Store.Commit(ctx, store.Txn{Then: then}); err != nil {
		return fmt.Errorf("record network %s: %w", fabric.Short(c.EngineID), err)
	}
	if err := d.Journal.Update(func(tx *journal.Tx) error { return tx.Copies().Put(c.EngineID, c) }); err != nil {
		return fmt.Errorf("journal network %s: %w", fabric.Short(c.EngineID), err)
	}
	return nil
}

// DeleteNetwork removes the Copy. One that is not known is removed already.
func (d *Driver) DeleteNetwork(ctx context.Context, r *pluginapi.DeleteNetworkRequest) error {
	d.networks.Lock()
	defer d.networks.Unlock()
	c, err := d.copyOf(r.NetworkID)
	if err != nil {
		d.Log.Debug("an unknown network is removed", "network", r.NetworkID, "error", err)
		return nil
	}
	return d.remove(ctx, c)
}

// remove takes a Copy out of the desired state, the store and the journal, with all that hangs on it. It
// can be repeated if it fails halfway: the journal, which comes last, remembers it. The caller holds
// d.networks.
func (d *Driver) remove(ctx context.Context, c journal.Copy) error {
	last, endpoints, err := d.dependents(c)
	if err != nil {
		return err
	}
	var keys []kernel.Key
	for _, e := range endpoints {
		keys = append(keys, kernel.Key{Kind: kernel.KindPort, Name: kernel.PortName(e)})
	}
	keys = append(keys, kernel.Key{Kind: kernel.KindBridge, Name: kernel.BridgeName(c.Network.ID)})
	if last {
		keys = append(keys, kernel.Namespace{}.Key())
	}
	d.Kernel.Remove(keys...)
	if err = d.erase(ctx, c); err != nil {
		return err
	}
	err = d.Journal.Update(func(tx *journal.Tx) error {
		var failed error
		for _, e := range endpoints {
			failed = errors.Join(failed, tx.Endpoints().Delete(e))
		}
		for _, id := range c.Pools {
			failed = errors.Join(failed, tx.Pools().Delete(id))
		}
		addresses, listErr := tx.AddressesOf(c.Network.ID)
		for _, a := range addresses {
			failed = errors.Join(failed, tx.Addresses().Delete(a.Key()))
		}
		return errors.Join(failed, listErr, tx.Copies().Delete(c.EngineID))
	})
	if err != nil {
		return fmt.Errorf("journal the end of network %s: %w", fabric.Short(c.EngineID), err)
	}
	d.Forget(c.Network.ID)
	return nil
}

// dependents returns the Copy's endpoints, and whether it is the last Copy of this Host.
func (d *Driver) dependents(c journal.Copy) (last bool, endpoints []fabric.EndpointID, err error) {
	last = true
	copies, err := journal.Copies(d.Journal)
	if err != nil {
		return false, nil, err
	}
	for _, other := range copies {
		last = last && other.EngineID == c.EngineID
	}
	all, err := journal.Endpoints(d.Journal)
	for _, e := range all {
		if e.Engine == c.EngineID {
			endpoints = append(endpoints, e.ID)
		}
	}
	return last, endpoints, err
}

// eraseBatch is how many records are deleted in one transaction, of the 128 that a store takes.
const eraseBatch = 100

// erase deletes the Network's records from the store.
func (d *Driver) erase(ctx context.Context, c journal.Copy) error {
	keys := []string{store.NetworkKey(c.Network.ID), store.CopyKey(d.Journal.Host(), c.EngineID)}
	for _, s := range c.Network.Subnets {
		leads, err := d.leads(ctx, s.Prefix, c.Network.ID)
		if err != nil {
			return fmt.Errorf("erase network %s: %w", fabric.Short(c.EngineID), err)
		}
		if leads {
			keys = append(keys, store.SubnetKey(s.Prefix))
		}
	}
	records, _, err := d.Store.List(ctx, store.AddressesOf(c.Network.ID))
	if err != nil {
		return fmt.Errorf("erase network %s: %w", fabric.Short(c.EngineID), err)
	}
	for _, record := range records {
		keys = append(keys, record.Key)
	}
	for len(keys) > 0 {
		n := min(len(keys), eraseBatch)
		then := []store.Op{store.Put(store.SubnetGuard, []byte(c.Network.ID))}
		for _, key := range keys[:n] {
			then = append(then, store.Delete(key))
		}
		if _, err := d.Store.Commit(ctx, store.Txn{Then: then}); err != nil {
			return fmt.Errorf("erase network %s: %w", fabric.Short(c.EngineID), err)
		}
		keys = keys[n:]
	}
	return nil
}

// leads reports whether a subnet leads to the Network, and not to another one that has taken its place.
func (d *Driver) leads(ctx context.Context, subnet netip.Prefix, id fabric.NetworkID) (bool, error) {
	entry, err := d.Store.Get(ctx, store.SubnetKey(subnet))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var record store.SubnetRecord
	if err := json.Unmarshal(entry.Value, &record); err != nil {
		return false, fmt.Errorf("the record of subnet %s cannot be read: %w", subnet, err)
	}
	return record.Network == id, nil
}
