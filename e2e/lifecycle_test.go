package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

func TestARunningContainerCanBePausedRenamedAndStopped(t *testing.T) {
	h := seaway(t)
	blue(t, h, "lively", "--subnet", "10.24.1.0/24")
	container(t, h, "alice", "--network", "lively")
	container(t, h, "bob", "--network", "lively")
	talks(t, h, "alice", "bob")

	docker(t, h, "pause", "bob")
	inFails(t, h, "alice", "/probe", "get", "-timeout", "500ms", "bob:8080")
	docker(t, h, "unpause", "bob")
	talks(t, h, "alice", "bob")

	docker(t, h, "rename", "bob", "robert")
	talks(t, h, "alice", "robert")
	docker(t, h, "restart", "-t", "1", "robert")
	talks(t, h, "alice", "robert")
	unknown(t, h, "alice", "bob")
	docker(t, h, "rename", "robert", "bob")
	talks(t, h, "alice", "bob")

	docker(t, h, "stop", "-t", "1", "bob")
	unknown(t, h, "alice", "bob")
	docker(t, h, "start", "bob")
	talks(t, h, "alice", "bob")
	talks(t, h, "bob", "alice")
}

func TestAContainerWithoutAChosenNameTalks(t *testing.T) {
	h := seaway(t)
	blue(t, h, "quiet", "--subnet", "10.24.2.0/24")
	container(t, h, "alice", "--network", "quiet")
	id := docker(t, h, "run", "-d", "--network", "quiet", kit.Image)
	t.Cleanup(func() { cleanDocker(t, h, "rm", "-f", id) })
	if out := talks(t, h, "alice", id[:12]); !strings.HasPrefix(out, id[:12]+" ") {
		t.Errorf("it says %q", out)
	}
	talks(t, h, id, "alice")
}

func TestANetworkInUseIsNotRemoved(t *testing.T) {
	h := seaway(t)
	blue(t, h, "used", "--subnet", "10.24.3.0/24")
	container(t, h, "alice", "--network", "used")
	container(t, h, "bob", "--network", "used")
	says(t, dockerFails(t, h, "network", "rm", "used"), "active endpoints")
	talks(t, h, "alice", "bob")
	docker(t, h, "network", "disconnect", "used", "alice")
	docker(t, h, "network", "disconnect", "-f", "used", "bob")
	docker(t, h, "network", "rm", "used")
	docker(t, h, append(append([]string{"network", "create"}, withIPAM("--subnet", "10.24.3.0/24")...), "used")...)
	docker(t, h, "network", "connect", "used", "alice")
	docker(t, h, "network", "connect", "used", "bob")
	talks(t, h, "alice", "bob")
}

func TestPruneRemovesUnusedNetworksOnly(t *testing.T) {
	h := seaway(t)
	blue(t, h, "used", "--subnet", "10.24.4.0/24")
	container(t, h, "alice", "--network", "used")
	container(t, h, "bob", "--network", "used")
	for _, name := range []string{"first", "second"} {
		docker(t, h, append(append([]string{"network", "create"}, withIPAM("--subnet", "10.24.5.0/24")...), name)...)
		docker(t, h, "network", "prune", "-f") // and the subnet is free for the next
		if out := docker(t, h, "network", "ls", "-q", "--filter", "name="+name); out != "" {
			t.Errorf("%s is still there: %s", name, out)
		}
	}
	talks(t, h, "alice", "bob")
}

func TestALinkLocalAddressCanBeAdded(t *testing.T) {
	h := seaway(t)
	blue(t, h, "local", "--subnet", "10.24.6.0/24")
	container(t, h, "bob")
	docker(t, h, "network", "connect", "--link-local-ip", "169.254.24.6", "local", "bob")
	onLink(t, h, "bob", "eth1", "169.254.24.6")
	container(t, h, "alice", "--network", "local")
	talks(t, h, "alice", "bob")
}

// found is what there is on a host that Seaway, or the engine for it, may have
// made.
func found(t *testing.T, h *kit.Host) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, command := range []string{
		"ip -brief link | cut -d ' ' -f 1", "ip -4 route show table all | sed 's/ linkdown//'",
		// A link has its own IPv6 addresses some time after it is up.
		"ip -6 route show table all | grep -vE 'fe80::|ff00::'",
		// /run/netns becomes a mount with the first namespace in it, as by ip-netns(8).
		"ip netns list", "findmnt -rno TARGET | grep -v '^/run/netns$'",
		"iptables-save -t filter | grep ^-", "iptables-save -t nat | grep ^-",
	} {
		for line := range strings.Lines(onHost(t, h, "sh", "-c", command+" || true")) {
			all[command+": "+strings.TrimSpace(line)] = true
		}
	}
	return all
}

// noMore waits until the host has nothing that it did not have before: what
// goes with a container goes soon after it.
func noMore(t *testing.T, h *kit.Host, before map[string]bool) {
	t.Helper()
	waitFor(t, 10*time.Second, "the end of what was made", func(context.Context) error {
		for one := range found(t, h) {
			if !before[one] {
				return fmt.Errorf("left: %s", one)
			}
		}
		return nil
	})
}

// inPlane counts what is in the data plane, whose namespace must exist.
func inPlane(t *testing.T, h *kit.Host) int {
	t.Helper()
	return strings.Count(onHost(t, h, "ip", "-netns", "seaway", "-brief", "link"), "\n") + 1
}

func TestARemovedContainerLeavesNothing(t *testing.T) {
	h := seaway(t)
	blue(t, h, "brief", "--subnet", "10.24.7.0/24")
	container(t, h, "server", "--network", "brief")
	before, links := found(t, h), inPlane(t, h)
	for range 3 {
		docker(t, h, "run", "--rm", "--network", "brief", "-p", "8200:8080", kit.Image, "/probe", "get", "server:8080")
	}
	noMore(t, h, before)
	waitFor(t, 10*time.Second, "the end of ports", func(context.Context) error {
		if now := inPlane(t, h); now != links {
			return fmt.Errorf("%d links in the data plane; before: %d", now, links)
		}
		return nil
	})
}

// hasPlane tells whether the data plane's namespace is there.
func hasPlane(t *testing.T, h *kit.Host) bool {
	t.Helper()
	return strings.Contains(onHost(t, h, "ip", "netns", "list"), "seaway")
}

func TestTheDataPlaneLivesAsLongAsTheNetworks(t *testing.T) {
	h := seaway(t)
	docker(t, h, "run", "--rm", kit.Image, "true")
	blue(t, h, "gate", "--subnet", "10.24.8.0/24")
	docker(t, h, "run", "--rm", "--network", "gate", kit.Image, "true") // makes docker_gwbridge
	docker(t, h, "network", "rm", "gate")
	waitFor(t, 10*time.Second, "the end of the data plane", func(context.Context) error {
		if hasPlane(t, h) {
			return errors.New("it is there without a network")
		}
		return nil
	})
	before := found(t, h)

	create := func(name, subnet string) {
		docker(t, h, append(append([]string{"network", "create"}, withIPAM("--subnet", subnet)...), name)...)
	}
	create("gate", "10.24.8.0/24")
	if !hasPlane(t, h) {
		t.Error("there is no data plane with the first network")
	}
	create("second", "10.24.9.0/24")
	docker(t, h, "run", "--rm", "--network", "second", kit.Image, "true")
	docker(t, h, "network", "rm", "second")
	if !hasPlane(t, h) {
		t.Error("the data plane went before the last network")
	}
	docker(t, h, "network", "rm", "gate")
	noMore(t, h, before)
	create("gate", "10.24.8.0/24") // what the end of this test removes
}

func TestThePluginStaysWhileNetworksNeedIt(t *testing.T) {
	h := fresh(t, kit.HostOptions{})
	before := found(t, h)
	installPlugin(t, h)
	for _, args := range [][]string{withIPAM(), {"-d", kit.Plugin}} {
		docker(t, h, append(append([]string{"network", "create"}, args...), "needs")...)
		dockerFails(t, h, "plugin", "disable", kit.Plugin)
		dockerFails(t, h, "plugin", "rm", kit.Plugin)
		docker(t, h, "run", "--rm", "--network", "needs", kit.Image, "true")
		docker(t, h, "network", "rm", "needs")
	}
	docker(t, h, "plugin", "disable", kit.Plugin)
	docker(t, h, "plugin", "rm", kit.Plugin)
	// The bridge for the way out is the engine's, and stays with it.
	docker(t, h, "network", "rm", "docker_gwbridge")
	noMore(t, h, before)
}
