package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"

	bolt "go.etcd.io/bbolt"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
)

// Tx is one transaction on the journal, valid until the function that was given it returns.
type Tx struct {
	bolt    *bolt.Tx
	sum     uint64 // over all records as they are now
	changed bool
}

func newTx(b *bolt.Tx) *Tx {
	tx := &Tx{bolt: b}
	if meta := b.Bucket([]byte(tableMeta)); meta != nil {
		tx.sum = meta.Sequence()
	}
	return tx
}

// seal writes the sum; errUnchanged if there is nothing to write.
func (t *Tx) seal() error {
	if !t.changed {
		return errUnchanged
	}
	return t.bolt.Bucket([]byte(tableMeta)).SetSequence(t.sum)
}

// Pools are the answers to RequestPool.
func (t *Tx) Pools() Table[fabric.PoolID, Pool] { return Table[fabric.PoolID, Pool]{t, "pools"} }

// Copies are this engine's Networks.
func (t *Tx) Copies() Table[fabric.EngineNetworkID, Copy] {
	return Table[fabric.EngineNetworkID, Copy]{t, "copies"}
}

// Endpoints are the containers' attachments.
func (t *Tx) Endpoints() Table[fabric.EndpointID, Endpoint] {
	return Table[fabric.EndpointID, Endpoint]{t, "endpoints"}
}

// Addresses are the addresses that this Host owns, or may own.
func (t *Tx) Addresses() Table[AddressKey, Address] {
	return Table[AddressKey, Address]{t, "addresses"}
}

// AddressesOf returns the addresses of one Network, in the order of their keys.
func (t *Tx) AddressesOf(network fabric.NetworkID) ([]Address, error) {
	return t.Addresses().Prefix(string(network) + "/")
}

// NextSeq returns a number greater than all that it returned before, from 1 on. It is used up when the
// transaction is committed.
func (t *Tx) NextSeq() (uint64, error) {
	seq, _, err := metaTable[uint64](t).Get(keySeq)
	if err != nil {
		return 0, err
	}
	return seq + 1, metaTable[uint64](t).Put(keySeq, seq+1)
}

// Table is one kind of record, by its key, as one transaction sees it. Values are JSON.
type Table[K ~string, V any] struct {
	tx   *Tx
	name string
}

// metaTable is the table of the journal's own values, of which each has its own type.
func metaTable[V any](tx *Tx) Table[string, V] { return Table[string, V]{tx, tableMeta} }

// Get returns one record, and whether there is one.
func (t Table[K, V]) Get(key K) (value V, ok bool, err error) {
	bucket := t.tx.bolt.Bucket([]byte(t.name))
	if bucket == nil || key == "" { // bbolt has no empty key
		return value, false, nil
	}
	raw := bucket.Get([]byte(key))
	if raw == nil {
		return value, false, nil
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return value, false, t.fail("read", key, err)
	}
	return value, true, nil
}

// Put writes a record, new or not.
func (t Table[K, V]) Put(key K, value V) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return t.fail("write", key, err)
	}
	bucket := t.tx.bolt.Bucket([]byte(t.name))
	if bucket == nil {
		if bucket, err = t.tx.bolt.CreateBucket([]byte(t.name)); err != nil {
			return t.fail("write", key, err)
		}
	}
	old := bucket.Get([]byte(key))
	if bytes.Equal(old, raw) { // never so if there is none: no JSON is empty
		return nil
	}
	removed := sumOne(t.name, []byte(key), old) // before Put, which may write over it
	if err := bucket.Put([]byte(key), raw); err != nil {
		return t.fail("write", key, err)
	}
	t.tx.sum += sumOne(t.name, []byte(key), raw) - removed
	t.tx.changed = true
	return nil
}

// Delete removes a record; one that is not there is no error.
func (t Table[K, V]) Delete(key K) error {
	bucket := t.tx.bolt.Bucket([]byte(t.name))
	if bucket == nil {
		return nil
	}
	old := bucket.Get([]byte(key))
	if old == nil {
		return nil
	}
	removed := sumOne(t.name, []byte(key), old)
	if err := bucket.Delete([]byte(key)); err != nil {
		return t.fail("delete", key, err)
	}
	t.tx.sum -= removed
	t.tx.changed = true
	return nil
}

// All returns every record in the order of the keys. The table may be changed while the caller ranges over
// them.
func (t Table[K, V]) All() ([]V, error) { return t.Prefix("") }

// Prefix returns the records whose keys begin with the prefix, as All does.
func (t Table[K, V]) Prefix(prefix string) ([]V, error) {
	bucket := t.tx.bolt.Bucket([]byte(t.name))
	if bucket == nil {
		return nil, nil
	}
	var all []V
	cursor := bucket.Cursor()
	for key, raw := cursor.Seek([]byte(prefix)); key != nil && bytes.HasPrefix(key, []byte(prefix)); key, raw = cursor.Next() {
		var value V
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, t.fail("read", K(key), err)
		}
		all = append(all, value)
	}
	return all, nil
}

func (t Table[K, V]) fail(verb string, key K, err error) error {
	return fmt.Errorf("%s %q of the journal's %s: %w", verb, string(key), t.name, err)
}

// sumOne is what one record adds to the sum over all; 0 for one that is not there. Sums are added up, so
// that a change costs what it changes and the order does not matter.
func sumOne(table string, key, raw []byte) uint64 {
	if raw == nil {
		return 0
	}
	h := fnv.New64a()
	for _, part := range [][]byte{[]byte(table), {0}, key, {0}, raw} {
		_, _ = h.Write(part) // never fails (hash.Hash)
	}
	return h.Sum64()
}

// sumAll is the sum over all records there are, also those of tables that only a newer Seaway knows.
func sumAll(b *bolt.Tx) (uint64, error) {
	var sum uint64
	err := b.ForEach(func(name []byte, bucket *bolt.Bucket) error {
		return bucket.ForEach(func(key, raw []byte) error {
			if raw == nil {
				return errors.Join(ErrCorrupt, fmt.Errorf("table %q holds another, %q", name, key))
			}
			sum += sumOne(string(name), key, raw)
			return nil
		})
	})
	return sum, err
}
