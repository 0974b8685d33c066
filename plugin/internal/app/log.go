package app

import (
	"bytes"
	"context"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// maxLine is the longest line in bytes that leaves. A pipe takes so much in one piece or not at all
// (pipe(7), PIPE_BUF); and a line over 64 KiB, also one of many pieces without their ends, ends the engine's
// reader of our log (20.10), after which we could not write at all.
const maxLine = 4 << 10

// pipeWriter writes log lines to a descriptor without ever waiting. The engine reads our log from a pipe;
// while it is down (live-restore) nobody does, and a full pipe must not stop a verb.
type pipeWriter int

// newPipeWriter takes over a descriptor. One that cannot be made non-blocking is a file, which does not
// block.
func newPipeWriter(f *os.File) pipeWriter {
	fd := int(f.Fd())
	_ = unix.SetNonblock(fd, true)
	return pipeWriter(fd)
}

// Write writes one line, or drops it.
func (w pipeWriter) Write(line []byte) (int, error) {
	out := line
	if len(out) > maxLine {
		out = append(bytes.Clone(out[:maxLine-4]), "...\n"...)
	}
	_, _ = unix.Write(int(w), out) // a full pipe: the line is lost, as a log to nobody should be
	return len(line), nil
}

// engineHandler logs as the engine reads it: what goes to standard output becomes an info line of its own
// log, what goes to standard error an error line.
type engineHandler struct{ out, err slog.Handler }

var _ slog.Handler = engineHandler{}

// newLogger returns a logger that the engine understands: lines of text, without the time, which it adds.
func newLogger(level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	return slog.New(engineHandler{
		out: slog.NewTextHandler(newPipeWriter(os.Stdout), options),
		err: slog.NewTextHandler(newPipeWriter(os.Stderr), options),
	})
}

// Enabled reports whether lines of that level are logged.
func (h engineHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.out.Enabled(ctx, level)
}

// Handle logs one line.
func (h engineHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		return h.err.Handle(ctx, r)
	}
	return h.out.Handle(ctx, r)
}

// WithAttrs returns a handler that adds attributes to each line.
func (h engineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return engineHandler{h.out.WithAttrs(attrs), h.err.WithAttrs(attrs)}
}

// WithGroup returns a handler that puts what follows into a group.
func (h engineHandler) WithGroup(name string) slog.Handler {
	return engineHandler{h.out.WithGroup(name), h.err.WithGroup(name)}
}
