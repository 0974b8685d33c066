package kit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// pollInterval is the time between two looks at a condition.
const pollInterval = 25 * time.Millisecond

// WaitFor calls check until it returns nil. When ctx ends first, the error
// says what was waited for and what check last said.
func WaitFor(ctx context.Context, what string, check func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %w", what, ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// output runs a command and returns its trimmed standard output. An error
// holds what it wrote to standard error.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := strings.TrimSpace(stdout.String())
	if err == nil {
		return out, nil
	}
	text := strings.TrimSpace(stderr.String())
	if text == "" {
		text = out
	}
	return out, &CommandError{Stderr: text, Err: err}
}

// A CommandError is the failure of a command, with what it said.
type CommandError struct {
	Stderr string // its standard error, or its output if that is empty
	Err    error  // how it ended
}

// Error gives the end of the command and what it said.
func (e *CommandError) Error() string { return e.Err.Error() + ": " + e.Stderr }

// Unwrap returns how the command ended.
func (e *CommandError) Unwrap() error { return e.Err }

// openLog opens a log file to append to.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// isNoise tells whether a line of an engine's log is one of the very many that
// say that parts of containerd are being loaded or connected.
func isNoise(line string) bool {
	return strings.Contains(line, "level=info") &&
		(strings.Contains(line, "type=io.containerd") || strings.Contains(line, "module=grpc"))
}

// tail returns the last lines of a log file, or says why it cannot.
func tail(path string, lines int) string {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "(no log)"
	}
	if err != nil {
		return err.Error()
	}
	all := slices.DeleteFunc(strings.Split(strings.TrimRight(string(text), "\n"), "\n"), isNoise)
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
