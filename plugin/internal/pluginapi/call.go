package pluginapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-plugins-helpers/sdk"
)

const (
	// maxBody is far above what the engine sends: some KiB for a container with many published ports.
	maxBody = 1 << 20
	// maxErrorText is what of an error leaves, in bytes. The engine shows it in one line.
	maxErrorText = 1 << 10
)

// answer handles one request from its body to the line in the log.
func (s *Server) answer(calls context.Context, w http.ResponseWriter, r *http.Request, name string, run verb) {
	started := time.Now()
	body, err := s.readBody(w, r)
	var response any
	if err == nil {
		response, err = s.call(calls, name, run, body)
	}
	if refused, ok := errors.AsType[refusal](err); ok {
		err = refuse(refused.status, "%s: %w", name, refused.error)
	}
	s.report(calls, name, started, err)
	reply(w, name, response, err)
}

// readBody reads the whole body within the deadline and the limit.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(s.timeout)); err != nil {
		return nil, fmt.Errorf("set the deadline of the body: %w", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		// The deadline must not end the server's wait for the client's leaving or its next request.
		err = control.SetReadDeadline(time.Time{})
	}
	if err == nil {
		return body, nil
	}
	// The rest of the body would be taken for the next request.
	w.Header().Set("Connection", "close")
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the request is longer than %d bytes", maxBody)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, refuse(http.StatusRequestTimeout, "the request did not arrive within %s", s.timeout)
	}
	return nil, refuse(http.StatusBadRequest, "read the request: %w", err)
}

// result is what a verb came to.
type result struct {
	response any
	err      error
}

// call runs the verb and returns soon after its deadline, whatever the driver does. What still runs then
// is counted, and waited for by Serve.
func (s *Server) call(ctx context.Context, name string, run verb, body []byte) (any, error) {
	started := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("not done within %s", s.timeout))
	defer cancel()
	done := make(chan result, 1)
	s.running.Go(func() { attempt(ctx, run, body, done) })
	select {
	case r := <-done:
		return r.response, r.err
	case <-ctx.Done():
	}
	// The driver's own words, if it has any, say more than that the time is over.
	select {
	case r := <-done:
		return r.response, r.err
	case <-time.After(s.grace):
		s.abandoned.Add(1)
		s.running.Go(func() { s.outlast(ctx, name, started, done) })
		return nil, fmt.Errorf("%w, and Seaway has not given up yet", context.Cause(ctx))
	}
}

// attempt runs the verb and sends its result, also if the verb panics or ends its goroutine.
func attempt(ctx context.Context, run verb, body []byte, done chan<- result) {
	r := result{err: errors.New("the call ended without an answer")}
	defer func() {
		if value := recover(); value != nil {
			r = result{err: &panicked{value: value, stack: debug.Stack()}}
		}
		done <- r
	}()
	r.response, r.err = run(ctx, body)
}

// outlast waits for an abandoned call and says how it ended.
func (s *Server) outlast(ctx context.Context, name string, started time.Time, done <-chan result) {
	r := <-done
	s.abandoned.Add(-1)
	s.logger.LogAttrs(ctx, slog.LevelWarn, "abandoned plugin call has ended", callAttrs(name, started, r.err)...)
}

// panicked is a driver's panic. Its value and stack are for the log, not for the engine's user.
type panicked struct {
	value any
	stack []byte
}

// Error is what the engine's user reads.
func (p *panicked) Error() string { return "a fault inside Seaway: its log has the details" }

// report writes the one line about a call.
func (s *Server) report(ctx context.Context, name string, started time.Time, err error) {
	level := slog.LevelDebug
	if err != nil {
		level = slog.LevelWarn
	}
	s.logger.LogAttrs(ctx, level, "plugin call", callAttrs(name, started, err)...)
}

func callAttrs(name string, started time.Time, err error) []slog.Attr {
	attrs := []slog.Attr{slog.String("verb", name), slog.Duration("duration", time.Since(started))}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	if fault, ok := errors.AsType[*panicked](err); ok {
		attrs = append(attrs, slog.Any("panic", fault.value), slog.String("stack", string(fault.stack)))
	}
	return attrs
}

// reply writes the answer. If the client has gone there is nobody to tell, so errors of writing are
// nobody's.
func reply(w http.ResponseWriter, name string, response any, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusInternalServerError
		if refused, ok := errors.AsType[refusal](err); ok {
			status = refused.status
		}
		response = newFailure(name, err)
	}
	w.Header().Set("Content-Type", sdk.DefaultContentTypeV1_1)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(response)
}

// oneLine makes a text fit for a terminal: one line, at most maxErrorText bytes, nothing that does not
// print. Errors can carry what somebody wrote into an option or the store.
func oneLine(text string) string {
	printable := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	line := strings.Join(strings.Fields(printable), " ")
	if len(line) > maxErrorText {
		const ellipsis = "…"
		cut := maxErrorText - len(ellipsis)
		for !utf8.RuneStart(line[cut]) {
			cut--
		}
		line = line[:cut] + ellipsis
	}
	return cmp.Or(line, "failed without saying why")
}
