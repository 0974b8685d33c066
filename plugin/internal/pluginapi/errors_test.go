package pluginapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// errText returns the error in a body, after checking its shape for that verb.
func errText(t testing.TB, verb, body string) string {
	t.Helper()
	var got map[string]string
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%s answered %q, which is no error: %v", verb, body, err)
	}
	text := got["Err"]
	if ipam := strings.HasPrefix(verb, "IpamDriver."); ipam && got["Error"] != text || !ipam && len(got) != 1 {
		t.Errorf("%s: error of a wrong shape: %s", verb, body)
	}
	return text
}

func TestRefusals(t *testing.T) {
	driver := &recorder{}
	f := serve(t, Options{})
	f.Use(driver, driver)
	for _, c := range []struct {
		name, verb, body string
		status           int
		want             string
	}{
		{"empty", "NetworkDriver.Join", "", 400, "NetworkDriver.Join: the request is empty: the engine repeats"},
		{"blank", "IpamDriver.RequestPool", " \n", 400, "IpamDriver.RequestPool: the request is empty"},
		{"empty, constant", "NetworkDriver.DiscoverNew", "", 400, "NetworkDriver.DiscoverNew: the request is empty"},
		{"null", "NetworkDriver.Leave", "null", 400, "the request is no JSON object"},
		{"array", "NetworkDriver.Leave", "[]", 400, "the request is no JSON object"},
		{"cut off", "NetworkDriver.Leave", `{"NetworkID":"n"`, 400, "unexpected end of JSON input"},
		{"two values", "NetworkDriver.Leave", `{"NetworkID":"n"}{}`, 400, "after top-level value"},
		{"trailing garbage", "IpamDriver.ReleasePool", `{"PoolID":"p"}]`, 400, "after top-level value"},
		{"wrong type", "NetworkDriver.Leave", `{"NetworkID":5}`, 400, "NetworkID must not be a JSON number"},
		{
			"wrong type inside", "NetworkDriver.CreateNetwork", `{"IPv4Data":[{"Pool":["10.0.0.0/8"]}]}`, 400,
			"Pool must not be a JSON array",
		},
		{
			"no prefix", "NetworkDriver.CreateNetwork", `{"IPv4Data":[{"Pool":"10.0.0.0"}]}`, 400,
			`netip.ParsePrefix("10.0.0.0")`,
		},
		{
			"deep", "NetworkDriver.Join", `{"Options":` + strings.Repeat(`{"a":`, 50_000), 400,
			"NetworkDriver.Join: decode the request: ",
		},
		{"deep arrays", "NetworkDriver.Join", `{"Options":{"a":` + strings.Repeat(`[`, 500_000), 400, "exceeded max depth"},
		{"long", "NetworkDriver.Join", strings.Repeat(" ", maxBody+1), 413, "longer than 1048576 bytes"},
		{"long IPAM", "IpamDriver.RequestPool", strings.Repeat("{", 3*maxBody), 413, "longer than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := f.post(t, c.verb, c.body)
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			text := errText(t, c.verb, body)
			if !strings.Contains(text, c.want) || !strings.HasPrefix(text, c.verb+": ") {
				t.Errorf("error %q, want %q and the verb", text, c.want)
			}
		})
	}
	if got := driver.lastRequest(); got != nil {
		t.Errorf("the driver was called: %+v", got)
	}
}

func TestPathsAndMethods(t *testing.T) {
	f := serve(t, Options{})
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "NetworkDriver.Join", 405},
		{http.MethodPut, "IpamDriver.GetCapabilities", 405},
		{http.MethodPost, "NetworkDriver.Dance", 404},
		{http.MethodPost, "networkdriver.join", 404},
		{http.MethodPost, "NetworkDriver.Join/", 404},
		{http.MethodPost, "VolumeDriver.Create", 404},
		{http.MethodPost, "", 404},
	} {
		if status, _ := f.do(t, c.method, c.path, strings.NewReader("{}")); status != c.want {
			t.Errorf("%s /%s: %d, want %d", c.method, c.path, status, c.want)
		}
	}
}

func TestDriverError(t *testing.T) {
	long := strings.Repeat("é", maxErrorText)
	for _, c := range []struct {
		err  error
		want string
	}{
		{errDriver, errDriver.Error()},
		{errors.New("a\nb\r\x1b[31mred\x00 \u202Eright"), "a b [31mred right"},
		{errors.New("bad \xff byte"), "bad \uFFFD byte"},
		{errors.New("\n"), "failed without saying why"}, //nolint:revive // hostile on purpose
		{errors.New(long), strings.Repeat("é", (maxErrorText-3)/2) + "…"},
	} {
		driver := &recorder{hook: func(context.Context) error { return c.err }}
		f := serve(t, Options{})
		f.Use(driver, driver)
		for _, verb := range []string{"NetworkDriver.Join", "IpamDriver.RequestAddress", "IpamDriver.ReleasePool"} {
			status, body := f.post(t, verb, "{}")
			text := errText(t, verb, body)
			if status != 500 || text != c.want {
				t.Errorf("%s: %d %q, want 500 %q", verb, status, text, c.want)
			}
			if len(text) > maxErrorText || !utf8.ValidString(text) {
				t.Errorf("%s: %d bytes, valid %v", verb, len(text), utf8.ValidString(text))
			}
			if lines := f.log.lines(verb); len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") {
				t.Errorf("%s was logged as %q, want one warning", verb, lines)
			}
		}
	}
}

func TestSuccessIsLoggedAtDebug(t *testing.T) {
	f := serve(t, Options{})
	f.Use(&recorder{}, &recorder{})
	f.post(t, "NetworkDriver.Leave", "{}")
	lines := f.log.lines("NetworkDriver.Leave", "level=DEBUG", "duration=")
	if len(lines) != 1 || len(f.log.lines("plugin call")) != 1 {
		t.Errorf("the log has %q", f.log)
	}
}

func TestPanic(t *testing.T) {
	driver := &recorder{hook: func(context.Context) error { panic("secret\x1b[2J") }}
	f := serve(t, Options{})
	f.Use(driver, driver)
	status, body := f.post(t, "IpamDriver.RequestPool", "{}")
	text := errText(t, "IpamDriver.RequestPool", body)
	if status != 500 || text != (&panicked{}).Error() || strings.Contains(text, "secret") {
		t.Errorf("got %d %q", status, text)
	}
	if lines := f.log.lines("level=WARN", "secret", "helpers_test.go"); len(lines) != 1 {
		t.Errorf("want one line with the panic and its stack, the log is %s", f.log)
	}
	if status, _ := f.post(t, "NetworkDriver.GetCapabilities", ""); status != 200 {
		t.Errorf("after a panic GetCapabilities answers %d", status)
	}
}

func TestGoexit(t *testing.T) {
	driver := &recorder{hook: func(context.Context) error { runtime.Goexit(); return nil }}
	f := serve(t, Options{})
	f.Use(driver, driver)
	status, body := f.post(t, "NetworkDriver.Join", "{}")
	if text := errText(t, "NetworkDriver.Join", body); status != 500 || !strings.Contains(text, "without an answer") {
		t.Errorf("got %d %q", status, text)
	}
}

// TestSlowBody sends a part of a body and then nothing.
func TestSlowBody(t *testing.T) {
	f := serve(t, Options{Timeout: 50 * time.Millisecond})
	f.Use(&recorder{}, &recorder{})
	conn := f.dial(t)
	fmt.Fprint(conn, "POST /NetworkDriver.Join HTTP/1.1\r\nHost:\r\nContent-Length: 100\r\n\r\n{\"Netw")
	reply, err := io.ReadAll(conn) // the server closes the connection
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Err":"NetworkDriver.Join: the request did not arrive within 50ms"}`
	if got := string(reply); !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestDeadlineOfTheBodyIsLifted makes a call last longer than the deadline of its body: the connection
// has to serve the next call as well.
func TestDeadlineOfTheBodyIsLifted(t *testing.T) {
	f := serve(t, Options{Timeout: 50 * time.Millisecond})
	f.Use(&recorder{hook: func(ctx context.Context) error { <-ctx.Done(); return nil }}, &recorder{})
	conn := f.dial(t)
	reader := bufio.NewReader(conn)
	for range 2 {
		// An empty Host is what engine 20.10.24 sends.
		fmt.Fprint(conn, "POST /NetworkDriver.Leave HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\n{}")
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("status %d", response.StatusCode)
		}
	}
}
