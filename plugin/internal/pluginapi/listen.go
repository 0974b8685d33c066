package pluginapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// maxSocketPath is what the kernel's sockaddr_un holds, less the final NUL.
	maxSocketPath = 107
	// socketMode keeps all but root away: whoever can connect can make and remove networks.
	socketMode = 0o600
)

// Listen opens the plugin's socket, with its directory if need be. A socket that a dead process left
// behind is replaced; one that is still served, and a file that is no socket, are errors.
func Listen(path string) (*net.UnixListener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: the path is %d bytes long, the kernel allows %d",
			path, len(path), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The mode of the socket becomes that of its file in bind(2): it is never open to others, not even
	// for a moment.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var modeErr error
		err := raw.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, modeErr)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l.(*net.UnixListener), nil
}

// removeStale removes the socket at path if nobody serves it.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is no socket")
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close()
		return errors.New("another process serves it")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// connections is the listener that the sdk's handler serves. The handler hides its http.Server, and with
// it Shutdown and ConnState, so the connections are followed from below: each is known from Accept to
// the Close that is its server goroutine's last act.
type connections struct {
	*net.UnixListener
	logger *slog.Logger
	onPeer func(pid int32)

	gone sync.WaitGroup
	mu   sync.Mutex
	open map[*connection]struct{}
}

// connection is an accepted connection that says when it is closed.
type connection struct {
	*net.UnixConn
	owner *connections
}

// Accept waits for the next connection and reports its peer.
func (c *connections) Accept() (net.Conn, error) {
	unixConn, err := c.AcceptUnix()
	if err != nil {
		return nil, err
	}
	c.report(unixConn)
	conn := &connection{UnixConn: unixConn, owner: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = struct{}{}
	c.gone.Add(1)
	return conn, nil
}

// report tells onPeer who has connected. The connection is served in any case.
func (c *connections) report(conn *net.UnixConn) {
	if c.onPeer == nil {
		return
	}
	pid, err := peerPID(conn)
	if err != nil {
		c.logger.Warn("cannot tell who connected to the plugin socket", "error", err)
		return
	}
	c.onPeer(pid)
}

// Close closes the connection; the first time counts.
func (c *connection) Close() error {
	err := c.UnixConn.Close()
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	if _, open := c.owner.open[c]; open {
		delete(c.owner.open, c)
		c.owner.gone.Done()
	}
	return err
}

// each calls f for each open connection; f must not close it.
func (c *connections) each(f func(*net.UnixConn) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		_ = f(conn.UnixConn) // an error means that it is gone already
	}
}

// peerPID returns the process that connected.
func peerPID(conn *net.UnixConn) (int32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("read SO_PEERCRED: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("read SO_PEERCRED: %w", err)
	}
	if cred.Pid == 0 {
		return 0, errors.New("read SO_PEERCRED: the process is in a pid namespace that this one does not see")
	}
	return cred.Pid, nil
}
