package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

// installer makes a copy of the scripts beside the bundle that is under test,
// and returns its directory.
func installer(t *testing.T) string {
	t.Helper()
	bundle, err := kit.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	if bundle, err = filepath.Abs(bundle); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "build"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"../install": "install", bundle: "build/bundle"} {
		if out, err := exec.Command("cp", "-a", from, filepath.Join(dir, to)).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v: %s", from, err, out)
		}
	}
	return dir
}

func TestFaultUpgradeUnderTrafficKeepsEverything(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{}, "LOG_LEVEL=debug", "SUBNET_POOL=10.64.0.0/12")
	dir := installer(t)
	docker(t, h, "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, "blue")
	docker(t, h, "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, "--subnet", "10.91.0.0/24", "green")
	container(t, h, "fixed", "--network", "green", "--ip", "10.91.0.91")
	f := startTraffic(t, h, "blue")
	before := address(t, h, f.server())
	id := docker(t, h, "plugin", "inspect", "-f", "{{.Id}}", kit.Plugin)
	said := on(t, h, "bash", filepath.Join(dir, "install/install.sh"))
	if !strings.Contains(said, "upgraded") || !strings.Contains(said, "proved") {
		t.Errorf("install.sh says: %s", said)
	}
	t.Log(strings.Split(said, "\n")[1])
	if now := docker(t, h, "plugin", "inspect", "-f", "{{.Id}}", kit.Plugin); now == id {
		t.Error("the plugin is still the old one")
	}
	settings := docker(t, h, "plugin", "inspect", "-f", "{{.Settings.Env}}", kit.Plugin)
	for _, want := range []string{"LOG_LEVEL=debug", "SUBNET_POOL=10.64.0.0/12"} {
		if !strings.Contains(settings, want) {
			t.Errorf("settings without %s: %s", want, settings)
		}
	}
	runWorks(t, h, "blue", f.server())
	f.unharmed(t)
	if now := address(t, h, f.server()); now != before {
		t.Errorf("server has %s, and had %s", now, before)
	}
	if said := dockerFails(t, h, "run", "--rm", "--network", "green", "--ip", "10.91.0.91", kit.Image, "true"); !strings.Contains(said, "in use") {
		t.Errorf("an address of before is refused with: %s", said)
	}
	uninstall := filepath.Join(dir, "install/uninstall.sh")
	if out, err := h.Exec(testContext(t), "bash", uninstall); err == nil {
		t.Errorf("uninstalled though there are networks: %s", out)
	} else if !strings.Contains(err.Error(), "blue") || !strings.Contains(err.Error(), "green") {
		t.Errorf("uninstall.sh does not name the networks: %v", err)
	}
	enabled(t, h)
	reaches(t, h, f.server(), "localhost")
	on(t, h, "env", "FORCE=1", "bash", uninstall)
	nothingLeft(t, h)
	// The engine still has containers on networks of nobody.
	if err := h.PowerOff(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
