package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// dummyManifest is a plugin that only takes connections. It sees the host's
// processes and links, as Seaway does.
const dummyManifest = `{
	"description": "takes connections",
	"interface": {"types": ["docker.dummy/1.0"], "socket": "dummy.sock"},
	"entrypoint": ["/probe", "serve", "-socket", "/run/docker/plugins/dummy.sock"],
	"network": {"type": "host"},
	"pidhost": true,
	"propagatedMount": "/var/lib/dummy",
	"env": [{"name": "COLOUR", "value": "", "settable": ["value"]}]
}`

// dummyBundle makes the bundle of a plugin that is not Seaway the one that
// InstallPlugin installs.
func dummyBundle(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	program, err := os.ReadFile(lab(t).Probe)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "rootfs")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(root, "var/lib/dummy"), 0o755),
		os.MkdirAll(filepath.Join(root, "etc"), 0o755),
		os.WriteFile(filepath.Join(root, "probe"), program, 0o755),
		os.WriteFile(filepath.Join(dir, "config.json"), []byte(dummyManifest), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SEAWAY_BUNDLE", dir)
}

func TestKitInstallsAndKillsPlugins(t *testing.T) {
	h := fresh(t, kit.HostOptions{})
	ctx := testContext(t)
	dummyBundle(t)
	if err := h.InstallPlugin(ctx, "COLOUR=blue"); err != nil {
		t.Fatal(err)
	}
	first := pluginPID(t, h)
	environment, err := os.ReadFile(procFile(first, "environ"))
	if err != nil || !strings.Contains(string(environment), "COLOUR=blue") {
		t.Errorf("environment of the plugin: %q, %v", environment, err)
	}
	for name, end := range map[string]func(context.Context) error{"plugin": h.KillPlugin, "power": powerCycle(h)} {
		before := pluginPID(t, h)
		if err := end(ctx); err != nil {
			t.Fatalf("kill %s: %v", name, err)
		}
		waitPlugin(t, h)
		if now := pluginPID(t, h); now == before {
			t.Errorf("after the end of its %s the plugin is still process %d", name, now)
		}
	}
	docker(t, h, "plugin", "disable", kit.Plugin)
	if pid, err := h.PluginPID(); err == nil {
		t.Errorf("a disabled plugin is process %d", pid)
	}
}

func TestKitNeedsABundle(t *testing.T) {
	t.Setenv("SEAWAY_BUNDLE", t.TempDir())
	if _, err := kit.Bundle(); err == nil || !strings.Contains(err.Error(), "make bundle") {
		t.Errorf("without a bundle: %v", err)
	}
}

// powerCycle switches a host off and on.
func powerCycle(h *kit.Host) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := h.PowerOff(ctx); err != nil {
			return err
		}
		return h.PowerOn(ctx)
	}
}

// pluginPID is the process of the host's plugin, which must run.
func pluginPID(t *testing.T, h *kit.Host) int {
	t.Helper()
	pid, err := h.PluginPID()
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// waitPlugin waits until the host's plugin takes connections.
func waitPlugin(t *testing.T, h *kit.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Second)
	defer cancel()
	if err := h.WaitPlugin(ctx); err != nil {
		t.Fatal(err)
	}
}
