// Package journal is what this Host owns, on its own disk: an answer to the engine leaves only after the
// journal holds what it says. Each update is on the disk when it returns (bbolt, fsync), all or nothing, so
// the process may be killed at any point.
//
// bbolt checks little of what it reads. The journal therefore carries a sum over all its records, and Open
// checks the whole file before it believes any of it (see check.go). A file that is damaged is moved aside
// and a new journal begun; Recovered tells. What is lost with it is safe: the claims in the store say which
// addresses this Host has given away, so none is given again, and the engine knows the containers.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
)

// schema is the version of what is on the disk. It grows when an older Seaway could not work with what a
// newer one wrote; a new table or a new field does not make it grow. In every schema the number is at the
// same place, below the same sum, so that any Seaway can tell a newer journal from a damaged one.
const schema = 1

// The table of the journal's own values, and its keys.
const (
	tableMeta = "meta"
	keySchema = "schema"
	keyHost   = "host"
	keySeq    = "seq"
)

var (
	// ErrNewer is Open's answer when a newer Seaway wrote the journal.
	ErrNewer = errors.New("the journal is of a newer Seaway")
	// ErrCorrupt says that the journal's file makes no sense. Open returns it only if the file could not be
	// moved aside either; View and Update when the disk changes under them.
	ErrCorrupt = errors.New("the journal is damaged")
)

// errUnchanged ends a transaction that has nothing to write.
var errUnchanged = errors.New("nothing to write")

// Journal is what this Host owns. Its methods are safe for concurrent use: there is one Update at a time,
// and Views go on beside it.
type Journal struct {
	db        *bolt.DB
	lock      *os.File
	host      fabric.HostID
	recovered string
	damage    error
}

// Open opens the journal in a file, and makes one if there is none (its directory must be). A damaged file
// is moved aside, and Recovered tells where to. It fails if another process has the journal open after
// waiting for two seconds, if a newer Seaway wrote it (ErrNewer), and if the disk is full or read-only.
func Open(path string) (*Journal, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	j := &Journal{lock: lock}
	if err := j.openOrReplace(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", path, err), lock.Close())
	}
	return j, nil
}

func (j *Journal) openOrReplace(path string) error {
	err := j.open(path)
	if !errors.Is(err, ErrCorrupt) {
		return err
	}
	moved, moveErr := moveAside(path)
	if moveErr != nil {
		return errors.Join(err, moveErr)
	}
	j.recovered, j.damage = moved, err
	return j.open(path)
}

// open opens the file, which it makes if there is none. The caller holds the lock.
func (j *Journal) open(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return fmt.Errorf("make a new one: %w", err)
		}
	}
	if err := checkFile(path); err != nil {
		return err
	}
	err := guard(func() error {
		db, err := bolt.Open(path, 0o600, options())
		j.db = db
		return err
	})
	if err != nil {
		return err
	}
	if err := guard(func() error { return j.db.View(j.load) }); err != nil {
		return errors.Join(err, j.db.Close())
	}
	return nil
}

// options are bbolt's. The free list is not kept on the disk: a damaged one would let bbolt write over pages
// in use, and one that is computed from the checked tree cannot be damaged.
func options() *bolt.Options {
	return &bolt.Options{Timeout: lockTimeout, NoFreelistSync: true, NoStatistics: true}
}

// create makes a new journal with a new Host. The file gets its name when it is complete, so that one
// without a Host is a damaged one and never one whose making was interrupted.
func create(path string) error {
	unfinished := path + ".new"
	err := errors.Join(remove(unfinished), fill(unfinished))
	if err == nil {
		err = os.Rename(unfinished, path)
	}
	if err != nil {
		return errors.Join(err, remove(unfinished))
	}
	return syncDir(path)
}

// fill writes a new journal's own values.
func fill(path string) error {
	db, err := bolt.Open(path, 0o600, options())
	if err != nil {
		return err
	}
	err = (&Journal{db: db}).Update(func(tx *Tx) error {
		return errors.Join(
			metaTable[int](tx).Put(keySchema, schema),
			metaTable[fabric.HostID](tx).Put(keyHost, fabric.HostID(fabric.NewID())))
	})
	return errors.Join(err, db.Close())
}

// remove removes a file; one that is not there is no error.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// load checks the sum over all records, and reads the journal's own values.
func (j *Journal) load(b *bolt.Tx) error {
	tx := newTx(b)
	sum, err := sumAll(b)
	if err != nil {
		return err
	}
	if sum != tx.sum {
		return fmt.Errorf("%w: the sum of its records is %016x, and should be %016x", ErrCorrupt, sum, tx.sum)
	}
	version, _, err := metaTable[int](tx).Get(keySchema)
	if err != nil {
		return err
	}
	if version > schema {
		return fmt.Errorf("%w: it has schema %d and this Seaway knows %d: install the newer Seaway again",
			ErrNewer, version, schema)
	}
	host, ok, err := metaTable[fabric.HostID](tx).Get(keyHost)
	if err != nil {
		return err
	}
	if !ok || version < 1 {
		return fmt.Errorf("%w: it holds no Host or no schema", ErrCorrupt)
	}
	j.host = host
	return nil
}

// Host returns the identity that this Host made when it made the journal.
func (j *Journal) Host() fabric.HostID { return j.host }

// Recovered returns where Open moved a damaged journal, or "" if it did not: then all that was ever
// committed is here. After a recovery the Host has a new identity (see TakeHost) and owns nothing that it
// knows of. The claims in the store protect against handing out used addresses.
func (j *Journal) Recovered() string { return j.recovered }

// Damage returns what was wrong with the journal that Open moved aside, nil if it did not: for the log.
func (j *Journal) Damage() error { return j.damage }

// TakeHost gives a journal that was begun anew the identity that this Host had before.
func (j *Journal) TakeHost(id fabric.HostID) error {
	err := j.Update(func(tx *Tx) error { return metaTable[fabric.HostID](tx).Put(keyHost, id) })
	if err == nil {
		j.host = id
	}
	return err
}

// View runs a function on the journal as it is now. If the function fails, the error is its own.
func (j *Journal) View(fn func(*Tx) error) error {
	var own error
	err := guard(func() error {
		return j.db.View(func(b *bolt.Tx) error {
			own = fn(newTx(b))
			return own
		})
	})
	if own == nil && err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	return own
}

// Update runs a function on the journal and makes its changes durable. If the function fails, nothing
// changes and the error is its own. If the disk fails, the error says so, and the changes have been made or
// not: read before relying on either. An Update that changes nothing costs no fsync. The function must not
// call View or Update.
func (j *Journal) Update(fn func(*Tx) error) error {
	var own error
	err := guard(func() error {
		return j.db.Update(func(b *bolt.Tx) error {
			tx := newTx(b)
			if own = fn(tx); own == nil {
				own = tx.seal()
			}
			return own
		})
	})
	switch {
	case errors.Is(own, errUnchanged):
		return nil
	case own != nil:
		return own
	case err != nil:
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// Close waits for what is running and closes the journal.
func (j *Journal) Close() error {
	if err := errors.Join(j.db.Close(), j.lock.Close()); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

// guard runs a function that reads pages of the file, and returns ErrCorrupt where they make bbolt panic or
// the disk does not yield them. Panics that are not of that kind go on: they are bugs of ours.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a page that the disk does not yield is SIGBUS
	defer func() {
		switch p := recover().(type) {
		case nil:
		case string: // bbolt's assertions
			err = fmt.Errorf("%w: %s", ErrCorrupt, p)
		case interface{ Addr() uintptr }: // a fault at an address that is not nil
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		default:
			panic(p)
		}
	}()
	return fn()
}

// moveAside gives a damaged file the first free name, and returns it.
func moveAside(path string) (string, error) {
	for n := 1; ; n++ {
		aside := fmt.Sprintf("%s.corrupt-%d", path, n)
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		if err := os.Rename(path, aside); err != nil {
			return "", fmt.Errorf("move the damaged journal aside: %w", err)
		}
		return aside, syncDir(path)
	}
}

// syncDir makes the names in a file's directory durable.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
