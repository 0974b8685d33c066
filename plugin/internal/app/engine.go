package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"

	"github.com/seaway-net/seaway/plugin/internal/enginehost"
)

// finder learns from the peers of our socket where the engine is.
type finder struct {
	log   *slog.Logger
	found chan struct{} // closed when the first engine is known, or is one that we cannot work for

	mu    sync.Mutex
	pid   int32
	views []*enginehost.Host // the last is the present one; through the one before somebody may still look
	moved chan struct{}      // closed when another engine takes over
	err   error              // why we cannot work for the engine
}

func newFinder(log *slog.Logger) *finder {
	return &finder{log: log, found: make(chan struct{}), moved: make(chan struct{})}
}

// peer looks at a process that has connected to our socket. An engine keeps its process id for life; the
// number of another process cannot pass for it, as the engine must have ended before it is used again.
func (f *finder) peer(pid int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pid == f.pid {
		return
	}
	view, err := enginehost.Find(int(pid))
	switch {
	case errors.Is(err, enginehost.ErrNotEngine):
		f.log.Debug("somebody who is not the engine uses our socket", "error", err)
		return
	case errors.Is(err, enginehost.ErrRootless) && f.pid == 0:
		f.pid, f.err = pid, err
		close(f.found)
		return
	case err != nil:
		f.log.Error("cannot look at the machine through the engine", "pid", pid, "error", err)
		return
	}
	f.log.Info("the engine is known", "pid", pid)
	if f.pid == 0 {
		close(f.found)
	}
	f.pid, f.views = pid, append(f.views, view)
	if len(f.views) > 2 {
		f.views[0].Close()
		f.views = f.views[1:]
	}
	close(f.moved)
	f.moved = make(chan struct{})
}

// wait returns when an engine is known. The error says if it is one that we cannot work for.
func (f *finder) wait(ctx context.Context) error {
	select {
	case <-f.found:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// host is the present engine's view. Call it only after wait.
func (f *finder) host() *enginehost.Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.views[len(f.views)-1]
}

// watchMounts calls changed whenever the present engine's mounts change, until the context ends.
func (f *finder) watchMounts(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		f.mu.Lock()
		moved := f.moved
		f.mu.Unlock()
		watch, cancel := context.WithCancel(ctx)
		var ends sync.WaitGroup
		ends.Go(func() {
			defer cancel()
			select {
			case <-moved:
			case <-watch.Done():
			}
		})
		err := f.host().WatchMounts(watch, changed)
		cancel()
		ends.Wait()
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, view := range f.views {
		view.Close()
	}
}

// lockName is the abstract socket in the host's network namespace that only one Seaway can hold. The
// kernel takes it away from a process that ends, however it ends.
const lockName = "@seaway"

// errSecond is what a second Seaway on one host answers.
var errSecond = errors.New("another Seaway is at work on this host (under another name, or of another engine): " +
	"disable and remove one of them; see docker plugin ls")

// lock takes this host for us. The error is errSecond if somebody else has it.
func lock(host *enginehost.Host) (io.Closer, error) {
	var held io.Closer
	err := host.Net().Do(func() (err error) {
		held, err = net.Listen("unix", lockName)
		return err
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		err = errSecond
	}
	return held, err
}
