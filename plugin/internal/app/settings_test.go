package app

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func settings(values map[string]string) (Settings, error) {
	return ReadSettings(func(name string) string { return values[name] })
}

func TestSettings(t *testing.T) {
	pool := netip.MustParsePrefix("10.192.0.0/11")
	tests := []struct {
		values map[string]string
		want   Settings
	}{
		{nil, Settings{SubnetPool: pool, SubnetSize: 24}},
		{map[string]string{"SUBNET_POOL": " ", "MTU": "", "LOG_LEVEL": ""}, Settings{SubnetPool: pool, SubnetSize: 24}},
		{map[string]string{"MTU": "AUTO"}, Settings{SubnetPool: pool, SubnetSize: 24}},
		{
			map[string]string{"SUBNET_POOL": "172.20.0.0/14", "SUBNET_SIZE": "/26", "MTU": " 1400 ", "LOG_LEVEL": "debug"},
			Settings{SubnetPool: netip.MustParsePrefix("172.20.0.0/14"), SubnetSize: 26, MTU: 1400, LogLevel: slog.LevelDebug},
		},
		{
			map[string]string{"SUBNET_POOL": "10.1.0.0/24", "SUBNET_SIZE": "24"},
			Settings{SubnetPool: netip.MustParsePrefix("10.1.0.0/24"), SubnetSize: 24},
		},
	}
	for _, tt := range tests {
		if got, err := settings(tt.values); got != tt.want || err != nil {
			t.Errorf("%v: %+v, %v; want %+v", tt.values, got, err, tt.want)
		}
	}
}

// TestBadSettings: each is named, with its value and what to write instead.
func TestBadSettings(t *testing.T) {
	tests := []struct {
		values map[string]string
		want   []string
	}{
		{map[string]string{"SUBNET_POOL": "ten"}, []string{`SUBNET_POOL="ten"`, "10.192.0.0/11"}},
		{map[string]string{"SUBNET_POOL": "fd00::/16"}, []string{"IPv4"}},
		{map[string]string{"SUBNET_POOL": "10.1.2.3/16"}, []string{"write 10.1.0.0/16"}},
		{map[string]string{"SUBNET_POOL": "10.0.0.0/7"}, []string{"10.0.0.0/7"}},
		{map[string]string{"SUBNET_POOL": "10.0.0.0/31"}, []string{"too small"}},
		{map[string]string{"SUBNET_POOL": "127.0.0.0/8"}, []string{"loopback"}},
		{map[string]string{"SUBNET_POOL": "224.0.0.0/8"}, []string{"multicast"}},
		{map[string]string{"SUBNET_SIZE": "31"}, []string{`SUBNET_SIZE="31"`, "to 30"}},
		{map[string]string{"SUBNET_SIZE": "x"}, []string{`SUBNET_SIZE="x"`}},
		{map[string]string{"SUBNET_SIZE": "10"}, []string{"SUBNET_SIZE=10", "SUBNET_POOL=10.192.0.0/11"}},
		{map[string]string{"MTU": "67"}, []string{`MTU="67"`, "68 to 65535"}},
		{map[string]string{"MTU": "65536"}, []string{"68 to 65535"}},
		{map[string]string{"MTU": "1.5k"}, []string{"auto"}},
		{map[string]string{"LOG_LEVEL": "loud"}, []string{`LOG_LEVEL="loud"`, "debug, info, warn or error"}},
		{map[string]string{"MTU": "no", "LOG_LEVEL": "no", "SUBNET_SIZE": "no"}, []string{"MTU=", "LOG_LEVEL=", "SUBNET_SIZE="}},
	}
	for _, tt := range tests {
		_, err := settings(tt.values)
		if err == nil {
			t.Errorf("%v is accepted", tt.values)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %q does not say %q", tt.values, err, want)
			}
		}
	}
}

func TestNameServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# nameserver 10.0.0.1\n; nameserver 10.0.0.2\nsearch nameserver\nnameserver\n" +
		"nameserver 10.0.0.3\n  nameserver\t10.0.0.4 # home\nnameserver fe80::1%eth0\n" +
		"nameserver ::ffff:10.0.0.5\nnameserver ten\noptions ndots:1"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{
		netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.4"),
		netip.MustParseAddr("fe80::1"), netip.MustParseAddr("10.0.0.5"),
	}
	if got := nameServers(path); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := nameServers(path + ".missing"); got != nil {
		t.Errorf("a file that is missing has %v", got)
	}
}
