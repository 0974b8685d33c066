package journal

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockTimeout is how long Open waits for another process to let go: a plugin that is being replaced ends
// within it.
const lockTimeout = 2 * time.Second

// lockRetry is how often a lock is tried meanwhile.
const lockRetry = 20 * time.Millisecond

// lockFile locks a file beside the journal for as long as it is open. bbolt locks the journal itself, but
// only once it reads it, and a file must not be checked and moved aside while another process writes it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	retry, deadline := time.NewTicker(lockRetry), time.After(lockTimeout)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-retry.C:
		case <-deadline:
			return nil, errors.Join(fmt.Errorf("another process has it open (lock %s: %w)", path, err), f.Close())
		}
	}
}
