package pluginapi

import (
	"context"
	"sync"
	"time"
)

// patience is how long after our start an engine may take to introduce itself: it first looks for the
// socket after half a second.
const patience = 2 * time.Second

// introduction is what an engine does when it has started this process, or found it started again: it asks
// both drivers for their capabilities, the IPAM driver last. Engine 29.0 and later then begin with a new
// network driver that does not know the endpoints of the one before. A container whose start is under way
// at that moment fails ("endpoint … not found"), so its first request waits until the moment has passed.
type introduction struct {
	until time.Time // an engine that has not asked by then will not: it restarted, or somebody else asks

	mu    sync.Mutex
	asked map[string]bool
	over  chan struct{} // closed when both drivers were asked
}

func newIntroduction(patience time.Duration) *introduction {
	return &introduction{
		until: time.Now().Add(patience), asked: make(map[string]bool), over: make(chan struct{}),
	}
}

// by returns the verb that asks one of the drivers for its capabilities.
func (i *introduction) by(driver string, capabilities verb) verb {
	return func(ctx context.Context, body []byte) (any, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if !i.asked[driver] {
			i.asked[driver] = true
			if len(i.asked) == 2 {
				close(i.over)
			}
		}
		return capabilities(ctx, body)
	}
}

// before returns the verb that waits for the introduction to be over, or not to come.
func (i *introduction) before(run verb) verb {
	return func(ctx context.Context, body []byte) (any, error) {
		late := time.NewTimer(time.Until(i.until))
		defer late.Stop()
		select {
		case <-i.over:
		case <-late.C:
		case <-ctx.Done():
		}
		return run(ctx, body)
	}
}
