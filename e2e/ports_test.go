package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

func TestAPublishedPortAnswers(t *testing.T) {
	h := seaway(t)
	blue(t, h, "public", "--subnet", "10.23.1.0/24")
	container(t, h, "web", "--network", "public", "--hostname", "web", "-p", "8101:8080")
	published(t, h, "web", "8101")
	docker(t, h, "restart", "-t", "1", "web")
	published(t, h, "web", "8101")
	docker(t, h, "stop", "-t", "1", "web")
	if out, err := outsideGets(t, h.Address.String()+":8101"); err == nil {
		t.Errorf("a stopped container answers: %s", out)
	}
}

// published checks that port 8080 of a container is published as docker says.
func published(t *testing.T, h *kit.Host, name, port string) {
	t.Helper()
	out, err := outsideGets(t, h.Address.String()+":"+port)
	if err != nil || !strings.HasPrefix(out, name+" ") {
		t.Errorf("outside, %s:%s answers %q, %v; want %s", h.Address, port, out, err, name)
	}
	for _, address := range []string{"localhost:" + port, h.Address.String() + ":" + port} {
		if out := onHost(t, h, lab(t).Probe, "get", address); !strings.HasPrefix(out, name+" ") {
			t.Errorf("on the host, %s answers %q; want %s", address, out, name)
		}
	}
	says(t, docker(t, h, "ps", "--filter", "name="+name, "--format", "{{.Ports}}"), "0.0.0.0:"+port+"->8080/tcp")
	says(t, docker(t, h, "port", name, "8080/tcp"), "0.0.0.0:"+port)
}

func TestADatagramPortIsPublished(t *testing.T) {
	h := seaway(t)
	blue(t, h, "datagrams", "--subnet", "10.23.2.0/24")
	container(t, h, "web", "--network", "datagrams", "-p", "8102:8080/udp")
	l := lab(t)
	if _, err := l.Outside.Exec(testContext(t), l.Probe, "echo", h.Address.String()+":8102"); err != nil {
		t.Error(err)
	}
}

func TestAContainerOnThreeNetworksReachesAll(t *testing.T) {
	h := seaway(t)
	names := []string{"red", "green", "gold"}
	for i, name := range names {
		blue(t, h, name, "--subnet", fmt.Sprintf("10.23.%d.0/24", 10+i))
		container(t, h, "in"+name, "--network", name, "--hostname", name)
	}
	container(t, h, "router", "--network", "red", "-p", "8103:8080", "--hostname", "router")
	docker(t, h, "network", "connect", "green", "router")
	docker(t, h, "network", "connect", "gold", "router")
	check := func() {
		t.Helper()
		for _, name := range names {
			if out := talks(t, h, "router", "in"+name); out != name+" "+addressOf(t, h, "router", name) {
				t.Errorf("in%s says %q", name, out)
			}
			talks(t, h, "in"+name, "router."+name)
		}
		published(t, h, "router", "8103")
	}
	check()
	docker(t, h, "restart", "-t", "1", "router")
	check()
	// It does not forward for those that it is between.
	cannotReach(t, h, "inred", addressOf(t, h, "ingreen", "green"))
}

func TestANetworkCanBeConnectedWhileRunning(t *testing.T) {
	h := seaway(t)
	blue(t, h, "later", "--ipv6", "--subnet", "10.23.3.0/24", "--ip-range", "10.23.3.128/25", "--subnet", "fd00:23:3::/64")
	container(t, h, "alice", "--network", "later")
	container(t, h, "bob", "--hostname", "b") // on Docker's own bridge
	unknown(t, h, "alice", "bob")
	for range 2 {
		docker(t, h, "network", "connect", "--ip", "10.23.3.33", "--ip6", "fd00:23:3::33", "--alias", "robert", "later", "bob")
		for _, to := range []string{"bob", "robert", "bob.later", "10.23.3.33", "fd00:23:3::33"} {
			if out := talks(t, h, "alice", to); !strings.HasPrefix(out, "b ") {
				t.Errorf("%s says %q", to, out)
			}
		}
		talks(t, h, "bob", "alice")
		docker(t, h, "restart", "-t", "1", "bob")
		if out := in(t, h, "bob", "ip", "address"); !strings.Contains(out, "10.23.3.33/24") {
			t.Errorf("after a restart bob has %s", out)
		}
		talks(t, h, "alice", "robert")
		docker(t, h, "network", "disconnect", "later", "bob")
		unknown(t, h, "alice", "robert")
		cannotReach(t, h, "alice", "10.23.3.33")
		if out := in(t, h, "bob", "ip", "address"); strings.Contains(out, "10.23.3.33") {
			t.Errorf("after being disconnected bob has %s", out)
		}
	}
}

func TestAStoppedContainerCanBeConnected(t *testing.T) {
	h := seaway(t)
	blue(t, h, "asleep", "--subnet", "10.23.4.0/24", "--ip-range", "10.23.4.128/25")
	container(t, h, "alice", "--network", "asleep")
	docker(t, h, "create", "--name", "bob", kit.Image)
	t.Cleanup(func() { cleanDocker(t, h, "rm", "-f", "bob") })
	docker(t, h, "network", "connect", "--ip", "10.23.4.44", "asleep", "bob")
	docker(t, h, "start", "bob")
	if address := addressOf(t, h, "bob", "asleep"); address != "10.23.4.44" {
		t.Errorf("bob has %s", address)
	}
	talks(t, h, "alice", "bob")
	docker(t, h, "stop", "-t", "1", "bob")
	docker(t, h, "network", "disconnect", "asleep", "bob")
	docker(t, h, "start", "bob")
	cannotReach(t, h, "alice", "10.23.4.44")
}

func TestAnAliasIsSharedByAllThatHaveIt(t *testing.T) {
	h := seaway(t)
	blue(t, h, "aliased", "--subnet", "10.23.5.0/24")
	container(t, h, "client", "--network", "aliased")
	want := map[string]bool{}
	for _, name := range []string{"one", "two", "three"} {
		container(t, h, name, "--network", "aliased", "--network-alias", "service", "--hostname", name)
		want[addressOf(t, h, name, "aliased")] = true
	}
	found := resolve(t, h, "client", "service")
	if len(found) != len(want) {
		t.Errorf("service is %v; want all of %v", found, want)
	}
	for _, address := range found {
		if !want[address] {
			t.Errorf("service is also %s", address)
		}
	}
	talks(t, h, "client", "service")
	docker(t, h, "rm", "-f", "one", "two")
	if found := resolve(t, h, "client", "service"); len(found) != 1 {
		t.Errorf("after two were removed, service is %v", found)
	}
	if out := talks(t, h, "client", "service"); !strings.HasPrefix(out, "three ") {
		t.Errorf("service says %q", out)
	}
	container(t, h, "one", "--network", "aliased")
	container(t, h, "two", "--network", "aliased")
}

// resolve asks a container's name server for the IPv4 addresses of a name.
func resolve(t *testing.T, h *kit.Host, container, name string) []string {
	t.Helper()
	var found []string
	_, answer, _ := strings.Cut(in(t, h, container, "nslookup", "-type=a", name), "Name:")
	for _, word := range strings.Fields(answer) {
		if a, err := netip.ParseAddr(word); err == nil {
			found = append(found, a.String())
		}
	}
	return found
}
