package drivertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
)

// Engine speaks to a Host as a Docker Engine does, and remembers what one remembers.
type Engine struct {
	Host *Host
	// Modern says that RequestAddress tells the container's name (29.0 and later).
	Modern bool
	// Renames says that the engine goes on under the pools' names that it was told at its start, as some do.
	Renames bool
	// Before, if set, is asked before each call; an error is the call's, which then does not arrive.
	Before func(verb string) error
	// Lose, if set, says whether the answer to a call is lost: the engine repeats the call with an empty
	// body, which is refused.
	Lose func(verb string) bool

	Networks   map[string]*Network
	Containers map[string]*Container
	count      int
}

// Network is one network as the engine has it.
type Network struct {
	ID    string
	Pools []Pool // IPv4 first
}

// Pool is one subnet of a network, as IPAM gave it.
type Pool struct {
	ID      string
	Subnet  netip.Prefix
	Gateway netip.Prefix
	Aux     map[string]netip.Prefix
}

// Container is one container on one network.
type Container struct {
	Endpoint string
	Network  *Network
	Name     string
	Sandbox  string
	Addrs    []Granted
}

// Granted is an address and the pool that gave it.
type Granted struct {
	Pool string
	Addr netip.Addr
}

// Subnet is what a user says about one subnet of a new network.
type Subnet struct {
	Subnet, Range, Gateway string
	Aux                    map[string]string
	V6                     bool
}

// Spec is a `docker network create`.
type Spec struct {
	Subnets  []Subnet // none: one of IPv4, from anywhere
	Options  map[string]string
	IPAM     map[string]string
	Internal bool
}

// Run is a `docker run`.
type Run struct {
	Name    string
	IP, IP6 string
	MAC     string
	Driver  map[string]any
}

// ErrUnreachable is what the engine has when a call does not come through.
var ErrUnreachable = errors.New("the plugin cannot be reached")

// errEmptyBody is what the engine has when it repeats a call: Seaway refuses a body that is empty.
var errEmptyBody = errors.New("the request has no body")

// NewEngine returns an engine without networks.
func NewEngine(h *Host, modern bool) *Engine {
	return &Engine{
		Host: h, Modern: modern,
		Networks: make(map[string]*Network), Containers: make(map[string]*Container),
	}
}

// call makes one call. A crash of the Host in it is an error.
func (e *Engine) call(verb string, fn func() error) (err error) {
	if e.Before != nil {
		if err = e.Before(verb); err != nil {
			return err
		}
	}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case Crash:
			e.Host.Restart()
			err = errEmptyBody
		default:
			panic(p)
		}
	}()
	err = fn()
	if err == nil && e.Lose != nil && e.Lose(verb) {
		return errEmptyBody
	}
	return err
}

func (e *Engine) id(kind string) string {
	e.count++
	return fmt.Sprintf("%s%052d", fmt.Sprintf("%04x%08x", len(kind), e.count), e.count)
}

// Create is `docker network create`.
func (e *Engine) Create(spec Spec) (*Network, error) {
	n := &Network{ID: e.id("network")}
	subnets := spec.Subnets
	if len(subnets) == 0 {
		subnets = []Subnet{{}}
	}
	slices.SortStableFunc(subnets, func(a, b Subnet) int {
		return boolInt(a.V6) - boolInt(b.V6)
	})
	for _, s := range subnets {
		if err := e.requestPool(n, s, spec.IPAM); err != nil {
			e.rollBack(n)
			return nil, err
		}
	}
	r := &pluginapi.CreateNetworkRequest{
		NetworkID: n.ID, Options: pluginapi.NetworkOptions{Driver: spec.Options, Internal: spec.Internal},
	}
	for _, p := range n.Pools {
		data := pluginapi.IPAMData{
			AddressSpace: pluginapi.LocalAddressSpace, Pool: p.Subnet, Gateway: p.Gateway, AuxAddresses: p.Aux,
		}
		if p.Subnet.Addr().Is6() {
			r.IPv6Data = append(r.IPv6Data, data)
		} else {
			r.IPv4Data = append(r.IPv4Data, data)
		}
	}
	if err := e.CreateNetwork(r); err != nil {
		e.rollBack(n)
		return nil, err
	}
	e.Networks[n.ID] = n
	return n, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// CreateNetwork makes only this call.
func (e *Engine) CreateNetwork(r *pluginapi.CreateNetworkRequest) error {
	return e.call("CreateNetwork", func() error { return e.Host.Net.CreateNetwork(context.Background(), r) })
}

// requestPool asks for one subnet, its gateway and its other addresses.
func (e *Engine) requestPool(n *Network, s Subnet, options map[string]string) error {
	p, err := e.RequestPool(s, options)
	if err != nil {
		return err
	}
	n.Pools = append(n.Pools, p)
	own := &n.Pools[len(n.Pools)-1]
	if own.Gateway, err = e.RequestAddress(p.ID, s.Gateway, GatewayOptions()); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.Aux)) {
		addr, err := e.RequestAddress(p.ID, s.Aux[name], nil)
		if err != nil {
			return err
		}
		if own.Aux == nil {
			own.Aux = make(map[string]netip.Prefix)
		}
		own.Aux[name] = addr
	}
	return nil
}

// GatewayOptions are those of the request for a gateway.
func GatewayOptions() map[string]string {
	return map[string]string{"RequestAddressType": "com.docker.network.gateway"}
}

// RequestPool makes only this call.
func (e *Engine) RequestPool(s Subnet, options map[string]string) (Pool, error) {
	var p Pool
	err := e.call("RequestPool", func() error {
		got, err := e.Host.IPAM.RequestPool(context.Background(), &pluginapi.RequestPoolRequest{
			AddressSpace: pluginapi.LocalAddressSpace, Pool: s.Subnet, SubPool: s.Range, Options: options, V6: s.V6,
		})
		if err != nil {
			return err
		}
		p.ID = got.PoolID
		p.Subnet, err = netip.ParsePrefix(got.Pool)
		return err
	})
	return p, err
}

// RequestAddress makes only this call.
func (e *Engine) RequestAddress(pool, addr string, options map[string]string) (netip.Prefix, error) {
	var got netip.Prefix
	err := e.call("RequestAddress", func() error {
		answer, err := e.Host.IPAM.RequestAddress(context.Background(), &pluginapi.RequestAddressRequest{
			PoolID: pool, Address: addr, Options: options,
		})
		if err != nil {
			return err
		}
		got, err = netip.ParsePrefix(answer.Address)
		return err
	})
	return got, err
}

// Release gives an address back; the engine does not listen to the answer.
func (e *Engine) Release(pool string, addr netip.Addr) error {
	return e.call("ReleaseAddress", func() error {
		return e.Host.IPAM.ReleaseAddress(context.Background(), &pluginapi.ReleaseAddressRequest{
			PoolID: pool, Address: addr.String(),
		})
	})
}

// ReleasePool gives a pool back.
func (e *Engine) ReleasePool(pool string) error {
	return e.call("ReleasePool", func() error {
		return e.Host.IPAM.ReleasePool(context.Background(), &pluginapi.ReleasePoolRequest{PoolID: pool})
	})
}

// rollBack gives back what a network has of IPAM, as a create that failed and `docker network rm` do.
func (e *Engine) rollBack(n *Network) {
	for _, p := range n.Pools {
		if p.Gateway.IsValid() {
			_ = e.Release(p.ID, p.Gateway.Addr())
		}
		for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
			_ = e.Release(p.ID, p.Aux[name].Addr())
		}
	}
	for _, p := range n.Pools {
		_ = e.ReleasePool(p.ID)
	}
}

// Remove is `docker network rm`. The engine does not listen to what we say.
func (e *Engine) Remove(n *Network) {
	e.rollBack(n)
	_ = e.DeleteNetwork(n.ID)
	delete(e.Networks, n.ID)
}

// DeleteNetwork makes only this call.
func (e *Engine) DeleteNetwork(id string) error {
	return e.call("DeleteNetwork", func() error {
		return e.Host.Net.DeleteNetwork(context.Background(), &pluginapi.DeleteNetworkRequest{NetworkID: id})
	})
}

// Start starts a container.
func (e *Engine) Start(n *Network, run Run) (*Container, error) {
	c := &Container{Network: n, Name: run.Name, Endpoint: e.id("endpoint")}
	c.Sandbox = "/var/run/docker/netns/" + c.Endpoint[:12]
	if err := e.attach(c, run); err != nil {
		for _, a := range c.Addrs {
			_ = e.Release(a.Pool, a.Addr)
		}
		return nil, err
	}
	if err := e.Join(c); err != nil {
		e.detach(c)
		return nil, err
	}
	e.Host.Containers.Alive[c.Sandbox] = true
	e.Containers[c.Endpoint] = c
	return c, nil
}

// attach gets a container its addresses and its endpoint.
func (e *Engine) attach(c *Container, run Run) error {
	r := &pluginapi.CreateEndpointRequest{NetworkID: c.Network.ID, EndpointID: c.Endpoint, Options: run.Driver}
	r.Interface.MacAddress = run.MAC
	for _, family := range []struct {
		v6   bool
		addr string
		into *string
	}{{false, run.IP, &r.Interface.Address}, {true, run.IP6, &r.Interface.AddressIPv6}} {
		pool, ok := c.Network.pool(family.v6, family.addr)
		if !ok {
			continue
		}
		got, err := e.RequestAddress(pool.ID, family.addr, e.options(run.Name))
		if err != nil {
			return err
		}
		c.Addrs = append(c.Addrs, Granted{pool.ID, got.Addr()})
		*family.into = got.String()
	}
	return e.CreateEndpoint(r)
}

// pool returns the pool that the engine asks: the first of a family, or the one that holds the address.
func (n *Network) pool(v6 bool, addr string) (Pool, bool) {
	a, _ := netip.ParseAddr(addr)
	for _, p := range n.Pools {
		if p.Subnet.Addr().Is6() == v6 && (!a.IsValid() || p.Subnet.Contains(a)) {
			return p, true
		}
	}
	return Pool{}, false
}

func (e *Engine) options(name string) map[string]string {
	if !e.Modern || name == "" {
		return nil
	}
	return map[string]string{"com.docker.network.endpoint.name": name}
}

// CreateEndpoint makes only this call.
func (e *Engine) CreateEndpoint(r *pluginapi.CreateEndpointRequest) error {
	return e.call("CreateEndpoint", func() error {
		_, err := e.Host.Net.CreateEndpoint(context.Background(), r)
		return err
	})
}

// Join makes only this call.
func (e *Engine) Join(c *Container) error {
	return e.call("Join", func() error {
		_, err := e.Host.Net.Join(context.Background(), &pluginapi.JoinRequest{
			NetworkID: c.Network.ID, EndpointID: c.Endpoint, SandboxKey: c.Sandbox,
		})
		return err
	})
}

// Stop stops a container.
func (e *Engine) Stop(c *Container) {
	e.detach(c)
	delete(e.Host.Containers.Alive, c.Sandbox)
	delete(e.Containers, c.Endpoint)
}

// detach takes a container off its network. The engine does not listen to what we say.
func (e *Engine) detach(c *Container) {
	_ = e.call("Leave", func() error {
		return e.Host.Net.Leave(context.Background(), &pluginapi.LeaveRequest{NetworkID: c.Network.ID, EndpointID: c.Endpoint})
	})
	_ = e.call("DeleteEndpoint", func() error {
		return e.Host.Net.DeleteEndpoint(context.Background(), &pluginapi.DeleteEndpointRequest{
			NetworkID: c.Network.ID, EndpointID: c.Endpoint,
		})
	})
	for _, a := range c.Addrs {
		_ = e.Release(a.Pool, a.Addr)
	}
}

// Addr returns a container's address of a family.
func (c *Container) Addr(v6 bool) netip.Addr {
	for _, a := range c.Addrs {
		if a.Addr.Is6() == v6 {
			return a.Addr
		}
	}
	return netip.Addr{}
}

// EngineNetwork is a network's id as the drivers keep it.
func (n *Network) EngineNetwork() fabric.EngineNetworkID { return fabric.EngineNetworkID(n.ID) }

// New returns an engine with a Seaway of its own, for one test.
func New(t testing.TB, modern bool) *Engine {
	t.Helper()
	h := NewHost(t, t.TempDir())
	t.Cleanup(h.Close)
	return NewEngine(h, modern)
}

// MustCreate is Create, where it has to work.
func (e *Engine) MustCreate(spec Spec) *Network {
	e.Host.tb.Helper()
	n, err := e.Create(spec)
	if err != nil {
		e.Host.tb.Fatalf("create network: %v", err)
	}
	return n
}

// MustStart is Start, where it has to work.
func (e *Engine) MustStart(n *Network, run Run) *Container {
	e.Host.tb.Helper()
	c, err := e.Start(n, run)
	if err != nil {
		e.Host.tb.Fatalf("start container: %v", err)
	}
	return c
}

// MustSweep is the Host's Sweep, where it has to work.
func (e *Engine) MustSweep() {
	e.Host.tb.Helper()
	if err := e.Host.Sweep(); err != nil {
		e.Host.tb.Fatalf("sweep: %v", err)
	}
}

// Pass lets time pass; for synctest bubbles.
func Pass(d time.Duration) { <-time.After(d) }

// Expect checks that an error says all of the texts; without any, that there is no error.
func Expect(t rapid.TB, err error, texts ...string) {
	t.Helper()
	if err == nil && len(texts) > 0 {
		t.Errorf("no error, want one with %q", texts)
	}
	if err != nil && len(texts) == 0 {
		t.Errorf("unexpected error: %v", err)
	}
	for _, text := range texts {
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}
