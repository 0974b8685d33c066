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

// docker calls the docker CLI against a host, which must succeed.
func docker(t *testing.T, h *kit.Host, args ...string) string {
	t.Helper()
	out, err := h.Docker(testContext(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// dockerFails calls the docker CLI, which must fail, and returns what it said.
func dockerFails(t *testing.T, h *kit.Host, args ...string) string {
	t.Helper()
	out, err := h.Docker(testContext(t), args...)
	if err == nil {
		t.Fatalf("docker %s succeeded: %s", strings.Join(args, " "), out)
	}
	if said := new(kit.CommandError); errors.As(err, &said) {
		return said.Stderr // and not our own words
	}
	return err.Error()
}

// network makes a network that ends with the test.
func network(t *testing.T, h *kit.Host, name string, args ...string) {
	t.Helper()
	docker(t, h, append(append([]string{"network", "create"}, args...), name)...)
	t.Cleanup(func() { cleanDocker(t, h, "network", "rm", name) })
}

// container starts a detached container that ends with the test. The last
// arguments, from the image on, are separated by "--"; without one it is
// kit.Image and its own command.
func container(t *testing.T, h *kit.Host, name string, args ...string) {
	t.Helper()
	line := []string{"run", "-d", "--name", name}
	image := []string{kit.Image}
	for i, a := range args {
		if a == "--" {
			args, image = args[:i], append(image, args[i+1:]...)
			break
		}
	}
	// One that cannot be started is there all the same.
	t.Cleanup(func() { cleanDocker(t, h, "rm", "-f", name) })
	docker(t, h, append(append(line, args...), image...)...)
}

// cleanDocker calls the docker CLI at the end of a test, when the test's
// context has ended. A host that the test switched off needs no cleaning.
func cleanDocker(t *testing.T, h *kit.Host, args ...string) {
	t.Helper()
	if !h.Running() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	if _, err := h.Docker(ctx, args...); err != nil {
		t.Error(err)
	}
}

// in runs a command in a container, which must succeed.
func in(t *testing.T, h *kit.Host, name string, argv ...string) string {
	t.Helper()
	return docker(t, h, append([]string{"exec", name}, argv...)...)
}

// inFails runs a command in a container, which must fail of itself.
func inFails(t *testing.T, h *kit.Host, name string, argv ...string) {
	t.Helper()
	in(t, h, name, "true") // it can be entered: the failure is the command's
	dockerFails(t, h, append([]string{"exec", name}, argv...)...)
}

// report ends a measuring container and reads its report.
func report(t *testing.T, h *kit.Host, name string, into any) {
	t.Helper()
	docker(t, h, "kill", "-s", "TERM", name)
	if code := docker(t, h, "wait", name); code != "0" {
		t.Fatalf("%s ended with %s: %s", name, code, docker(t, h, "logs", name))
	}
	lines := strings.Split(docker(t, h, "logs", name), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), into); err != nil {
		t.Fatalf("report of %s: %v: %q", name, err, lines)
	}
}

// lossReport is the report of "probe loss".
type lossReport struct {
	Sent, Received int
	LongestGapMS   int64
}

// streamReport is the report of "probe stream".
type streamReport struct {
	Blocks         int
	LongestStallMS int64
	Timeouts       int
	Broken         string
}

// waitFor waits until check succeeds, at most for the time given.
func waitFor(t *testing.T, limit time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(testContext(t), limit)
	defer cancel()
	if err := kit.WaitFor(ctx, what, check); err != nil {
		t.Fatal(err)
	}
}

// procFile is the path of a file on a process of the real machine's.
func procFile(pid int, name string) string {
	return fmt.Sprintf("/proc/%d/%s", pid, name)
}
