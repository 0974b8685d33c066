package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// otherBundle is the bundle with other words in it: an engine refuses to create
// the very same plugin twice.
func otherBundle(t *testing.T) string {
	t.Helper()
	bundle, err := kit.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bundle")
	if out, copyErr := exec.Command("cp", "-a", bundle, dir).CombinedOutput(); copyErr != nil {
		t.Fatalf("copy bundle: %v: %s", copyErr, out)
	}
	manifest := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`"description": "`), []byte(`"description": "The second. `), 1)
	if err := errors.Join(
		os.WriteFile(manifest, text, 0o644),
		os.WriteFile(filepath.Join(dir, "rootfs/second"), []byte("second"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFaultSecondSeawayRefusesUntilTheFirstIsGone(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	bundle := otherBundle(t)
	docker(t, h, "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, "blue")
	f := startTraffic(t, h, "blue")
	const second = "second:latest"
	docker(t, h, "plugin", "create", second, bundle)
	docker(t, h, "plugin", "enable", second)
	said := dockerFails(t, h, "network", "create", "-d", second, "--ipam-driver", second, "red")
	if !strings.Contains(said, "another Seaway") {
		t.Errorf("the second says: %s", said)
	}
	runWorks(t, h, "blue", f.server())
	f.unharmed(t)
	docker(t, h, "rm", "-f", f.server(), f.loss(), f.stream())
	docker(t, h, "network", "rm", "blue")
	docker(t, h, "plugin", "disable", kit.Plugin)
	docker(t, h, "plugin", "rm", kit.Plugin)
	waitFor(t, noticed, "the second to take over", func(ctx context.Context) error {
		_, err := h.Docker(ctx, "network", "create", "-d", second, "--ipam-driver", second, "red")
		return err
	})
	container(t, h, "server", "--network", "red")
	runWorks(t, h, "red", "server")
	docker(t, h, "rm", "-f", "server")
	docker(t, h, "network", "rm", "red")
	nothingLeft(t, h)
}

func TestFaultForeignNamespaceIsLeftAlone(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	script(t, h, "ip netns add seaway; ip -n seaway link add theirs type bridge; ip -n seaway link set lo alias 'seaway host 0'")
	before := script(t, h, "ip -n seaway -d link; stat -L -c %i /run/netns/seaway")
	said := dockerFails(t, h, "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, "blue")
	if !strings.Contains(said, "seaway") || !strings.Contains(said, "somebody else") {
		t.Errorf("the error says: %s", said)
	}
	killPlugin(t, h)
	waitPlugin(t, h)
	docker(t, h, "network", "ls") // the engine is not held up
	if after := script(t, h, "ip -n seaway -d link; stat -L -c %i /run/netns/seaway"); after != before {
		t.Errorf("their namespace is\n%s\nand was\n%s", after, before)
	}
	// When they take it away, all is well without a restart.
	on(t, h, "ip", "netns", "del", "seaway")
	waitFor(t, unnoticed, "a network", func(ctx context.Context) error {
		_, err := h.Docker(ctx, "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, "blue")
		return err
	})
	container(t, h, "server", "--network", "blue")
	runWorks(t, h, "blue", "server")
	docker(t, h, "rm", "-f", "server")
	docker(t, h, "network", "rm", "blue")
	nothingLeft(t, h)
}

func TestFaultForeignLinksAreLeftAlone(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue")
	seawayNetwork(t, h, "green")
	container(t, h, "server", "--network", "blue")
	foreign := map[string][]string{
		"":          {"sw0123456789ab", "br-0123456789ab", "seaway0"},
		"-n seaway": {"br-0123456789ab", "theirs", "sw0123456789ab"},
	}
	for where, names := range foreign {
		for _, name := range names {
			script(t, h, fmt.Sprintf("ip %s link add %s type bridge", where, name))
		}
	}
	// A start of the plugin compares all there is with what should be.
	killPlugin(t, h)
	waitPlugin(t, h)
	runWorks(t, h, "blue", "server")
	docker(t, h, "network", "rm", "green")
	waitFor(t, noticed, "the end of the bridge of green", func(context.Context) error {
		if bridges := planeLinks(t, h, "bridge"); len(bridges) != 4 {
			return fmt.Errorf("bridges: %v", bridges)
		}
		return nil
	})
	for where, names := range foreign {
		for _, name := range names {
			script(t, h, fmt.Sprintf("ip %s link del %s", where, name))
		}
	}
	docker(t, h, "network", "create", "green")
}

func TestFaultFullDiskIsSaidAndHealsByItself(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	dir := stateDir(t, h)
	docker(t, h, "plugin", "disable", kit.Plugin)
	script(t, h, fmt.Sprintf("cd %[1]s; tar cf /run/state.tar .; mount -t tmpfs -o size=4m tmpfs %[1]s; tar xf /run/state.tar -C %[1]s", dir))
	docker(t, h, "plugin", "enable", kit.Plugin)
	seawayNetwork(t, h, "blue")
	container(t, h, "leaves", "--network", "blue")
	f := startTraffic(t, h, "blue")
	fill := fmt.Sprintf("dd if=/dev/zero of=%s/filler bs=4k 2>/dev/null || true", dir)
	script(t, h, fill)
	said := ""
	for i := range 60 {
		// What is free inside of the files is used up first.
		name := fmt.Sprint("more", i)
		_, err := h.Docker(testContext(t), "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, name)
		if err != nil {
			said = err.Error()
			break
		}
		t.Cleanup(func() { cleanDocker(t, h, "network", "rm", name) })
	}
	if !strings.Contains(said, "no space") {
		t.Errorf("a full disk is called %q", said)
	}
	f.flows(t)
	docker(t, h, "rm", "-f", "leaves")
	enabled(t, h)
	script(t, h, fmt.Sprintf("rm %s/filler", dir))
	waitFor(t, noticed, "a network on the disk that has room again", func(ctx context.Context) error {
		_, err := h.Docker(ctx, "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, "again")
		return err
	})
	t.Cleanup(func() { cleanDocker(t, h, "network", "rm", "again") })
	runWorks(t, h, "blue", f.server())
	f.unharmed(t)
	begin := time.Now()
	docker(t, h, "rm", "-f", f.server(), f.loss(), f.stream())
	waitFor(t, forgotten, "the end of all ports", func(context.Context) error {
		if left := ports(t, h); len(left) != 0 {
			return fmt.Errorf("ports: %v", left)
		}
		return nil
	})
	t.Logf("the port of what was removed meanwhile was gone after %.0f s", time.Since(begin).Seconds())
}
