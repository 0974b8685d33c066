// Package netdriver is the NetworkDriver verbs. A verb writes what should be (the journal first, then
// the loop's desired state) and waits only where the engine needs the result: Join answers with a link
// that exists.
//
// The engine sends CreateNetwork once in a network's life and never again, so the journal is the only
// memory of networks; it ignores the errors of verbs that take something down, so those do not fail for
// what is gone already.
package netdriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
	"github.com/seaway-net/seaway/plugin/internal/store"
	"github.com/seaway-net/seaway/plugin/internal/topology"
)

// Kernel is the way to the kernel: desired state goes in, and can be waited for.
type Kernel interface {
	Set(objects ...kernel.Object)
	Remove(keys ...kernel.Key)
	Wait(ctx context.Context, key kernel.Key) error
}

// Containers looks into containers. Its errors are os.ErrNotExist for one that is not there.
type Containers interface {
	ReadPlug(ctx context.Context, port, sandbox string) (fabric.Plug, error)
	CheckSandbox(sandbox string) error
}

// Journal is what this Host owns: a *journal.Journal.
type Journal interface {
	Host() fabric.HostID
	// Recovered says where a damaged journal was put, when one was; see journal.Journal.
	Recovered() string
	View(fn func(*journal.Tx) error) error
	Update(fn func(*journal.Tx) error) error
}

// Config is what the driver needs.
type Config struct {
	Journal    Journal
	Store      store.Store
	Kernel     Kernel
	Containers Containers
	Log        *slog.Logger
	// MTU is that of containers' links in bytes, for networks that ask for none.
	MTU func() int
	// Forget is told of a Network that is gone, for whoever remembers something of it.
	Forget func(fabric.NetworkID)
	// Release gives back the addresses of an endpoint whose container went without the engine's telling.
	Release func(context.Context, fabric.Endpoint) error
}

// Driver is the network driver.
type Driver struct {
	Config

	networks sync.Mutex // one network comes or goes at a time

	// Of Sweep, which is not called twice at a time.
	gone     sightings[fabric.EndpointID]      // their containers are gone
	released sightings[fabric.EngineNetworkID] // their pools were given back
	turn     int                               // whose container was looked into last
}

var _ pluginapi.NetworkDriver = (*Driver)(nil)

// New returns the driver.
func New(c Config) *Driver {
	return &Driver{
		Config:   c,
		gone:     make(sightings[fabric.EndpointID]),
		released: make(sightings[fabric.EngineNetworkID]),
	}
}

// Desired returns what the kernel should hold for all that the journal knows.
func (d *Driver) Desired() ([]kernel.Object, error) {
	var objects []kernel.Object
	err := d.Journal.View(func(tx *journal.Tx) error {
		copies, err := tx.Copies().All()
		if err != nil {
			return err
		}
		plans := make(map[fabric.EngineNetworkID]topology.Copy, len(copies))
		for _, c := range copies {
			plans[c.EngineID] = d.plan(c)
			objects = append(objects, topology.Bridge(d.plan(c))...)
		}
		endpoints, err := tx.Endpoints().All()
		for _, e := range endpoints {
			if plan, known := plans[e.Engine]; known {
				objects = append(objects, topology.Port(plan, attachment(e)))
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the desired state: %w", err)
	}
	return objects, nil
}

// plan is a Copy with what this Host decides about it.
func (d *Driver) plan(c journal.Copy) topology.Copy {
	mtu := c.Network.MTU
	if mtu == 0 {
		mtu = d.MTU()
	}
	return topology.Copy{Network: c.Network, Engine: c.EngineID, MTU: mtu, IfPrefix: c.IfPrefix}
}

func attachment(e journal.Endpoint) topology.Attachment {
	return topology.Attachment{Endpoint: e.Endpoint, IfName: e.IfName, Sandbox: e.Sandbox, Plug: e.Plug}
}

// copyOf finds the Copy under the engine's id.
func (d *Driver) copyOf(id string) (journal.Copy, error) {
	var c journal.Copy
	var known bool
	err := d.Journal.View(func(tx *journal.Tx) (err error) {
		c, known, err = tx.Copies().Get(fabric.EngineNetworkID(id))
		return err
	})
	if err == nil && !known {
		err = fmt.Errorf("network %s is not known to this Seaway: remove it and create it again", fabric.Short(id))
	}
	return c, err
}

// endpoint finds an endpoint; known is false if there is none of that id.
func (d *Driver) endpoint(id string) (e journal.Endpoint, known bool, err error) {
	err = d.Journal.View(func(tx *journal.Tx) (err error) {
		e, known, err = tx.Endpoints().Get(fabric.EndpointID(id))
		return err
	})
	return e, known, err
}

// PortPlugged notes how the engine has plugged a container in, once its link is up.
func (d *Driver) PortPlugged(ctx context.Context, port string) error {
	var found []journal.Endpoint
	err := d.Journal.View(func(tx *journal.Tx) (err error) {
		found, err = tx.Endpoints().Prefix(kernel.PortOwner(port))
		return err
	})
	for _, e := range found {
		err = errors.Join(err, d.notePlug(ctx, e))
	}
	return err
}

// notePlug reads a container's end of its link and journals it, if it is another than before.
func (d *Driver) notePlug(ctx context.Context, e journal.Endpoint) error {
	if e.Sandbox == "" {
		return nil
	}
	plug, err := d.Containers.ReadPlug(ctx, kernel.PortName(e.ID), e.Sandbox)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if e.Plug != nil && e.Plug.Equal(plug) {
		return nil
	}
	if e.Plug == nil && e.IfName != "" && e.IfName != plug.Name {
		d.Log.Warn("this engine does not let a plugin name a container's link (29.8 and later do)",
			"endpoint", fabric.Short(e.ID), "wanted", e.IfName, "named", plug.Name)
	}
	return d.changeEndpoint(string(e.ID), func(e *journal.Endpoint) {
		if e.Sandbox != "" {
			e.Plug = &plug
		}
	})
}

// changeEndpoint changes what is known of an endpoint, in the journal and then in the desired state. An
// endpoint that is gone is left alone.
func (d *Driver) changeEndpoint(id string, change func(*journal.Endpoint)) error {
	var e journal.Endpoint
	var c journal.Copy
	var known bool
	err := d.Journal.Update(func(tx *journal.Tx) (err error) {
		if e, known, err = tx.Endpoints().Get(fabric.EndpointID(id)); err != nil || !known {
			return err
		}
		if c, known, err = tx.Copies().Get(e.Engine); err != nil || !known {
			return err
		}
		change(&e)
		return tx.Endpoints().Put(e.ID, e)
	})
	if err != nil {
		return fmt.Errorf("journal endpoint %s: %w", fabric.Short(id), err)
	}
	if known {
		d.Kernel.Set(topology.Port(d.plan(c), attachment(e)))
	}
	return nil
}

// sightings remembers since when something has looked as it does.
type sightings[K comparable] map[K]time.Time

// since notes whether the thing named key looks so now, and returns for how long it has.
func (s sightings[K]) since(key K, so bool) time.Duration {
	if !so {
		delete(s, key)
		return 0
	}
	if _, seen := s[key]; !seen {
		s[key] = time.Now()
	}
	return time.Since(s[key])
}
