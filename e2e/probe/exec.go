package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seaway-net/seaway/e2e/internal/remains"
)

// become replaces this process by a program.
func become(argv []string, attached bool) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("find program: %w", err)
	}
	if attached {
		// The setting belongs to the thread and survives execve on it.
		runtime.LockOSThread() //nolint:forbidigo // no namespace is entered
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("tie %s to its parent: %w", argv[0], err)
		}
	}
	if err := syscall.Exec(path, argv, os.Environ()); err != nil {
		return fmt.Errorf("become %s: %w", path, err)
	}
	return nil
}

// clearLab removes what a dead kit has left in and around dir. If the kit has
// cleaned up itself, nothing is there and nothing is done.
func clearLab(dir string, seconds int) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	defer cancel()
	return remains.Clear(ctx, dir)
}
