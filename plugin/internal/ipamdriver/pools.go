package ipamdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/ipam"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
	"github.com/seaway-net/seaway/plugin/internal/store"
)

// pendingLimit is how long a pool waits for its CreateNetwork, which the engine sends at once. After
// that the engine has given up, whether or not it could tell us.
const pendingLimit = time.Minute

// RequestPool claims a subnet: the one asked for, or a free one. For a subnet that already has a Network
// on this Host it answers too, because the engine asks again for all it knows when it starts; if it is a
// second network that somebody wants, CreateNetwork refuses it.
func (d *Driver) RequestPool(ctx context.Context, r *pluginapi.RequestPoolRequest) (*pluginapi.RequestPoolResponse, error) {
	want, err := readPool(r)
	if err != nil {
		return nil, err
	}
	d.creating.Lock()
	defer d.creating.Unlock()
	if want.Subnet.IsValid() {
		id := poolID(want.Subnet)
		if _, _, _, err = d.copyOf(id); err == nil {
			return poolResponse(id, want.Subnet), nil
		}
		if !errors.Is(err, errNoCopy) {
			return nil, err
		}
	}
	pool, err := d.claim(ctx, want)
	if err != nil {
		return nil, err
	}
	d.pending[pool.ID] = time.Now()
	return poolResponse(pool.ID, pool.Subnet), nil
}

func poolResponse(id fabric.PoolID, subnet netip.Prefix) *pluginapi.RequestPoolResponse {
	return &pluginapi.RequestPoolResponse{PoolID: string(id), Pool: subnet.String()}
}

// readPool checks what the engine passes on from the command line.
func readPool(r *pluginapi.RequestPoolRequest) (journal.Pool, error) {
	want := journal.Pool{V6: r.V6}
	if err := checkIPAMOptions(r.Options, &want); err != nil {
		return want, err
	}
	if r.Pool == "" {
		if r.SubPool != "" {
			return want, fmt.Errorf("--ip-range %s needs a --subnet that holds it", r.SubPool)
		}
		return want, nil
	}
	subnet, err := netip.ParsePrefix(r.Pool)
	if err != nil {
		return want, fmt.Errorf("subnet %q is no range of addresses: write it as 10.1.0.0/24 or fd00:1::/64", r.Pool)
	}
	if err = ipam.CheckSubnet(subnet); err != nil {
		return want, err
	}
	want.Subnet, want.V6 = subnet, subnet.Addr().Is6()
	if r.SubPool == "" {
		return want, nil
	}
	if want.Range, err = netip.ParsePrefix(r.SubPool); err != nil {
		return want, fmt.Errorf("--ip-range %q is no range of addresses: write it as 10.1.0.128/25", r.SubPool)
	}
	want.Range = want.Range.Masked()
	_, err = ipam.NewSpace(subnet, want.Range)
	return want, err
}

// checkIPAMOptions refuses every option of ours that is unknown or does not work yet.
func checkIPAMOptions(options map[string]string, want *journal.Pool) error {
	var bad []string
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value := options[name]
		switch {
		case name == "seaway.scope" && value == "host":
			want.Scope = value
		case name == "seaway.scope":
			bad = append(bad, fmt.Sprintf("%s=%s (only host: this Seaway keeps every network on its host)", name, value))
		case name == "seaway.network":
			bad = append(bad, name+" (does not work yet: this Seaway keeps every network on its host)")
		case strings.HasPrefix(name, "seaway."):
			bad = append(bad, name+" (unknown)")
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("--ipam-opt: refused: %s; known is seaway.scope=host", strings.Join(bad, ", "))
	}
	return nil
}

// claim puts a subnet into the store and the journal. The caller holds d.creating.
func (d *Driver) claim(ctx context.Context, want journal.Pool) (journal.Pool, error) {
	if err := d.dropStale(ctx, want.Subnet); err != nil {
		return want, err
	}
	guard, busy, leaving, err := d.subnets(ctx)
	if err != nil {
		return want, err
	}
	near, err := d.Neighbours(ctx)
	if err != nil {
		return want, err
	}
	if want.Subnet.IsValid() {
		err = d.checkOverlap(want.Subnet, busy, near)
	} else {
		want.Subnet, err = d.freeSubnet(want.V6, busy, near)
	}
	if err != nil {
		return want, err
	}
	want.ID, want.Network = poolID(want.Subnet), fabric.NetworkID(fabric.NewID())
	if err = d.Journal.Update(func(tx *journal.Tx) error { return tx.Pools().Put(want.ID, want) }); err != nil {
		return want, err
	}
	record, err := json.Marshal(store.SubnetRecord{Version: store.RecordVersion, Network: want.Network, Host: d.Journal.Host()})
	if err != nil {
		return want, err
	}
	key := store.SubnetKey(want.Subnet)
	_, err = d.Store.Commit(ctx, store.Txn{
		If:   []store.Condition{{Key: store.SubnetGuard, Revision: guard}, {Key: key, Revision: leaving[want.Subnet]}},
		Then: []store.Op{store.Put(store.SubnetGuard, []byte(want.Network)), store.Put(key, record)},
	})
	if err != nil {
		return want, fmt.Errorf("claim subnet %s: %w", want.Subnet, err)
	}
	return want, nil
}

// subnets returns the subnets of the store that are in use, those (with their revisions) that still are
// there for a Network that is about to be deleted, and the revision on which a new one must depend.
func (d *Driver) subnets(ctx context.Context) (guard int64, busy []netip.Prefix, leaving map[netip.Prefix]int64, err error) {
	last, err := d.Store.Get(ctx, store.SubnetGuard)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, nil, nil, fmt.Errorf("read the subnets: %w", err)
	}
	entries, _, err := d.Store.List(ctx, store.SubnetPrefix)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read the subnets: %w", err)
	}
	released, err := d.releasedNetworks()
	leaving = make(map[netip.Prefix]int64)
	for _, entry := range entries {
		subnet, keyErr := store.SubnetOf(entry.Key)
		if keyErr != nil {
			d.Log.Warn("a subnet in the store cannot be read and is left alone", "key", entry.Key, "error", keyErr)
			continue
		}
		var record store.SubnetRecord
		if json.Unmarshal(entry.Value, &record) == nil && released[record.Network] {
			leaving[subnet] = entry.Revision
			continue
		}
		busy = append(busy, subnet)
	}
	return last.Revision, busy, leaving, err
}

// releasedNetworks returns the Networks whose pools the engine gave back and that are not deleted yet. Such
// a one does not stand in the way of a new one: CreateNetwork ends it.
func (d *Driver) releasedNetworks() (map[fabric.NetworkID]bool, error) {
	released := make(map[fabric.NetworkID]bool)
	copies, err := journal.Copies(d.Journal)
	for _, c := range copies {
		released[c.Network.ID] = c.Released
	}
	return released, err
}

// checkOverlap refuses a subnet that somebody else has, and says who.
func (d *Driver) checkOverlap(subnet netip.Prefix, busy []netip.Prefix, near []Neighbour) error {
	for _, other := range busy {
		if subnet.Overlaps(other) {
			return fmt.Errorf("subnet %s overlaps %s of %s: choose another --subnet, or none to have one chosen",
				subnet, other, d.owner(other))
		}
	}
	for _, n := range near {
		if n.Direct && subnet.Overlaps(n.Prefix) {
			return fmt.Errorf("subnet %s overlaps %s, to which %s of this host is connected: choose another --subnet, or none to have one chosen",
				subnet, n.Prefix, n.What)
		}
	}
	return nil
}

// owner names the network that has a subnet, as docker knows it.
func (d *Driver) owner(subnet netip.Prefix) string {
	c, _, _, err := d.copyOf(poolID(subnet))
	if err != nil {
		return "a network that is just being created"
	}
	return "network " + fabric.Short(c.EngineID)
}

// freeSubnet finds a subnet for a network that was created without one.
func (d *Driver) freeSubnet(v6 bool, busy []netip.Prefix, near []Neighbour) (netip.Prefix, error) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	if v6 {
		return ipam.RandomULA(rng), nil
	}
	for _, n := range near {
		busy = append(busy, n.Prefix)
	}
	return ipam.FreeSubnet(d.Pool, d.Size, busy, rng)
}

// ReleasePool gives a subnet back. For a Network's own pool it announces DeleteNetwork, which comes next
// unless the engine cannot reach us; for any other it ends a create that failed.
func (d *Driver) ReleasePool(ctx context.Context, r *pluginapi.ReleasePoolRequest) error {
	d.creating.Lock()
	defer d.creating.Unlock()
	id := fabric.PoolID(r.PoolID)
	c, _, bound, err := d.copyOf(id)
	switch {
	case err == nil && bound:
		c.Released = true
		return d.Journal.Update(func(tx *journal.Tx) error { return tx.Copies().Put(c.EngineID, c) })
	case err == nil || errors.Is(err, errNoCopy):
		return d.dropPool(ctx, id)
	}
	d.Log.Debug("an unknown pool is released", "pool", r.PoolID, "error", err)
	return nil
}

// dropPool forgets a pool that never became a Network. A pool that is not known is forgotten already.
func (d *Driver) dropPool(ctx context.Context, id fabric.PoolID) error {
	var pool journal.Pool
	var known bool
	err := d.Journal.View(func(tx *journal.Tx) (err error) {
		pool, known, err = tx.Pools().Get(id)
		return err
	})
	if err != nil || !known {
		return err
	}
	if err := d.disclaim(ctx, pool); err != nil {
		return fmt.Errorf("drop pool %s: %w", id, err)
	}
	delete(d.pending, id)
	return d.Journal.Update(func(tx *journal.Tx) error { return tx.Pools().Delete(id) })
}

// disclaim takes a pool's subnet out of the store, with the Network that an interrupted CreateNetwork may
// have put there. A subnet that leads to a Network with a Copy here is no pool's any more.
func (d *Driver) disclaim(ctx context.Context, pool journal.Pool) error {
	entry, err := d.Store.Get(ctx, store.SubnetKey(pool.Subnet))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var record store.SubnetRecord
	if json.Unmarshal(entry.Value, &record) != nil || record.Host != d.Journal.Host() {
		return nil
	}
	lives, err := d.hasCopy(record.Network)
	if err != nil || lives {
		return err
	}
	_, err = d.Store.Commit(ctx, store.Txn{
		If: []store.Condition{store.Unchanged(entry)},
		Then: []store.Op{
			store.Delete(entry.Key), store.Delete(store.NetworkKey(record.Network)),
			store.Put(store.SubnetGuard, []byte(record.Network)),
		},
	})
	return err
}

// hasCopy reports whether a Network has a Copy here.
func (d *Driver) hasCopy(id fabric.NetworkID) (has bool, err error) {
	copies, err := journal.Copies(d.Journal)
	return slices.ContainsFunc(copies, func(c journal.Copy) bool { return c.Network.ID == id }), err
}

// dropStale drops the pools that have waited too long for their CreateNetwork. One that overlaps the
// wanted subnet and still may get it is an error. One from before our start waits from now on, if its
// gateway was asked for: else the engine did not even get the answer. The caller holds d.creating.
func (d *Driver) dropStale(ctx context.Context, wanted netip.Prefix) error {
	waiting, err := d.unbound()
	if err != nil {
		return err
	}
	for _, pool := range waiting {
		since, here := d.pending[pool.ID]
		if !here && pool.Gateway.IsValid() {
			since, here = time.Now(), true
			d.pending[pool.ID] = since
		}
		if here && time.Since(since) < pendingLimit {
			if wanted.IsValid() && wanted.Overlaps(pool.Subnet) {
				return fmt.Errorf("subnet %s overlaps %s, which another docker network create is just taking: try again in a minute, or choose another --subnet",
					wanted, pool.Subnet)
			}
			continue
		}
		if err := d.dropPool(ctx, pool.ID); err != nil {
			return err
		}
	}
	return nil
}

// unbound returns the pools that belong to no Copy.
func (d *Driver) unbound() ([]journal.Pool, error) {
	var waiting []journal.Pool
	err := d.Journal.View(func(tx *journal.Tx) error {
		bound := make(map[fabric.PoolID]bool)
		copies, err := tx.Copies().All()
		if err != nil {
			return err
		}
		for _, c := range copies {
			for _, id := range c.Pools {
				bound[id] = true
			}
		}
		pools, err := tx.Pools().All()
		for _, p := range pools {
			if !bound[p.ID] {
				waiting = append(waiting, p)
			}
		}
		return err
	})
	return waiting, err
}

// poolID makes a name for one answer to RequestPool.
func poolID(subnet netip.Prefix) fabric.PoolID {
	return fabric.PoolID(subnet.String() + "#" + fabric.NewID()[:8])
}

// subnetOf reads the subnet from a pool's name.
func subnetOf(id fabric.PoolID) (netip.Prefix, error) {
	text, _, _ := strings.Cut(string(id), "#")
	subnet, err := netip.ParsePrefix(text)
	if err != nil {
		return subnet, fmt.Errorf("pool %q is none of Seaway's", id)
	}
	return subnet, nil
}
