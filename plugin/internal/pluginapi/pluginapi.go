// Package pluginapi is the HTTP side of the plugin: the engine's NetworkDriver and IpamDriver protocols
// on one unix socket. It is built on the sdk of docker/go-plugins-helpers and its request types, and adds
// in one place what that library lacks: the verbs and fields that it does not know, limits in time and
// size, words instead of panics, and an orderly stop.
//
// What the engine's client does (moby 20.10 to 29) shapes it:
//
//   - It may have no timeout at all, and waits for some answers while it boots. So capabilities are
//     constants that are answered before the drivers exist, and every other verb is answered within its
//     deadline, even if the driver never returns.
//   - It repeats a call that was cut off, but without the body. So an empty body is refused where
//     arguments are due, and is never taken for a request with empty fields.
//   - It reads an error from any status but 200, and shows it to the person who typed the command.
//
// A driver's context ends at the deadline of the call, or when the server has stopped and its limit has
// passed. It does not end when the client goes away: nobody could be told of a half-done call, and the
// engine, which may ask again at once, would race with one that is being undone. The call runs to its
// end, its answer is lost, and the next one finds its result; the verbs are idempotent for that reason.
package pluginapi

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultTimeout leaves room below the 30 s that `docker plugin enable` sets as the engine's own.
	defaultTimeout = 10 * time.Second
	// defaultGrace is what a driver gets to return after its context has ended.
	defaultGrace = time.Second
	// defaultStopLimit and two graces fit into the 10 s between the engine's SIGTERM and SIGKILL.
	defaultStopLimit = 5 * time.Second
)

// Options are the settings of a Server. The zero value of each is its default.
type Options struct {
	// Logger gets one line for each call: debug, or warn if it failed. Default: slog.Default().
	Logger *slog.Logger
	// Timeout is the deadline of a call, and of the arrival of its body. Default: 10 s.
	Timeout time.Duration
	// OnPeer is told the process id of the other end of each connection before a request of that
	// connection is handled, even if none ever comes. It is called by the accept loop, so it has to
	// return soon. A process that this one cannot see (another pid namespace) is not reported.
	OnPeer func(pid int32)
}

// Server answers the engine. It can listen before there are drivers to answer with (see Use).
type Server struct {
	logger    *slog.Logger
	onPeer    func(pid int32)
	timeout   time.Duration
	grace     time.Duration
	stopLimit time.Duration

	introduced *introduction

	network *gate[NetworkDriver]
	ipam    *gate[IPAMDriver]

	running   sync.WaitGroup // driver calls, abandoned ones too
	abandoned atomic.Int64
}

// New returns a server that does not serve yet.
func New(options Options) *Server {
	return &Server{
		logger:     cmp.Or(options.Logger, slog.Default()),
		onPeer:     options.OnPeer,
		timeout:    cmp.Or(options.Timeout, defaultTimeout),
		grace:      defaultGrace,
		stopLimit:  defaultStopLimit,
		introduced: newIntroduction(patience),
		network:    newGate[NetworkDriver](),
		ipam:       newGate[IPAMDriver](),
	}
}

// Use gives the server its drivers. Calls that came before wait for it, up to their deadlines. It may be
// called again: calls that come later go to the new drivers.
func (s *Server) Use(network NetworkDriver, ipam IPAMDriver) {
	s.network.open(network)
	s.ipam.open(ipam)
}

// Abandoned returns how many calls run on although the engine was already told that they took too long.
// Anything but 0 over a length of time is a driver that ignores its context.
func (s *Server) Abandoned() int64 { return s.abandoned.Load() }

// gate holds back the calls to a driver that does not exist yet.
type gate[D any] struct {
	ready  chan struct{} // closed when there is a driver
	driver atomic.Pointer[D]
}

func newGate[D any]() *gate[D] { return &gate[D]{ready: make(chan struct{})} }

func (g *gate[D]) open(driver D) {
	if g.driver.Swap(&driver) == nil {
		close(g.ready)
	}
}

func (g *gate[D]) wait(ctx context.Context) (D, error) {
	select {
	case <-g.ready:
		return *g.driver.Load(), nil
	case <-ctx.Done():
		var none D
		return none, errStarting
	}
}
