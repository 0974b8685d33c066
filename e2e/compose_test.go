package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

// composition is a Compose file with two services. The rest is what the
// default network has beside its driver.
const composition = `version: "2.4"
services:
  web:
    image: %s
    ports: ["%d:8080"]
  client:
    image: %[1]s
networks:
  default:
    driver: %[3]s
%s`

// compose calls docker-compose on a project of the test's.
func compose(t *testing.T, h *kit.Host, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), "docker-compose", args...)
	cmd.Dir = dir
	cmd.Env = append(h.Env(), "COMPOSE_PROJECT_NAME=harbour")
	if lab(t).Engine().Modern() {
		cmd.Env = append(cmd.Env, "COMPOSE_API_VERSION=1.44") // it knows no newer one by itself
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker-compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestComposeProjectsWork(t *testing.T) {
	if _, err := exec.LookPath("docker-compose"); errors.Is(err, exec.ErrNotFound) {
		t.Skip("docker-compose is not installed")
	}
	h := seaway(t)
	for i, c := range []struct{ name, rest string }{
		{"with Seaway's IPAM", "    ipam:\n      driver: " + kit.Plugin + "\n"},
		{"with a subnet", "    ipam:\n      driver: " + kit.Plugin + "\n      config: [{subnet: 10.25.1.0/24}]\n"},
		{"with the engine's IPAM", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			port := 8300 + i
			text := fmt.Sprintf(composition, kit.Image, port, kit.Plugin, c.rest)
			if err := os.WriteFile(filepath.Join(dir, "docker-compose.yml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			composeUpAndDown(t, h, dir, port)
		})
	}
}

func composeUpAndDown(t *testing.T, h *kit.Host, dir string, port int) {
	t.Helper()
	networks := docker(t, h, "network", "ls", "-q")
	down := func() { compose(t, h, dir, "down", "-t", "1") }
	compose(t, h, dir, "up", "-d")
	t.Cleanup(func() {
		if t.Failed() {
			clean := exec.CommandContext(context.WithoutCancel(testContext(t)), "docker-compose", "down", "-t", "1")
			clean.Dir, clean.Env = dir, append(h.Env(), "COMPOSE_PROJECT_NAME=harbour")
			_ = clean.Run()
		}
	})
	talks(t, h, "harbour_client_1", "web")
	talks(t, h, "harbour_web_1", "client")
	if out, err := outsideGets(t, fmt.Sprintf("%s:%d", h.Address, port)); err != nil {
		t.Errorf("the published port answers %q, %v", out, err)
	}
	compose(t, h, dir, "up", "-d", "--scale", "client=3")
	if all := resolve(t, h, "harbour_web_1", "client"); len(all) != 3 {
		t.Errorf("client is %v; want three", all)
	}
	for _, from := range []string{"harbour_client_2", "harbour_client_3"} {
		talks(t, h, from, "web")
		talks(t, h, "harbour_client_1", from)
	}
	compose(t, h, dir, "restart", "-t", "1")
	talks(t, h, "harbour_client_3", "web")
	down()
	if now := docker(t, h, "network", "ls", "-q"); now != networks {
		t.Errorf("networks after down: %s; before: %s", now, networks)
	}
	if left := docker(t, h, "ps", "-aq"); left != "" {
		t.Errorf("containers after down: %s", left)
	}
}
