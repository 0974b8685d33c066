package pluginapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestDriversComeLater(t *testing.T) {
	f := serve(t, Options{})
	done := make(chan int)
	go func() {
		status, _ := f.post(t, "NetworkDriver.Leave", "{}")
		done <- status
	}()
	if status, _ := f.post(t, "NetworkDriver.GetCapabilities", ""); status != 200 {
		t.Errorf("GetCapabilities before there are drivers: %d", status)
	}
	f.Use(&recorder{}, &recorder{})
	if status := <-done; status != 200 {
		t.Errorf("a call that waited for the drivers: %d", status)
	}
}

func TestDriversDoNotCome(t *testing.T) {
	f := serve(t, Options{Timeout: 20 * time.Millisecond})
	status, body := f.post(t, "IpamDriver.RequestPool", "{}")
	if text := errText(t, "IpamDriver.RequestPool", body); status != 500 || text != errStarting.Error() {
		t.Errorf("got %d %q", status, text)
	}
}

func TestDeadline(t *testing.T) {
	obedient := &recorder{hook: func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("wait for the link: %w", ctx.Err())
	}}
	f := serve(t, Options{Timeout: 20 * time.Millisecond})
	f.Use(obedient, obedient)
	_, body := f.post(t, "NetworkDriver.Join", "{}")
	if text := errText(t, "NetworkDriver.Join", body); text != "wait for the link: context deadline exceeded" {
		t.Errorf("the driver's own words did not leave: %q", text)
	}
	if f.Abandoned() != 0 {
		t.Errorf("%d calls abandoned", f.Abandoned())
	}
}

// TestAbandoned has a driver that does not look at its context.
func TestAbandoned(t *testing.T) {
	release := make(chan struct{})
	deaf := &recorder{hook: func(context.Context) error { <-release; return errDriver }}
	f := serve(t, Options{Timeout: 20 * time.Millisecond}, func(s *Server) { s.grace = 10 * time.Millisecond })
	f.Use(deaf, deaf)
	status, body := f.post(t, "NetworkDriver.Join", "{}")
	if text := errText(t, "NetworkDriver.Join", body); status != 500 || !strings.HasPrefix(text, "not done within 20ms") {
		t.Errorf("got %d %q", status, text)
	}
	if f.Abandoned() != 1 {
		t.Errorf("%d calls abandoned, want 1", f.Abandoned())
	}
	close(release)
	eventually(t, "the call is no longer counted", func() bool { return f.Abandoned() == 0 })
	eventually(t, "its end is logged", func() bool {
		return len(f.log.lines("abandoned plugin call has ended", "NetworkDriver.Join", errDriver.Error())) == 1
	})
}

// TestClientLeaves shows that a call outlives its client, and that nobody minds.
func TestClientLeaves(t *testing.T) {
	entered, release := make(chan context.Context, 1), make(chan struct{})
	driver := &recorder{hook: func(ctx context.Context) error {
		entered <- ctx
		<-release
		return ctx.Err()
	}}
	f := serve(t, Options{})
	f.Use(driver, driver)
	conn := f.dial(t)
	fmt.Fprint(conn, "POST /NetworkDriver.Join HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\n{}")
	ctx := <-entered
	_ = conn.Close()
	f.post(t, "NetworkDriver.GetCapabilities", "")
	if ctx.Err() != nil {
		t.Errorf("the context ended with the client: %v", ctx.Err())
	}
	close(release)
	eventually(t, "the call ends without an error", func() bool {
		return len(f.log.lines("NetworkDriver.Join", "level=DEBUG")) == 1
	})
}

func TestConcurrentCalls(t *testing.T) {
	var calls atomic.Int64
	driver := &recorder{hook: func(context.Context) error { calls.Add(1); return nil }}
	f := serve(t, Options{OnPeer: func(int32) {}})
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for range 20 {
				verb := []string{"NetworkDriver.Join", "IpamDriver.RequestAddress"}[i%2]
				if status, body := f.post(t, verb, "{}"); status != 200 {
					t.Errorf("%s: %d %s", verb, status, body)
				}
			}
		})
	}
	f.Use(driver, driver)
	clients.Wait()
	if calls.Load() != 16*20 {
		t.Errorf("%d calls, want %d", calls.Load(), 16*20)
	}
}

func TestPeer(t *testing.T) {
	peers := make(chan int32, 10)
	driver := &recorder{hook: func(context.Context) error {
		if len(peers) == 0 {
			return fmt.Errorf("the request came before its peer was known")
		}
		return nil
	}}
	f := serve(t, Options{OnPeer: func(pid int32) { peers <- pid }})
	f.Use(driver, driver)
	if status, body := f.post(t, "NetworkDriver.Leave", "{}"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	f.dial(t) // and says nothing
	for range 2 {
		if pid := <-peers; int(pid) != os.Getpid() {
			t.Errorf("the peer is %d, want %d", pid, os.Getpid())
		}
	}
}

// TestStop stops a server that has a silent connection, an idle one and a call that takes its time.
func TestStop(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	driver := &recorder{hook: func(ctx context.Context) error {
		close(entered)
		<-release
		return ctx.Err()
	}}
	f := serve(t, Options{})
	f.Use(driver, driver)
	silent := f.dial(t)
	f.post(t, "NetworkDriver.GetCapabilities", "") // the client keeps its connection
	busy := f.dial(t)
	fmt.Fprint(busy, "POST /NetworkDriver.Join HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\n{}")
	<-entered
	f.stop()
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a silent connection ends with %v, want EOF", err)
	}
	if _, err := net.Dial("unix", f.path); err == nil {
		t.Error("a stopped server accepts")
	}
	select {
	case err := <-f.served:
		t.Fatalf("Serve returned while a call was running: %v", err)
	default:
	}
	close(release)
	response, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil {
		t.Fatalf("the answer of the running call: %v", err)
	}
	_ = response.Body.Close()
	if response.StatusCode != 200 {
		t.Errorf("the running call ended with %d", response.StatusCode)
	}
	if err := <-f.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// TestStopCancels has a call that ends only with its context.
func TestStopCancels(t *testing.T) {
	entered := make(chan struct{})
	driver := &recorder{hook: func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	f := serve(t, Options{}, func(s *Server) { s.stopLimit = 20 * time.Millisecond })
	f.Use(driver, driver)
	conn := f.dial(t)
	fmt.Fprint(conn, "POST /NetworkDriver.Join HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\n{}")
	<-entered
	f.stop()
	reply, _ := io.ReadAll(conn)
	if !strings.Contains(string(reply), errStopping.Error()) {
		t.Errorf("the call was answered %q", reply)
	}
	if err := <-f.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// TestStopWithHangingCall has a call that never ends: Serve says so instead of hanging with it.
func TestStopWithHangingCall(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	driver := &recorder{hook: func(context.Context) error { close(entered); <-release; return nil }}
	f := serve(t, Options{}, func(s *Server) { s.stopLimit, s.grace = 20*time.Millisecond, 10*time.Millisecond })
	f.Use(driver, driver)
	conn := f.dial(t)
	fmt.Fprint(conn, "POST /NetworkDriver.Join HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\n{}")
	<-entered
	f.stop()
	reply, _ := io.ReadAll(conn)
	if !strings.Contains(string(reply), errStopping.Error()) {
		t.Errorf("the call was answered %q", reply)
	}
	if err := <-f.served; err == nil || !strings.Contains(err.Error(), "calls that do not end: 1") {
		t.Errorf("Serve: %v", err)
	}
	close(release)
}

// TestStopWithDeafClient has a client that takes no answers.
func TestStopWithDeafClient(t *testing.T) {
	f := serve(t, Options{}, func(s *Server) { s.stopLimit, s.grace = 20*time.Millisecond, 10*time.Millisecond })
	conn := f.dial(t)
	request := []byte(strings.Repeat("POST /NetworkDriver.GetCapabilities HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n", 1000))
	_ = conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		if _, err := conn.Write(request); err != nil {
			break // both directions are full
		}
	}
	f.stop()
	if err := <-f.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestBrokenListener(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "p.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := New(Options{}).Serve(t.Context(), l); err == nil || !strings.HasPrefix(err.Error(), "serve ") {
		t.Errorf("Serve on a closed listener: %v", err)
	}
}

func TestLaterDriversReplaceEarlierOnes(t *testing.T) {
	f := serve(t, Options{})
	f.Use(&recorder{hook: func(context.Context) error { return errDriver }}, &recorder{})
	if status, _ := f.post(t, "NetworkDriver.Leave", `{"NetworkID":"n","EndpointID":"e"}`); status != http.StatusInternalServerError {
		t.Errorf("the first driver answered %d", status)
	}
	f.Use(&recorder{}, &recorder{})
	if status, body := f.post(t, "NetworkDriver.Leave", `{"NetworkID":"n","EndpointID":"e"}`); status != http.StatusOK {
		t.Errorf("the second driver answered %d %s", status, body)
	}
}

// TestAStartWaitsForTheEnginesIntroduction: an address is not given out before both drivers were asked for
// their capabilities, after which the engine knows no endpoint of before.
func TestAStartWaitsForTheEnginesIntroduction(t *testing.T) {
	f := serve(t, Options{}, func(s *Server) { s.introduced = newIntroduction(time.Minute) })
	entered := make(chan struct{})
	driver := &recorder{hook: func(context.Context) error { close(entered); return nil }}
	f.Use(driver, driver)
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() { f.post(t, "IpamDriver.RequestAddress", `{"PoolID":"p"}`) })
	f.post(t, "NetworkDriver.GetCapabilities", "")
	select {
	case <-entered:
		t.Fatal("the driver was asked although the IPAM driver's capabilities were not")
	case <-time.After(50 * time.Millisecond):
	}
	f.post(t, "IpamDriver.GetCapabilities", "")
	<-entered
}

func TestAnEngineThatDoesNotIntroduceItselfIsServed(t *testing.T) {
	f := serve(t, Options{}, func(s *Server) { s.introduced = newIntroduction(time.Millisecond) })
	f.Use(&recorder{}, &recorder{})
	if status, body := f.post(t, "IpamDriver.RequestAddress", `{"PoolID":"p"}`); status != http.StatusOK {
		t.Errorf("answered %d %s", status, body)
	}
}
