package kit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Plugin is the name under which InstallPlugin installs Seaway.
const Plugin = "seaway:latest"

// Bundle returns the directory of the plugin's bundle: that in the environment
// variable SEAWAY_BUNDLE, or build/bundle of this checkout.
func Bundle() (string, error) {
	dir := os.Getenv("SEAWAY_BUNDLE")
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", fmt.Errorf("find plugin bundle: %w", err)
		}
		dir = filepath.Join(root, "build", "bundle")
	}
	for _, name := range []string{"config.json", "rootfs"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("find plugin bundle (run \"make bundle\" first): %w", err)
		}
	}
	return dir, nil
}

// moduleRoot is the directory of go.mod, at or above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find module: no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// InstallPlugin creates the plugin from its bundle, applies settings of the
// form NAME=value, and enables it.
func (h *Host) InstallPlugin(ctx context.Context, settings ...string) error {
	bundle, err := Bundle()
	if err != nil {
		return err
	}
	if _, err := h.Docker(ctx, "plugin", "create", Plugin, bundle); err != nil {
		return err
	}
	if len(settings) > 0 {
		args := append([]string{"plugin", "set", Plugin}, settings...)
		if _, err := h.Docker(ctx, args...); err != nil {
			return err
		}
	}
	if _, err := h.Docker(ctx, "plugin", "enable", Plugin); err != nil {
		return fmt.Errorf("%w\n%s", err, h.LogTail(20))
	}
	return nil
}

// PluginPID is the id of the plugin's process on the real machine. It does not
// ask the engine, and works when that is down. It fails when no plugin runs,
// or more than one.
func (h *Host) PluginPID() (int, error) {
	all, err := h.Processes()
	if err != nil {
		return 0, err
	}
	shims := map[int]bool{}
	for _, p := range all {
		if strings.Contains(p.Args[0], "containerd-shim") && slices.Contains(p.Args, "plugins.moby") {
			shims[p.PID] = true
		}
	}
	var found []int
	for _, p := range all {
		if shims[p.Parent] && !shims[p.PID] {
			found = append(found, p.PID)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("find plugin of %s: %d processes %v", h.Name, len(found), found)
	}
	return found[0], nil
}

// KillPlugin ends the plugin's process with kill -9 and waits until it is
// gone. The engine starts it again by itself: see WaitPlugin.
func (h *Host) KillPlugin(ctx context.Context) error {
	pid, err := h.PluginPID()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill plugin of %s: %w", h.Name, err)
	}
	return WaitFor(ctx, "end of the plugin of "+h.Name, func(context.Context) error {
		if now, err := h.PluginPID(); err == nil && now == pid {
			return fmt.Errorf("process %d runs", pid)
		}
		return nil
	})
}

// WaitPlugin waits until the plugin runs, and its socket takes connections.
func (h *Host) WaitPlugin(ctx context.Context) error {
	return WaitFor(ctx, "the plugin of "+h.Name, func(ctx context.Context) error {
		if _, err := h.PluginPID(); err != nil {
			return err
		}
		c, err := h.DialPlugin(ctx)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// DialPlugin connects to the plugin's socket, as the engine does.
func (h *Host) DialPlugin(ctx context.Context) (net.Conn, error) {
	pattern := filepath.Join(h.Root(), "run/docker/plugins", strings.Repeat("[0-9a-f]", 64), "*.sock")
	sockets, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("dial plugin of %s: %w", h.Name, err)
	}
	if len(sockets) != 1 {
		return nil, fmt.Errorf("dial plugin of %s: %d sockets", h.Name, len(sockets))
	}
	// The whole path is too long for a socket's address.
	dir, err := os.Open(filepath.Dir(sockets[0]))
	if err != nil {
		return nil, fmt.Errorf("dial plugin of %s: %w", h.Name, err)
	}
	defer func() { _ = dir.Close() }()
	address := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(sockets[0]))
	c, err := new(net.Dialer).DialContext(ctx, "unix", address)
	if err != nil {
		return nil, fmt.Errorf("dial plugin of %s: %w", h.Name, err)
	}
	return c, nil
}
