// Package reconcile makes the kernel hold what it should. It is the one path to the kernel: whoever
// wants a change writes desired state and, if it must, waits.
//
// The loop looks at an object when it is set, when the kernel says that it changed, when an earlier try
// failed, and in a full comparison every half minute. It puts before it deletes, and deletes nothing of
// its own accord before the desired state has been loaded whole, or after a read that failed.
package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/kernel"
)

// Target is the kernel. Put is idempotent; Delete of what is not there is no error; Read returns
// everything of ours or an error.
type Target interface {
	Read(ctx context.Context) (map[kernel.Key]kernel.Object, error)
	Put(ctx context.Context, object kernel.Object) error
	Delete(ctx context.Context, keys []kernel.Key) error
}

const (
	// fullInterval is how often everything is compared, in case the kernel's notice was missed.
	fullInterval = 30 * time.Second
	// firstRetry is the pause after a failure; it doubles up to fullInterval.
	firstRetry = 100 * time.Millisecond
)

// Loop converges the kernel to the desired state. Its methods may be called at any time, from anywhere.
type Loop struct {
	target Target
	log    *slog.Logger
	wake   chan struct{} // holds one: there is something to do

	mu      sync.Mutex
	desired map[kernel.Key]kernel.Object
	loaded  bool // desired is whole: what is not in it may go
	full    bool // a full comparison is due
	due     map[kernel.Key]bool
	tries   map[kernel.Key]*try
}

// try is what came of the last attempts at one object.
type try struct {
	done  chan struct{} // closed after the first attempt since the object was set
	err   error
	again time.Time // when to try next; zero unless it failed
	pause time.Duration
}

// New returns a loop with an empty desired state, which it will not act upon before Load.
func New(target Target, log *slog.Logger) *Loop {
	return &Loop{
		target: target, log: log, wake: make(chan struct{}, 1),
		desired: make(map[kernel.Key]kernel.Object),
		due:     make(map[kernel.Key]bool),
		tries:   make(map[kernel.Key]*try),
	}
}

// Load adds the objects to the desired state and declares it whole: from now on, what is ours and not in
// it is removed.
func (l *Loop) Load(objects []kernel.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, object := range objects {
		l.setLocked(object)
	}
	l.loaded, l.full = true, true
	l.wakeLocked()
}

// Set adds objects to the desired state, or replaces them. It does not wait.
func (l *Loop) Set(objects ...kernel.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, object := range objects {
		l.setLocked(object)
	}
	l.wakeLocked()
}

func (l *Loop) setLocked(object kernel.Object) {
	key := object.Key()
	l.desired[key] = object
	l.due[key] = true
	if t := l.tries[key]; t == nil || t.finished() {
		l.tries[key] = &try{done: make(chan struct{})}
	}
}

// Remove takes objects out of the desired state. It does not wait.
func (l *Loop) Remove(keys ...kernel.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		delete(l.desired, key)
		if t := l.tries[key]; t != nil {
			t.finish(errRemoved)
			delete(l.tries, key)
		}
		l.due[key] = true
	}
	l.wakeLocked()
}

// errRemoved is what a waiter gets whose object is not desired any more.
var errRemoved = errors.New("removed while it was waited for")

// Check has objects looked at: the kernel says that they changed. Objects that are not desired are not
// its business.
func (l *Loop) Check(keys ...kernel.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if _, ok := l.desired[key]; ok {
			l.due[key] = true
		}
	}
	l.wakeLocked()
}

// Resync has everything compared: notices were lost.
func (l *Loop) Resync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = true
	l.wakeLocked()
}

// Wait returns when the object has been put, with the error if that failed; the loop goes on trying
// then. An object that is not desired is an error.
func (l *Loop) Wait(ctx context.Context, key kernel.Key) error {
	l.mu.Lock()
	t := l.tries[key]
	l.mu.Unlock()
	if t == nil {
		return errRemoved
	}
	select {
	case <-t.done:
		l.mu.Lock()
		defer l.mu.Unlock()
		return t.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *try) finished() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (t *try) finish(err error) {
	t.err = err
	if !t.finished() {
		close(t.done)
	}
}

// wakeLocked has Run look, soon.
func (l *Loop) wakeLocked() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run converges until the context ends. Cancellation is no error, and changes nothing in the kernel.
func (l *Loop) Run(ctx context.Context) error {
	full := time.NewTicker(fullInterval)
	defer full.Stop()
	retry := time.NewTimer(fullInterval)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-retry.C:
			l.queueRetries()
		case <-full.C:
			l.Resync()
		}
		l.step(ctx)
		retry.Reset(l.untilRetry())
	}
}

// step does what is due now.
func (l *Loop) step(ctx context.Context) {
	if l.takeFull() {
		l.compare(ctx)
	}
	puts, deletes := l.take()
	for _, object := range puts {
		if ctx.Err() != nil {
			return
		}
		l.report(object.Key(), object, l.target.Put(ctx, object))
	}
	if len(deletes) > 0 && ctx.Err() == nil {
		err := l.target.Delete(ctx, deletes)
		for _, key := range deletes {
			l.report(key, nil, err)
		}
	}
}

func (l *Loop) takeFull() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := l.full && l.loaded
	if due {
		l.full = false
	}
	return due
}

// compare reads the kernel and has every difference looked at.
func (l *Loop) compare(ctx context.Context) {
	actual, err := l.target.Read(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.log.Error("cannot read what the kernel holds; nothing is removed", "error", err)
		return
	}
	for key, object := range l.desired {
		if found, ok := actual[key]; !ok || !object.Holds(found) {
			l.due[key] = true
		}
	}
	for key, object := range actual {
		if _, ok := l.desired[key]; ok {
			continue
		}
		if u, ok := object.(kernel.Used); ok && u.InUse() {
			l.log.Debug("ours and unknown, but in use: left alone", "object", key.String())
			continue
		}
		l.due[key] = true
	}
}

// take returns the due objects, those that others need first, and the due deletions, which come last.
func (l *Loop) take() (puts []kernel.Object, deletes []kernel.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range slices.SortedFunc(maps.Keys(l.due), kernel.Key.Compare) {
		if object, ok := l.desired[key]; ok {
			puts = append(puts, object)
		} else {
			deletes = append(deletes, key)
		}
	}
	clear(l.due)
	slices.Reverse(deletes)
	return puts, deletes
}

// report notes what came of one object; object is nil for a deletion.
func (l *Loop) report(key kernel.Key, object kernel.Object, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.desired[key] != object {
		l.due[key] = true // it was set anew or removed meanwhile: what was done is out of date
		l.wakeLocked()
		return
	}
	t := l.tries[key]
	if t == nil {
		if err == nil {
			return
		}
		t = &try{done: make(chan struct{})}
		l.tries[key] = t
	}
	if err == nil {
		t.again, t.pause = time.Time{}, 0
		if object == nil {
			delete(l.tries, key)
		}
	} else {
		t.pause = min(max(2*t.pause, firstRetry), fullInterval)
		t.again = time.Now().Add(t.pause)
		l.log.Warn("cannot converge yet", "object", key.String(), "retry", t.pause, "error", err)
	}
	t.finish(err)
}

// queueRetries makes due what failed and has waited long enough.
func (l *Loop) queueRetries() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for key, t := range l.tries {
		if !t.again.IsZero() && !t.again.After(now) {
			l.due[key] = true
		}
	}
}

// untilRetry returns how long the next retry may wait.
func (l *Loop) untilRetry() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := fullInterval
	for _, t := range l.tries {
		if !t.again.IsZero() {
			wait = min(wait, max(time.Until(t.again), time.Millisecond))
		}
	}
	return wait
}
