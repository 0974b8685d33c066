package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

// What the tests of Seaway's promises have in common.

// blue makes a network of Seaway with Seaway's IPAM, which ends with the test.
func blue(t *testing.T, h *kit.Host, name string, args ...string) {
	t.Helper()
	network(t, h, name, withIPAM(args...)...)
}

// bare makes a network of Seaway with the engine's IPAM.
func bare(t *testing.T, h *kit.Host, name string, args ...string) {
	t.Helper()
	network(t, h, name, append([]string{"-d", kit.Plugin}, args...)...)
}

func withIPAM(args ...string) []string {
	return append([]string{"-d", kit.Plugin, "--ipam-driver", kit.Plugin}, args...)
}

// refused tries to make a network of Seaway, which must fail with all of the
// words, and must leave nothing.
func refused(t *testing.T, h *kit.Host, args []string, words ...string) {
	t.Helper()
	before := docker(t, h, "network", "ls", "-q")
	out, err := h.Docker(testContext(t), append(append([]string{"network", "create"}, args...), "refused")...)
	if err == nil {
		t.Errorf("network %s was made with %s", out, args)
		docker(t, h, "network", "rm", "refused")
		return
	}
	said := new(kit.CommandError)
	if !errors.As(err, &said) {
		t.Fatal(err)
	}
	says(t, said.Stderr, words...)
	if after := docker(t, h, "network", "ls", "-q"); after != before {
		t.Errorf("networks after a refusal: %s; before: %s", after, before)
	}
}

// runFails tries to run a container, which must fail, and removes it.
func runFails(t *testing.T, h *kit.Host, args ...string) string {
	t.Helper()
	const name = "failing"
	defer func() {
		// Some engines refuse to make it, others to start it.
		_, _ = h.Docker(context.WithoutCancel(testContext(t)), "rm", "-f", name)
	}()
	return dockerFails(t, h, append(append([]string{"run", "-d", "--name", name}, args...), kit.Image)...)
}

// says checks that a text has all the words.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("it says nothing of %q: %s", w, text)
		}
	}
}

// attached reads a field of a container's attachment to a network.
func attached(t *testing.T, h *kit.Host, container, network, field string) string {
	t.Helper()
	return docker(t, h, "inspect", "-f",
		fmt.Sprintf("{{(index .NetworkSettings.Networks %q).%s}}", network, field), container)
}

func addressOf(t *testing.T, h *kit.Host, container, network string) string {
	t.Helper()
	return attached(t, h, container, network, "IPAddress")
}

func address6Of(t *testing.T, h *kit.Host, container, network string) string {
	t.Helper()
	return attached(t, h, container, network, "GlobalIPv6Address")
}

// onLink checks that a container's link has an address, which may be a MAC.
func onLink(t *testing.T, h *kit.Host, container, link, address string) {
	t.Helper()
	if out := in(t, h, container, "ip", "address", "show", link); !strings.Contains(out, " "+address) {
		t.Errorf("%s of %s has no %s: %s", link, container, address, out)
	}
}

// talks checks that a container gets answers from a name or address, by ICMP
// and TCP, and returns what the server calls itself and the client.
func talks(t *testing.T, h *kit.Host, from, to string) string {
	t.Helper()
	in(t, h, from, "ping", "-c", "1", "-W", "3", to)
	if strings.Contains(to, ":") {
		to = "[" + to + "]"
	}
	return in(t, h, from, "/probe", "get", to+":8080")
}

// cannotReach checks that a container gets no answer, by ICMP, UDP or TCP.
func cannotReach(t *testing.T, h *kit.Host, from, to string) {
	t.Helper()
	inFails(t, h, from, "ping", "-c", "1", "-W", "1", to)
	if strings.Contains(to, ":") {
		to = "[" + to + "]"
	}
	inFails(t, h, from, "/probe", "echo", "-timeout", "500ms", to+":8080")
	inFails(t, h, from, "/probe", "get", "-timeout", "500ms", to+":8080")
}

// unknown checks that a container finds nobody under a name.
func unknown(t *testing.T, h *kit.Host, from, name string) {
	t.Helper()
	inFails(t, h, from, "/probe", "get", "-timeout", "500ms", name+":8080")
}

// serveOutside starts a server on Outside, at all its addresses, and waits
// until it answers.
func serveOutside(t *testing.T, port string) {
	t.Helper()
	l := lab(t)
	ctx := testContext(t)
	server := l.Outside.Command(ctx, l.Probe, "serve", "-listen", ":"+port)
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // always "killed"
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the server outside: %v", err)
	}
}

// outsideGets asks a server from Outside who it is.
func outsideGets(t *testing.T, address string) (string, error) {
	t.Helper()
	l := lab(t)
	return l.Outside.Exec(testContext(t), l.Probe, "get", "-timeout", "2s", address)
}

// onHost runs a command on the host, which must succeed.
func onHost(t *testing.T, h *kit.Host, argv ...string) string {
	t.Helper()
	out, err := h.Exec(testContext(t), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// idOf is the short id of a network, by which Seaway calls it.
func idOf(t *testing.T, h *kit.Host, network string) string {
	t.Helper()
	return docker(t, h, "network", "inspect", "-f", "{{.Id}}", network)[:12]
}
