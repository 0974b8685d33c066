// Package app wires the rooms together and owns their lifetime. It is the only room that knows all
// others.
//
// It listens before it does anything else, because an engine that finds no socket switches the plugin
// off, and it never gives up: what is wrong is said in the answer to every verb. When it ends, whether
// asked to or not, the data plane stays as it is.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/ipamdriver"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/kernel/links"
	"github.com/seaway-net/seaway/plugin/internal/netdriver"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
	"github.com/seaway-net/seaway/plugin/internal/reconcile"
	"github.com/seaway-net/seaway/plugin/internal/store/local"
)

// Where things are inside the plugin; config.json says the same.
const (
	// SocketPath is where the engine looks for us.
	SocketPath = "/run/docker/plugins/seaway.sock"
	// StateDir is the plugin's propagatedMount, which survives upgrades.
	StateDir = "/var/lib/seaway"
)

const (
	// sweepInterval is how often what no verb does is done.
	sweepInterval = 30 * time.Second
	// plugDelay is how long after its link came up a container's end is looked at: the engine sets
	// routes last, and tells nobody when it is done.
	plugDelay = 500 * time.Millisecond
	// defaultMTU is for a host without a default route.
	defaultMTU = 1500
)

// App is one running Seaway.
type App struct {
	settings Settings
	log      *slog.Logger
	engines  *finder
	server   *pluginapi.Server

	journal *journal.Journal
	store   *local.Store
	plane   *links.Plane
	loop    *reconcile.Loop
	network *netdriver.Driver
	ipam    *ipamdriver.Driver

	uplinkMTU atomic.Int64
	plugged   chan string // ports whose far ends have come up
}

// Run serves the engine until the context ends. getenv reads the settings.
func Run(ctx context.Context, version string, getenv func(string) string) error {
	settings, badSettings := ReadSettings(getenv)
	log := newLogger(settings.LogLevel)
	a := &App{settings: settings, log: log, engines: newFinder(log), plugged: make(chan string, 1024)}
	defer a.engines.close()
	a.server = pluginapi.New(pluginapi.Options{Logger: log, OnPeer: a.engines.peer})
	l, err := pluginapi.Listen(SocketPath)
	if err != nil {
		return err
	}
	log.Info("Seaway listens", "version", version)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	// Calls that are under way when we are told to stop still need everything to be there.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	tasks.Go(func() {
		if err := a.work(work, badSettings); err != nil && work.Err() == nil {
			log.Error("Seaway cannot work", "error", err)
			a.refuse(err)
		}
	})
	return a.server.Serve(ctx, l)
}

// refuse answers every verb with the error from now on.
func (a *App) refuse(err error) {
	a.server.Use(refusal{err}, refusal{err})
}

// work does everything but listen, until the context ends.
func (a *App) work(ctx context.Context, badSettings error) error {
	if badSettings != nil {
		return fmt.Errorf("%w%s", badSettings, repair)
	}
	if err := a.open(); err != nil {
		return err
	}
	defer a.close()
	if err := a.engines.wait(ctx); err != nil {
		return err
	}
	held, err := a.takeHost(ctx)
	if err != nil {
		return err
	}
	defer held.Close()
	a.build()
	defer a.plane.Close()
	if err := a.begin(ctx); err != nil {
		return err
	}
	a.server.Use(a.network, a.ipam)
	a.log.Info("Seaway is ready", "host", a.journal.Host())
	a.run(ctx)
	return nil
}

// open opens what is on disk.
func (a *App) open() (err error) {
	if a.journal, err = journal.Open(filepath.Join(StateDir, "journal.db")); err != nil {
		return err
	}
	if err = a.keepIdentity(); err != nil {
		return errors.Join(err, a.journal.Close())
	}
	if a.store, err = local.Open(filepath.Join(StateDir, "store.db")); err != nil {
		return errors.Join(err, a.journal.Close())
	}
	return nil
}

// keepIdentity keeps this Host's identity in a file beside the journal, and has it back if the journal was
// lost: the data plane and the store know us by it.
func (a *App) keepIdentity() error {
	path := filepath.Join(StateDir, "host")
	kept, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if lost := a.journal.Recovered(); lost != "" {
		a.log.Error("the journal could not be read and was put aside; what is known is taken from the store",
			"file", lost, "error", a.journal.Damage())
		if id := strings.TrimSpace(string(kept)); len(id) == len(a.journal.Host()) {
			return a.journal.TakeHost(fabric.HostID(id))
		}
	}
	if string(kept) == string(a.journal.Host()) {
		return nil
	}
	return os.WriteFile(path, []byte(a.journal.Host()), 0o600)
}

func (a *App) close() {
	if err := errors.Join(a.store.Close(), a.journal.Close()); err != nil {
		a.log.Error("state was not closed in order", "error", err)
	}
}

// takeHost takes the host for us. While another Seaway has it, verbs are refused; when that one ends,
// this one begins.
func (a *App) takeHost(ctx context.Context) (io.Closer, error) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for refused := false; ; refused = true {
		held, err := lock(a.engines.host())
		if !errors.Is(err, errSecond) {
			return held, err
		}
		if !refused {
			a.log.Error("Seaway waits", "error", err)
			a.refuse(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-again.C:
		}
	}
}

// build makes the rooms and introduces them to each other.
func (a *App) build() {
	a.plane = links.NewPlane(a.engines.host, a.journal.Host(), links.Events{
		Changed: func(key kernel.Key) { a.loop.Check(key) },
		Missed:  func() { a.loop.Resync() },
		Plugged: a.notePlugged,
	}, a.log)
	a.loop = reconcile.New(a.plane, a.log)
	a.ipam = ipamdriver.New(ipamdriver.Config{
		Journal: a.journal, Store: a.store, Log: a.log,
		Pool: a.settings.SubnetPool, Size: a.settings.SubnetSize,
		Neighbours: a.neighbours,
	})
	a.network = netdriver.New(netdriver.Config{
		Journal: a.journal, Store: a.store, Log: a.log,
		Kernel: a.loop, Containers: containers{a.plane, a.engines},
		MTU: a.mtu, Forget: a.ipam.Forget, Release: a.ipam.ReleaseFrom,
	})
}

// begin takes up what an earlier process left.
func (a *App) begin(ctx context.Context) error {
	a.learnMTU(ctx)
	if err := a.network.Tidy(ctx); err != nil {
		return err
	}
	desired, err := a.network.Desired()
	if err != nil {
		return err
	}
	a.loop.Load(desired)
	return nil
}

// run runs the tasks until the context ends.
func (a *App) run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { _ = a.loop.Run(ctx) }) // it ends with the context only
	tasks.Go(func() { a.sweep(ctx) })
	tasks.Go(func() { a.readPlugs(ctx) })
	tasks.Go(func() {
		name := kernel.Namespace{}.Key()
		// Every container that starts mounts something: look before the loop is asked to.
		changed := func() {
			if a.plane.NameLost() {
				a.loop.Check(name)
			}
		}
		if err := a.engines.watchMounts(ctx, changed); err != nil {
			a.log.Error("a lost name of the data plane will be noticed late", "error", err)
		}
	})
}

// sweep does what no verb does, now and then.
func (a *App) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := errors.Join(a.network.Sweep(ctx), a.ipam.Sweep(ctx)); err != nil && ctx.Err() == nil {
			a.log.Warn("sweep", "error", err)
		}
		a.learnMTU(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// notePlugged has a port looked at. If too many wait already, the next sweep looks at it.
func (a *App) notePlugged(port string) {
	select {
	case a.plugged <- port:
	default:
	}
}

// readPlugs looks at ports whose far ends came up, each once some time after it last did.
func (a *App) readPlugs(ctx context.Context) {
	due := make(map[string]time.Time)
	timer := time.NewTimer(plugDelay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case port := <-a.plugged:
			if len(due) == 0 {
				timer.Reset(plugDelay)
			}
			due[port] = time.Now().Add(plugDelay)
			continue
		case <-timer.C:
		}
		now := time.Now()
		for port, when := range due {
			if when.After(now) {
				timer.Reset(when.Sub(now))
				continue
			}
			delete(due, port)
			if err := a.network.PortPlugged(ctx, port); err != nil {
				a.log.Warn("how a container is plugged in is not known until the next sweep", "port", port, "error", err)
			}
		}
	}
}

// mtu is that of containers' links for networks that ask for none.
func (a *App) mtu() int {
	if a.settings.MTU != 0 {
		return a.settings.MTU
	}
	if mtu := a.uplinkMTU.Load(); mtu != 0 {
		return int(mtu)
	}
	return defaultMTU
}

func (a *App) learnMTU(ctx context.Context) {
	mtu, err := a.plane.UplinkMTU(ctx)
	if err != nil {
		a.log.Warn("the MTU of the host's uplink is not known", "error", err)
		return
	}
	a.uplinkMTU.Store(int64(mtu))
}
