// Package netns is the only room that puts threads into other namespaces, and the only user of
// vishvananda/netns. A namespace is held by a descriptor, so it outlives the name it was found under.
//
// A goroutine that enters a namespace keeps its thread locked and never unlocks it: the thread ends with
// the goroutine. To unlock it would hand a thread in a foreign namespace to whoever runs next, and to
// restore it first may fail; both are well-known ways for a program to talk to the wrong kernel tables.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// init keeps the main goroutine on the process's initial thread. Go cannot end that thread: if a
// goroutine that changes namespaces were put on it, it would stay parked there, and /proc/self would
// show that namespace as the process's own.
func init() {
	runtime.LockOSThread()
}

// NS is a network namespace, held open. Close it when done.
type NS struct {
	handle netns.NsHandle
	id     identity
}

// identity is what stat(2) says of a namespace's descriptor: equal for the same namespace only.
type identity struct{ dev, ino uint64 }

// Current opens the network namespace of the calling thread.
func Current() (*NS, error) {
	h, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the current network namespace: %w", err)
	}
	return hold(h)
}

// Open opens the network namespace that a file stands for: a bind mount, or an entry of /proc/PID/ns.
// If there is none, the error is os.ErrNotExist; if the file is something else, ErrNotNamespace.
func Open(path string) (*NS, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return nil, &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("open network namespace %s: %w", path, ErrNotNamespace)
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		return nil, &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	return hold(h)
}

// ErrNotNamespace is returned by Open for a file that exists and is no namespace: what `ip netns add`
// leaves when it is interrupted, or after a reboot with a /run that is no tmpfs.
var ErrNotNamespace = errors.New("the file is no namespace")

// New makes a network namespace that has no name yet: it is gone when the last holder closes it.
func New() (*NS, error) {
	var ns *NS
	err := onThread(func() error {
		h, err := netns.New()
		if err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		ns, err = hold(h)
		return err
	})
	return ns, err
}

func hold(h netns.NsHandle) (*NS, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(h), &st); err != nil {
		_ = h.Close()
		return nil, fmt.Errorf("stat a network namespace: %w", err)
	}
	return &NS{handle: h, id: identity{dev: st.Dev, ino: st.Ino}}, nil
}

// Do runs fn on a thread of its own inside the namespace. Sockets that fn opens belong to the namespace
// for as long as they live, whoever uses them afterwards.
func (ns *NS) Do(fn func() error) error {
	return onThread(func() error {
		if err := ns.Enter(); err != nil {
			return err
		}
		return fn()
	})
}

// Enter moves the calling thread into the namespace. Call it only inside Do, or inside Thread.
func (ns *NS) Enter() error {
	if err := netns.Set(ns.handle); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	return nil
}

// FD is the descriptor, valid until Close: what netlink wants where a namespace is meant.
func (ns *NS) FD() int { return int(ns.handle) }

// Equal reports whether both are the same namespace. A nil NS equals none.
func (ns *NS) Equal(other *NS) bool {
	return ns != nil && other != nil && ns.id == other.id
}

// Close lets go of the namespace. A nil NS is closed already.
func (ns *NS) Close() {
	if ns != nil && ns.handle.IsOpen() {
		_ = ns.handle.Close() // nothing was written
	}
}

// Thread runs fn on a thread of its own that ends afterwards, for whatever else changes a thread for
// good: its mount namespace, its root.
func Thread(fn func() error) error { return onThread(fn) }

// errEnded is what Do and Thread return when fn ended its goroutine, as a failing test does.
var errEnded = errors.New("a function on a namespace's thread did not return")

func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: see the package's comment
		err := errEnded
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic on a namespace's thread: %v\n%s", p, debug.Stack())
			}
			done <- err
		}()
		err = fn()
	}()
	return <-done
}
