// Package e2e tests Seaway as its users meet it: on real Docker Engines, on
// simulated hosts. It knows nothing of the plugin's inside. Package kit, which
// it is built on, says how the hosts work.
//
// It needs root. ENGINE=debian or ENGINE=modern picks the engine. With -short
// nothing runs.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// testTime is how long one test may take.
const testTime = 10 * time.Minute

// crashVariable is set in a copy of this program that makes a Lab and dies.
const crashVariable = "SEAWAY_E2E_CRASH"

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run runs the tests between two looks at the machine.
func run(m *testing.M) (int, error) {
	if testing.Short() {
		fmt.Println("e2e: skipped because of -short")
		return 0, nil
	}
	if os.Geteuid() != 0 {
		return 1, errors.New("the tests need root (-short skips them)")
	}
	if os.Getenv(crashVariable) != "" {
		return 1, crash()
	}
	if err := kit.Sweep(context.Background()); err != nil {
		return 1, err
	}
	guard, err := kit.NewGuard()
	if err != nil {
		return 1, err
	}
	stop := closeOnSignal()
	code := m.Run()
	stop()
	err = closeLab()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return code, errors.Join(err, guard.Check(ctx))
}

// closeOnSignal makes SIGINT and SIGTERM clean up before they end the run.
func closeOnSignal() (stop func()) {
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case <-done:
		case s := <-signals:
			fmt.Fprintf(os.Stderr, "e2e: %v: cleaning up\n", s)
			if err := closeLab(); err != nil {
				fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
			}
			os.Exit(130)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// The Lab of this run, and the host that tests share. Both are made when a
// test asks for them.
var world struct {
	sync.Mutex
	lab    *kit.Lab
	host   *kit.Host
	seaway *kit.Host // has Seaway
	closed bool
}

func closeLab() error {
	world.Lock()
	defer world.Unlock()
	world.closed = true
	if world.lab == nil {
		return nil
	}
	return world.lab.Close()
}

// lab returns the Lab of this run.
func lab(t *testing.T) *kit.Lab {
	t.Helper()
	world.Lock()
	defer world.Unlock()
	return labLocked(t)
}

func labLocked(t *testing.T) *kit.Lab {
	t.Helper()
	if world.closed {
		t.Fatal("the run is ending")
	}
	if world.lab == nil {
		// Not the test's own context: a modern engine may have to be built.
		l, err := kit.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		world.lab = l
	}
	return world.lab
}

// shared returns the host that tests share: for those that leave it as they
// found it.
func shared(t *testing.T) *kit.Host {
	t.Helper()
	world.Lock()
	defer world.Unlock()
	l := labLocked(t)
	if world.host == nil {
		h, err := l.AddHost(testContext(t), kit.HostOptions{})
		if err != nil {
			t.Fatal(err)
		}
		world.host = h
	}
	logOnFailure(t, world.host)
	return world.host
}

// seaway returns the host with Seaway that tests share: for those that leave it
// as they found it.
func seaway(t *testing.T) *kit.Host {
	t.Helper()
	world.Lock()
	defer world.Unlock()
	l := labLocked(t)
	if world.seaway == nil {
		h, err := l.AddHost(testContext(t), kit.HostOptions{})
		if err != nil {
			t.Fatal(err)
		}
		installPlugin(t, h)
		world.seaway = h
	}
	logOnFailure(t, world.seaway)
	return world.seaway
}

// freshSeaway returns a host of the test's own, with Seaway. As the test shares
// nothing with others, it runs beside them from here on: it mostly waits.
func freshSeaway(t *testing.T, opt kit.HostOptions, settings ...string) *kit.Host {
	t.Helper()
	t.Parallel()
	h := fresh(t, opt)
	installPlugin(t, h, settings...)
	return h
}

// installPlugin installs Seaway on a host, with settings of the form NAME=value.
func installPlugin(t *testing.T, h *kit.Host, settings ...string) {
	t.Helper()
	if err := h.InstallPlugin(testContext(t), settings...); err != nil {
		t.Fatal(err)
	}
}

// fresh returns a host of the test's own, which ends with it.
func fresh(t *testing.T, opt kit.HostOptions) *kit.Host {
	t.Helper()
	h, err := lab(t).AddHost(testContext(t), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := h.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	logOnFailure(t, h)
	return h
}

// logOnFailure shows the end of the host's log if the test fails.
func logOnFailure(t *testing.T, h *kit.Host) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", h.Name, h.LogTail(100))
		}
	})
}

// testContext ends with the test, or when that has taken too long.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	return ctx
}
