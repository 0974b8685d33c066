package ipamdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/ipam"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
	"github.com/seaway-net/seaway/plugin/internal/store"
)

// What the engine says in RequestAddress.Options.
const (
	optionType = "RequestAddressType"
	gateway    = "com.docker.network.gateway"
	// optionName is the container's name; engine 29.0 and later.
	optionName = "com.docker.network.endpoint.name"
)

// claimTries bounds how many free addresses are tried that turn out to be another Host's.
const claimTries = 8

// RequestAddress answers with an address and the length of its subnet. Before the network exists it is
// asked for the gateway and the addresses set aside; afterwards for containers.
func (d *Driver) RequestAddress(ctx context.Context, r *pluginapi.RequestAddressRequest) (*pluginapi.RequestAddressResponse, error) {
	var addr netip.Addr
	if r.Address != "" {
		var err error
		if addr, err = netip.ParseAddr(r.Address); err != nil {
			return nil, fmt.Errorf("%q is no address", r.Address)
		}
		addr = addr.Unmap()
	}
	id := fabric.PoolID(r.PoolID)
	isGateway := r.Options[optionType] == gateway
	c, subnet, bound, err := d.copyOf(id)
	var got netip.Prefix
	switch {
	case errors.Is(err, errNoCopy):
		got, err = d.reserve(id, addr, isGateway)
	case err != nil:
	case !isGateway && (bound || !addr.IsValid()):
		// Only a container takes whatever there is. An engine goes on under the pool's name that it was
		// told when it last asked, at its start, for all it knows.
		got, err = d.allocate(ctx, c, query{subnet: subnet, addr: addr, name: r.Options[optionName]})
	default:
		got, err = d.repeat(ctx, c, id, query{subnet: subnet, addr: addr}, isGateway)
	}
	if err != nil {
		return nil, err
	}
	return &pluginapi.RequestAddressResponse{Address: got.String()}, nil
}

// reserve sets an address of a pool aside for the network that is being created.
func (d *Driver) reserve(id fabric.PoolID, addr netip.Addr, isGateway bool) (netip.Prefix, error) {
	var got netip.Prefix
	err := d.Journal.Update(func(tx *journal.Tx) error {
		pool, known, err := tx.Pools().Get(id)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("pool %s belongs to no network of this Seaway: create the network again, with both -d and --ipam-driver of Seaway", id)
		}
		if !isGateway && !addr.IsValid() { // a container's wish, and CreateNetwork never came
			return fmt.Errorf("subnet %s is in a network of another driver: --ipam-driver of Seaway goes with -d of Seaway only", pool.Subnet)
		}
		addrs, err := ipam.NewSpace(pool.Subnet, netip.Prefix{})
		if err != nil {
			return err
		}
		for _, aux := range pool.Aux {
			addrs.Take(aux)
		}
		if !addr.IsValid() {
			if addr = firstFree(addrs, pool.Subnet); !addr.IsValid() {
				return fmt.Errorf("no address of %s is left for the gateway: set fewer aside with --aux-address", pool.Subnet)
			}
		}
		if err := addrs.Usable(addr); err != nil {
			return err
		}
		if addrs.Taken(addr) || addr == pool.Gateway {
			return fmt.Errorf("address %s is asked for twice: give the gateway and each --aux-address an address of its own", addr)
		}
		if isGateway {
			pool.Gateway = addr
		} else {
			pool.Aux = append(pool.Aux, addr)
		}
		got = netip.PrefixFrom(addr, pool.Subnet.Bits())
		return tx.Pools().Put(id, pool)
	})
	return got, err
}

// firstFree is the address that users of Docker know as the gateway: the first that can be one. It is
// invalid if there is none.
func firstFree(addrs *ipam.Space, subnet netip.Prefix) netip.Addr {
	for addr := subnet.Addr(); subnet.Contains(addr); addr = addr.Next() {
		if !addrs.Taken(addr) && addrs.Usable(addr) == nil {
			return addr
		}
	}
	return netip.Addr{}
}

// repeat answers for a network that exists, to somebody who did not make it: the engine, which asks for
// all it knows when it starts; a second create, which CreateNetwork will refuse; or --ip under a pool's
// name from such a start, for which CreateEndpoint looks whether a container has the address. What the
// journal has is said again. An address that is not in use according to it is from now on.
func (d *Driver) repeat(ctx context.Context, c journal.Copy, id fabric.PoolID, q query, isGateway bool) (netip.Prefix, error) {
	subnet, _ := c.Network.Subnet(q.subnet.Addr())
	if isGateway && !q.addr.IsValid() {
		q.addr = subnet.Gateway
	}
	if !q.addr.IsValid() {
		return netip.Prefix{}, fmt.Errorf("subnet %s is in use by network %s", q.subnet, fabric.Short(c.EngineID))
	}
	if !isGateway && subnet.Reserved(q.addr) == "" {
		if err := d.restore(ctx, c, id, q.addr); err != nil {
			return netip.Prefix{}, err
		}
	}
	return netip.PrefixFrom(q.addr, q.subnet.Bits()), nil
}

// restore takes an address back that the engine says is in use and the journal does not know.
func (d *Driver) restore(ctx context.Context, c journal.Copy, id fabric.PoolID, addr netip.Addr) error {
	s, err := d.space(ctx, c)
	if err != nil {
		return err
	}
	if s.uses(addr) {
		return nil
	}
	picked, err := s.choose(query{addr: addr}, string(id))
	if errors.Is(err, errTaken) {
		return d.takenError(ctx, c.Network.ID, addr)
	}
	if err != nil {
		return err
	}
	bound := picked.hold.Address
	bound.Replayed, bound.Fixed = true, true
	return d.bind(ctx, s, picked, bound)
}

// allocate finds an address for a container.
func (d *Driver) allocate(ctx context.Context, c journal.Copy, q query) (netip.Prefix, error) {
	s, err := d.space(ctx, c)
	if err != nil {
		return netip.Prefix{}, err
	}
	for range claimTries {
		picked, err := s.choose(q, fabric.NewID())
		if errors.Is(err, errTaken) {
			return netip.Prefix{}, d.takenError(ctx, c.Network.ID, q.addr)
		}
		if err != nil {
			return netip.Prefix{}, d.nameHolder(err)
		}
		bound := picked.hold.Address
		bound.Container, bound.Fixed = q.name, q.addr.IsValid()
		err = d.bind(ctx, s, picked, bound)
		if err == nil {
			return netip.PrefixFrom(bound.Addr, picked.subnet.Bits()), nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return netip.Prefix{}, err
		}
		if q.addr.IsValid() {
			return netip.Prefix{}, d.takenError(ctx, c.Network.ID, q.addr)
		}
	}
	return netip.Prefix{}, fmt.Errorf("no address of %s could be claimed in %d tries: other hosts take them as fast; try again", q.subnet, claimTries)
}

// bind makes a candidate the container's: claimed in the store if it is fresh, and bound in the journal.
func (d *Driver) bind(ctx context.Context, s *space, picked candidate, bound journal.Address) error {
	if picked.fresh {
		revision, err := d.claimAddress(ctx, picked.hold.Address)
		if err != nil {
			d.unclaim(s, picked.hold, err)
			return err
		}
		bound.Revision = revision
	}
	bound.State, bound.Seq, bound.Endpoint = journal.Bound, 0, ""
	before := picked.hold.Address
	if err := d.putAddress(bound); err != nil {
		s.settle(picked.hold, before) // claimed or not, the journal says what it was
		return err
	}
	s.settle(picked.hold, bound)
	return nil
}

// claimAddress makes the address record, unless somebody has it. The intent is in the journal first, so
// that a claim whose answer is lost is found again.
func (d *Driver) claimAddress(ctx context.Context, a journal.Address) (int64, error) {
	if err := d.putAddress(a); err != nil {
		return 0, err
	}
	record, err := json.Marshal(fabric.AddressRecord{
		Addr: a.Addr, Host: d.Journal.Host(), Token: a.Token, MAC: fabric.MACFor(a.Addr),
	})
	if err != nil {
		return 0, err
	}
	key := store.AddressKey(a.Network, a.Addr)
	revision, err := d.Store.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Absent(key)},
		Then: []store.Op{store.Put(key, record)},
	})
	if err != nil {
		return 0, fmt.Errorf("claim address %s: %w", a.Addr, err)
	}
	return revision, nil
}

// unclaim ends a claim that failed. If it is not known whether it took place, the intent stays: the
// address is not given to anybody until the sweep has looked.
func (d *Driver) unclaim(s *space, h *holding, reason error) {
	if !errors.Is(reason, store.ErrConflict) {
		s.settle(h, h.Address)
		return
	}
	if err := d.deleteAddress(h.Address); err != nil {
		d.Log.Warn("an intent stays in the journal until the next sweep", "address", h.Addr, "error", err)
		s.settle(h, h.Address)
		return
	}
	s.drop(h, true)
}

// nameHolder adds to an error about an address in use what the journal knows of the endpoint there:
// engines before 29.0 do not tell which container asked for an address.
func (d *Driver) nameHolder(err error) error {
	var inUse *inUseError
	if !errors.As(err, &inUse) {
		return err
	}
	endpoints, _ := journal.Endpoints(d.Journal) // without them the error says less
	for _, e := range endpoints {
		if e.Network == inUse.Network && (e.IPv4.Addr() == inUse.Addr || e.IPv6.Addr() == inUse.Addr) {
			err = fmt.Errorf("%w (endpoint %s, which docker network inspect %s shows with its container)",
				err, fabric.Short(e.ID), fabric.Short(e.Engine))
		}
	}
	return err
}

// takenError says who has an address that this Host does not hold.
func (d *Driver) takenError(ctx context.Context, network fabric.NetworkID, addr netip.Addr) error {
	entry, err := d.Store.Get(ctx, store.AddressKey(network, addr))
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("address %s is just being released: try again", addr)
	}
	if err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	var record fabric.AddressRecord
	if err := json.Unmarshal(entry.Value, &record); err != nil {
		return fmt.Errorf("address %s is in use, and its record in the store cannot be read: %w", addr, err)
	}
	return fmt.Errorf("address %s is in use on host %s: choose another, or none to have one chosen", addr, record.Host)
}

// ReleaseAddress gives an address back. It stays with this Host for the cool-down. What is not known, or
// belongs to the network itself, is released already.
func (d *Driver) ReleaseAddress(ctx context.Context, r *pluginapi.ReleaseAddressRequest) error {
	addr, err := netip.ParseAddr(r.Address)
	if err != nil {
		return fmt.Errorf("%q is no address", r.Address)
	}
	c, _, bound, err := d.copyOf(fabric.PoolID(r.PoolID))
	if err != nil {
		d.Log.Debug("an address of an unknown pool is released", "pool", r.PoolID, "address", r.Address)
		return nil
	}
	s, err := d.space(ctx, c)
	if err != nil {
		return err
	}
	if !bound {
		if bound, err = d.abandoned(c.Network.ID, addr.Unmap()); err != nil {
			return err
		}
	}
	return d.release(s, addr.Unmap(), func(journal.Address) bool { return bound })
}

// abandoned reports whether no endpoint has the address. A pool that did not make the network gives back
// such addresses only: the engine lets go of a container's address last, and of one that CreateEndpoint
// refused also if a container has it.
func (d *Driver) abandoned(network fabric.NetworkID, addr netip.Addr) (bool, error) {
	lives := false
	err := d.Journal.View(func(tx *journal.Tx) error {
		a, _, err := tx.Addresses().Get(journal.KeyOf(network, addr))
		if err == nil {
			_, lives, err = tx.Endpoints().Get(a.Endpoint)
		}
		return err
	})
	return !lives, err
}

// release turns a bound address into one that is owned and cools down.
func (d *Driver) release(s *space, addr netip.Addr, may func(journal.Address) bool) error {
	h := s.seize(addr, may)
	if h == nil {
		return nil
	}
	owned := h.Address
	owned.State, owned.Replayed, owned.Endpoint = journal.Owned, false, ""
	err := d.Journal.Update(func(tx *journal.Tx) error {
		seq, err := tx.NextSeq()
		if err != nil {
			return err
		}
		owned.Seq = seq
		return tx.Addresses().Put(owned.Key(), owned)
	})
	if err != nil {
		s.settle(h, h.Address)
		return fmt.Errorf("release address %s: %w", addr, err)
	}
	s.cool(h, owned, time.Now())
	return nil
}

func (d *Driver) putAddress(a journal.Address) error {
	err := d.Journal.Update(func(tx *journal.Tx) error {
		return tx.Addresses().Put(a.Key(), a)
	})
	if err != nil {
		return fmt.Errorf("journal address %s: %w", a.Addr, err)
	}
	return nil
}

func (d *Driver) deleteAddress(a journal.Address) error {
	err := d.Journal.Update(func(tx *journal.Tx) error {
		return tx.Addresses().Delete(a.Key())
	})
	if err != nil {
		return fmt.Errorf("journal address %s: %w", a.Addr, err)
	}
	return nil
}
