package drivertest

import (
	"errors"
	"maps"
	"slices"
)

// Replay is what an engine asks at its start. It goes on where it was, whatever the answers.
func (e *Engine) Replay() error {
	var failed error
	for _, id := range slices.Sorted(maps.Keys(e.Networks)) {
		n := e.Networks[id]
		anew := make(map[string]string) // pools' names
		for i, p := range n.Pools {
			again, err := e.RequestPool(Subnet{Subnet: p.Subnet.String()}, nil)
			failed = errors.Join(failed, err)
			if err != nil {
				continue
			}
			anew[p.ID] = again.ID
			if e.Renames {
				n.Pools[i].ID = again.ID
			}
			_, err = e.RequestAddress(again.ID, p.Gateway.Addr().String(), GatewayOptions())
			failed = errors.Join(failed, err)
			for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
				_, err = e.RequestAddress(again.ID, p.Aux[name].Addr().String(), nil)
				failed = errors.Join(failed, err)
			}
		}
		for _, endpoint := range slices.Sorted(maps.Keys(e.Containers)) {
			c := e.Containers[endpoint]
			if c.Network != n {
				continue
			}
			for i, a := range c.Addrs {
				if anew[a.Pool] == "" {
					continue
				}
				_, err := e.RequestAddress(anew[a.Pool], a.Addr.String(), nil)
				failed = errors.Join(failed, err)
				if e.Renames {
					c.Addrs[i].Pool = anew[a.Pool]
				}
			}
		}
	}
	return failed
}

// Reboot is a power cut of the host and what the engine does next: it replays, and removes the endpoints
// of containers that do not run any more.
func (e *Engine) Reboot() {
	clear(e.Host.Containers.Alive)
	e.Host.Restart()
	_ = e.Replay()
	for _, id := range slices.Sorted(maps.Keys(e.Containers)) {
		e.Stop(e.Containers[id])
	}
}
