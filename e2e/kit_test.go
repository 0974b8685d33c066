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
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// The tests in this file check the kit itself, without Seaway.

func TestKitContainersReachEachOther(t *testing.T) {
	h := shared(t)
	network(t, h, "plain")
	container(t, h, "alice", "--network", "plain")
	container(t, h, "bob", "--network", "plain")
	in(t, h, "alice", "ping", "-c", "1", "-W", "3", "bob")
	address := docker(t, h, "inspect", "-f", "{{.NetworkSettings.Networks.plain.IPAddress}}", "bob")
	in(t, h, "alice", "ping", "-c", "1", "-W", "3", address)
	inFails(t, h, "alice", "ping", "-c", "1", "-W", "1", "nobody")
}

func TestKitHostReachesTheWorldAndBack(t *testing.T) {
	h := shared(t)
	l := lab(t)
	world := l.Outside.Command(testContext(t), l.Probe, "serve", "-listen", kit.WorldAddress.String()+":7000")
	if err := world.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = world.Process.Kill()
		_ = world.Wait()
	})
	container(t, h, "web", "-p", "8000:8080")
	waitFor(t, 10*time.Second, "egress", func(ctx context.Context) error {
		out, err := h.Docker(ctx, "exec", "web", "/probe", "get", kit.WorldAddress.String()+":7000")
		if err == nil && out != "outside "+h.Address.String() {
			t.Fatalf("the world says %q", out)
		}
		return err
	})
	if out := in(t, h, "web", "/probe", "get", kit.WorldName+":7000"); !strings.HasPrefix(out, "outside ") {
		t.Errorf("%s says %q", kit.WorldName, out)
	}
	out, err := l.Outside.Exec(testContext(t), l.Probe, "get", h.Address.String()+":8000")
	if err != nil {
		t.Fatal(err)
	}
	if name := docker(t, h, "inspect", "-f", "{{.Config.Hostname}}", "web"); !strings.HasPrefix(out, name+" ") {
		t.Errorf("port 8000 answers %q; want the name %s", out, name)
	}
}

func TestKitMachineIsOneOfItsOwn(t *testing.T) {
	h := shared(t)
	ctx := testContext(t)
	for command, want := range map[string]string{
		"hostname":          h.Name,
		"cat /etc/hostname": h.Name,
		"ls /sys/class/net": "docker0\neth0\nlo",
		"cat /proc/1/comm":  "probe",
	} {
		if out, err := h.Exec(ctx, strings.Fields(command)...); err != nil || out != want {
			t.Errorf("%s: %q, %v; want %q", command, out, err, want)
		}
	}
	for _, foreign := range []string{"/etc/shadow", "/etc/docker/daemon.json", "/run/netns"} {
		if _, err := h.Exec(ctx, "test", "-e", foreign); err == nil {
			t.Errorf("the machine has the real one's %s", foreign)
		}
	}
}

func TestKitRootIsSharedOrPrivate(t *testing.T) {
	private := fresh(t, kit.HostOptions{PrivateRoot: true})
	for h, want := range map[*kit.Host]string{shared(t): "shared", private: "private"} {
		out, err := h.Exec(testContext(t), "findmnt", "-n", "-o", "PROPAGATION", "/")
		if err != nil || out != want {
			t.Errorf("propagation of / on %s: %q, %v; want %s", h.Name, out, err, want)
		}
		container(t, h, "propagation")
		in(t, h, "propagation", "true")
	}
}

func TestKitPowerCycleBringsContainersBack(t *testing.T) {
	h := fresh(t, kit.HostOptions{})
	ctx := testContext(t)
	container(t, h, "always", "--restart", "always")
	container(t, h, "once")
	if _, err := h.Exec(ctx, "touch", "/run/volatile", "/etc/lasting"); err != nil {
		t.Fatal(err)
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if all, err := h.Processes(); err != nil || len(all) != 0 {
		t.Fatalf("processes of a machine that is off: %v, %v", all, err)
	}
	if err := h.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	in(t, h, "always", "/probe", "get", "localhost:8080")
	if names := docker(t, h, "ps", "--format", "{{.Names}}"); names != "always" {
		t.Errorf("running after the power cycle: %q; want only always", names)
	}
	if _, err := h.Exec(ctx, "test", "-e", "/etc/lasting"); err != nil {
		t.Errorf("/etc is new: %v", err)
	}
	if _, err := h.Exec(ctx, "test", "-e", "/run/volatile"); err == nil {
		t.Error("/run is not new")
	}
}

func TestKitLiveRestoreKeepsContainersRunning(t *testing.T) {
	h := fresh(t, kit.HostOptions{EngineArgs: []string{"--live-restore"}})
	ctx := testContext(t)
	network(t, h, "plain")
	container(t, h, "server", "--network", "plain")
	container(t, h, "loss", "--network", "plain", "--", "/probe", "loss", "server:8080")
	started := docker(t, h, "inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}}", "server")
	for _, end := range []func(context.Context) error{h.KillEngine, h.StopEngine} {
		if err := end(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Docker(ctx, "ps"); err == nil {
			t.Fatal("the engine answers after its end")
		}
		if err := h.StartEngine(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if now := docker(t, h, "inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}}", "server"); now != started {
		t.Errorf("server was started anew: %s, before %s", now, started)
	}
	var r lossReport
	report(t, h, "loss", &r)
	if r.Sent < 100 || r.Received != r.Sent {
		t.Errorf("lost datagrams: %+v", r)
	}
}

func TestKitEngineRestartStopsContainers(t *testing.T) {
	h := fresh(t, kit.HostOptions{})
	container(t, h, "server")
	if err := h.RestartEngine(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if state := docker(t, h, "inspect", "-f", "{{.State.Running}}", "server"); state != "false" {
		t.Errorf("running: %s", state)
	}
}

func TestKitMeasuresLossAndStalls(t *testing.T) {
	h := fresh(t, kit.HostOptions{})
	l := lab(t)
	ctx := testContext(t)
	server := l.Outside.Command(ctx, l.Probe, "serve", "-listen", ":7001")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	address := kit.GatewayAddress.String() + ":7001"
	container(t, h, "first")
	waitFor(t, 5*time.Second, "server", func(ctx context.Context) error {
		_, err := h.Docker(ctx, "exec", "first", "/probe", "get", address)
		return err
	})
	container(t, h, "loss", "--", "/probe", "loss", address)
	container(t, h, "stream", "--", "/probe", "stream", address)
	if err := h.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	// Long enough that the host does not just keep the datagrams until it has
	// found its neighbour again, which it tries for three seconds.
	inFails(t, h, "first", "/probe", "get", "-timeout", "4s", address)
	if err := h.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 10*time.Second, "healing", func(ctx context.Context) error {
		_, err := h.Docker(ctx, "exec", "first", "/probe", "get", address)
		return err
	})
	var lost lossReport
	report(t, h, "loss", &lost)
	// How many are sent meanwhile depends on how busy the machine is.
	if gone := lost.Sent - lost.Received; gone < 10 || lost.Received == 0 || lost.LongestGapMS < 900 {
		t.Errorf("four seconds of 5 ms datagrams were cut off, but the report is %+v", lost)
	}
	var stalled streamReport
	report(t, h, "stream", &stalled)
	if stalled.LongestStallMS < 900 || stalled.Timeouts == 0 || stalled.Blocks == 0 || stalled.Broken != "" {
		t.Errorf("the stream was cut off for four seconds, but the report is %+v", stalled)
	}
}

func TestKitGuardSeesWhatIsLeft(t *testing.T) {
	guard, err := kit.NewGuard()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("sea-%d-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	if err := guard.Check(ctx); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("check with %s: %v", dir, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := guard.Check(testContext(t)); err != nil {
		t.Error(err)
	}
}

// crash makes a Lab with a host and a container, and waits to be killed.
func crash() error {
	ctx := context.Background()
	l, err := kit.Open(ctx)
	if err != nil {
		return err
	}
	h, err := l.AddHost(ctx, kit.HostOptions{})
	if err != nil {
		return err
	}
	if _, err := h.Docker(ctx, "run", "-d", kit.Image); err != nil {
		return err
	}
	fmt.Println(l.Name())
	select {}
}

func TestKitCrashLeavesNothing(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashVariable+"=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var name string
	_, scanErr := fmt.Fscanln(stdout, &name)
	if err := errors.Join(scanErr, cmd.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // always "killed"
	waitFor(t, 20*time.Second, "the janitor", func(context.Context) error {
		for _, pattern := range []string{filepath.Join(os.TempDir(), name), "/sys/fs/cgroup/" + name + "*", "/sys/fs/cgroup/*/" + name + "*"} {
			if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
				return fmt.Errorf("left: %v, %w", left, err)
			}
		}
		return nil
	})
}
