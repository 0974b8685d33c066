package ipamdriver_test

import (
	"testing"
	"testing/synctest"
	"time"

	. "github.com/seaway-net/seaway/plugin/internal/drivertest"
)

// TestSlowEngine: an address that was taken back meanwhile does not get an endpoint.
func TestSlowEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(t, true)
		n := e.MustCreate(one("10.1.0.0/30"))
		slow := true
		e.Before = func(verb string) error {
			if verb == "CreateEndpoint" && slow {
				slow = false
				e.MustSweep()
				Pass(2 * time.Minute)
				e.MustSweep()
				e.MustStart(n, Run{Name: "fast"})
			}
			return nil
		}
		_, err := e.Start(n, Run{Name: "slow"})
		Expect(t, err, "10.1.0.2")
	})
}
