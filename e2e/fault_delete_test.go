package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// aLink is what a container can see of its own link, in JSON of ip(8) and text.
type aLink struct{ links, addresses, routes, routes6, sysctls string }

// lookAt asks a container for all that has to be as before when it has been
// plugged in again. Link indices and lifetimes are not among it.
func lookAt(t *testing.T, h *kit.Host, name string) aLink {
	t.Helper()
	mac := in(t, h, name, "cat", "/sys/class/net/eth0/address", "/sys/class/net/eth0/mtu")
	var addresses []string
	for _, line := range strings.Split(in(t, h, name, "ip", "-o", "address", "show", "dev", "eth0"), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 3 && !strings.HasPrefix(fields[3], "fe80:") {
			addresses = append(addresses, fields[3])
		}
	}
	return aLink{
		links: mac, addresses: strings.Join(addresses, " "),
		routes:  in(t, h, name, "ip", "route"),
		routes6: in(t, h, name, "ip", "-6", "route", "show", "dev", "eth0"),
		sysctls: in(t, h, name, "cat", "/proc/sys/net/ipv4/conf/eth0/forwarding", "/proc/sys/net/ipv4/conf/eth0/rp_filter"),
	}
}

// plugIsKnown waits until the plugin has noted how a container is plugged in: its
// journal holds a part of that.
func plugIsKnown(t *testing.T, h *kit.Host, pattern string) {
	t.Helper()
	journal := stateDir(t, h) + "/journal.db"
	waitFor(t, 40*time.Second, "the journal to hold "+pattern, func(ctx context.Context) error {
		_, err := h.Exec(ctx, "grep", "-qF", pattern, journal)
		return err
	})
}

// broken is a host on which something is about to be deleted.
type broken struct {
	*kit.Host
	port string // of the container server
}

// deletions are what somebody may do to us, and how soon it must be mended.
var deletions = []struct {
	name  string
	limit time.Duration
	do    func(t *testing.T, b broken)
}{
	{"port", noticed, func(t *testing.T, b broken) { on(t, b.Host, "ip", "-n", "seaway", "link", "del", b.port) }},
	{"port off its bridge", noticed, func(t *testing.T, b broken) {
		on(t, b.Host, "ip", "-n", "seaway", "link", "set", b.port, "nomaster")
	}},
	{"port down", noticed, func(t *testing.T, b broken) { on(t, b.Host, "ip", "-n", "seaway", "link", "set", b.port, "down") }},
	{"bridge", noticed, func(t *testing.T, b broken) {
		for _, bridge := range planeLinks(t, b.Host, "bridge") {
			on(t, b.Host, "ip", "-n", "seaway", "link", "del", bridge)
		}
	}},
	{"bridge down", noticed, func(t *testing.T, b broken) {
		for _, bridge := range planeLinks(t, b.Host, "bridge") {
			on(t, b.Host, "ip", "-n", "seaway", "link", "set", bridge, "down")
		}
	}},
	{"all ports", noticed, func(t *testing.T, b broken) {
		for _, port := range ports(t, b.Host) {
			on(t, b.Host, "ip", "-n", "seaway", "link", "del", port)
		}
	}},
	{"everything", noticed, func(t *testing.T, b broken) {
		for _, name := range append(planeLinks(t, b.Host, "bridge"), ports(t, b.Host)...) {
			on(t, b.Host, "ip", "-n", "seaway", "link", "del", name)
		}
	}},
	{"namespace, while the plugin is away", unnoticed, func(t *testing.T, b broken) {
		docker(t, b.Host, "plugin", "disable", "-f", kit.Plugin)
		on(t, b.Host, "ip", "netns", "del", "seaway")
		docker(t, b.Host, "plugin", "enable", kit.Plugin)
	}},
}

func TestFaultWhatSomebodyDeletesIsBack(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	ctx := testContext(t)
	seawayNetwork(t, h, "blue", "--subnet", "10.93.0.0/24", "--ipv6", "--subnet", "fd93::/64")
	container(t, h, "client", "--network", "blue")
	container(t, h, "server", "--network", "blue", "--cap-add", "NET_ADMIN", "-p", "8093:8080")
	in(t, h, "server", "ip", "route", "add", "10.1.2.3", "via", address(t, h, "client"), "dev", "eth0")
	plugIsKnown(t, h, "10.1.2.3")
	before := lookAt(t, h, "server")
	client := lookAt(t, h, "client")
	for _, deletion := range deletions {
		deletion.do(t, broken{h, portOf(t, h, "server", "blue")})
		begin := time.Now()
		waitFor(t, deletion.limit, "the mending of "+deletion.name, func(ctx context.Context) error {
			if now := in(t, h, "client", "ls", "/sys/class/net"); !strings.Contains(now, "eth0") {
				return errors.New("client has no link")
			}
			return asks(ctx, h, "client", "server")
		})
		t.Logf("%s: mended in %.1f s", deletion.name, time.Since(begin).Seconds())
		if now := lookAt(t, h, "server"); now != before {
			t.Errorf("%s: server is\n%+v\nand was\n%+v", deletion.name, now, before)
		}
		if now := lookAt(t, h, "client"); now != client {
			t.Errorf("%s: client is\n%+v\nand was\n%+v", deletion.name, now, client)
		}
		in(t, h, "client", "/probe", "get", "-timeout", "2s", "["+addressOf6(t, h, "server")+"]:8080")
		if _, err := lab(t).Outside.Exec(ctx, lab(t).Probe, "get", h.Address.String()+":8093"); err != nil {
			t.Errorf("%s: the published port: %v", deletion.name, err)
		}
		runWorks(t, h, "blue", "server")
	}
	// What was plugged in again can be unplugged, and goes.
	docker(t, h, "network", "disconnect", "blue", "client")
	docker(t, h, "network", "connect", "blue", "client")
	reaches(t, h, "client", "server")
	docker(t, h, "stop", "-t", "0", "client", "server")
	docker(t, h, "rm", "-f", "client", "server")
	noPorts(t, h)
	docker(t, h, "network", "rm", "blue")
	nothingLeft(t, h)
	docker(t, h, "network", "create", "blue")
}

// addressOf6 is a container's global IPv6 address.
func addressOf6(t *testing.T, h *kit.Host, name string) string {
	t.Helper()
	text := docker(t, h, "inspect", "-f", "{{json .NetworkSettings.Networks}}", name)
	var networks map[string]struct{ GlobalIPv6Address string }
	if err := json.Unmarshal([]byte(text), &networks); err != nil {
		t.Fatal(err)
	}
	for _, n := range networks {
		if n.GlobalIPv6Address != "" {
			return n.GlobalIPv6Address
		}
	}
	t.Fatalf("%s has no IPv6 address", name)
	return ""
}

func TestFaultLostNameOfTheNamespaceIsBackWithoutAPacketLost(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue")
	f := startTraffic(t, h, "blue")
	for name, line := range map[string]string{
		// It unmounts the name and deletes the file, unless the name is back before that.
		"ip netns del": "ip netns del seaway 2>/run/said || grep -q busy /run/said",
		"umount":       "umount -l /run/netns/seaway",
	} {
		script(t, h, line)
		begin := time.Now()
		waitFor(t, noticed, "the name after "+name, func(ctx context.Context) error {
			out, err := h.Exec(ctx, "ip", "-n", "seaway", "-brief", "link", "show", "type", "bridge")
			if err == nil && out == "" {
				err = fmt.Errorf("another namespace has the name: %q", out)
			}
			return err
		})
		t.Logf("%s: mended in %.1f s", name, time.Since(begin).Seconds())
		runWorks(t, h, "blue", f.server())
	}
	f.unharmed(t)
}
