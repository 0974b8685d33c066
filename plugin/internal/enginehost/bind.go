package enginehost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// namesDir is where iproute2 keeps the names of network namespaces.
const namesDir = "/run/netns"

// NamedNetns opens the network namespace that `ip netns` knows under that name. Where the name ended with
// an earlier engine, the one that was kept beside it counts. The error is os.ErrNotExist if there is none.
func (h *Host) NamedNetns(name string) (*netns.NS, error) {
	path := filepath.Join(namesDir, name)
	ns, err := h.OpenNetns(path)
	if !errors.Is(err, os.ErrNotExist) {
		return ns, err
	}
	if keptErr := h.inKeeper(func() (err error) {
		ns, err = netns.Open(path)
		return err
	}); keptErr != nil || ns == nil {
		return nil, err
	}
	return ns, nil
}

// HasName reports whether the namespace, and no other, has that name in the engine's mount namespace.
func (h *Host) HasName(name string, ns *netns.NS) bool {
	named, err := h.OpenNetns(filepath.Join(namesDir, name))
	if err != nil {
		return false
	}
	defer named.Close()
	return named.Equal(ns)
}

// BindNetns gives the namespace a name, as `ip netns add` does, in the engine's mount namespace, where
// it outlives this process. Where the engine has a mount namespace of its own that ends with it (a snap,
// PrivateMounts), the name is given in the one of our parent process too; outlives says whether the name
// is now somewhere that does not end with the engine. Done twice, it changes nothing. The error is
// os.ErrExist if another namespace has the name; it keeps it.
func (h *Host) BindNetns(name string, ns *netns.NS) (outlives bool, err error) {
	path := filepath.Join(namesDir, name)
	// Look before anything is bound; and the keeper comes first, because what is bound there may appear
	// in the engine's too, while a name bound in both would be mounted twice.
	err = h.Do(func() error { return isFree(path, ns) })
	if err == nil {
		outlives = h.inKeeper(func() error { return bindHere(path, ns) }) == nil
		err = h.Do(func() error { return bindHere(path, ns) })
	}
	if err != nil {
		return false, fmt.Errorf("name network namespace %s: %w", name, err)
	}
	return outlives, nil
}

// UnbindNetns takes the name away from the namespace, wherever BindNetns gave it. A name that is not
// there, or is another namespace's, is no error. The namespace lives on as long as somebody holds it.
func (h *Host) UnbindNetns(name string, ns *netns.NS) error {
	unbind := func() error { return unbindHere(filepath.Join(namesDir, name), ns) }
	// The keeper comes first again: where the engine's mounts are a copy of its, the file goes with both,
	// while the engine cannot remove it under a mount that it has a copy of and cannot reach.
	keptErr := h.inKeeper(unbind)
	if errors.Is(keptErr, errNoKeeper) {
		keptErr = nil
	}
	return errors.Join(keptErr, h.Do(unbind))
}

// errNoKeeper is returned by inKeeper where the keeper's mount namespace cannot be entered.
var errNoKeeper = errors.New("no mount namespace outlives the engine's")

// inKeeper runs fn in the mount namespace that outlives the engine's. If the engine's own does, there is
// nothing to do.
func (h *Host) inKeeper(fn func() error) error {
	if h.keeper == nil {
		return errNoKeeper
	}
	if sameFile(h.keeper, h.mounts) {
		return nil
	}
	return netns.Thread(func() error {
		if err := enterMounts(h.keeper); err != nil {
			return err
		}
		return fn()
	})
}

// isFree returns nil if the namespace has that path or may get it, and os.ErrExist if another has it. A
// plain file is free: it is what an interrupted bind or unbind leaves.
func isFree(path string, ns *netns.NS) error {
	held, err := netns.Open(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	if !held.Equal(ns) {
		return &os.PathError{Op: "bind", Path: path, Err: os.ErrExist}
	}
	return nil
}

// bindHere binds the namespace to a path below namesDir in the calling thread's mount namespace.
func bindHere(path string, ns *netns.NS) error {
	if err := isFree(path, ns); err != nil {
		return err
	}
	if held, err := netns.Open(path); err == nil {
		held.Close()
		return nil
	}
	if err := shareNames(); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return err
	}
	_ = f.Close()
	if err := ns.Enter(); err != nil {
		return err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "mount a namespace on", Path: path, Err: err}
	}
	return nil
}

// unbindHere undoes bindHere, also when it was done several times or not to its end.
func unbindHere(path string, ns *netns.NS) error {
	for {
		held, err := netns.Open(path)
		if errors.Is(err, netns.ErrNotNamespace) {
			return os.Remove(path)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		ours := held.Equal(ns)
		held.Close()
		if !ours {
			return nil
		}
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
}

// shareNames makes namesDir a shared mount of its own, as `ip netns add` does the first time, so that
// names come and go in every mount namespace that was copied from this one.
func shareNames() error {
	if err := os.MkdirAll(namesDir, 0o755); err != nil {
		return err
	}
	shared := func() error { return unix.Mount("", namesDir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err := shared()
	if errors.Is(err, unix.EINVAL) { // it is a plain directory yet
		if err = unix.Mount(namesDir, namesDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return &os.PathError{Op: "bind", Path: namesDir, Err: err}
		}
		err = shared()
	}
	if err != nil {
		return &os.PathError{Op: "share", Path: namesDir, Err: err}
	}
	return nil
}

func sameFile(a, b *os.File) bool {
	x, errX := a.Stat()
	y, errY := b.Stat()
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// WatchMounts calls changed whenever something is mounted or unmounted in the engine's mount namespace,
// until the context ends. The kernel tells that something changed, not what.
func (h *Host) WatchMounts(ctx context.Context, changed func()) error {
	var stop [2]int
	if err := unix.Pipe2(stop[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer unix.Close(stop[0])
	unstop := context.AfterFunc(ctx, func() { _ = unix.Close(stop[1]) })
	defer func() {
		if unstop() {
			_ = unix.Close(stop[1])
		}
	}()
	for {
		fds := []unix.PollFd{
			{Fd: int32(h.table.Fd()), Events: unix.POLLPRI},
			{Fd: int32(stop[0]), Events: unix.POLLIN},
		}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch mounts: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if fds[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0 {
			changed()
		}
	}
}
