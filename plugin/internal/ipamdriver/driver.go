// Package ipamdriver is the IpamDriver verbs: it hands out subnets and addresses.
//
// The engine tells this driver little. A pool has no network's name, a network's own addresses look like
// containers', and what it asks again after its own restart looks like a new wish. So each answer to
// RequestPool has a name of its own (subnet#token): a Network's Copy remembers by which of them it was
// made, and calls under any other name can change nothing of that Network.
//
// An address goes through the states of the journal: intent, bound, owned, releasing. The answer leaves
// after the journal holds it, and the claim in the store has no end but its release.
package ipamdriver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/ipam"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
	"github.com/seaway-net/seaway/plugin/internal/store"
)

// Journal is what this Host owns: a *journal.Journal.
type Journal interface {
	Host() fabric.HostID
	View(fn func(*journal.Tx) error) error
	Update(fn func(*journal.Tx) error) error
}

// Config is what the driver needs.
type Config struct {
	Journal Journal
	Store   store.Store
	Log     *slog.Logger
	// Pool and Size say where a subnet comes from when none is given, and how long it is in bits.
	Pool netip.Prefix
	Size int
	// Neighbours returns the prefixes that this Host reaches by itself, each with what to call it; and
	// so which subnets would collide with them.
	Neighbours func(ctx context.Context) ([]Neighbour, error)
	// CoolDown is how long a released address stays with this Host; 0 means DefaultCoolDown.
	CoolDown time.Duration
}

// Neighbour is a range of addresses that this Host needs for itself.
type Neighbour struct {
	Prefix netip.Prefix
	// What it is, for an error: "eth0".
	What string
	// Direct says that hosts with such addresses are on a link of this Host, so that a container with
	// the same range could not reach them. A range reached through a router is only not chosen.
	Direct bool
}

// DefaultCoolDown is how long a released address stays with this Host: for the container that had it,
// and until nobody's neighbour tables hold it any more.
const DefaultCoolDown = 5 * time.Minute

// Driver is the IPAM driver.
type Driver struct {
	Config

	creating sync.Mutex // one new subnet at a time
	pending  map[fabric.PoolID]time.Time

	mu     sync.Mutex
	spaces map[fabric.NetworkID]*space
}

var _ pluginapi.IPAMDriver = (*Driver)(nil)

// New returns the driver.
func New(c Config) *Driver {
	if c.CoolDown == 0 {
		c.CoolDown = DefaultCoolDown
	}
	return &Driver{
		Config:  c,
		pending: make(map[fabric.PoolID]time.Time),
		spaces:  make(map[fabric.NetworkID]*space),
	}
}

// space returns the addresses of a Network that has a Copy here, loading them when first asked.
func (d *Driver) space(ctx context.Context, c journal.Copy) (*space, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.spaces[c.Network.ID]; s != nil {
		return s, nil
	}
	s, err := d.load(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("load the addresses of network %s: %w", fabric.Short(c.EngineID), err)
	}
	d.spaces[c.Network.ID] = s
	return s, nil
}

// Forget drops what is known of a Network that is gone.
func (d *Driver) Forget(id fabric.NetworkID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.spaces, id)
}

// load reads a Network's addresses from the store and the journal.
func (d *Driver) load(ctx context.Context, c journal.Copy) (*space, error) {
	s := &space{
		network: c.Network,
		held:    make(map[netip.Addr]*holding),
		hint:    hint(d.Journal.Host(), c.Network.ID),
		rng:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
	ranges, err := d.ranges(c)
	if err != nil {
		return nil, err
	}
	for _, subnet := range c.Network.Subnets {
		addrs, err := ipam.NewSpace(subnet.Prefix, ranges[subnet.Prefix])
		if err != nil {
			return nil, err
		}
		for _, addr := range reserved(subnet) {
			addrs.Take(addr)
		}
		s.subnets = append(s.subnets, addrs)
		s.bounds = append(s.bounds, cmp.Or(ranges[subnet.Prefix], subnet.Prefix))
	}
	return s, d.loadHeld(ctx, s)
}

// reserved returns the addresses of a subnet that belong to the Network itself.
func reserved(s fabric.Subnet) []netip.Addr {
	var all []netip.Addr
	if s.Gateway.IsValid() {
		all = append(all, s.Gateway)
	}
	for _, addr := range s.Aux {
		all = append(all, addr)
	}
	return all
}

// ranges returns the --ip-range of each subnet, as the pools of a Copy have it.
func (d *Driver) ranges(c journal.Copy) (map[netip.Prefix]netip.Prefix, error) {
	ranges := make(map[netip.Prefix]netip.Prefix)
	err := d.Journal.View(func(tx *journal.Tx) error {
		for _, id := range c.Pools {
			pool, ok, err := tx.Pools().Get(id)
			if err != nil {
				return err
			}
			if ok {
				ranges[pool.Subnet] = pool.Range
			}
		}
		return nil
	})
	return ranges, err
}

// loadHeld takes over what the journal holds, and marks what the store has as taken. What became of a
// claim or a release that was on its way when we died, the next sweep finds out.
func (d *Driver) loadHeld(ctx context.Context, s *space) error {
	records, _, err := d.Store.List(ctx, store.AddressesOf(s.network.ID))
	if err != nil {
		return err
	}
	now := time.Now()
	err = d.Journal.View(func(tx *journal.Tx) error {
		addresses, listErr := tx.AddressesOf(s.network.ID)
		for _, a := range addresses {
			s.held[a.Addr] = &holding{Address: a}
			if a.State == journal.Owned {
				s.held[a.Addr].since = now
			}
		}
		return listErr
	})
	if err != nil {
		return err
	}
	for addr := range s.held {
		s.mark(addr)
	}
	return d.agree(ctx, s, records)
}

// agree has the journal and the store agree about a Network's addresses. A record of ours that the journal
// does not know is from a journal that was lost: it is taken back, and may be in use. An address of ours
// that the store does not know was lost there, and is claimed again.
func (d *Driver) agree(ctx context.Context, s *space, entries []store.Entry) error {
	claimed := make(map[netip.Addr]bool, len(entries))
	for _, entry := range entries {
		var record fabric.AddressRecord
		if err := json.Unmarshal(entry.Value, &record); err != nil || s.index(record.Addr) < 0 {
			d.Log.Warn("an address in the store cannot be read and is left alone", "key", entry.Key, "error", err)
			continue
		}
		claimed[record.Addr] = true
		s.mark(record.Addr)
		if record.Host == d.Journal.Host() && s.held[record.Addr] == nil {
			if err := d.adopt(ctx, s, entry, record); err != nil {
				return err
			}
		}
	}
	for addr, h := range s.held {
		if claimed[addr] || h.State != journal.Bound && h.State != journal.Owned {
			continue
		}
		revision, err := d.claimAddress(ctx, h.Address)
		if err != nil {
			return err
		}
		h.Revision = revision
	}
	return nil
}

// adopt takes an address back. Its record is written anew, so that a deletion of the old one that is still
// on its way comes to nothing.
func (d *Driver) adopt(ctx context.Context, s *space, entry store.Entry, record fabric.AddressRecord) error {
	record.Token = fabric.NewID()
	value, err := json.Marshal(record)
	if err != nil {
		return err
	}
	revision, err := d.Store.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Unchanged(entry)},
		Then: []store.Op{store.Put(entry.Key, value)},
	})
	if err != nil {
		return fmt.Errorf("take address %s back: %w", record.Addr, err)
	}
	a := journal.Address{
		Network: s.network.ID, Addr: record.Addr, State: journal.Bound,
		Token: record.Token, Revision: revision, Replayed: true,
	}
	s.held[a.Addr] = &holding{Address: a}
	return d.putAddress(a)
}

func (s *space) mark(addr netip.Addr) {
	if i := s.index(addr); i >= 0 {
		s.subnets[i].Take(addr)
	}
}

// hint spreads the Hosts over a subnet, so that they seldom try the same address.
func hint(host fabric.HostID, network fabric.NetworkID) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(string(host) + string(network))) // never fails (hash.Hash)
	return h.Sum64()
}

// copyOf finds the Copy that a pool belongs to, by the pool's name or by its subnet. bound says that the
// Copy was made by this very pool: only then may a call about it change the Network. A Copy that is about
// to be deleted is found by its own pools only: its subnet may be another Network's already.
func (d *Driver) copyOf(id fabric.PoolID) (c journal.Copy, subnet netip.Prefix, bound bool, err error) {
	if subnet, err = subnetOf(id); err != nil {
		return c, subnet, false, err
	}
	found := false
	copies, err := journal.Copies(d.Journal)
	for _, other := range copies {
		for _, s := range other.Network.Subnets {
			own := slices.Contains(other.Pools, id)
			if other.OwnIPAM && s.Prefix == subnet && (own || !other.Released && !bound) {
				c, found, bound = other, true, own
			}
		}
	}
	if err == nil && !found {
		err = errNoCopy
	}
	return c, subnet, bound, err
}

var errNoCopy = errors.New("no network of this host has that pool")
