package links

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/seaway-net/seaway/plugin/internal/kernel"
)

// Delete removes objects, those of higher kinds first. What is not there is removed already.
func (p *Plane) Delete(_ context.Context, keys []kernel.Key) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.attach(); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	byKind := make(map[kernel.Kind][]string)
	for _, key := range keys {
		byKind[key.Kind] = append(byKind[key.Kind], key.Name)
	}
	failed := p.deletePorts(byKind[kernel.KindPort])
	for _, name := range byKind[kernel.KindBridge] {
		if err := p.deleteBridge(name); err != nil {
			failed = errors.Join(failed, fmt.Errorf("delete bridge %s: %w", name, err))
		}
	}
	if len(byKind[kernel.KindNamespace]) > 0 && failed == nil {
		failed = p.deleteNamespace()
	}
	return failed
}

func (p *Plane) deleteBridge(name string) error {
	link, err := p.link(name)
	if err != nil || link == nil {
		return err
	}
	return p.nl.LinkDel(link)
}

// deleteNamespace takes the name away and lets go, which ends the namespace.
func (p *Plane) deleteNamespace() error {
	if err := p.engine().UnbindNetns(kernel.NamespaceName, p.ns); err != nil {
		return fmt.Errorf("delete namespace %s: %w", kernel.NamespaceName, err)
	}
	p.detach()
	return nil
}

// deleteGroup deletes all links of a group in the namespace of the calling thread; the library has no
// call for that (rtnetlink(7), RTM_DELLINK with IFLA_GROUP).
func deleteGroup(group uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
