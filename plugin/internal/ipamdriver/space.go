package ipamdriver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/ipam"
	"github.com/seaway-net/seaway/plugin/internal/journal"
)

// space is the addresses of one Network: what the store says is taken, and what of it this Host holds.
// It is what the journal and the store say, in memory; they are written before it is believed.
type space struct {
	network fabric.Network

	mu      sync.Mutex
	subnets []*ipam.Space  // one for each subnet of the Network, in its order
	bounds  []netip.Prefix // of automatic addresses, likewise: --ip-range, else the subnet
	held    map[netip.Addr]*holding
	hint    uint64
	rng     *rand.Rand
}

// holding is an address that this Host holds.
type holding struct {
	journal.Address
	busy    bool      // a verb is at it, outside the lock
	since   time.Time // when it was released, on this process's clock; zero while in use
	suspect time.Time // when it was first seen in use without an endpoint
}

// query is one wish for an address.
type query struct {
	subnet netip.Prefix // of the pool that was asked
	addr   netip.Addr   // --ip; invalid if any will do
	name   string       // of the container; empty before engine 29.0
}

// candidate is an address that the caller of choose may try to get, marked busy for it.
type candidate struct {
	subnet netip.Prefix
	hold   *holding
	fresh  bool // it must be claimed in the store first
}

// choose picks the address for a wish, in this order: the one asked for; the one that the same container
// had; where the engine does not say which container asks, the one last released (a lone docker restart
// keeps its address); a free one; and when the range is full, the one that was released longest ago.
func (s *space) choose(q query, token string) (candidate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.addr.IsValid() {
		return s.chooseFixed(q, token)
	}
	if h := s.sticky(q); h != nil {
		return s.take(h), nil
	}
	for _, i := range s.family(q.subnet) {
		if addr, ok := s.subnets[i].Pick(s.rng, s.hint); ok {
			s.subnets[i].Take(addr)
			return s.claim(addr, token), nil
		}
	}
	if h := s.oldest(q.subnet); h != nil {
		return s.take(h), nil
	}
	return candidate{}, s.fullError(q.subnet)
}

// chooseFixed answers the wish for one address.
func (s *space) chooseFixed(q query, token string) (candidate, error) {
	i := s.index(q.addr)
	if i < 0 {
		return candidate{}, fmt.Errorf("address %s is in no subnet of the network: choose one of %s", q.addr, prefixes(s.network))
	}
	if err := s.subnets[i].Usable(q.addr); err != nil {
		return candidate{}, fmt.Errorf("address %w: choose another", err)
	}
	if why := s.network.Subnets[i].Reserved(q.addr); why != "" {
		return candidate{}, fmt.Errorf("address %s is %s: choose another", q.addr, why)
	}
	h := s.held[q.addr]
	switch {
	case h == nil && !s.subnets[i].Take(q.addr):
		return candidate{}, fmt.Errorf("address %s: %w", q.addr, errTaken)
	case h == nil:
		return s.claim(q.addr, token), nil
	case h.busy || h.State != journal.Owned:
		return candidate{}, &inUseError{h.Address}
	}
	return s.take(h), nil
}

// errTaken is replaced by words that name the holder, which only the store knows.
var errTaken = errors.New("it is taken in the store")

// sticky finds the released address that belongs to whoever asks. Where the engine does not say who that
// is, it is not one that its container will ask for itself.
func (s *space) sticky(q query) *holding {
	var best *holding
	for _, h := range s.released(q.subnet) {
		theirs := h.Fixed && q.name == ""
		if h.Container == q.name && !theirs && (best == nil || h.Seq > best.Seq) {
			best = h
		}
	}
	return best
}

// oldest finds the address that was released longest ago; one that was asked for by itself comes last.
func (s *space) oldest(subnet netip.Prefix) *holding {
	var best *holding
	for _, h := range s.released(subnet) {
		if best == nil || best.Fixed && !h.Fixed || best.Fixed == h.Fixed && h.Seq < best.Seq {
			best = h
		}
	}
	return best
}

// released returns the addresses of the subnet's family that are held and not in use.
func (s *space) released(subnet netip.Prefix) []*holding {
	var all []*holding
	for addr, h := range s.held {
		if h.State == journal.Owned && !h.busy && addr.Is4() == subnet.Addr().Is4() && s.automatic(addr) {
			all = append(all, h)
		}
	}
	return all
}

// automatic reports whether the address may be given without being asked for: --ip-range bounds those.
func (s *space) automatic(addr netip.Addr) bool {
	i := s.index(addr)
	return i >= 0 && s.bounds[i].Contains(addr)
}

// claim and take mark a candidate as being worked at.
func (s *space) claim(addr netip.Addr, token string) candidate {
	h := &holding{Address: journal.Address{Network: s.network.ID, Addr: addr, State: journal.Intent, Token: token}, busy: true}
	s.held[addr] = h
	return candidate{subnet: s.network.Subnets[s.index(addr)].Prefix, hold: h, fresh: true}
}

func (s *space) take(h *holding) candidate {
	h.busy = true
	return candidate{subnet: s.network.Subnets[s.index(h.Addr)].Prefix, hold: h}
}

// settle ends what choose began: the address is now as the journal has it.
func (s *space) settle(h *holding, now journal.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.Address, h.busy = now, false
	if now.State != journal.Owned { // else it cools down as before
		h.since = time.Time{}
	}
}

// drop forgets a holding. If another Host has the address it stays taken, else it is free again.
func (s *space) drop(h *holding, taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, h.Addr)
	if i := s.index(h.Addr); i >= 0 && !taken {
		s.subnets[i].Free(h.Addr)
	}
}

// index returns which subnet of the Network holds the address, or -1.
func (s *space) index(addr netip.Addr) int {
	for i, subnet := range s.network.Subnets {
		if subnet.Prefix.Contains(addr) {
			return i
		}
	}
	return -1
}

// family returns the subnets of the same family, the one that was asked first. The engine does not go on
// to a second subnet when the first is full (a remote driver's errors have no type), so we do.
func (s *space) family(subnet netip.Prefix) []int {
	var order []int
	for i, other := range s.network.Subnets {
		switch {
		case other.Prefix == subnet:
			order = append([]int{i}, order...)
		case other.Prefix.Addr().Is4() == subnet.Addr().Is4():
			order = append(order, i)
		}
	}
	return order
}

// fullError says how full.
func (s *space) fullError(subnet netip.Prefix) error {
	var used, size uint64
	for _, i := range s.family(subnet) {
		used += s.subnets[i].Used()
		size += s.subnets[i].Size()
	}
	return fmt.Errorf("no address is free in %s: %d of %d are in use; remove containers, or create a network with a larger --subnet or --ip-range",
		subnet, used, size)
}

// inUseError says that this Host has given the address to a container.
type inUseError struct{ journal.Address }

// Error names the container if the engine told its name (29.0 and later).
func (e *inUseError) Error() string {
	who := "a container that is just starting"
	if e.Container != "" {
		who = "container " + e.Container
	}
	return fmt.Sprintf("address %s is in use by %s: choose another, or none to have one chosen", e.Addr, who)
}

// seize marks a bound address busy, if it is one and may be released; else it returns nil.
func (s *space) seize(addr netip.Addr, may func(journal.Address) bool) *holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[addr]
	if h == nil || h.busy || h.State != journal.Bound || !may(h.Address) {
		return nil
	}
	h.busy = true
	return h
}

// cool ends a release: the address is owned, and cools down from now on.
func (s *space) cool(h *holding, owned journal.Address, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.Address, h.busy, h.since, h.suspect = owned, false, now, time.Time{}
}

// uses reports whether the address is in use on this Host, or is just coming or going.
func (s *space) uses(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[addr]
	return h != nil && (h.busy || h.State != journal.Owned)
}

func prefixes(n fabric.Network) string {
	var text string
	for i, s := range n.Subnets {
		if i > 0 {
			text += ", "
		}
		text += s.Prefix.String()
	}
	return text
}
