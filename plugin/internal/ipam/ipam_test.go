package ipam

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCheckSubnet(t *testing.T) {
	tests := []struct {
		subnet, want string // want: a part of the error, "" for none
	}{
		{"10.1.0.0/24", ""},
		{"10.0.0.0/8", ""},
		{"192.168.7.4/30", ""},
		{"100.64.0.0/10", ""},
		{"fd00::/64", ""},
		{"2001:db8::/32", ""},
		{"fd00::4/126", ""},
		{"10.1.0.5/24", "10.1.0.5/24 has host bits set: write 10.1.0.0/24"},
		{"fd00::1/64", "fd00::1/64 has host bits set: write fd00::/64"},
		{"::ffff:10.1.0.0/120", "IPv4-mapped IPv6 prefix: write 10.1.0.0/24"},
		{"::ffff:0.0.0.0/90", "IPv4-mapped"},
		{"10.0.0.0/7", "too large: write /8 or longer"},
		{"0.0.0.0/0", "too large: write /8 or longer"},
		{"fd00::/31", "too large: write /32 or longer"},
		{"10.1.0.0/31", "too small for two containers and a gateway: write /30 or shorter"},
		{"10.1.0.1/32", "write /30 or shorter"},
		{"fd00::2/127", "write /126 or shorter"},
		{"0.0.0.0/8", "unspecified"},
		{"0.1.0.0/16", "unspecified"},
		{"127.0.0.0/8", "loopback"},
		{"127.1.0.0/24", "loopback"},
		{"169.254.1.0/24", "link-local"},
		{"169.0.0.0/8", "overlaps 169.254.0.0/16, the link-local range: write a private range, as in 10.1.0.0/24"},
		{"224.0.0.0/24", "multicast"},
		{"239.1.0.0/16", "multicast"},
		{"255.255.255.0/24", "broadcast"},
		{"::/64", "unspecified"},
		{"fe80::/64", "link-local"},
		{"ff02::/64", "the multicast range: write a private range, as in fd00:1::/64"},
	}
	for _, tt := range tests {
		t.Run(tt.subnet, func(t *testing.T) {
			expect(t, CheckSubnet(netip.MustParsePrefix(tt.subnet)), tt.want)
		})
	}
	expect(t, CheckSubnet(netip.Prefix{}), "write one as in 10.1.0.0/24")
}

// expect fails the test unless err holds the words, or is nil if there are none.
func expect(t *testing.T, err error, words string) {
	t.Helper()
	switch {
	case words == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case words != "" && err == nil:
		t.Fatalf("accepted; want an error with %q", words)
	case words != "" && !strings.Contains(err.Error(), words):
		t.Fatalf("error %q lacks %q", err, words)
	}
}
