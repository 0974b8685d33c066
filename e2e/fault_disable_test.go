package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// forgotten is how soon Seaway finds out by itself that a container is gone, and
// then that nobody has its address: each takes a minute and up to two sweeps.
const forgotten = 210 * time.Second

func TestFaultDisabledPluginLosesNoPacket(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue")
	f := startTraffic(t, h, "blue")
	for range 3 {
		docker(t, h, "plugin", "disable", "-f", kit.Plugin)
		f.flows(t)
		if said := dockerFails(t, h, "run", "--rm", "--network", "blue", kit.Image, "true"); !strings.Contains(said, "plugin") {
			t.Errorf("a start without the plugin says nothing of it: %s", said)
		}
		docker(t, h, "plugin", "enable", kit.Plugin)
		runWorks(t, h, "blue", f.server())
	}
	f.unharmed(t)
}

func TestFaultContainerRemovedWithoutThePluginIsForgotten(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue", "--subnet", "10.98.0.0/29")
	container(t, h, "stays", "--network", "blue")
	container(t, h, "leaves", "--network", "blue")
	lost := portOf(t, h, "leaves", "blue")
	waitFor(t, noticed, "the port of leaves", func(context.Context) error {
		if !slices.Contains(ports(t, h), lost) {
			return fmt.Errorf("%s is not there", lost)
		}
		return nil
	})
	plugIsKnown(t, h, fmt.Sprintf(`"addrs":["%s/29"`, address(t, h, "leaves")))
	docker(t, h, "plugin", "disable", "-f", kit.Plugin)
	docker(t, h, "rm", "-f", "leaves")
	docker(t, h, "plugin", "enable", kit.Plugin)
	// The kernel takes the port with the container. That its owner is
	// forgotten shows in the address: the network has room for five.
	names := numbered("new", 4)
	for _, name := range names[:3] {
		container(t, h, name, "--network", "blue")
	}
	t.Cleanup(func() { cleanDocker(t, h, "rm", "-f", names[3]) })
	begin := time.Now()
	waitFor(t, forgotten, "the address of leaves", func(ctx context.Context) error {
		_, _ = h.Docker(ctx, "rm", "-f", names[3])
		_, err := h.Docker(ctx, "run", "-d", "--network", "blue", "--name", names[3], kit.Image)
		return err
	})
	t.Logf("the address came back %.0f s after the plugin", time.Since(begin).Seconds())
	allDiffer(t, h, append(names, "stays")...)
	if slices.Contains(ports(t, h), lost) {
		t.Errorf("%s is still there", lost)
	}
	reaches(t, h, names[3], "stays")
}
