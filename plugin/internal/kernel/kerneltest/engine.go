package kerneltest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seaway-net/seaway/plugin/internal/enginehost"
	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// Engine is a simulated machine with a Docker Engine: a process with a mount and a network namespace of
// its own.
type Engine struct {
	*enginehost.Host
	PID int
}

// NewEngine starts an engine whose mounts are those of its machine.
func NewEngine(t testing.TB) *Engine {
	t.Helper()
	return NewEngineWith(t, "")
}

// NewEngineWith starts an engine after a shell script in its namespaces, such as "mkdir /run/netns".
func NewEngineWith(t testing.TB, script string) *Engine {
	t.Helper()
	pid := Process(t, "unshare --mount --net --propagation private",
		"mount -t tmpfs tmpfs /run; mount --make-rprivate /; ip link set lo up; "+script+" true")
	return Open(t, pid, pid)
}

// NewEngineOn starts an engine with a mount namespace of its own on the machine of another one, as snap
// and systemd's PrivateMounts do; propagation is unshare's: private, slave or shared.
func NewEngineOn(t testing.TB, machine *Engine, propagation string) *Engine {
	t.Helper()
	line := fmt.Sprintf("nsenter --mount=/proc/%d/ns/mnt --net=/proc/%d/ns/net unshare --mount --propagation %s",
		machine.PID, machine.PID, propagation)
	return Open(t, Process(t, line, "true"), machine.PID)
}

// Open opens the view of an engine, and closes it when the test ends.
func Open(t testing.TB, pid, keeper int) *Engine {
	t.Helper()
	host, err := enginehost.Open(pid, keeper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	return &Engine{Host: host, PID: pid}
}

// Run runs a command line in the engine's mount and network namespace and returns what it prints.
func (e *Engine) Run(t testing.TB, line string) string {
	t.Helper()
	out, err := e.Try(line)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try is Run for commands that may fail.
func (e *Engine) Try(line string) (string, error) {
	var out string
	err := e.Do(func() (err error) {
		if err = e.Net().Enter(); err != nil {
			return err
		}
		out, err = command(line)
		return err
	})
	return out, err
}

// sandboxDir is where engines bind containers' namespaces.
const sandboxDir = "/run/docker/netns"

// NewContainer makes a container's namespace and binds it where the engine would. The name of the file
// is the sandbox key's last part.
func (e *Engine) NewContainer(t testing.TB, name string) (sandbox string, ns *netns.NS) {
	t.Helper()
	ns = NewNS(t)
	sandbox = filepath.Join(sandboxDir, name)
	err := e.Do(func() error {
		if err := os.MkdirAll(sandboxDir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(sandbox, nil, 0o444); err != nil {
			return err
		}
		if err := ns.Enter(); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", sandbox, "none", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatal(err)
	}
	Run(t, ns, "ip link set lo up")
	return sandbox, ns
}

// RemoveContainer takes a container's namespace away, as the engine does.
func (e *Engine) RemoveContainer(t testing.TB, sandbox string, ns *netns.NS) {
	t.Helper()
	e.Run(t, "umount "+sandbox)
	e.Run(t, "rm "+sandbox)
	ns.Close()
}
