// Package local is the store of a Host that stands alone: the contract of package store in one file.
package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/seaway-net/seaway/plugin/internal/store"
)

// lockTimeout is how long Open waits for another process to let go of the file: a plugin that is being
// replaced ends within it.
const lockTimeout = 2 * time.Second

// bucketKeys names the one bucket. Its sequence is the store's revision, and its values are the revision of
// the key's last change (8 bytes, big endian) followed by what was put.
const bucketKeys = "keys"

// revisionSize is how many bytes of a value on disk come before what was put.
const revisionSize = 8

// errUnchanged ends a bbolt transaction without writing, because there is nothing to write.
var errUnchanged = errors.New("nothing to change")

// Store is one file on this Host's disk.
type Store struct {
	db *bolt.DB
}

var _ store.Store = (*Store)(nil)

// Open opens the store in a file, and makes the file if it is not there (its directory must be). It fails if
// another process has it open, after waiting for two seconds.
func Open(path string) (_ *Store, err error) {
	defer func() {
		if p := recover(); p != nil { // bbolt panics when a page makes no sense
			err = fmt.Errorf("open store %s: the file is damaged: %v", path, p)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, NoStatistics: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open store %s: another process has it open: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if err := prepare(db, path); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare store %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

// prepare makes the bucket, and the file's name as durable as its content.
func prepare(db *bolt.DB, path string) error {
	err := db.Update(func(tx *bolt.Tx) error {
		if tx.Bucket([]byte(bucketKeys)) != nil {
			return errUnchanged
		}
		_, err := tx.CreateBucket([]byte(bucketKeys))
		return err
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := txn.Validate(); err != nil {
		return 0, fmt.Errorf("commit to the local store: %w", err)
	}
	var revision int64
	var refused error
	err := s.db.Update(func(tx *bolt.Tx) error {
		if refused = ctx.Err(); refused != nil { // here, since waiting for other writers takes time
			return refused
		}
		revision, refused = apply(tx.Bucket([]byte(bucketKeys)), txn)
		return refused
	})
	switch {
	case errors.Is(refused, errUnchanged):
		return revision, nil
	case refused != nil:
		return 0, fmt.Errorf("commit to the local store: %w", refused)
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return 0, fmt.Errorf("commit to the local store: %w: %w", store.ErrUnavailable, err)
	case err != nil:
		// The disk failed while bbolt wrote: before the last page nothing has changed, after it everything.
		return 0, fmt.Errorf("commit to the local store: %w: %w", store.ErrUnknown, err)
	}
	return revision, nil
}

// apply makes the changes if the conditions hold. It returns errUnchanged, with the revision that stays, if
// there are none to make.
func apply(keys *bolt.Bucket, txn store.Txn) (int64, error) {
	for _, c := range txn.If {
		if has, _ := decode(keys.Get([]byte(c.Key))); has != c.Revision {
			return 0, fmt.Errorf("%w: %s has revision %d, not %d", store.ErrConflict, c.Key, has, c.Revision)
		}
	}
	before := int64(keys.Sequence())
	revision := before + 1
	changed := false
	for _, op := range txn.Then {
		key := []byte(op.Key())
		if op.IsDelete() {
			changed = changed || keys.Get(key) != nil
			if err := keys.Delete(key); err != nil {
				return 0, fmt.Errorf("delete %s: %w", op.Key(), err)
			}
			continue
		}
		changed = true
		if err := keys.Put(key, encode(revision, op.Value())); err != nil {
			return 0, fmt.Errorf("put %s: %w", op.Key(), err)
		}
	}
	if !changed {
		return before, errUnchanged
	}
	return revision, keys.SetSequence(uint64(revision))
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Entry, error) {
	entry := store.Entry{Key: key}
	err := s.view(ctx, func(keys *bolt.Bucket) error {
		if key == "" {
			return store.ErrNotFound // bbolt has no empty key, and seeks the first one instead
		}
		raw := keys.Get([]byte(key))
		if raw == nil {
			return store.ErrNotFound
		}
		entry.Revision, entry.Value = decode(raw)
		return nil
	})
	if err != nil {
		return store.Entry{}, fmt.Errorf("get %s from the local store: %w", key, err)
	}
	return entry, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Entry, int64, error) {
	var entries []store.Entry
	var revision int64
	err := s.view(ctx, func(keys *bolt.Bucket) error {
		revision = int64(keys.Sequence())
		c := keys.Cursor()
		for k, raw := c.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)) && k != nil; k, raw = c.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			entry := store.Entry{Key: string(k)}
			entry.Revision, entry.Value = decode(raw)
			entries = append(entries, entry)
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list %s in the local store: %w", prefix, err)
	}
	return entries, revision, nil
}

// view runs a function on the keys as they are now.
func (s *Store) view(ctx context.Context, fn func(keys *bolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.db.View(func(tx *bolt.Tx) error { return fn(tx.Bucket([]byte(bucketKeys))) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// Close implements store.Store.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the local store: %w", err)
	}
	return nil
}

func encode(revision int64, value []byte) []byte {
	raw := binary.BigEndian.AppendUint64(make([]byte, 0, revisionSize+len(value)), uint64(revision))
	return append(raw, value...)
}

// decode returns what encode joined, with a copy of the value: bbolt's memory is gone after the transaction.
// Of an absent key it makes revision 0.
func decode(raw []byte) (int64, []byte) {
	if len(raw) < revisionSize {
		return 0, nil
	}
	return int64(binary.BigEndian.Uint64(raw)), bytes.Clone(raw[revisionSize:])
}
