package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

func TestFaultKilledPluginLosesNoPacket(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue")
	f := startTraffic(t, h, "blue")
	for range 8 {
		killPlugin(t, h)
		runWorks(t, h, "blue", f.server())
		enabled(t, h)
	}
	f.unharmed(t)
}

// churn starts and removes a container over and over until the context ends,
// and takes no notice of failures. It counts its starts.
func churn(ctx context.Context, h *kit.Host, name, network string, started, failed *atomic.Int64) {
	for ctx.Err() == nil {
		if _, err := h.Docker(ctx, "run", "-d", "--name", name, "--network", network, kit.Image); err == nil {
			started.Add(1)
		} else {
			failed.Add(1)
		}
		_, _ = h.Docker(ctx, "rm", "-f", name)
	}
}

// introductions counts how often the engine has asked a plugin that logs calls
// what it can, which it does once after each start of the plugin.
func introductions(t *testing.T, h *kit.Host) int {
	t.Helper()
	log, err := os.ReadFile(h.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(log, []byte("verb=IpamDriver.GetCapabilities"))
}

// killAfter kills the plugin over and over, whatever it is doing, each time when
// it has worked for a while. An engine half a second after a plugin's start
// looks for its socket, and switches one off that has died by then (moby
// pluginPostStart): so the engine has to know it before the next kill.
func killAfter(t *testing.T, h *kit.Host, while time.Duration, times int) {
	t.Helper()
	for range times {
		select {
		case <-time.After(while):
		case <-t.Context().Done():
		}
		before := introductions(t, h)
		killPlugin(t, h)
		waitFor(t, time.Minute, "the engine to know the plugin again", func(context.Context) error {
			if introductions(t, h) == before {
				return errors.New("it has not asked")
			}
			return nil
		})
	}
}

func TestFaultKillsAmidStartsAndStopsLeaveNothing(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{}, "LOG_LEVEL=debug")
	docker(t, h, "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, "--subnet", "10.99.0.0/26", "blue")
	container(t, h, "steady", "--network", "blue")
	ctx, stop := context.WithCancel(testContext(t))
	var workers sync.WaitGroup
	var started, failed atomic.Int64
	churned := numbered("churn", 3)
	for _, name := range churned {
		workers.Go(func() { churn(ctx, h, name, "blue", &started, &failed) })
	}
	killAfter(t, h, time.Second, 12)
	stop()
	workers.Wait()
	t.Logf("between the kills %d containers were started, %d were not", started.Load(), failed.Load())
	if started.Load() == 0 {
		t.Error("no container was started between the kills")
	}
	enabled(t, h)
	for _, name := range churned {
		_, _ = h.Docker(testContext(t), "rm", "-f", name) // it is there or not
	}
	after := numbered("after", 8)
	for _, name := range after {
		container(t, h, name, "--network", "blue")
		reaches(t, h, name, "steady")
	}
	allDiffer(t, h, append(after, "steady")...)
	docker(t, h, append([]string{"rm", "-f", "steady"}, after...)...)
	docker(t, h, "network", "rm", "blue")
	nothingLeft(t, h)

	// The subnet and each address in it are free again.
	seawayNetwork(t, h, "small", "--subnet", "10.99.0.0/29")
	small := numbered("small", 5)
	for _, name := range small {
		container(t, h, name, "--network", "small")
	}
	allDiffer(t, h, small...)
}

func TestFaultStoppedProcessHoldsUpOnlyItsCall(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue")
	container(t, h, "server", "--network", "blue")
	ctx := testContext(t)
	pid := pluginPID(t, h)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() error { return syscall.Kill(pid, syscall.SIGCONT) }
	defer func() { _ = goOn() }() // else the host does not end
	ended := make(chan error, 1)
	go func() {
		_, err := h.Docker(ctx, "run", "-d", "--name", "late", "--network", "blue", kit.Image)
		ended <- err
	}()
	t.Cleanup(func() { cleanDocker(t, h, "rm", "-f", "late") })
	// The engine gives a call 30 s.
	quick, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, args := range [][]string{{"ps"}, {"exec", "server", "true"}, {"run", "--rm", kit.Image, "true"}} {
		if _, err := h.Docker(quick, args...); err != nil {
			t.Errorf("while the plugin stands still: %v", err)
		}
	}
	select {
	case err := <-ended:
		t.Errorf("docker run ended while the plugin stood still: %v", err)
	default:
	}
	if err := goOn(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	reaches(t, h, "late", "server")
	if now := pluginPID(t, h); now != pid {
		t.Errorf("the plugin was started anew: %d, before %d", now, pid)
	}
}
