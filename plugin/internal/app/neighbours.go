package app

import (
	"bufio"
	"context"
	"net/netip"
	"os"
	"strings"

	"github.com/seaway-net/seaway/plugin/internal/ipamdriver"
	"github.com/seaway-net/seaway/plugin/internal/kernel/links"
	"github.com/seaway-net/seaway/plugin/internal/netdriver"
)

// neighbours returns what a new subnet must keep clear of: the host's routes, and its name servers. The
// engine looks at both too, and asks for another subnet until it likes one.
func (a *App) neighbours(ctx context.Context) ([]ipamdriver.Neighbour, error) {
	reached, err := a.plane.Reached(ctx)
	if err != nil {
		return nil, err
	}
	var near []ipamdriver.Neighbour
	for _, r := range reached {
		near = append(near, ipamdriver.Neighbour{Prefix: r.Prefix, What: r.Link, Direct: r.Direct})
	}
	for _, server := range nameServers("/etc/resolv.conf") {
		near = append(near, ipamdriver.Neighbour{
			Prefix: netip.PrefixFrom(server, server.BitLen()), What: "a name server",
		})
	}
	return near, nil
}

// nameServers reads the name servers of a resolv.conf(5). One that cannot be read has none.
func nameServers(path string) []netip.Addr {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var servers []netip.Addr
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, addr.WithZone("").Unmap())
		}
	}
	return servers
}

// containers looks into containers through the data plane and the engine.
type containers struct {
	*links.Plane
	engines *finder
}

var _ netdriver.Containers = containers{}

// CheckSandbox returns nil if there is a namespace at the path, as the engine sees it.
func (c containers) CheckSandbox(sandbox string) error {
	ns, err := c.engines.host().OpenNetns(sandbox)
	ns.Close()
	return err
}
