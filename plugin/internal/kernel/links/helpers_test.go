package links_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/enginehost"
	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/kernel/kerneltest"
	"github.com/seaway-net/seaway/plugin/internal/kernel/links"
	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

const hostID = fabric.HostID("0123456789abcdef0123456789abcdef")

var blue = kernel.Bridge{Name: "br-0123456789ab", Alias: "seaway network blue"}

// lab is a data plane on a simulated machine.
type lab struct {
	*links.Plane
	engine *kerneltest.Engine
	heard  *heard
	log    *bytes.Buffer
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return newLabOn(t, kerneltest.NewEngine(t), hostID)
}

// newLabOn makes a data plane on a machine; a second one stands for the next process of the same plugin.
func newLabOn(t *testing.T, engine *kerneltest.Engine, id fabric.HostID) *lab {
	t.Helper()
	l := &lab{engine: engine, heard: &heard{}, log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(l.log, nil))
	l.Plane = links.NewPlane(func() *enginehost.Host { return engine.Host }, id, l.heard.events(), log)
	t.Cleanup(l.Close)
	return l
}

// heard is what events have said.
type heard struct {
	mu      sync.Mutex
	changed map[kernel.Key]int
	plugged map[string]int
}

func (h *heard) events() links.Events {
	h.changed, h.plugged = make(map[kernel.Key]int), make(map[string]int)
	return links.Events{
		Changed: func(key kernel.Key) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed[key]++
		},
		Plugged: func(port string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.plugged[port]++
		},
		Missed: func() {},
	}
}

func (h *heard) changes(key kernel.Key) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed[key]
}

func (h *heard) plugs(port string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.plugged[port]
}

func (l *lab) put(t *testing.T, objects ...kernel.Object) {
	t.Helper()
	for _, object := range objects {
		if err := l.Put(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

func (l *lab) delete(t *testing.T, keys ...kernel.Key) {
	t.Helper()
	if err := l.Delete(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
}

// read returns the actual objects as text, one per line.
func (l *lab) read(t *testing.T) map[kernel.Key]kernel.Object {
	t.Helper()
	found, err := l.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// holds reports whether Read finds what serves as the object.
func (l *lab) holds(t *testing.T, object kernel.Object) bool {
	t.Helper()
	found, ok := l.read(t)[object.Key()]
	return ok && object.Holds(found)
}

// mustHold fails the test unless Read finds all of the objects.
func (l *lab) mustHold(t *testing.T, objects ...kernel.Object) {
	t.Helper()
	for _, object := range objects {
		if !l.holds(t, object) {
			t.Errorf("%s is not there, or not as it was put: %v", object.Key(), l.read(t))
		}
	}
}

// in runs a command line in the data plane, as an operator would.
func (l *lab) in(t *testing.T, line string) string {
	t.Helper()
	return l.engine.Run(t, "ip netns exec seaway "+line)
}

// dump is everything that an operator can see of the data plane, without what counts on by itself.
func (l *lab) dump(t *testing.T) string {
	t.Helper()
	return l.in(t, "ip -d link") + l.in(t, "ip addr") + l.in(t, "readlink /proc/self/ns/net") +
		l.in(t, "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv6.conf.default.disable_ipv6")
}

// timers are what bridges count down.
var timers = regexp.MustCompile(`(\w+_timer|ageing_time) +[0-9.]+`)

// mustEqual compares two looks at the same thing, line by line.
func mustEqual(t *testing.T, what, before, after string) {
	t.Helper()
	was, is := strings.Split(timers.ReplaceAllString(before, ""), "\n"), strings.Split(timers.ReplaceAllString(after, ""), "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			t.Errorf("%s: lost:  %s", what, line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			t.Errorf("%s: found: %s", what, line)
		}
	}
}

// portOf is the desired port of an endpoint on blue, before its container joins.
func portOf(n int) kernel.Port {
	return kernel.Port{
		Name: fmt.Sprintf("sw%012x", n), Bridge: blue.Name, Alias: fmt.Sprintf("seaway endpoint %d", n),
		MTU: 1400, MAC: fabric.MAC{2, 0x5e, 10, 1, byte(n >> 8), byte(n)},
	}
}

// container is a simulated container on a port.
type container struct {
	port    kernel.Port
	sandbox string
	ns      *netns.NS
	v4, v6  netip.Addr
}

// plugIn puts a port and plugs it into a new container, as the engine does.
func (l *lab) plugIn(t *testing.T, n int) *container {
	t.Helper()
	c := &container{
		port: portOf(n),
		v4:   netip.AddrFrom4([4]byte{10, 1, 0, byte(n)}),
		v6:   netip.MustParseAddr(fmt.Sprintf("fd00:1::%x", n)),
	}
	l.put(t, kernel.Namespace{}, blue, c.port)
	c.sandbox, c.ns = l.engine.NewContainer(t, fmt.Sprintf("c%d", n))
	l.engine.Run(t, fmt.Sprintf("ip link set %s netns %s", c.port.Name, c.sandbox))
	for _, line := range []string{
		"sysctl -q net.ipv6.conf.default.disable_ipv6=0",
		"ip link set " + c.port.Name + " name eth0",
		"sysctl -q net.ipv6.conf.eth0.disable_ipv6=0",
		"ip addr add " + c.v4.String() + "/24 brd + dev eth0",
		"ip addr add " + c.v6.String() + "/64 dev eth0 nodad",
		"ip link set eth0 up",
	} {
		kerneltest.Run(t, c.ns, line)
	}
	return c
}

// joined is the port as it is desired once the container runs and its plug has been read.
func (l *lab) joined(t *testing.T, c *container) kernel.Port {
	t.Helper()
	plug, err := l.ReadPlug(t.Context(), c.port.Name, c.sandbox)
	if err != nil {
		t.Fatal(err)
	}
	port := c.port
	port.Sandbox, port.Plug = c.sandbox, &plug
	return port
}

// look is what can be seen in a container of its link, without the indexes of links and what expires.
func (c *container) look(t *testing.T) string {
	t.Helper()
	var seen strings.Builder
	for line := range strings.Lines(kerneltest.Run(t, c.ns, "ip addr show dev eth0")) {
		if !strings.Contains(line, "valid_lft") && !strings.Contains(line, "fe80:") {
			_, after, _ := strings.Cut(line, "eth0@")
			if after == "" {
				seen.WriteString(strings.TrimSpace(line) + "\n")
			}
		}
	}
	for _, line := range []string{"ip route show table all dev eth0", "ip -6 route show table all dev eth0"} {
		for route := range strings.Lines(kerneltest.Run(t, c.ns, line)) {
			if !strings.Contains(route, "proto kernel") { // the kernel makes it, in its own time
				seen.WriteString(strings.TrimSpace(route) + "\n")
			}
		}
	}
	seen.WriteString("mtu " + kerneltest.Run(t, c.ns, "cat /sys/class/net/eth0/mtu"))
	return seen.String()
}

// mustReach fails the test unless every datagram from a to b and back arrives, over IPv4 and IPv6, once the
// kernel has opened the bridge's ports, which it does in its own time after their links are up.
func mustReach(t *testing.T, a, b *container) {
	t.Helper()
	for _, addr := range []struct{ from, to netip.Addr }{{a.v4, b.v4}, {a.v6, b.v6}} {
		kerneltest.Eventually(t, addr.to.String()+" is reached", func() bool {
			return exchange(t, a, b, addr.from, addr.to, 1) == 0
		})
		if lost := exchange(t, a, b, addr.from, addr.to, 50); lost != 0 {
			t.Errorf("%d of 50 datagrams were lost between %s and %s", lost, addr.from, addr.to)
		}
	}
}

// exchange sends datagrams from a to b, which sends each back, and returns how many were lost.
func exchange(t *testing.T, a, b *container, from, to netip.Addr, count int) (lost int) {
	t.Helper()
	server := listen(t, b.ns, to)
	client := listen(t, a.ns, from)
	var echo sync.WaitGroup
	defer echo.Wait()
	defer func() {
		if err := errors.Join(client.Close(), server.Close()); err != nil {
			t.Error(err)
		}
	}()
	echo.Go(func() {
		buf := make([]byte, 64)
		for {
			n, peer, err := server.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			_, _ = server.WriteTo(buf[:n], peer) // counted as lost
		}
	})
	buf := make([]byte, 64)
	for range count {
		_ = client.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := client.WriteTo([]byte("ahoy"), server.LocalAddr()); err != nil {
			lost++
			continue
		}
		if _, _, err := client.ReadFrom(buf); err != nil {
			lost++
		}
		if lost > 2 {
			return count
		}
	}
	return lost
}

func listen(t *testing.T, ns *netns.NS, addr netip.Addr) net.PacketConn {
	t.Helper()
	var conn net.PacketConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
