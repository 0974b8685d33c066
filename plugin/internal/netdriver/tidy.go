package netdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/store"
)

// Tidy has the journal and the store agree. What the journal has and the store lacks is put there again;
// what this Host put into the store for a network that the journal does not know (a create was
// interrupted between the two) is removed. After a lost journal it is the other way round: the Copies are
// taken from the store. Call it once, before any verb.
func (d *Driver) Tidy(ctx context.Context) error {
	if d.Journal.Recovered() != "" {
		if err := d.recallCopies(ctx); err != nil {
			return fmt.Errorf("take the networks from the store: %w", err)
		}
	}
	known, err := d.knownNetworks()
	if err != nil {
		return err
	}
	if err = errors.Join(d.republish(ctx), d.forgetCopies(ctx)); err != nil {
		return err
	}
	orphans, err := d.orphanSubnets(ctx, known)
	if err != nil {
		return fmt.Errorf("tidy the store: %w", err)
	}
	for _, c := range orphans {
		d.Log.Info("a network whose creation was interrupted is removed", "network", c.Network.ID)
		if err := d.erase(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// memory is what the store remembers of a Copy, should the journal be lost.
type memory struct {
	Version int            `json:"version"`
	Copy    journal.Copy   `json:"copy"`
	Pools   []journal.Pool `json:"pools,omitempty"`
}

// remember returns the change to the store that keeps a Copy's memory.
func (d *Driver) remember(c journal.Copy) (store.Op, error) {
	m := memory{Version: store.RecordVersion, Copy: c}
	err := d.Journal.View(func(tx *journal.Tx) error {
		for _, id := range c.Pools {
			pool, known, err := tx.Pools().Get(id)
			if err != nil {
				return err
			}
			if known {
				m.Pools = append(m.Pools, pool)
			}
		}
		return nil
	})
	if err != nil {
		return store.Op{}, err
	}
	value, err := json.Marshal(m)
	return store.Put(store.CopyKey(d.Journal.Host(), c.EngineID), value), err
}

// recallCopies puts into a new journal what the store remembers of this Host's Copies. Endpoints are not
// remembered: those of running containers work on until the containers stop.
func (d *Driver) recallCopies(ctx context.Context) error {
	entries, _, err := d.Store.List(ctx, store.CopiesOf(d.Journal.Host()))
	if err != nil {
		return err
	}
	return d.Journal.Update(func(tx *journal.Tx) error {
		for _, entry := range entries {
			var m memory
			if err := json.Unmarshal(entry.Value, &m); err != nil {
				d.Log.Warn("a network in the store cannot be read and is left alone", "key", entry.Key, "error", err)
				continue
			}
			for _, pool := range m.Pools {
				if err := tx.Pools().Put(pool.ID, pool); err != nil {
					return err
				}
			}
			if err := tx.Copies().Put(m.Copy.EngineID, m.Copy); err != nil {
				return err
			}
		}
		return nil
	})
}

// forgetCopies has the store forget this Host's Copies that the journal does not know: their creation was
// interrupted, and the engine was told so.
func (d *Driver) forgetCopies(ctx context.Context) error {
	entries, _, err := d.Store.List(ctx, store.CopiesOf(d.Journal.Host()))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id := strings.TrimPrefix(entry.Key, store.CopiesOf(d.Journal.Host()))
		known := false
		err := d.Journal.View(func(tx *journal.Tx) (err error) {
			_, known, err = tx.Copies().Get(fabric.EngineNetworkID(id))
			return err
		})
		if err != nil {
			return err
		}
		if known {
			continue
		}
		if _, err := d.Store.Commit(ctx, store.Txn{Then: []store.Op{store.Delete(entry.Key)}}); err != nil {
			return err
		}
	}
	return nil
}

// republish records again the networks that the store has lost.
func (d *Driver) republish(ctx context.Context) error {
	copies, err := journal.Copies(d.Journal)
	for _, c := range copies {
		if _, getErr := d.Store.Get(ctx, store.CopyKey(d.Journal.Host(), c.EngineID)); errors.Is(getErr, store.ErrNotFound) {
			d.Log.Warn("the store had lost a network, which is put there again", "network", c.EngineID)
			err = errors.Join(err, d.record(ctx, c))
		} else if getErr != nil {
			err = errors.Join(err, getErr)
		}
	}
	return err
}

// knownNetworks returns the Networks that the journal has, complete or being created.
func (d *Driver) knownNetworks() (map[fabric.NetworkID]bool, error) {
	known := make(map[fabric.NetworkID]bool)
	err := d.Journal.View(func(tx *journal.Tx) error {
		copies, err := tx.Copies().All()
		if err != nil {
			return err
		}
		for _, c := range copies {
			known[c.Network.ID] = true
		}
		pools, err := tx.Pools().All()
		for _, p := range pools {
			known[p.Network] = true
		}
		return err
	})
	return known, err
}

// orphanSubnets returns what is left of unknown Networks of this Host, as far as their subnets tell.
func (d *Driver) orphanSubnets(ctx context.Context, known map[fabric.NetworkID]bool) (map[fabric.NetworkID]journal.Copy, error) {
	entries, _, err := d.Store.List(ctx, store.SubnetPrefix)
	if err != nil {
		return nil, err
	}
	orphans := make(map[fabric.NetworkID]journal.Copy)
	for _, entry := range entries {
		var record store.SubnetRecord
		subnet, err := store.SubnetOf(entry.Key)
		if err != nil || json.Unmarshal(entry.Value, &record) != nil {
			d.Log.Warn("a subnet in the store cannot be read and is left alone", "key", entry.Key)
			continue
		}
		if record.Host != d.Journal.Host() || known[record.Network] {
			continue
		}
		c := orphans[record.Network]
		c.Network.ID = record.Network
		c.Network.Subnets = append(c.Network.Subnets, fabric.Subnet{Prefix: subnet})
		orphans[record.Network] = c
	}
	return orphans, nil
}
