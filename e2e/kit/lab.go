package kit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/seaway-net/seaway/e2e/internal/remains"
)

const (
	// clearTime is how long the end of a Lab's processes may take.
	clearTime = 30 * time.Second

	probePackage = "github.com/seaway-net/seaway/e2e/probe"
)

// A Lab is a set of simulated machines on one switch. It belongs to the
// process that opened it and ends with it.
type Lab struct {
	// Outside is the machine that has the switch: the hosts' default gateway,
	// and behind it the address that stands for the rest of the world.
	Outside *Machine
	// Probe is the path of the probe program, the same on every machine.
	Probe string

	dir     string
	engine  Engine
	storage string
	janitor *exec.Cmd
	alive   io.Closer // the janitor's sign that this process lives

	mu    sync.Mutex
	hosts []*Host
	count int
}

// Open clears what dead Labs left behind, and makes a Lab with a switch and no
// hosts. Its hosts run the engine that the environment variable ENGINE names.
func Open(ctx context.Context) (*Lab, error) {
	if err := Sweep(ctx); err != nil {
		return nil, err
	}
	engine, err := FindEngine(ctx, os.Getenv("ENGINE"))
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", remains.Prefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("make lab directory: %w", err)
	}
	l := &Lab{dir: dir, engine: engine, Probe: filepath.Join(dir, "probe")}
	if err := l.setUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open lab: %w", err), l.Close())
	}
	return l, nil
}

// Sweep removes what Labs left behind whose process is dead.
func Sweep(ctx context.Context) error {
	dirs, err := remains.Orphans(os.TempDir())
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, clearTime)
	defer cancel()
	for _, dir := range dirs {
		err = errors.Join(err, remains.Clear(ctx, dir))
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// setUp fills an empty Lab.
func (l *Lab) setUp(ctx context.Context) error {
	if err := remains.Claim(l.dir); err != nil {
		return err
	}
	// The directory holds hosts' disks, whose content other users may read
	// no more than that of /var/lib/docker.
	if err := os.Chmod(l.dir, 0o711); err != nil {
		return fmt.Errorf("open lab directory to searching: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", l.Probe, probePackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(build); err != nil {
		return fmt.Errorf("build probe: %w", err)
	}
	if err := l.startJanitor(); err != nil {
		return err
	}
	if err := writeImage(ctx, l.imageFile(), l.Probe); err != nil {
		return err
	}
	l.storage = storageDriver(ctx, l.dir)
	outside, err := l.newMachine("outside", false)
	if err != nil {
		return err
	}
	l.Outside = outside
	if err := outside.boot(ctx); err != nil {
		return err
	}
	if err := setUpSwitch(ctx, outside); err != nil {
		return err
	}
	return outside.startDNS()
}

// startJanitor starts the process that cleans up if this one cannot.
func (l *Lab) startJanitor() error {
	seconds := strconv.Itoa(int(clearTime.Seconds()))
	cmd := exec.Command(l.Probe, "janitor", l.dir, seconds)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	alive, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start janitor: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start janitor: %w", err)
	}
	l.janitor, l.alive = cmd, alive
	return nil
}

// AddHost makes a host, boots it and starts its engine.
func (l *Lab) AddHost(ctx context.Context, opt HostOptions) (*Host, error) {
	l.mu.Lock()
	l.count++
	h, err := newHost(l, l.count, opt)
	if err == nil {
		l.hosts = append(l.hosts, h)
	}
	l.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("add host: %w", err)
	}
	if err := h.PowerOn(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("add host: %w", err), h.Remove(ctx))
	}
	return h, nil
}

// Close ends every machine of the Lab and removes all that is left of it. It
// has its own deadline, so that it also works when the caller's has passed.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), clearTime)
	defer cancel()
	l.mu.Lock()
	hosts := l.hosts
	l.hosts = nil
	l.mu.Unlock()
	var err error
	for _, h := range hosts {
		err = errors.Join(err, h.PowerOff(ctx))
	}
	if l.Outside != nil {
		err = errors.Join(err, l.Outside.powerOff(ctx))
	}
	if l.janitor != nil {
		// It must not see the end of its input before its own.
		err = errors.Join(err, l.janitor.Process.Kill())
		_ = l.janitor.Wait() // always "killed"
		_ = l.alive.Close()  // the reader is gone
		l.janitor = nil
	}
	if err = errors.Join(err, remains.Clear(ctx, l.dir)); err != nil {
		return fmt.Errorf("close lab %s: %w", l.dir, err)
	}
	return nil
}

// Engine tells which engine the Lab's hosts run.
func (l *Lab) Engine() Engine { return l.engine }

// Name is the name of the Lab's directory, and begins the names of its control
// groups.
func (l *Lab) Name() string { return filepath.Base(l.dir) }

func (l *Lab) imageFile() string { return filepath.Join(l.dir, "image.tar") }

// forget takes a removed host off the list.
func (l *Lab) forget(h *Host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.hosts {
		if l.hosts[i] == h {
			l.hosts = append(l.hosts[:i], l.hosts[i+1:]...)
			return
		}
	}
}
