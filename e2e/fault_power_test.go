package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

// neverPanicked checks that no start of the engine ended in a panic.
func neverPanicked(t *testing.T, h *kit.Host) {
	t.Helper()
	log, err := os.ReadFile(h.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "panic:") {
		t.Error("the engine panicked")
	}
}

func TestFaultPowerCycleBringsContainersBack(t *testing.T) {
	for name, private := range map[string]bool{"shared root": false, "private root": true} {
		t.Run(name, func(t *testing.T) {
			h := freshSeaway(t, kit.HostOptions{PrivateRoot: private})
			seawayNetwork(t, h, "blue", "--subnet", "10.96.0.0/24")
			container(t, h, "server", "--network", "blue", "--restart", "always")
			container(t, h, "fixed", "--network", "blue", "--restart", "always", "--ip", "10.96.0.66")
			container(t, h, "other", "--network", "blue", "--restart", "always")
			before := map[string]string{"server": address(t, h, "server"), "other": address(t, h, "other")}
			for range 2 {
				if err := powerCycle(h)(testContext(t)); err != nil {
					t.Fatal(err)
				}
				for _, pair := range [][2]string{{"server", "fixed"}, {"fixed", "other"}, {"other", "server"}} {
					reachesSoon(t, h, backAfterStart, pair[0], pair[1])
				}
				if ip := address(t, h, "fixed"); ip != "10.96.0.66" {
					t.Errorf("--ip is %s now", ip)
				}
				for name, ip := range before {
					if now := address(t, h, name); now != ip && lab(t).Engine().Modern() {
						t.Errorf("%s has %s now, and had %s", name, now, ip)
					}
				}
				allDiffer(t, h, "server", "fixed", "other")
				enabled(t, h)
			}
			neverPanicked(t, h)
			docker(t, h, "rm", "-f", "server", "fixed", "other")
			docker(t, h, "network", "rm", "blue")
			nothingLeft(t, h)
			docker(t, h, "network", "create", "blue")
		})
	}
}

// stateDir is where the plugin keeps its state, as the real machine sees it.
func stateDir(t *testing.T, h *kit.Host) string {
	t.Helper()
	id := docker(t, h, "plugin", "inspect", "-f", "{{.Id}}", kit.Plugin)
	return filepath.Join(h.DataRoot(), "plugins", id, "propagated-mount")
}

func TestFaultLostStateDoesNotStopTheEngine(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, dir string){
		"emptied": func(t *testing.T, dir string) {
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) == 0 {
				t.Fatalf("state in %s: %v, %v", dir, entries, err)
			}
			for _, e := range entries {
				if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
					t.Fatal(err)
				}
			}
		},
		"journal of noise": func(t *testing.T, dir string) {
			noise := strings.Repeat("\x00\xff\x5a garbage \xed\x0c\xda\xed", 4096)
			if err := os.WriteFile(filepath.Join(dir, "journal.db"), []byte(noise), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"journal cut short": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "journal.db"), 5000); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := freshSeaway(t, kit.HostOptions{})
			seawayNetwork(t, h, "old", "--subnet", "10.95.0.0/24")
			container(t, h, "always", "--network", "old", "--restart", "always")
			dir := stateDir(t, h)
			ctx := testContext(t)
			if err := h.PowerOff(ctx); err != nil {
				t.Fatal(err)
			}
			lose(t, dir)
			if err := h.PowerOn(ctx); err != nil {
				t.Fatal(err)
			}
			neverPanicked(t, h)
			enabled(t, h)
			docker(t, h, "run", "--rm", kit.Image, "true")
			// The plugin works: what it does not know any more can be removed,
			// and what is new can be used.
			docker(t, h, "rm", "-f", "always")
			docker(t, h, "network", "rm", "old")
			seawayNetwork(t, h, "new", "--subnet", "10.94.0.0/24")
			container(t, h, "one", "--network", "new")
			container(t, h, "two", "--network", "new")
			reaches(t, h, "one", "two")
			docker(t, h, "network", "create", "old")
		})
	}
}

func TestFaultDamagedJournalUnderRunningContainersLosesNoPacket(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "old", "--subnet", "10.95.0.0/29")
	f := startTraffic(t, h, "old")
	docker(t, h, "plugin", "disable", "-f", kit.Plugin)
	if err := os.Truncate(filepath.Join(stateDir(t, h), "journal.db"), 5000); err != nil {
		t.Fatal(err)
	}
	docker(t, h, "plugin", "enable", kit.Plugin)
	seawayNetwork(t, h, "new")
	container(t, h, "other", "--network", "new")
	runWorks(t, h, "new", "other")
	// What runs keeps its addresses: there is room for two more, and no third.
	for _, name := range []string{"fourth", "fifth"} {
		container(t, h, name, "--network", "old")
		reaches(t, h, name, f.server())
	}
	dockerFails(t, h, "run", "--rm", "--network", "old", kit.Image, "true")
	allDiffer(t, h, f.server(), f.loss(), f.stream(), "fourth", "fifth")
	f.unharmed(t)
	docker(t, h, "rm", "-f", f.server(), f.loss(), f.stream(), "fourth", "fifth", "other")
	docker(t, h, "network", "rm", "old", "new")
	nothingLeft(t, h)
	docker(t, h, "network", "create", "old")
	docker(t, h, "network", "create", "new")
}
