// Package links reads and changes the links of the data plane: the namespace `seaway`, the bridges and
// the ports in it, and a container's end of a port. It is the only user of vishvananda/netlink.
//
// Only reconcile calls it to change something. Everything it does may be done twice, and what carries no
// mark of ours is never touched: the namespace has this Host's id as the alias of its loopback device,
// and each link in it an alias that begins with "seaway ".
package links

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seaway-net/seaway/plugin/internal/enginehost"
	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// aliasPrefix begins the alias of everything that is ours.
const aliasPrefix = "seaway "

// ErrForeign is returned when the machine's namespace `seaway` is not this Host's.
var ErrForeign = errors.New("it belongs to somebody else and is left alone")

// Engine gives the engine's view of the machine; it may be another one after the engine was restarted.
type Engine func() *enginehost.Host

// Plane is the data plane of this Host.
type Plane struct {
	engine Engine
	id     fabric.HostID
	log    *slog.Logger
	events Events

	mu   sync.Mutex // guards what follows, and one change at a time
	ns   *netns.NS  // nil while there is no data plane
	nl   *netlink.Handle
	sub  *subscription
	warn sync.Once
}

// NewPlane returns the data plane of the Host with that id. It looks at nothing yet.
func NewPlane(engine Engine, id fabric.HostID, events Events, log *slog.Logger) *Plane {
	return &Plane{engine: engine, id: id, events: events, log: log}
}

// Close lets go of the data plane, which lives on under its name.
func (p *Plane) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.detach()
}

// Read returns what of ours is there. An interrupted dump is an error: half the truth would have the
// caller delete the other half.
func (p *Plane) Read(ctx context.Context) (map[kernel.Key]kernel.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := make(map[kernel.Key]kernel.Object)
	if err := p.attach(); errors.Is(err, os.ErrNotExist) {
		return found, nil
	} else if err != nil {
		return nil, err
	}
	list, err := dump(ctx, p.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the links of namespace %s: %w", kernel.NamespaceName, err)
	}
	names, used := make(map[int]string, len(list)), make(map[int]bool)
	for _, link := range list {
		names[link.Attrs().Index] = link.Attrs().Name
		if plugged(link) {
			used[link.Attrs().Index], used[link.Attrs().MasterIndex] = true, true
		}
	}
	for _, link := range list {
		if object := objectOf(link, names, used); object != nil {
			found[object.Key()] = object
		}
	}
	if p.named() {
		found[kernel.Namespace{}.Key()] = kernel.FoundNamespace(len(used) > 0)
	}
	return found, nil
}

// plugged reports whether the link is a port whose far end is up.
func plugged(link netlink.Link) bool {
	return link.Type() == "veth" && link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// objectOf turns a link into the object that it is, or nil if it is none of ours.
func objectOf(link netlink.Link, names map[int]string, used map[int]bool) kernel.Object {
	attrs := link.Attrs()
	if !strings.HasPrefix(attrs.Alias, aliasPrefix) {
		return nil
	}
	if attrs.Flags&net.FlagUp == 0 { // it serves nobody: read as what is unfinished, it is put again
		attrs.Alias, attrs.MasterIndex = "", 0
	}
	switch link.Type() {
	case "bridge":
		return kernel.FoundBridge(attrs.Name, attrs.Alias, used[attrs.Index])
	case "veth":
		return kernel.FoundPort(attrs.Name, names[attrs.MasterIndex], used[attrs.Index])
	}
	return nil
}

// dumpTries bounds how often a dump that a change interrupted is begun again.
const dumpTries = 10

// dump repeats a netlink dump until the kernel says that it is whole.
func dump[T any](ctx context.Context, list func() ([]T, error)) ([]T, error) {
	var err error
	for range dumpTries {
		var items []T
		if items, err = list(); err == nil || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return items, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, err
}

// Put makes one object true, whatever was there before.
func (p *Plane) Put(_ context.Context, object kernel.Object) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ns, ok := object.(kernel.Namespace); ok {
		return p.putNamespace(ns)
	}
	if err := p.attach(); err != nil {
		return fmt.Errorf("put %s: %w", object.Key(), err)
	}
	var err error
	switch o := object.(type) {
	case kernel.Bridge:
		err = p.putBridge(o)
	case kernel.Port:
		err = p.putPort(o)
	default:
		err = fmt.Errorf("no such kind of object: %T", object)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", object.Key(), err)
	}
	return nil
}

// putNamespace makes the namespace if there is none, and gives it its name again if that is lost. It is
// marked before it is named, so nobody can ever find it without its mark.
func (p *Plane) putNamespace(kernel.Namespace) error {
	err := p.attach()
	if errors.Is(err, os.ErrNotExist) {
		err = p.makeNamespace()
	}
	if err != nil {
		return fmt.Errorf("namespace %s: %w", kernel.NamespaceName, err)
	}
	if err = p.engine().WriteSysctls(p.ns, planeSysctls()); err != nil {
		return fmt.Errorf("namespace %s: %w", kernel.NamespaceName, err)
	}
	outlives, err := p.engine().BindNetns(kernel.NamespaceName, p.ns)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("namespace %s: %w", kernel.NamespaceName, ErrForeign)
	}
	if err != nil {
		return err
	}
	if !outlives {
		p.warn.Do(func() {
			p.log.Warn("the data plane will not outlive the engine, whose mount namespace is its own")
		})
	}
	return nil
}

// makeNamespace makes a new data plane and attaches to it.
func (p *Plane) makeNamespace() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	handle, err := handleIn(ns)
	if err != nil {
		ns.Close()
		return err
	}
	defer handle.Close()
	if err := setLoopbackAlias(handle, p.mark()); err != nil {
		ns.Close()
		return err
	}
	return p.hold(ns)
}

// planeSysctls are the settings of the data plane: it forwards frames, not packets, and no rule of the
// bridge's netfilter hooks looks at them. A new namespace inherits the opposite from the first one. With
// IPv6 off, bridges and ports get no link-local addresses and send nothing of their own.
func planeSysctls() map[string]string {
	return map[string]string{
		"ipv4/ip_forward":                     "0",
		"ipv6/conf/all/forwarding":            "0",
		"ipv6/conf/all/disable_ipv6":          "1",
		"ipv6/conf/default/disable_ipv6":      "1",
		"bridge/bridge-nf-call-iptables":      "0",
		"bridge/bridge-nf-call-ip6tables":     "0",
		"bridge/bridge-nf-call-arptables":     "0",
		"bridge/bridge-nf-filter-vlan-tagged": "0",
	}
}

// attach makes sure that p holds the data plane, if there is one. The error is os.ErrNotExist if there
// is none, and ErrForeign if it is not ours.
func (p *Plane) attach() error {
	if p.ns != nil {
		return nil
	}
	ns, err := p.engine().NamedNetns(kernel.NamespaceName)
	if err != nil {
		return err
	}
	handle, err := handleIn(ns)
	if err != nil {
		ns.Close()
		return err
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err == nil && lo.Attrs().Alias != p.mark() {
		err = fmt.Errorf("namespace %s: %w (its lo says %q, this Host is %q)",
			kernel.NamespaceName, ErrForeign, lo.Attrs().Alias, p.mark())
	}
	if err != nil {
		ns.Close()
		return err
	}
	return p.hold(ns)
}

// hold takes the namespace over: a netlink handle in it, and a subscription to what happens there.
func (p *Plane) hold(ns *netns.NS) error {
	handle, err := handleIn(ns)
	if err != nil {
		ns.Close()
		return err
	}
	sub, err := subscribe(ns, p.events)
	if err != nil {
		handle.Close()
		ns.Close()
		return err
	}
	p.ns, p.nl, p.sub = ns, handle, sub
	return nil
}

// detach lets go of the namespace; if it has no name any more, that is its end.
func (p *Plane) detach() {
	if p.ns == nil {
		return
	}
	p.sub.close()
	p.nl.Close()
	p.ns.Close()
	p.ns, p.nl, p.sub = nil, nil, nil
}

// NameLost reports whether we hold a data plane that has not its name (any more).
func (p *Plane) NameLost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ns != nil && !p.named()
}

// named reports whether the data plane that we hold has its name.
func (p *Plane) named() bool {
	return p.engine().HasName(kernel.NamespaceName, p.ns)
}

// mark is the alias of the data plane's loopback device.
func (p *Plane) mark() string { return aliasPrefix + "host " + string(p.id) }

func setLoopbackAlias(handle *netlink.Handle, alias string) error {
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := handle.LinkSetAlias(lo, alias); err != nil {
		return fmt.Errorf("mark lo: %w", err)
	}
	return nil
}

// handleIn opens a netlink handle in a namespace. The library's own way restores the thread's namespace
// and ignores a failure to do so; a thread that ends has nothing to restore.
func handleIn(ns *netns.NS) (*netlink.Handle, error) {
	var handle *netlink.Handle
	err := ns.Do(func() (err error) {
		handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return handle, nil
}
