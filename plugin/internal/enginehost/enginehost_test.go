package enginehost_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/seaway-net/seaway/plugin/internal/enginehost"
	"github.com/seaway-net/seaway/plugin/internal/kernel/kerneltest"
	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

const name = "seaway"

func TestFindRefusesAProcessThatIsNoEngine(t *testing.T) {
	host, err := enginehost.Find(os.Getpid())
	if !errors.Is(err, enginehost.ErrNotEngine) {
		t.Errorf("Find = %v, %v, want ErrNotEngine", host, err)
	}
}

func TestFindSaysThatAProcessIsGone(t *testing.T) {
	engine := kerneltest.NewEngine(t)
	kerneltest.Kill(t, engine.PID)
	if _, err := enginehost.Find(engine.PID); err == nil || errors.Is(err, enginehost.ErrNotEngine) {
		t.Errorf("Find of a dead process = %v, want another error", err)
	}
}

func TestFindKnowsARenamedEngineByItsSocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	host, err := enginehost.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	host.Close()
}

func TestFindRefusesANeighbourOfTheEngine(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	neighbour := kerneltest.Process(t, "env", "true") // sees the socket, and does not hold it
	if _, err := enginehost.Find(neighbour); !errors.Is(err, enginehost.ErrNotEngine) {
		t.Errorf("Find = %v, want ErrNotEngine", err)
	}
}

func TestAnEngineThatEndedIsStillSeen(t *testing.T) {
	engine := kerneltest.NewEngineWith(t, "echo here >/run/mark;")
	kerneltest.Kill(t, engine.PID)
	if got := engine.Run(t, "cat /run/mark"); got != "here\n" {
		t.Errorf("its /run/mark holds %q", got)
	}
	if _, err := engine.BindNetns(name, kerneltest.NewNS(t)); err != nil {
		t.Errorf("BindNetns = %v", err)
	}
}

// machines are the ways in which /run/netns can be when we come, as shell scripts.
var machines = map[string]string{
	"no /run/netns":                        "",
	"a plain directory":                    "mkdir /run/netns;",
	"a name of somebody else":              "ip netns add theirs;",
	"shared already":                       "mkdir /run/netns; mount --bind /run/netns /run/netns; mount --make-shared /run/netns;",
	"a mount that is private":              "mkdir /run/netns; mount --bind /run/netns /run/netns; mount --make-private /run/netns;",
	"everything is shared, as systemd has": "mount --make-rshared /;",
	"the leftover of an interrupted add":   "mkdir /run/netns; touch /run/netns/seaway;",
}

func TestANameIsGivenAndTakenOnEveryMachine(t *testing.T) {
	for machine, script := range machines {
		t.Run(machine, func(t *testing.T) {
			engine := kerneltest.NewEngineWith(t, script)
			ns := kerneltest.NewNS(t)
			if _, err := engine.NamedNetns(name); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("NamedNetns before = %v, want os.ErrNotExist", err)
			}
			for range 2 { // twice is once
				if outlives, err := engine.BindNetns(name, ns); err != nil || !outlives {
					t.Fatalf("BindNetns = %v, %v", outlives, err)
				}
				checkNamed(t, engine, ns)
			}
			for range 2 {
				if err := engine.UnbindNetns(name, ns); err != nil {
					t.Fatalf("UnbindNetns = %v", err)
				}
				checkFree(t, engine)
			}
			if script == machines["a name of somebody else"] {
				engine.Run(t, "ip netns exec theirs true")
			}
		})
	}
}

// checkNamed fails the test unless the engine sees the namespace under its name, as `ip netns` does, and
// bound there once.
func checkNamed(t *testing.T, engine *kerneltest.Engine, ns *netns.NS) {
	t.Helper()
	found, err := engine.NamedNetns(name)
	if err != nil {
		t.Fatalf("NamedNetns = %v", err)
	}
	defer found.Close()
	if !found.Equal(ns) || !engine.HasName(name, ns) {
		t.Error("the name is that of another namespace")
	}
	if list := engine.Run(t, "ip netns list"); !strings.Contains(list, name) {
		t.Errorf("ip netns list: %q", list)
	}
	here := kerneltest.Run(t, ns, "readlink /proc/self/ns/net")
	if there := engine.Run(t, "ip netns exec seaway readlink /proc/self/ns/net"); there != here {
		t.Errorf("ip netns exec leads to %s, not to %s", there, here)
	}
	if n := bound(t, engine); n != 1 {
		t.Errorf("it is mounted %d times", n)
	}
}

func checkFree(t *testing.T, engine *kerneltest.Engine) {
	t.Helper()
	if ns, err := engine.NamedNetns(name); !errors.Is(err, os.ErrNotExist) {
		ns.Close()
		t.Errorf("NamedNetns = %v, want os.ErrNotExist", err)
	}
	if n := bound(t, engine); n != 0 {
		t.Errorf("it is still mounted, %d times", n)
	}
	if out, err := engine.Try("ls /run/netns/seaway"); err == nil {
		t.Errorf("the file is left: %s", out)
	}
}

// bound returns how many mounts lie on the name, one above the other; 0 if there is none. Where /run is
// shared, a mount below /run/netns appears in /run itself too, hidden by /run/netns: that is one.
func bound(t *testing.T, engine *kerneltest.Engine) int {
	t.Helper()
	height := make(map[string]int) // by the ids of mounts; lower ones are listed first
	for line := range strings.Lines(engine.Run(t, "cat /proc/self/mountinfo")) {
		// ID PARENT DEVICE ROOT PATH ...
		if f := strings.Fields(line); f[4] == "/run/netns/"+name {
			height[f[0]] = height[f[1]] + 1
		}
	}
	highest := 0
	for _, h := range height {
		highest = max(highest, h)
	}
	return highest
}

func TestANameThatIsAnothersIsLeftAlone(t *testing.T) {
	engine := kerneltest.NewEngineWith(t, "ip netns add seaway;")
	theirs, err := engine.NamedNetns(name)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours := kerneltest.NewNS(t)
	if _, err := engine.BindNetns(name, ours); !errors.Is(err, os.ErrExist) {
		t.Errorf("BindNetns = %v, want os.ErrExist", err)
	}
	if err := engine.UnbindNetns(name, ours); err != nil {
		t.Errorf("UnbindNetns = %v", err)
	}
	checkNamed(t, engine, theirs)
	if engine.HasName(name, ours) {
		t.Error("HasName is true of a namespace that has not the name")
	}
}

func TestANameMountedTwiceIsTakenAwayWhole(t *testing.T) {
	engine := kerneltest.NewEngine(t)
	ns := kerneltest.NewNS(t)
	if _, err := engine.BindNetns(name, ns); err != nil {
		t.Fatal(err)
	}
	engine.Run(t, "mount --bind /run/netns/seaway /run/netns/seaway")
	if err := engine.UnbindNetns(name, ns); err != nil {
		t.Fatal(err)
	}
	checkFree(t, engine)
}

func TestANameIsBackAfterItsFileWasDeletedByHand(t *testing.T) {
	for _, line := range []string{"ip netns del seaway", "umount -l /run/netns/seaway"} {
		engine := kerneltest.NewEngine(t)
		ns := kerneltest.NewNS(t)
		if _, err := engine.BindNetns(name, ns); err != nil {
			t.Fatal(err)
		}
		engine.Run(t, line)
		if engine.HasName(name, ns) {
			t.Errorf("HasName after %q", line)
		}
		if _, err := engine.BindNetns(name, ns); err != nil {
			t.Fatal(err)
		}
		checkNamed(t, engine, ns)
	}
}

func TestANameOutlivesAnEngineWithMountsOfItsOwn(t *testing.T) {
	for _, propagation := range []string{"private", "slave", "shared"} {
		t.Run(propagation, func(t *testing.T) {
			machine := kerneltest.NewEngineWith(t, "mount --make-rshared /;")
			first := kerneltest.NewEngineOn(t, machine, propagation)
			ns := kerneltest.NewNS(t)
			for range 2 {
				if outlives, err := first.BindNetns(name, ns); err != nil || !outlives {
					t.Fatalf("BindNetns = %v, %v", outlives, err)
				}
				checkNamed(t, first, ns)
				checkNamed(t, machine, ns)
			}
			kerneltest.Kill(t, first.PID)
			first.Close()
			second := kerneltest.NewEngineOn(t, machine, propagation)
			if _, err := second.BindNetns(name, ns); err != nil {
				t.Fatal(err)
			}
			checkNamed(t, second, ns)
			checkNamed(t, machine, ns)
			if err := second.UnbindNetns(name, ns); err != nil {
				t.Fatal(err)
			}
			checkFree(t, second)
			checkFree(t, machine)
		})
	}
}

func TestANameThatOnlyTheMachineHasIsFound(t *testing.T) {
	machine := kerneltest.NewEngine(t)
	engine := kerneltest.NewEngineOn(t, machine, "private")
	ns := kerneltest.NewNS(t)
	if _, err := machine.BindNetns(name, ns); err != nil {
		t.Fatal(err)
	}
	found, err := engine.NamedNetns(name)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	if !found.Equal(ns) || engine.HasName(name, ns) {
		t.Error("the engine has not the name, its machine has")
	}
}

func TestAForeignNameOnTheMachineIsLeftAlone(t *testing.T) {
	machine := kerneltest.NewEngineWith(t, "ip netns add seaway;")
	theirs, err := machine.NamedNetns(name)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours := kerneltest.NewNS(t)
	engine := kerneltest.Open(t, kerneltest.Process(t, "unshare --mount --net --propagation private",
		"mount -t tmpfs tmpfs /run"), machine.PID)
	if outlives, err := engine.BindNetns(name, ours); err != nil || outlives {
		t.Errorf("BindNetns = %v, %v, want a name that does not outlive the engine", outlives, err)
	}
	checkNamed(t, engine, ours)
	if err := engine.UnbindNetns(name, ours); err != nil {
		t.Error(err)
	}
	checkNamed(t, machine, theirs)
}

func TestWithoutAKeeperANameDoesNotOutliveTheEngine(t *testing.T) {
	engine := kerneltest.NewEngine(t)
	alone := kerneltest.Open(t, engine.PID, 1<<22) // no such process
	ns := kerneltest.NewNS(t)
	if outlives, err := alone.BindNetns(name, ns); err != nil || outlives {
		t.Errorf("BindNetns = %v, %v", outlives, err)
	}
	checkNamed(t, alone, ns)
	if err := alone.UnbindNetns(name, ns); err != nil {
		t.Error(err)
	}
	checkFree(t, alone)
}

func TestAPathOfTheEngineThatIsNoNamespaceIsNone(t *testing.T) {
	engine := kerneltest.NewEngineWith(t, "touch /run/plain;")
	sandbox, ns := engine.NewContainer(t, "one")
	found, err := engine.OpenNetns(sandbox)
	if err != nil || !found.Equal(ns) {
		t.Errorf("OpenNetns of a container = %v, %v", found, err)
	}
	found.Close()
	engine.RemoveContainer(t, sandbox, ns)
	for _, path := range []string{sandbox, "/run/plain", "/run/missing/one"} {
		if _, err := engine.OpenNetns(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("OpenNetns(%s) = %v, want os.ErrNotExist", path, err)
		}
	}
}

func TestSysctlsAreThoseOfTheNamespace(t *testing.T) {
	engine := kerneltest.NewEngine(t)
	ns := kerneltest.NewNS(t)
	engine.Run(t, "sysctl -q net.ipv4.ip_forward=0")
	err := engine.WriteSysctls(ns, map[string]string{"ipv4/ip_forward": "1", "ipv4/no_such_setting": "1"})
	if err != nil {
		t.Errorf("WriteSysctls = %v; a setting that the kernel has not is no error", err)
	}
	for _, c := range []struct {
		ns   *netns.NS
		want string
	}{{ns, "1\n"}, {engine.Net(), "0\n"}} {
		if got := kerneltest.Run(t, c.ns, "cat /proc/sys/net/ipv4/ip_forward"); got != c.want {
			t.Errorf("ip_forward = %q, want %q", got, c.want)
		}
	}
	err = engine.WriteSysctls(ns, map[string]string{"ipv4/ip_forward": "nonsense", "ipv4/ip_default_ttl": "77"})
	if err == nil || !strings.Contains(err.Error(), "ip_forward") {
		t.Errorf("WriteSysctls of nonsense = %v", err)
	}
	if got := kerneltest.Run(t, ns, "cat /proc/sys/net/ipv4/ip_default_ttl"); got != "77\n" {
		t.Errorf("a good value beside a bad one was not written: %q", got)
	}
}

func TestWatchMountsNoticesEveryChangeAndEndsWithItsContext(t *testing.T) {
	engine := kerneltest.NewEngineWith(t, "mkdir /run/a;")
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- engine.WatchMounts(ctx, func() {
			select {
			case changes <- struct{}{}:
			default:
			}
		})
	}()
	ns := kerneltest.NewNS(t)
	if _, err := engine.BindNetns(name, ns); err != nil {
		t.Fatal(err)
	}
	for turn := range 100 {
		line := []string{"mount --bind /run/a /run/a", "umount /run/a"}[turn%2]
		for quiet := false; !quiet; { // what earlier changes left
			select {
			case <-changes:
			default:
				quiet = true
			}
		}
		engine.Run(t, line)
		kerneltest.Eventually(t, fmt.Sprintf("notice of %q, turn %d", line, turn), func() bool { return len(changes) > 0 })
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("WatchMounts = %v", err)
	}
}

func TestTheHostLeavesNoDescriptorOpen(t *testing.T) {
	engine, machine := kerneltest.NewEngine(t), kerneltest.NewEngine(t)
	ns := kerneltest.NewNS(t)
	use := func() {
		host, err := enginehost.Open(engine.PID, machine.PID)
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		if _, err := host.BindNetns(name, ns); err != nil {
			t.Error(err)
		}
		if _, err := host.OpenNetns("/missing"); err == nil {
			t.Error("OpenNetns(/missing) = nil")
		}
		host.HasName(name, ns)
		if found, err := host.NamedNetns(name); err == nil {
			found.Close()
		}
		if err := host.UnbindNetns(name, ns); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := host.WatchMounts(ctx, func() {}); err != nil {
			t.Error(err)
		}
		if _, err := enginehost.Open(1<<22, 1); err == nil {
			t.Error("Open of no process = nil")
		}
	}
	use()
	before := kerneltest.Descriptors(t)
	for range 30 {
		use()
	}
	kerneltest.Eventually(t, fmt.Sprintf("only %d descriptors open", before), func() bool {
		return kerneltest.Descriptors(t) <= before
	})
}
