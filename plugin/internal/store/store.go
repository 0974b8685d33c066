// Package store is the contract of the cluster's shared state: a map from keys to values that all Hosts see
// alike and change in transactions. Its implementations are store/local (one file, one Host) and store/etcd;
// the suite store/storetest says what both must do, and is the contract where words are not exact enough.
//
// The laws:
//
//   - A commit is all or nothing, and durable when it returns.
//   - Every commit that changes something has a revision greater than all before it, also those before a
//     restart. A key has the revision of the commit that last put it.
//   - A key that is deleted and made again has another revision than before, so that a late Delete under the
//     old one's Condition cannot hit the new one's owner.
//   - Deleting what is absent is no error.
//   - Keys are not empty and come in the order of their bytes. An empty value is a value.
package store

import (
	"context"
	"errors"
	"fmt"
)

// MaxOps is the most conditions and the most changes that one transaction can have: etcd's own limit.
const MaxOps = 128

var (
	// ErrNotFound is Get's answer about a key that is absent.
	ErrNotFound = errors.New("not found")
	// ErrConflict is Commit's answer when a condition does not hold: nothing was changed.
	ErrConflict = errors.New("a condition of the transaction does not hold")
	// ErrUnavailable says that the store cannot be reached, and that nothing was changed.
	ErrUnavailable = errors.New("the store cannot be reached")
	// ErrUnknown says that nobody knows whether a commit took place, now or later: the answer was lost. Read
	// again, and never assume either.
	ErrUnknown = errors.New("it is not known whether the transaction took place")
	// ErrInvalid refuses a transaction that no store takes, whatever it holds: see Txn.Validate.
	ErrInvalid = errors.New("invalid transaction")
)

// Entry is one key as the store has it.
type Entry struct {
	Key      string
	Value    []byte
	Revision int64 // of the key's last change
}

// Condition is what must hold of one key for a transaction to take place.
type Condition struct {
	Key      string
	Revision int64 // the key's last change; 0: the key must be absent
}

// Absent is the condition that a key does not exist.
func Absent(key string) Condition { return Condition{Key: key} }

// Unchanged is the condition that a key is as it was read.
func Unchanged(e Entry) Condition { return Condition{Key: e.Key, Revision: e.Revision} }

// Op is one change of a transaction: made by Put or Delete.
type Op struct {
	key    string
	value  []byte
	delete bool
}

// Put sets a key's value. The value must not be changed before the commit returns.
func Put(key string, value []byte) Op { return Op{key: key, value: value} }

// Delete removes a key, if it is there.
func Delete(key string) Op { return Op{key: key, delete: true} }

// Key returns the key that the change is about.
func (o Op) Key() string { return o.key }

// Value returns what Put sets; nil for Delete.
func (o Op) Value() []byte { return o.value }

// IsDelete reports whether the change removes the key.
func (o Op) IsDelete() bool { return o.delete }

// Txn is a transaction: if all conditions hold, all changes are made in one step.
type Txn struct {
	If   []Condition
	Then []Op
}

// Validate refuses, with an error that wraps ErrInvalid, what etcd would: an empty key, a key that is
// changed twice, a negative revision, and more than MaxOps conditions or changes. Every store calls it
// before anything else.
func (t Txn) Validate() error {
	if len(t.If) > MaxOps || len(t.Then) > MaxOps {
		return fmt.Errorf("%w: %d conditions and %d changes, at most %d of each are possible",
			ErrInvalid, len(t.If), len(t.Then), MaxOps)
	}
	for _, c := range t.If {
		if c.Key == "" || c.Revision < 0 {
			return fmt.Errorf("%w: condition on key %q at revision %d", ErrInvalid, c.Key, c.Revision)
		}
	}
	changed := make(map[string]bool, len(t.Then))
	for _, op := range t.Then {
		if op.key == "" {
			return fmt.Errorf("%w: change of an empty key", ErrInvalid)
		}
		if changed[op.key] {
			return fmt.Errorf("%w: key %q is changed twice", ErrInvalid, op.key)
		}
		changed[op.key] = true
	}
	return nil
}

// Store is the shared state. Its methods are safe for concurrent use, return soon after their context ends,
// and wrap the sentinels above.
type Store interface {
	// Commit makes the changes if the conditions hold, and returns the store's revision after it. A
	// transaction that changes nothing (empty, or deleting what is absent) makes no new revision. When the
	// context ends before the answer is known the error wraps ErrUnknown; one that ended before anything was
	// sent is returned as it is.
	Commit(ctx context.Context, txn Txn) (revision int64, err error)
	// Get returns one key, or an error that wraps ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// List returns the keys that begin with the prefix, in order, all as they were at the revision it
	// returns, which is the whole store's.
	List(ctx context.Context, prefix string) ([]Entry, int64, error)
	// Close releases the store. Calls after it fail.
	Close() error
}
