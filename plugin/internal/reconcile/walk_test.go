package reconcile

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/seaway-net/seaway/plugin/internal/kernel"
)

// TestItAlwaysConverges walks at random over desired states, losses with and without a notice, and calls
// that fail, and looks at where it ends once nothing fails any more.
func TestItAlwaysConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFake(bridge("b9"), port("p9", "b9")) // left by a process of before
		running(t, f, func(_ *testing.T, l *Loop) {
			w := &walker{fake: f, loop: l, desired: make(map[kernel.Key]kernel.Object)}
			l.Load(nil)
			rt.Repeat(map[string]func(*rapid.T){
				"set": w.set, "remove": w.remove, "lose": w.lose, "fail": w.fail, "pass": w.pass,
			})
			f.setFails(nil)
			time.Sleep(3 * fullInterval)
			synctest.Wait()
			if !maps.EqualFunc(f.held, w.desired, func(a, b kernel.Object) bool { return b.Holds(a) }) {
				rt.Fatalf("kernel:\n%s\ndesired: %v\ncalls:\n%s", f, w.desired, f.told())
			}
		})
	})
}

// walker makes the steps of a random walk.
type walker struct {
	*fake
	loop    *Loop
	desired map[kernel.Key]kernel.Object
}

// draw draws an object: a bridge, or a port on one. Ports without their bridge fail until it is there.
func draw(t *rapid.T) kernel.Object {
	b := fmt.Sprintf("b%d", rapid.IntRange(0, 2).Draw(t, "bridge"))
	if rapid.Bool().Draw(t, "port") {
		return port(fmt.Sprintf("p%d", rapid.IntRange(0, 3).Draw(t, "port's number")), b)
	}
	return kernel.Bridge{Name: b, Alias: rapid.SampledFrom([]string{"net", "other"}).Draw(t, "alias")}
}

func (w *walker) set(t *rapid.T) {
	objects := []kernel.Object{draw(t)}
	if p, ok := objects[0].(kernel.Port); ok && w.desired[bridge(p.Bridge).Key()] == nil {
		objects = append(objects, bridge(p.Bridge)) // as drivers do
	}
	for _, object := range objects {
		w.desired[object.Key()] = object
	}
	w.loop.Set(objects...)
}

func (w *walker) remove(t *rapid.T) {
	key := draw(t).Key()
	keys := []kernel.Key{key}
	for other, object := range w.desired {
		if p, ok := object.(kernel.Port); ok && key.Kind == kernel.KindBridge && p.Bridge == key.Name {
			keys = append(keys, other)
		}
	}
	for _, gone := range keys {
		delete(w.desired, gone)
	}
	w.loop.Remove(keys...)
}

func (w *walker) lose(t *rapid.T) {
	key := draw(t).Key()
	w.fake.lose(key)
	if rapid.Bool().Draw(t, "noticed") {
		w.loop.Check(key)
	}
}

// fail makes some calls fail from now on.
func (w *walker) fail(t *rapid.T) {
	often, n := rapid.IntRange(1, 4).Draw(t, "every"), 0
	w.setFails(func(string) bool {
		n++
		return n%often == 0
	})
}

func (w *walker) pass(t *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
	synctest.Wait()
}
