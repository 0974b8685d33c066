package pluginapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Serve answers the calls that arrive at l until ctx ends or l breaks, and closes l. Calls that run then
// may finish within 5 s; those that do not have their contexts cancelled. It returns nil when all
// connections and calls are gone. Calls of a driver that ignores its context are not waited for longer
// than the engine waits before it kills the process; they are an error that says how many.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	calls, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	conns := &connections{
		UnixListener: l, logger: s.logger, onPeer: s.onPeer, open: make(map[*connection]struct{}),
	}
	served := make(chan error, 1)
	go func() { served <- s.handler(calls).Serve(conns) }()

	var broken error
	select {
	case err := <-served:
		broken = fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
		_ = l.Close()
		<-served //nolint:errcheck // from here on nothing is accepted; that it was closed is no news
	}
	return errors.Join(broken, s.drain(conns, cancel))
}

// drain waits for connections and calls to go, with more and more emphasis.
func (s *Server) drain(conns *connections, cancel context.CancelCauseFunc) error {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		conns.gone.Wait() // handlers start calls, so they come first
		s.running.Wait()
	}()
	for _, step := range []struct {
		do   func()
		wait time.Duration
	}{
		// The server reads the end of an idle connection and closes it; a running call does not
		// read, and its answer still leaves.
		{func() { conns.each((*net.UnixConn).CloseRead) }, s.stopLimit},
		{func() { cancel(errStopping) }, 2 * s.grace},
		// Only a client that does not take its answer is left.
		{func() { conns.each((*net.UnixConn).Close) }, s.grace},
	} {
		step.do()
		select {
		case <-gone:
			return nil
		case <-time.After(step.wait):
		}
	}
	return fmt.Errorf("stop serving: calls that do not end: %d", s.abandoned.Load())
}
