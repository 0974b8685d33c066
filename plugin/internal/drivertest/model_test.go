package drivertest

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/store"
)

// walk is one random walk of an engine and a Seaway that is hit now and then.
type walk struct {
	*Engine
	t      *rapid.T
	faults int // how often something went wrong
	hit    bool
}

// TestModel: whatever the engine does and wherever Seaway is hit, no address is given to two containers,
// what a container has is ours in the journal and in the store, and in the end nothing is left.
func TestModel(t *testing.T) {
	base, walks := t.TempDir(), 0
	rapid.Check(t, func(outer *rapid.T) {
		walks++
		dir := filepath.Join(base, fmt.Sprint(walks))
		defer func() { _ = os.RemoveAll(dir) }()
		rapid.SyncTest(outer, func(t *rapid.T) {
			h := NewHost(t, dir)
			defer func() { h.Close() }()
			w := &walk{Engine: NewEngine(h, rapid.Bool().Draw(t, "names")), t: t}
			w.Renames = rapid.Bool().Draw(t, "renames")
			t.Repeat(map[string]func(*rapid.T){
				"create": w.create,
				"rm":     w.rm,
				"start":  w.start,
				"start2": w.start, // more often than the others
				"stop":   w.stop,
				"stop2":  w.stop,
				"pass":   w.pass,
				"engine": w.engine,
				"kill":   func(*rapid.T) { h.Restart() },
				"":       func(*rapid.T) { w.check() },
			})
			w.end()
		})
	})
}

// during has a fault happen while something is done, or none.
func (w *walk) during(t *rapid.T, lost int, do func()) {
	kind := rapid.SampledFrom([]string{"none", "none", "none", "crash", "journal", "store", "unknown", "reply", "away", "slow"}).Draw(t, "fault")
	at := rapid.IntRange(0, 12).Draw(t, "at")
	w.hit = false
	count := func() bool {
		at--
		if at == -1 {
			w.hit = true
			w.faults++
		}
		return at == -1
	}
	switch kind {
	case "crash":
		w.Host.Fault = func(Point) error {
			if count() {
				panic(Crash{})
			}
			return nil
		}
	case "journal", "store":
		w.Host.Fault = func(p Point) error {
			if p.What == kind && !p.After && count() {
				return fmt.Errorf("on purpose: %w", store.ErrUnavailable)
			}
			return nil
		}
	case "unknown":
		w.Host.Fault = func(p Point) error {
			if p.What == "store" && count() {
				return fmt.Errorf("on purpose: %w", store.ErrUnknown)
			}
			return nil
		}
	case "reply":
		w.Lose = func(string) bool { return count() }
	case "slow": // the engine: what it does not use meanwhile is taken back
		w.Before = func(string) error {
			if count() {
				Pass(2 * time.Minute)
				_ = w.Host.Sweep()
				Pass(2 * time.Minute)
				_ = w.Host.Sweep()
			}
			return nil
		}
	case "away":
		w.Before = func(string) error {
			if count() || at < 0 && at >= -lost {
				return ErrUnreachable
			}
			return nil
		}
	}
	do()
	w.Host.Fault, w.Lose, w.Before = nil, nil, nil
}

// expect fails if something failed for no reason.
func (w *walk) expect(err error, reasons ...string) {
	w.t.Helper()
	if err == nil || w.hit {
		return
	}
	for _, reason := range reasons {
		if strings.Contains(err.Error(), reason) {
			return
		}
	}
	w.t.Fatalf("without a fault: %v\n%s", err, w.Host.Disk())
}

func (w *walk) create(t *rapid.T) {
	spec := Spec{Subnets: []Subnet{rapid.SampledFrom([]Subnet{
		{Subnet: "10.1.0.0/29"},
		{Subnet: "10.1.0.0/29", Gateway: "10.1.0.6", Aux: map[string]string{"a": "10.1.0.3"}},
		{Subnet: "10.1.0.0/28", Range: "10.1.0.8/29"},
		{Subnet: "10.2.0.0/29", Aux: map[string]string{"a": "10.2.0.2", "b": "10.2.0.5"}},
		{},
	}).Draw(t, "subnet")}}
	switch rapid.IntRange(0, 3).Draw(t, "more") {
	case 0:
		spec.Subnets = append(spec.Subnets, Subnet{Subnet: "fd00:1::/125", V6: true})
	case 1:
		spec.Subnets = append(spec.Subnets, Subnet{Subnet: "10.3.0.0/30"})
	}
	w.during(t, 4, func() {
		_, err := w.Create(spec)
		w.expect(err, "overlaps", "just taking")
	})
}

// draw chooses one of a map, or nothing of an empty one.
func draw[V any](t *rapid.T, of map[string]V) (one V, ok bool) {
	if len(of) == 0 {
		return one, false
	}
	return of[rapid.SampledFrom(slices.Sorted(maps.Keys(of))).Draw(t, "which")], true
}

func (w *walk) rm(t *rapid.T) {
	n, ok := draw(t, w.Networks)
	if !ok {
		return
	}
	for _, c := range w.Containers {
		if c.Network == n {
			return // the engine refuses
		}
	}
	// If neither of the two last calls comes through nobody tells us, until we ask the engine.
	// An engine that renames pools cannot tell us by ReleasePool either: it could be a second create's.
	if w.Renames {
		w.Remove(n)
		return
	}
	w.during(t, 0, func() { w.Remove(n) })
}

func (w *walk) start(t *rapid.T) {
	n, ok := draw(t, w.Networks)
	if !ok {
		return
	}
	run := Run{Name: rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(t, "name")}
	if rapid.IntRange(0, 3).Draw(t, "ip") == 0 {
		addr := n.Pools[0].Subnet.Addr()
		for range rapid.IntRange(0, 7).Draw(t, "host") {
			addr = addr.Next()
		}
		run.IP = addr.String()
	}
	w.during(t, 5, func() {
		_, err := w.Start(n, run)
		reasons := []string{"no address is free"}
		if run.IP != "" {
			reasons = append(reasons, "is in use", "is the gateway", "reserved by", "is not held for a container",
				"network address", "broadcast address")
		}
		w.expect(err, reasons...)
	})
}

func (w *walk) stop(t *rapid.T) {
	if c, ok := draw(t, w.Containers); ok {
		w.during(t, 5, func() { w.Stop(c) })
	}
}

// pass lets time pass, with the sweeps of that time; the last may be hit.
func (w *walk) pass(t *rapid.T) {
	for range rapid.SampledFrom([]int{1, 3, 12}).Draw(t, "half minutes") {
		Pass(30 * time.Second)
		w.MustSweep()
	}
	Pass(30 * time.Second)
	w.during(t, 0, func() {
		w.expect(w.call("sweep", w.Host.Sweep))
	})
}

func (w *walk) engine(t *rapid.T) {
	if rapid.Bool().Draw(t, "live-restore") {
		w.during(t, 3, func() { w.expect(w.Replay(), "in use") })
		return
	}
	w.during(t, 3, w.Reboot)
}

// check holds the engine's view against ours.
func (w *walk) check() {
	d := w.Host.Disk()
	networks := make(map[fabric.EngineNetworkID]journal.Copy)
	for _, c := range d.Copies {
		networks[c.EngineID] = c
	}
	held := make(map[journal.AddressKey]journal.Address)
	for _, a := range d.Addresses {
		held[a.Key()] = a
	}
	records := make(map[string]string)
	for _, entry := range d.Store {
		records[entry.Key] = string(entry.Value)
	}
	given := make(map[journal.AddressKey]string)
	for _, id := range slices.Sorted(maps.Keys(w.Containers)) {
		c := w.Containers[id]
		own, known := networks[c.Network.EngineNetwork()]
		if !known {
			w.t.Fatalf("the network of %s is not known\n%s", c.Endpoint, d)
		}
		for _, a := range c.Addrs {
			key := journal.KeyOf(own.Network.ID, a.Addr)
			if other, twice := given[key]; twice {
				w.t.Fatalf("%s is given to %s and %s\n%s", a.Addr, other, c.Endpoint, d)
			}
			given[key] = c.Endpoint
			if held[key].State != journal.Bound {
				w.t.Fatalf("%s of %s is not bound\n%s", a.Addr, c.Endpoint, d)
			}
			record := records[store.AddressKey(own.Network.ID, a.Addr)]
			if !strings.Contains(record, held[key].Token) {
				w.t.Fatalf("%s of %s: the store has %q\n%s", a.Addr, c.Endpoint, record, d)
			}
			if w.reserved(c.Network, a.Addr) {
				w.t.Fatalf("%s is the network's, and %s has it\n%s", a.Addr, c.Endpoint, d)
			}
		}
		if !slices.ContainsFunc(d.Endpoints, func(e journal.Endpoint) bool { return string(e.ID) == c.Endpoint }) {
			w.t.Fatalf("endpoint %s is lost\n%s", c.Endpoint, d)
		}
	}
}

func (w *walk) reserved(n *Network, addr netip.Addr) bool {
	for _, p := range n.Pools {
		if p.Gateway.Addr() == addr {
			return true
		}
		for _, aux := range p.Aux {
			if aux.Addr() == addr {
				return true
			}
		}
	}
	return false
}

// end removes everything and lets time pass: nothing is left.
func (w *walk) end() {
	for _, id := range slices.Sorted(maps.Keys(w.Containers)) {
		w.Stop(w.Containers[id])
	}
	w.check()
	var failed error
	for range 40 {
		Pass(30 * time.Second)
		failed = errors.Join(failed, w.Host.Sweep())
	}
	d := w.Host.Disk()
	for _, a := range d.Addresses {
		// One that was asked for like a replay, and neither used nor released, is the engine's word.
		aux := slices.Contains([]string{"10.1.0.3", "10.2.0.2", "10.2.0.5"}, a.Addr.String())
		if !a.Replayed || !w.Renames && !aux && !strings.Contains(a.Token, "#") {
			w.t.Fatalf("%s is not given back: %v\n%s", a.Addr, failed, d)
		}
	}
	if len(d.Endpoints) > 0 {
		w.t.Fatalf("endpoints are left: %v\n%s", failed, d)
	}
	for _, id := range slices.Sorted(maps.Keys(w.Networks)) {
		w.Remove(w.Networks[id])
	}
	for range 4 {
		Pass(30 * time.Second)
		failed = errors.Join(failed, w.Host.Sweep())
	}
	if d := w.Host.Disk(); !d.Empty() || len(w.Host.Kernel.Objects) > 0 || failed != nil {
		w.t.Fatalf("left: %v, %v\n%s", w.Host.Kernel.Objects, failed, d)
	}
}
