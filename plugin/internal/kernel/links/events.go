package links

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// Events is told what happens to the links of the data plane. Its functions must return at once.
type Events struct {
	// Changed says that an object may be gone or be not as it was put.
	Changed func(kernel.Key)
	// Plugged says that a port's far end has come up: it is in its container.
	Plugged func(port string)
	// Missed says that events were lost: anything may have changed.
	Missed func()
}

// subscription is one stream of the kernel's notices about links, and the goroutine that reads it.
type subscription struct {
	stop chan struct{}
	done chan struct{}
}

// eventBuffer is the socket's receive buffer in bytes: room for some thousand notices.
const eventBuffer = 1 << 20

// subscribe follows the links of a namespace until close.
func subscribe(ns *netns.NS, events Events) (*subscription, error) {
	s := &subscription{stop: make(chan struct{}), done: make(chan struct{})}
	updates, err := s.open(ns)
	if err != nil {
		return nil, err
	}
	go s.run(ns, updates, events)
	return s, nil
}

func (s *subscription) open(ns *netns.NS) (chan netlink.LinkUpdate, error) {
	updates := make(chan netlink.LinkUpdate)
	err := ns.Do(func() error {
		return netlink.LinkSubscribeWithOptions(updates, s.stop, netlink.LinkSubscribeOptions{
			ReceiveBufferSize: eventBuffer,
		})
	})
	if err != nil {
		return nil, fmt.Errorf("follow links: %w", err)
	}
	return updates, nil
}

// run hands notices on. The library ends the stream when the kernel had to drop notices; then it is
// opened anew, and what was missed is said. If that fails, the periodic full comparison is left.
func (s *subscription) run(ns *netns.NS, updates chan netlink.LinkUpdate, events Events) {
	defer close(s.done)
	for {
		for update := range updates {
			dispatch(update, events)
		}
		select {
		case <-s.stop:
			return
		default:
		}
		var err error
		if updates, err = s.open(ns); err != nil {
			<-s.stop
			return
		}
		events.Missed()
	}
}

// dispatch says what one notice means. Notices of the bridge family repeat what the others say.
func dispatch(update netlink.LinkUpdate, events Events) {
	attrs := update.Attrs()
	if update.Family == unix.AF_BRIDGE {
		return
	}
	var key kernel.Key
	switch update.Link.Type() {
	case "bridge":
		key = kernel.Key{Kind: kernel.KindBridge, Name: attrs.Name}
	case "veth":
		key = kernel.Key{Kind: kernel.KindPort, Name: attrs.Name}
	default:
		return
	}
	deleted := update.Header.Type == unix.RTM_DELLINK
	switch {
	case deleted, attrs.Flags&net.FlagUp == 0, key.Kind == kernel.KindPort && attrs.MasterIndex == 0:
		events.Changed(key)
	case key.Kind == kernel.KindPort && attrs.RawFlags&unix.IFF_LOWER_UP != 0:
		events.Plugged(attrs.Name)
	}
}

// close ends the stream and waits for its goroutine.
func (s *subscription) close() {
	close(s.stop)
	<-s.done
}
