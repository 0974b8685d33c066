package fabric

import (
	"encoding/json"
	"net/netip"
	"testing"
)

func TestPlugEqual(t *testing.T) {
	full := func() Plug {
		return Plug{
			Name: "eth0", MTU: 1450, MAC: MAC{2, 0x5e, 0, 0, 0, 1},
			Addrs:   []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")},
			Routes:  []Route{{Gateway: netip.MustParseAddr("10.1.0.1"), Table: 254, Type: 1}},
			Sysctls: map[string]string{"net.ipv6.conf.eth0.disable_ipv6": "1"},
		}
	}
	changes := map[string]func(*Plug){
		"name":    func(p *Plug) { p.Name = "eth1" },
		"mtu":     func(p *Plug) { p.MTU = 1500 },
		"mac":     func(p *Plug) { p.MAC[5]++ },
		"addrs":   func(p *Plug) { p.Addrs = nil },
		"route":   func(p *Plug) { p.Routes[0].Priority = 1 },
		"routes":  func(p *Plug) { p.Routes = append(p.Routes, Route{}) },
		"sysctls": func(p *Plug) { p.Sysctls["net.ipv6.conf.eth0.disable_ipv6"] = "0" },
	}
	for name, change := range changes {
		p := full()
		change(&p)
		if p.Equal(full()) || full().Equal(p) {
			t.Errorf("%s: a changed plug is equal", name)
		}
	}
	var read Plug
	raw, err := json.Marshal(full())
	if err == nil {
		err = json.Unmarshal(raw, &read)
	}
	if err != nil || !read.Equal(full()) || !(Plug{}).Equal(Plug{Sysctls: map[string]string{}}) {
		t.Errorf("JSON and back: %v, %+v from %s", err, read, raw)
	}
}
