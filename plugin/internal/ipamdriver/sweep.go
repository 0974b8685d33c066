package ipamdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/store"
)

// orphanLimit is how long an address may be in use without an endpoint. The engine makes the endpoint at
// once after it has the address; if it does not come, the engine gave up and could not tell us.
const orphanLimit = time.Minute

// Sweep does what no verb does: it frees addresses whose cool-down is over, finds out what became of
// claims without an answer, and takes back what the engine forgot to release because it could not reach
// us. Call it now and then; the first call also begins the cool-downs that an earlier process left.
func (d *Driver) Sweep(ctx context.Context) error {
	spaces, err := d.loadAll(ctx)
	if err != nil {
		return err
	}
	used, err := d.endpointAddrs()
	if err != nil {
		return err
	}
	var failed error
	now := time.Now()
	for _, s := range spaces {
		for _, h := range s.orphans(used[s.network.ID], now) {
			d.Log.Info("an address that no endpoint uses is taken back", "address", h.Addr)
			failed = errors.Join(failed, d.release(s, h.Addr, func(a journal.Address) bool { return a == h }))
		}
		for _, h := range s.expired(now, d.CoolDown) {
			failed = errors.Join(failed, d.free(ctx, s, h))
		}
	}
	d.creating.Lock()
	defer d.creating.Unlock()
	return errors.Join(failed, d.dropStale(ctx, netip.Prefix{}))
}

// loadAll returns the spaces of all Networks here.
func (d *Driver) loadAll(ctx context.Context) ([]*space, error) {
	copies, err := journal.Copies(d.Journal)
	if err != nil {
		return nil, err
	}
	var spaces []*space
	for _, c := range copies {
		if !c.OwnIPAM {
			continue
		}
		s, err := d.space(ctx, c)
		if err != nil {
			return nil, err
		}
		spaces = append(spaces, s)
	}
	return spaces, nil
}

// ReleaseFrom gives back the addresses of an endpoint that is gone, unless another has them by now.
func (d *Driver) ReleaseFrom(ctx context.Context, e fabric.Endpoint) error {
	copies, err := journal.Copies(d.Journal)
	for _, c := range copies {
		if !c.OwnIPAM || c.Network.ID != e.Network {
			continue
		}
		s, loadErr := d.space(ctx, c)
		if loadErr != nil {
			return loadErr
		}
		for _, prefix := range e.Addrs() {
			err = errors.Join(err, d.releaseFrom(s, prefix.Addr(), e.ID))
		}
	}
	return err
}

func (d *Driver) releaseFrom(s *space, addr netip.Addr, id fabric.EndpointID) error {
	var a journal.Address
	err := d.Journal.View(func(tx *journal.Tx) (err error) {
		a, _, err = tx.Addresses().Get(journal.KeyOf(s.network.ID, addr))
		return err
	})
	if err != nil || a.Endpoint != id {
		return err
	}
	return d.release(s, addr, func(held journal.Address) bool { return held.Token == a.Token })
}

// endpointAddrs returns which addresses of which Network an endpoint has.
func (d *Driver) endpointAddrs() (map[fabric.NetworkID]map[netip.Addr]bool, error) {
	used := make(map[fabric.NetworkID]map[netip.Addr]bool)
	endpoints, err := journal.Endpoints(d.Journal)
	for _, e := range endpoints {
		if used[e.Network] == nil {
			used[e.Network] = make(map[netip.Addr]bool)
		}
		for _, prefix := range e.Addrs() {
			used[e.Network][prefix.Addr()] = true
		}
	}
	return used, err
}

// orphans returns the addresses that have been in use without an endpoint for too long. Those that the
// engine itself says are in use are not among them.
func (s *space) orphans(used map[netip.Addr]bool, now time.Time) []journal.Address {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []journal.Address
	for addr, h := range s.held {
		switch {
		case h.State != journal.Bound || h.busy || h.Replayed || used[addr]:
			h.suspect = time.Time{}
		case h.suspect.IsZero():
			h.suspect = now
		case now.Sub(h.suspect) >= orphanLimit:
			found = append(found, h.Address)
		}
	}
	return found
}

// expired returns the addresses to give back to the store, marked busy: those that have cooled down, and
// those whose claim had no answer.
func (s *space) expired(now time.Time, coolDown time.Duration) []*holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*holding
	for _, h := range s.held {
		if h.busy || h.State == journal.Bound || h.State == journal.Owned && now.Sub(h.since) < coolDown {
			continue
		}
		h.busy = true
		found = append(found, h)
	}
	return found
}

// free gives one address back to the store: the record goes only if it is the very claim that we made,
// so that a late deletion cannot hit another owner.
func (d *Driver) free(ctx context.Context, s *space, h *holding) error {
	leaving := h.Address
	leaving.State = journal.Releasing
	if err := d.putAddress(leaving); err != nil {
		s.settle(h, h.Address)
		return err
	}
	taken, err := d.deleteRecord(ctx, leaving)
	if err == nil {
		err = d.deleteAddress(leaving)
	}
	if err != nil {
		s.settle(h, leaving)
		return fmt.Errorf("free address %s: %w", leaving.Addr, err)
	}
	s.drop(h, taken)
	return nil
}

// deleteRecord deletes the address's record from the store if it is ours; taken says that it is not.
func (d *Driver) deleteRecord(ctx context.Context, a journal.Address) (taken bool, err error) {
	key := store.AddressKey(a.Network, a.Addr)
	entry, err := d.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var record fabric.AddressRecord
	if json.Unmarshal(entry.Value, &record) != nil || record.Token != a.Token {
		return true, nil
	}
	_, err = d.Store.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Unchanged(entry)},
		Then: []store.Op{store.Delete(key)},
	})
	return false, err
}
