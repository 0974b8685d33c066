package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/seaway-net/seaway/plugin/internal/kernel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a kernel of text. What it is told is listed, and it refuses what the real one would refuse.
type fake struct {
	mu    sync.Mutex
	held  map[kernel.Key]kernel.Object
	calls []string
	// fails says whether a call fails: "read", "put bridge blue", "delete port p1". nil: none does.
	fails func(call string) bool
	// during is called in the middle of each call.
	during func(call string)
}

var errOnPurpose = errors.New("on purpose")

func newFake(held ...kernel.Object) *fake {
	f := &fake{held: make(map[kernel.Key]kernel.Object)}
	for _, object := range held {
		f.held[object.Key()] = object
	}
	return f
}

// call notes a call, and returns the error that it is to have.
func (f *fake) call(what string) error {
	if f.during != nil {
		f.during(what)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fails := f.fails != nil && f.fails(what)
	if fails {
		what += " !"
	}
	f.calls = append(f.calls, what)
	if fails {
		return errOnPurpose
	}
	return nil
}

func (f *fake) Read(context.Context) (map[kernel.Key]kernel.Object, error) {
	if err := f.call("read"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.held), nil
}

func (f *fake) Put(_ context.Context, object kernel.Object) error {
	if err := f.call("put " + object.Key().String()); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if port, ok := object.(kernel.Port); ok && f.held[kernel.Bridge{Name: port.Bridge}.Key()] == nil {
		return fmt.Errorf("bridge %s is not there yet", port.Bridge)
	}
	f.held[object.Key()] = object
	return nil
}

func (f *fake) Delete(_ context.Context, keys []kernel.Key) error {
	var failed error
	for _, key := range keys {
		if err := f.call("delete " + key.String()); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		f.lose(key)
	}
	return failed
}

// lose removes an object, with what hangs on it.
func (f *fake) lose(key kernel.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, key)
	for other, object := range f.held {
		if port, ok := object.(kernel.Port); ok && key.Kind == kernel.KindBridge && port.Bridge == key.Name {
			delete(f.held, other)
		}
	}
}

// String is what the kernel holds, one object per line.
func (f *fake) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var text strings.Builder
	for _, key := range slices.SortedFunc(maps.Keys(f.held), kernel.Key.Compare) {
		switch o := f.held[key].(type) {
		case kernel.Port:
			fmt.Fprintf(&text, "%s on %s\n", key, o.Bridge)
		case kernel.Bridge:
			fmt.Fprintf(&text, "%s for %s\n", key, o.Alias)
		default:
			fmt.Fprintln(&text, key)
		}
	}
	return text.String()
}

// told returns the calls since it was last asked, one per line.
func (f *fake) told() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.calls = nil }()
	return strings.Join(f.calls, "\n")
}

// setFails changes which calls fail.
func (f *fake) setFails(fails func(string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = fails
}

func failing(call string) func(string) bool {
	return func(c string) bool { return c == call }
}

// running runs a loop over the fake in a bubble of its own time; fn is to use synctest.Wait.
func running(t *testing.T, f *fake, fn func(t *testing.T, l *Loop)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := New(f, slog.New(slog.DiscardHandler))
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
		}()
		fn(t, l)
	})
}

func bridge(name string) kernel.Bridge { return kernel.Bridge{Name: name, Alias: "net"} }

func port(name, bridge string) kernel.Port { return kernel.Port{Name: name, Bridge: bridge} }

func mustEqual(t *testing.T, what, got, want string) {
	t.Helper()
	clean := func(s string) string {
		lines := strings.Split(strings.TrimSpace(s), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		return strings.Join(lines, "\n")
	}
	if clean(got) != clean(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, clean(got), clean(want))
	}
}

func TestWhatIsDesiredIsPutInTheOrderOfNeed(t *testing.T) {
	f := newFake()
	running(t, f, func(t *testing.T, l *Loop) {
		l.Set(port("p1", "blue"), bridge("blue"), kernel.Namespace{})
		synctest.Wait()
		mustEqual(t, "calls", f.told(), "put namespace seaway\nput bridge blue\nput port p1")
		mustEqual(t, "kernel", f.String(), "namespace seaway\nbridge blue for net\nport p1 on blue")
	})
}

func TestLoadPutsBeforeItDeletesAndDeletesPortsFirst(t *testing.T) {
	f := newFake(kernel.Namespace{}, bridge("old"), port("p0", "old"), bridge("blue"))
	running(t, f, func(t *testing.T, l *Loop) {
		l.Load([]kernel.Object{kernel.Namespace{}, bridge("blue"), port("p1", "blue")})
		synctest.Wait()
		mustEqual(t, "calls", f.told(), `read
			put namespace seaway
			put bridge blue
			put port p1
			delete port p0
			delete bridge old`)
		mustEqual(t, "kernel", f.String(), "namespace seaway\nbridge blue for net\nport p1 on blue")
	})
}

func TestNothingIsPrunedBeforeTheDesiredStateIsLoaded(t *testing.T) {
	f := newFake(bridge("old"), port("p0", "old"))
	running(t, f, func(t *testing.T, l *Loop) {
		l.Set(bridge("blue"))
		l.Resync()
		l.Check(bridge("old").Key())
		time.Sleep(10 * fullInterval)
		synctest.Wait()
		mustEqual(t, "calls", f.told(), "put bridge blue")
		l.Load(nil)
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "bridge blue for net")
	})
}

func TestWhatIsRemovedByNameGoesEvenBeforeLoad(t *testing.T) {
	f := newFake(bridge("old"))
	running(t, f, func(t *testing.T, l *Loop) {
		l.Remove(bridge("old").Key())
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "")
	})
}

func TestNothingIsPrunedAfterAReadThatFailed(t *testing.T) {
	f := newFake(bridge("old"))
	f.fails = failing("read")
	running(t, f, func(t *testing.T, l *Loop) {
		l.Load([]kernel.Object{bridge("blue")})
		synctest.Wait()
		mustEqual(t, "calls", f.told(), "read !\nput bridge blue")
		f.setFails(nil)
		time.Sleep(fullInterval)
		synctest.Wait()
		mustEqual(t, "kernel, once it can be read", f.String(), "bridge blue for net")
	})
}

func TestWhatIsInUseIsNotPruned(t *testing.T) {
	f := newFake(kernel.FoundBridge("old", "net", true), kernel.FoundPort("p0", "old", true), kernel.FoundPort("p1", "old", false))
	running(t, f, func(t *testing.T, l *Loop) {
		l.Load(nil)
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "bridge old for net\nport p0 on old")
		l.Remove(port("p0", "").Key(), bridge("old").Key())
		synctest.Wait()
		mustEqual(t, "kernel, after it was removed by name", f.String(), "")
	})
}

func TestAFailureIsTriedAgainWithGrowingPauses(t *testing.T) {
	f := newFake()
	running(t, f, func(t *testing.T, l *Loop) {
		var at []time.Duration
		start := time.Now()
		f.fails = func(string) bool {
			at = append(at, time.Since(start))
			return true
		}
		l.Set(bridge("blue"))
		time.Sleep(100 * time.Second)
		synctest.Wait()
		f.setFails(nil)
		var pauses []time.Duration
		for i := 1; i < len(at); i++ {
			pauses = append(pauses, at[i]-at[i-1])
		}
		for i, pause := range pauses {
			if want := min(firstRetry<<i, fullInterval); pause < want || pause > want+10*time.Millisecond {
				t.Errorf("pause %d is %v, want %v (all: %v)", i, pause, want, pauses)
			}
		}
		if len(pauses) < 10 {
			t.Errorf("only %d retries in 100 s", len(pauses))
		}
		time.Sleep(fullInterval + time.Second)
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "bridge blue for net")
		f.told()
		time.Sleep(10 * fullInterval)
		synctest.Wait()
		mustEqual(t, "calls after it went well", f.told(), "")
	})
}

func TestAFailedDeletionIsTriedAgain(t *testing.T) {
	f := newFake(bridge("blue"))
	f.fails = failing("delete bridge blue")
	running(t, f, func(t *testing.T, l *Loop) {
		l.Remove(bridge("blue").Key())
		synctest.Wait()
		f.setFails(nil)
		time.Sleep(2 * firstRetry)
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "")
	})
}

func TestAFailureHoldsUpNothingElse(t *testing.T) {
	f := newFake()
	f.fails = failing("put bridge red")
	running(t, f, func(t *testing.T, l *Loop) {
		l.Set(bridge("red"), bridge("blue"), port("p1", "blue"))
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "bridge blue for net\nport p1 on blue")
	})
}

func TestAnEventHasWhatIsLostPutAgainAndNothingElse(t *testing.T) {
	f := newFake()
	running(t, f, func(t *testing.T, l *Loop) {
		l.Load([]kernel.Object{bridge("blue"), bridge("red"), port("p1", "blue")})
		synctest.Wait()
		f.told()
		f.lose(bridge("blue").Key())
		l.Check(port("p1", "").Key(), bridge("blue").Key(), bridge("stranger").Key())
		synctest.Wait()
		mustEqual(t, "calls", f.told(), "put bridge blue\nput port p1")
	})
}

func TestALossWithoutAnEventIsRepairedWithinHalfAMinute(t *testing.T) {
	f := newFake()
	running(t, f, func(t *testing.T, l *Loop) {
		l.Load([]kernel.Object{bridge("blue"), port("p1", "blue")})
		synctest.Wait()
		f.lose(port("p1", "").Key())
		time.Sleep(30 * time.Second)
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "bridge blue for net\nport p1 on blue")
	})
}

func TestMissedEventsHaveEverythingCompared(t *testing.T) {
	f := newFake()
	running(t, f, func(t *testing.T, l *Loop) {
		l.Load([]kernel.Object{bridge("blue"), port("p1", "blue")})
		synctest.Wait()
		f.told()
		f.lose(port("p1", "").Key())
		l.Resync()
		synctest.Wait()
		mustEqual(t, "calls", f.told(), "read\nput port p1")
	})
}

// waiting waits for an object in a goroutine of its own.
func waiting(t *testing.T, l *Loop, key kernel.Key) chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- l.Wait(t.Context(), key) }()
	return result
}

func TestWaitReturnsWhatCameOfTheFirstAttempt(t *testing.T) {
	for _, want := range []error{nil, errOnPurpose} {
		f := newFake()
		f.fails = func(string) bool { return want != nil }
		running(t, f, func(t *testing.T, l *Loop) {
			l.Set(bridge("blue"))
			if err := l.Wait(t.Context(), bridge("blue").Key()); !errors.Is(err, want) {
				t.Errorf("Wait = %v, want %v", err, want)
			}
		})
	}
}

func TestWaitForWhatIsNotDesiredIsAnError(t *testing.T) {
	running(t, newFake(), func(t *testing.T, l *Loop) {
		if err := l.Wait(t.Context(), bridge("blue").Key()); err == nil {
			t.Error("Wait = nil")
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(newFake(), slog.New(slog.DiscardHandler)) // and nobody runs it
		l.Set(bridge("blue"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Wait(ctx, bridge("blue").Key()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v", err)
		}
	})
}

func TestRemoveWhileWaitedForEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(newFake(), slog.New(slog.DiscardHandler)) // nobody runs it yet
		l.Set(bridge("blue"))
		result := waiting(t, l, bridge("blue").Key())
		synctest.Wait()
		l.Remove(bridge("blue").Key())
		if err := <-result; !errors.Is(err, errRemoved) {
			t.Errorf("Wait = %v, want %v", err, errRemoved)
		}
	})
}

// during has fn called once, in the middle of the first call of that name.
func (f *fake) once(call string, fn func()) {
	var once sync.Once
	f.during = func(c string) {
		if c == call {
			once.Do(fn)
		}
	}
}

func TestWhatIsRemovedWhileItIsPutGoesAgain(t *testing.T) {
	f := newFake()
	running(t, f, func(t *testing.T, l *Loop) {
		f.once("put bridge blue", func() { l.Remove(bridge("blue").Key()) })
		l.Set(bridge("blue"))
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "")
		mustEqual(t, "calls", f.told(), "put bridge blue\ndelete bridge blue")
	})
}

func TestWhatIsSetWhileItIsDeletedComesBack(t *testing.T) {
	f := newFake(bridge("blue"))
	running(t, f, func(t *testing.T, l *Loop) {
		f.once("delete bridge blue", func() { l.Set(bridge("blue")) })
		l.Remove(bridge("blue").Key())
		synctest.Wait()
		mustEqual(t, "kernel", f.String(), "bridge blue for net")
	})
}

func TestWaitIsForTheLastOfWhatWasSet(t *testing.T) {
	f := newFake()
	running(t, f, func(t *testing.T, l *Loop) {
		var result chan error
		puts := 0
		f.fails = func(string) bool { return puts == 1 }
		f.during = func(string) {
			if puts++; puts > 1 {
				time.Sleep(time.Millisecond) // whoever has his answer goes on
				return
			}
			l.Set(kernel.Bridge{Name: "blue", Alias: "second"})
			result = waiting(t, l, bridge("blue").Key())
		}
		l.Set(bridge("blue"))
		synctest.Wait()
		if err := <-result; err != nil {
			t.Errorf("Wait = %v: that is what came of the first", err)
		}
		mustEqual(t, "kernel", f.String(), "bridge blue for second")
	})
}

func TestACancelledLoopChangesNothingMore(t *testing.T) {
	f := newFake(bridge("old"))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := New(f, slog.New(slog.DiscardHandler))
		f.once("put bridge blue", cancel)
		l.Load([]kernel.Object{bridge("blue"), bridge("red")})
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
		mustEqual(t, "calls", f.told(), "read\nput bridge blue")
	})
}
