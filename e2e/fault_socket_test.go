package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// post is a request to the plugin as the engine would write it.
func post(path, body string) string {
	return fmt.Sprintf("POST /%s HTTP/1.1\r\nHost: plugin\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// garbage is what nobody should send to the plugin's socket, and the status of
// the answer; 0 if there need be none.
func garbage() []struct {
	name, text string
	status     int
} {
	noise := make([]byte, 1<<20)
	for i, rng := 0, rand.New(rand.NewPCG(1, 2)); i < len(noise); i++ {
		noise[i] = byte(rng.Uint32())
	}
	deep := strings.Repeat("[", 200_000)
	return []struct {
		name, text string
		status     int
	}{
		{"empty body", post("NetworkDriver.CreateNetwork", ""), 400},
		{"empty body, as of a call cut short", post("NetworkDriver.Join", ""), 400},
		{"10 MB", post("IpamDriver.RequestPool", `{"Pool":"`+strings.Repeat("x", 10<<20)+`"}`), 413},
		{"deep arrays", post("NetworkDriver.CreateEndpoint", deep), 400},
		{"deep options", post("NetworkDriver.CreateNetwork", `{"NetworkID":"x","Options":{"a":`+deep), 400},
		{"wrong types", post("IpamDriver.RequestAddress", `{"PoolID":[1],"Address":{"a":1},"Options":7}`), 400},
		{"no object", post("NetworkDriver.Join", `"hello"`), 400},
		{"half an object", post("NetworkDriver.Leave", `{"NetworkID":"a`), 400},
		{"unknown path", post("NetworkDriver.Destroy", "{}"), 404},
		{"unknown driver", post("VolumeDriver.Create", "{}"), 404},
		{"path outside", post("../../etc/passwd", "{}"), 0},
		{"unknown network", post("NetworkDriver.CreateEndpoint", `{"NetworkID":"x","EndpointID":"y"}`), 500},
		{"no names", post("NetworkDriver.CreateNetwork", "{}"), 500},
		{"hostile names", post("NetworkDriver.CreateEndpoint", `{"NetworkID":"../../\u0000;reboot","EndpointID":"$(reboot)"}`), 500},
		{"unknown pool", post("IpamDriver.RequestAddress", `{"PoolID":"nope"}`), 500},
		{"GET", "GET /NetworkDriver.GetCapabilities HTTP/1.1\r\nHost: plugin\r\n\r\n", 0},
		{"PUT", "PUT /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: plugin\r\nContent-Length: 2\r\n\r\n{}", 0},
		{"negative length", "POST /NetworkDriver.Join HTTP/1.1\r\nHost: plugin\r\nContent-Length: -1\r\n\r\n", 400},
		{"long header", "POST /NetworkDriver.Join HTTP/1.1\r\nHost: plugin\r\nX: " + strings.Repeat("y", 4<<20) + "\r\n\r\n", 431},
		{"noise", string(noise), 400},
	}
}

// answerTo sends something to the plugin and returns the status of its answer,
// 0 if it hangs up without one. It has to do one of the two in time.
func answerTo(t *testing.T, h *kit.Host, text string) (int, error) {
	t.Helper()
	c, err := h.DialPlugin(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err = c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = c.Write([]byte(text)) }() // the plugin need not read it all
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if late, ok := err.(net.Error); ok && late.Timeout() { //nolint:errorlint // it is not wrapped
		return 0, err
	}
	if err != nil {
		return 0, nil
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode, nil
}

func TestFaultGarbageOnTheSocketHurtsNobody(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue")
	container(t, h, "server", "--network", "blue")
	pid := pluginPID(t, h)
	// 200 that say nothing, and 50 that stop in the middle, stay all the while.
	for i := range 250 {
		c, err := h.DialPlugin(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if i < 50 {
			if _, err := c.Write([]byte("POST /NetworkDriver.Join HTTP/1.1\r\nHost: plugin\r\nContent-Length: 500\r\n\r\n{\"Net")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, g := range garbage() {
		status, err := answerTo(t, h, g.text)
		switch {
		case err != nil:
			t.Errorf("%s: no answer: %v", g.name, err)
		case g.status != 0 && status != g.status:
			t.Errorf("%s: status %d, want %d", g.name, status, g.status)
		case status == http.StatusOK && g.name != "GET":
			t.Errorf("%s: accepted", g.name)
		}
	}
	runWorks(t, h, "blue", "server")
	if now := pluginPID(t, h); now != pid {
		t.Errorf("the plugin was started anew: %d, before %d", now, pid)
	}
}
