package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// backAfterStart is how soon containers with a restart policy answer once the
// engine does.
const backAfterStart = 20 * time.Second

// ends are the ways in which an engine ends, by name.
func ends(h *kit.Host) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{"stop": h.StopEngine, "kill -9": h.KillEngine}
}

// restarted ends the engine in some way and starts it again.
func restarted(t *testing.T, h *kit.Host, end func(context.Context) error) {
	t.Helper()
	ctx := testContext(t)
	if err := end(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.StartEngine(ctx); err != nil {
		t.Fatal(err)
	}
}

// reachesSoon waits until one container gets an answer from another by name.
func reachesSoon(t *testing.T, h *kit.Host, limit time.Duration, from, to string) {
	t.Helper()
	waitFor(t, limit, fmt.Sprintf("an answer of %s to %s", to, from), func(ctx context.Context) error {
		return asks(ctx, h, from, to)
	})
}

func TestFaultRestartedEngineStartsContainersAgain(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue", "--subnet", "10.97.0.0/24")
	container(t, h, "server", "--network", "blue", "--restart", "always")
	container(t, h, "client", "--network", "blue", "--restart", "always", "--ip", "10.97.0.77")
	before := address(t, h, "server")
	for name, end := range ends(h) {
		restarted(t, h, end)
		reachesSoon(t, h, backAfterStart, "client", "server")
		reachesSoon(t, h, backAfterStart, "server", "client")
		if ip := address(t, h, "client"); ip != "10.97.0.77" {
			t.Errorf("after %s, --ip is %s", name, ip)
		}
		if ip := address(t, h, "server"); ip != before && lab(t).Engine().Modern() {
			t.Errorf("after %s, server has %s; before %s", name, ip, before)
		}
		allDiffer(t, h, "server", "client")
		runWorks(t, h, "blue", "server")
		enabled(t, h)
	}
	docker(t, h, "rm", "-f", "client", "server")
	docker(t, h, "network", "rm", "blue")
	nothingLeft(t, h)
	docker(t, h, "network", "create", "blue")
}

func TestFaultLiveRestoreLosesNoPacket(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{EngineArgs: []string{"--live-restore"}})
	seawayNetwork(t, h, "blue")
	seawayNetwork(t, h, "green")
	container(t, h, "hops", "--network", "blue")
	f := startTraffic(t, h, "blue")
	for name, end := range ends(h) {
		t.Log(name)
		restarted(t, h, end)
		f.flows(t)
		docker(t, h, "network", "connect", "green", "hops")
		green := docker(t, h, "inspect", "-f", "{{.NetworkSettings.Networks.green.IPAddress}}", "hops")
		if has := in(t, h, "hops", "ip", "-o", "-4", "address"); !strings.Contains(has, green+"/") {
			t.Errorf("hops has not %s: %s", green, has)
		}
		docker(t, h, "network", "disconnect", "green", "hops")
		docker(t, h, "network", "disconnect", "blue", "hops")
		docker(t, h, "network", "connect", "blue", "hops")
		reaches(t, h, "hops", f.server())
		runWorks(t, h, "blue", f.server())
	}
	f.unharmed(t)
	// What the engine took over from its predecessor can be taken down.
	docker(t, h, "stop", "-t", "0", "hops", f.server())
	docker(t, h, "rm", "-f", "hops", f.server(), f.loss(), f.stream())
	noPorts(t, h)
}
