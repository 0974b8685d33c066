package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// together runs do for every name, some at a time.
func together(names []string, atOnce int, do func(name string) error) error {
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	failed := make([]error, len(names))
	for i, name := range names {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			failed[i] = do(name)
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// addressAndReach has a container ping the hub, and returns its address that
// begins with a prefix. A busy engine loses the output of a short command now
// and then; it is asked again.
func addressAndReach(ctx context.Context, h *kit.Host, name, prefix string) (string, error) {
	for range 5 {
		out, err := h.Docker(ctx, "exec", name, "sh", "-c", "ip -o -4 address && ping -c 1 -W 5 hub")
		if err != nil || out == "" {
			if err != nil {
				return "", err
			}
			continue
		}
		for _, field := range strings.Fields(out) {
			if ip, _, ok := strings.Cut(field, "/"); ok && strings.HasPrefix(ip, prefix) {
				return ip, nil
			}
		}
		return "", fmt.Errorf("%s has no address of %s: %s", name, prefix, out)
	}
	return "", fmt.Errorf("%s says nothing", name)
}

// recount restarts an engine that cannot remove a network without containers.
// Engine 20.10 miscounts the endpoints of any network, also of its own bridge
// driver's, when many containers go at once; it counts anew when it starts.
func recount(t *testing.T, h *kit.Host, network string) {
	t.Helper()
	if lab(t).Engine().Modern() {
		return
	}
	if left := docker(t, h, "network", "inspect", "-f", "{{len .Containers}}", network); left != "0" {
		t.Errorf("%s has %s containers", network, left)
	}
	if err := h.RestartEngine(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

func TestFaultManyContainersComeAndGo(t *testing.T) {
	const count, atOnce = 200, 20
	h := freshSeaway(t, kit.HostOptions{})
	ctx := testContext(t)
	seawayNetwork(t, h, "blue", "--subnet", "10.92.0.0/23")
	container(t, h, "hub", "--network", "blue")
	names := numbered("many", count)
	begin := time.Now()
	err := together(names, atOnce, func(name string) error {
		_, err := h.Docker(ctx, "run", "-d", "--name", name, "--network", "blue", kit.Image, "/bin/sleep", "3600")
		return err
	})
	started := time.Since(begin)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	addresses := map[string]string{}
	err = together(names, atOnce, func(name string) error {
		// The container says what it has, and reaches the hub with it.
		ip, reachErr := addressAndReach(ctx, h, name, "10.92.")
		if reachErr != nil {
			return reachErr
		}
		mu.Lock()
		defer mu.Unlock()
		if other, taken := addresses[ip]; taken {
			t.Errorf("%s and %s both have %s", other, name, ip)
		}
		addresses[ip] = name
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	begin = time.Now()
	if err := together(names, atOnce, func(name string) error {
		_, err := h.Docker(ctx, "rm", "-f", name)
		return err
	}); err != nil {
		t.Error(err)
	}
	t.Logf("%d containers, %d at a time: started in %.0f s, removed in %.0f s", count, atOnce, started.Seconds(),
		time.Since(begin).Seconds())
	if left := ports(t, h); len(left) != 1 {
		t.Errorf("ports: %v; want only that of hub", left)
	}
	docker(t, h, "rm", "-f", "hub")
	recount(t, h, "blue")
	docker(t, h, "network", "rm", "blue")
	nothingLeft(t, h)
	docker(t, h, "network", "create", "blue")
}
