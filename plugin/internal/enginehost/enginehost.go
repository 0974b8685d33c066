// Package enginehost is the machine as the Docker Engine sees it. A managed plugin lives in a root file
// system of its own; what belongs to the host (the names of namespaces below /run/netns, a container's
// namespace at its SandboxKey, sysctls) is where the engine is. The engine is the peer of our socket, so
// we find it by SO_PEERCRED and look through /proc/PID, and need no mount that may be missing at boot or
// not propagate. It holds where / is private, in docker-in-docker, and on hosts simulated on one machine.
//
// Descriptors are kept, not the process id: an engine that is down and an id used again change nothing.
package enginehost

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// ErrNotEngine is returned by Find for a process that is no Docker Engine: somebody's curl.
var ErrNotEngine = errors.New("the process is no Docker Engine")

// ErrRootless is returned by Find for an engine that runs in a user namespace of its own.
var ErrRootless = errors.New("the engine is rootless: it may not make the links that Seaway needs; use an engine that runs as root")

// Host is the engine's view of its machine. It stays valid when the engine ends.
type Host struct {
	net    *netns.NS
	mounts *os.File // mount namespace
	root   *os.File // root directory, which need not be that of the mount namespace
	table  *os.File // mountinfo, whose poll(2) tells of changes
	// keeper is a mount namespace that outlives the engine's; nil if there is none that we can enter.
	keeper *os.File
}

// Find opens the view of the engine with that process id. The error is ErrNotEngine if the process is
// something else.
func Find(pid int) (*Host, error) {
	if err := checkEngine(pid); err != nil {
		return nil, err
	}
	return Open(pid, os.Getppid())
}

// Open opens the view of any process, for tests that simulate an engine. The names of namespaces are kept
// in the mount namespace of the process keeper too.
func Open(pid, keeper int) (*Host, error) {
	h := &Host{}
	var err error
	if h.net, err = netns.Open(procPath(pid, "ns/net")); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		file **os.File
		name string
		flag int
	}{
		{&h.mounts, "ns/mnt", unix.O_RDONLY},
		{&h.root, "root", unix.O_PATH | unix.O_DIRECTORY},
		{&h.table, "mountinfo", unix.O_RDONLY},
	} {
		if *part.file, err = open(procPath(pid, part.name), part.flag); err != nil {
			h.Close()
			return nil, fmt.Errorf("look at engine %d: %w", pid, err)
		}
	}
	h.keeper, _ = open(procPath(keeper, "ns/mnt"), unix.O_RDONLY) // without it, BindNetns says so
	return h, nil
}

// open opens a file without telling Go's runtime, which would wait for events of it with epoll(7): looking
// at a mountinfo's events consumes them, and WatchMounts would miss what the runtime has seen.
func open(path string, flag int) (*os.File, error) {
	fd, err := unix.Open(path, flag|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// checkEngine returns nil if the process is dockerd, under that name or because it holds the listening
// socket of the Docker API (some distributions rename the program).
func checkEngine(pid int) error {
	exe, err := os.Readlink(procPath(pid, "exe"))
	if err != nil {
		return fmt.Errorf("look at process %d: %w", pid, err)
	}
	// After a package upgrade the running program's file reads "…/dockerd (deleted)".
	if filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "dockerd" && !holdsAPISocket(pid) {
		return fmt.Errorf("process %d (%s): %w", pid, exe, ErrNotEngine)
	}
	return checkRoot(pid)
}

// checkRoot returns ErrRootless if the process's user ids are not those of the machine: its root is some
// ordinary user (user_namespaces(7)).
func checkRoot(pid int) error {
	ids, err := os.ReadFile(procPath(pid, "uid_map"))
	if err != nil {
		return fmt.Errorf("look at process %d: %w", pid, err)
	}
	if f := strings.Fields(string(ids)); len(f) < 2 || f[0] != "0" || f[1] != "0" {
		return ErrRootless
	}
	return nil
}

// holdsAPISocket reports whether one of the process's descriptors is a unix socket bound to a path that
// ends in docker.sock. Only root can make the engine's socket, and only root can reach ours.
func holdsAPISocket(pid int) bool {
	table, err := os.ReadFile(procPath(pid, "net/unix"))
	if err != nil {
		return false
	}
	sockets := make(map[string]bool) // "socket:[inode]", as the links below /proc/PID/fd read
	for line := range strings.Lines(string(table)) {
		// Num RefCount Protocol Flags Type St Inode Path
		if f := strings.Fields(line); len(f) == 8 && filepath.Base(f[7]) == "docker.sock" {
			sockets["socket:["+f[6]+"]"] = true
		}
	}
	fds, err := filepath.Glob(procPath(pid, "fd/*"))
	if err != nil || len(sockets) == 0 {
		return false
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && sockets[target] {
			return true
		}
	}
	return false
}

// Net is the network namespace in which the engine looks for the links that it moves into containers.
func (h *Host) Net() *netns.NS { return h.net }

// Do runs fn on a thread of its own that has the engine's mounts and root, so that paths mean what they
// mean to the engine. Descriptors that fn opens stay valid afterwards.
func (h *Host) Do(fn func() error) error {
	return netns.Thread(func() error {
		if err := enterMounts(h.mounts); err != nil {
			return err
		}
		if err := unix.Fchdir(int(h.root.Fd())); err != nil {
			return fmt.Errorf("change to the engine's root: %w", err)
		}
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("take the engine's root: %w", err)
		}
		return fn()
	})
}

// enterMounts moves the calling thread into a mount namespace. Threads share their working directory and
// root, which setns(2) refuses to change for all of them at once: unshare those first.
func enterMounts(mounts *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the working directory: %w", err)
	}
	if err := unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the engine's mount namespace: %w", err)
	}
	return nil
}

// OpenNetns opens the network namespace at a path of the engine, such as a SandboxKey. The error is
// os.ErrNotExist if there is none (any more).
func (h *Host) OpenNetns(path string) (*netns.NS, error) {
	var ns *netns.NS
	err := h.Do(func() (err error) {
		ns, err = netns.Open(path)
		if errors.Is(err, netns.ErrNotNamespace) {
			// The engine makes the file first and mounts the namespace on it, and unmounts first.
			err = &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
		}
		return err
	})
	return ns, err
}

// Close lets go of the view. Nothing on the machine changes.
func (h *Host) Close() {
	h.net.Close()
	for _, f := range []*os.File{h.mounts, h.root, h.table, h.keeper} {
		if f != nil {
			_ = f.Close() // opened for reading
		}
	}
}

func procPath(pid int, name string) string {
	return fmt.Sprintf("/proc/%d/%s", pid, name)
}
