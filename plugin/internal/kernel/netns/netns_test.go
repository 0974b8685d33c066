package netns_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/seaway-net/seaway/plugin/internal/kernel/kerneltest"
	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// where returns the network namespace of the calling thread, as the kernel names it.
func where() (string, error) { return os.Readlink("/proc/thread-self/ns/net") }

func mustWhere(t *testing.T) string {
	t.Helper()
	here, err := where()
	if err != nil {
		t.Fatal(err)
	}
	return here
}

// inside returns what the kernel calls the namespace.
func inside(t *testing.T, ns *netns.NS) string {
	t.Helper()
	var there string
	if err := ns.Do(func() (err error) {
		there, err = where()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return there
}

func TestDoRunsInTheNamespaceAndNothingElseDoes(t *testing.T) {
	home := mustWhere(t)
	spaces := make(map[*netns.NS]string)
	for range 4 {
		ns := kerneltest.NewNS(t)
		spaces[ns] = inside(t, ns)
		if spaces[ns] == home {
			t.Fatal("a new namespace is the one we are in")
		}
	}
	var work sync.WaitGroup
	stop := make(chan struct{})
	// Bystanders run on whatever thread the scheduler has. One that a namespace was left on shows here.
	for range 8 {
		work.Go(func() {
			for {
				if here, err := where(); err != nil || here != home {
					t.Errorf("a bystander landed in %s (%v), not in %s", here, err, home)
					return
				}
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		})
	}
	var walkers sync.WaitGroup
	for ns, want := range spaces {
		for n := range 8 {
			walkers.Go(func() { walk(t, ns, want, n) })
		}
	}
	walkers.Wait()
	close(stop)
	work.Wait()
}

// walk enters a namespace many times and leaves it in every way there is.
func walk(t *testing.T, ns *netns.NS, want string, n int) {
	for turn := range 50 {
		failure := errors.New("on purpose")
		err := ns.Do(func() error {
			for range 3 {
				runtime.Gosched()
				if here, err := where(); err != nil || here != want {
					t.Errorf("Do ran in %s (%v), want %s", here, err, want)
				}
			}
			switch (turn + n) % 4 {
			case 0:
				return failure
			case 1:
				panic("on purpose")
			case 2:
				runtime.Goexit()
			}
			return nil
		})
		if failed := (turn+n)%4 != 3; (err != nil) != failed {
			t.Errorf("turn %d: Do = %v", turn+n, err)
		}
	}
}

func TestAPanicOnANamespacesThreadIsAnError(t *testing.T) {
	ns := kerneltest.NewNS(t)
	for name, do := range map[string]func(func() error) error{"Do": ns.Do, "Thread": netns.Thread} {
		err := do(func() error { panic("the reason") })
		if err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "netns_test.go") {
			t.Errorf("%s after a panic = %v, want the reason and the place", name, err)
		}
	}
}

func TestAFunctionThatEndsItsGoroutineIsAnError(t *testing.T) {
	err := netns.Thread(func() error {
		runtime.Goexit()
		return nil
	})
	if err == nil {
		t.Error("Thread = nil, want an error")
	}
}

func TestDoReturnsTheErrorOfTheFunction(t *testing.T) {
	failure := errors.New("on purpose")
	if err := kerneltest.NewNS(t).Do(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("Do = %v, want %v", err, failure)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "missing"): os.ErrNotExist,
		plain:                         netns.ErrNotNamespace,
		dir:                           netns.ErrNotNamespace,
		"/proc/self/ns/net":           nil,
	} {
		ns, err := netns.Open(path)
		if !errors.Is(err, want) || (ns == nil) != (want != nil) {
			t.Errorf("Open(%s) = %v, %v, want %v", path, ns, err, want)
		}
		ns.Close()
	}
}

func TestANamespaceOfAnotherKindCannotBeEntered(t *testing.T) {
	ns, err := netns.Open("/proc/self/ns/mnt")
	if err != nil {
		return // refused even earlier
	}
	defer ns.Close()
	if err := ns.Do(func() error { return nil }); err == nil {
		t.Error("a mount namespace was entered as a network namespace")
	}
}

func TestEqualMeansTheSameNamespace(t *testing.T) {
	current, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer current.Close()
	again, err := netns.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	one, other := kerneltest.NewNS(t), kerneltest.NewNS(t)
	for _, c := range []struct {
		name string
		a, b *netns.NS
		want bool
	}{
		{"itself", one, one, true},
		{"opened twice", current, again, true},
		{"two new ones", one, other, false},
		{"a new one and ours", current, one, false},
		{"nil and one", nil, one, false},
		{"one and nil", one, nil, false},
		{"nil and nil", nil, nil, false},
	} {
		if got := c.a.Equal(c.b); got != c.want {
			t.Errorf("%s: Equal = %v", c.name, got)
		}
	}
}

func TestASocketStaysInItsNamespace(t *testing.T) {
	ns := kerneltest.NewNS(t)
	kerneltest.Run(t, ns, "ip link set lo up")
	var l net.Listener
	if err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() error {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	if err := dial(); err == nil {
		t.Error("the socket is in our namespace")
	}
	if err := ns.Do(dial); err != nil {
		t.Errorf("the socket is not in its namespace: %v", err)
	}
}

func TestNoDescriptorIsLeftOpen(t *testing.T) {
	use := func() {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		_ = ns.Do(func() error { panic("on purpose") })
		path := fmt.Sprintf("/proc/self/fd/%d", ns.FD())
		again, err := netns.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
		ns.Close()
		ns.Close() // twice is once
		for _, path := range []string{"/proc/self/status", "/missing"} {
			if _, err := netns.Open(path); err == nil {
				t.Errorf("Open(%s) = nil", path)
			}
		}
	}
	use()
	before := kerneltest.Descriptors(t)
	for range 50 {
		use()
	}
	if after := kerneltest.Descriptors(t); after > before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}
