package e2e

import (
	"testing"

	"github.com/seaway-net/seaway/e2e/kit"
)

// hostility is what an administrator may do to the host's firewall.
var hostility = []struct{ name, do, undo string }{
	{"policy DROP", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP", ""},
	{"chains flushed", "iptables -F; iptables -t nat -F; ip6tables -F; iptables -P FORWARD DROP", ""},
	{
		"nftables drops all forwarding",
		`nft 'add table inet hostile; add chain inet hostile f { type filter hook forward priority -300; policy drop; };
		add chain inet hostile i { type filter hook input priority -300; policy accept; }'
		nft 'add table bridge hostile; add chain bridge hostile f { type filter hook forward priority -300; policy drop; }'`,
		"nft delete table inet hostile; nft delete table bridge hostile",
	},
	{"rules for bridged frames", "test ! -e /proc/sys/net/bridge || sysctl -qw net.bridge.bridge-nf-call-iptables=1", ""},
}

func TestFaultFirewallOfTheHostLosesNoPacket(t *testing.T) {
	h := freshSeaway(t, kit.HostOptions{})
	seawayNetwork(t, h, "blue")
	f := startTraffic(t, h, "blue")
	// The rules work: what has to cross the host's firewall does not any more.
	seawayNetwork(t, h, "green")
	container(t, h, "out", "--network", "green")
	ping := []string{"ping", "-c", "1", "-W", "1", kit.GatewayAddress.String()}
	in(t, h, "out", ping...)
	for _, host := range hostility {
		t.Log(host.name)
		script(t, h, host.do)
		f.flows(t)
		container(t, h, "late", "--network", "blue")
		reaches(t, h, "late", f.server())
		docker(t, h, "rm", "-f", "late")
		if host.name == "nftables drops all forwarding" {
			inFails(t, h, "out", ping...)
		}
		if host.undo != "" {
			script(t, h, host.undo)
		}
	}
	f.unharmed(t)
}
