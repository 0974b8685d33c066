package netdriver

import (
	"context"
	"errors"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/journal"
)

// deadLimit is how long something must look dead before it is taken for dead: the engine may be just
// about to say so itself.
const deadLimit = time.Minute

// startLimit is deadLimit for a container that has joined and was not seen yet: engines before 28.0 make
// its namespace after Join, with the container.
const startLimit = 10 * time.Minute

// Sweep does what no verb does. It notes what changed in the containers' namespaces, and it removes
// endpoints and networks that the engine has removed while it could not reach us.
func (d *Driver) Sweep(ctx context.Context) error {
	endpoints, err := journal.Endpoints(d.Journal)
	copies, listErr := journal.Copies(d.Journal)
	err = errors.Join(err, listErr)
	for _, e := range endpoints {
		err = errors.Join(err, d.sweepEndpoint(ctx, e))
	}
	for _, e := range d.nextPlugs(endpoints) {
		err = errors.Join(err, d.notePlug(ctx, e))
	}
	d.networks.Lock()
	defer d.networks.Unlock()
	for _, c := range copies {
		if c.Released && d.released.since(c.EngineID, true) >= deadLimit {
			d.Log.Info("a network that the engine removed without telling is removed", "network", c.EngineID)
			err = errors.Join(err, d.remove(ctx, c))
			d.released.since(c.EngineID, false)
		}
	}
	return err
}

// sweepEndpoint removes an endpoint whose container has been gone for long enough.
func (d *Driver) sweepEndpoint(ctx context.Context, e journal.Endpoint) error {
	limit := deadLimit
	if e.Sandbox != "" && e.Plug == nil {
		limit = startLimit
	}
	if d.gone.since(e.ID, d.containerGone(e)) < limit {
		return nil
	}
	d.Log.Info("an endpoint whose container is gone is removed", "endpoint", fabric.Short(e.ID))
	d.gone.since(e.ID, false)
	return errors.Join(d.removeEndpoint(e.ID), d.Release(ctx, e.Endpoint))
}

// plugsPerSweep is how many containers one sweep looks into, each of which costs a thread in its
// namespace.
const plugsPerSweep = 32

// nextPlugs chooses the containers to look into: those of which nothing is known, and then the others in
// turn, as somebody may have changed something in them.
func (d *Driver) nextPlugs(endpoints []journal.Endpoint) []journal.Endpoint {
	var next []journal.Endpoint
	for _, e := range endpoints {
		if e.Plug == nil {
			next = append(next, e)
		}
	}
	for range endpoints {
		if len(next) >= plugsPerSweep {
			break
		}
		d.turn = (d.turn + 1) % len(endpoints)
		if e := endpoints[d.turn]; e.Plug != nil {
			next = append(next, e)
		}
	}
	return next
}
