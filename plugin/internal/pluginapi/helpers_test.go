package pluginapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is both drivers. It keeps the last request and answers with what its hooks say, or nothing.
type recorder struct {
	mu   sync.Mutex
	last any

	// hook runs inside every verb, if set.
	hook func(ctx context.Context) error
	// response is what the verbs that answer something answer, by the type of their response.
	response any
}

func record[Response any](ctx context.Context, r *recorder, request any) (*Response, error) {
	r.mu.Lock()
	r.last = request
	response, _ := r.response.(*Response)
	hook := r.hook
	r.mu.Unlock()
	if hook != nil {
		return response, hook(ctx)
	}
	return response, nil
}

func (r *recorder) lastRequest() any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *recorder) GwAllocCheck(ctx context.Context, q *GwAllocCheckRequest) (*GwAllocCheckResponse, error) {
	return record[GwAllocCheckResponse](ctx, r, q)
}

func (r *recorder) CreateNetwork(ctx context.Context, q *CreateNetworkRequest) error {
	_, err := record[struct{}](ctx, r, q)
	return err
}

func (r *recorder) DeleteNetwork(ctx context.Context, q *DeleteNetworkRequest) error {
	_, err := record[struct{}](ctx, r, q)
	return err
}

func (r *recorder) CreateEndpoint(
	ctx context.Context, q *CreateEndpointRequest,
) (*CreateEndpointResponse, error) {
	return record[CreateEndpointResponse](ctx, r, q)
}

func (r *recorder) EndpointOperInfo(ctx context.Context, q *InfoRequest) error {
	_, err := record[struct{}](ctx, r, q)
	return err
}

func (r *recorder) DeleteEndpoint(ctx context.Context, q *DeleteEndpointRequest) error {
	_, err := record[struct{}](ctx, r, q)
	return err
}

func (r *recorder) Join(ctx context.Context, q *JoinRequest) (*JoinResponse, error) {
	return record[JoinResponse](ctx, r, q)
}

func (r *recorder) Leave(ctx context.Context, q *LeaveRequest) error {
	_, err := record[struct{}](ctx, r, q)
	return err
}

func (r *recorder) RequestPool(ctx context.Context, q *RequestPoolRequest) (*RequestPoolResponse, error) {
	return record[RequestPoolResponse](ctx, r, q)
}

func (r *recorder) ReleasePool(ctx context.Context, q *ReleasePoolRequest) error {
	_, err := record[struct{}](ctx, r, q)
	return err
}

func (r *recorder) RequestAddress(
	ctx context.Context, q *RequestAddressRequest,
) (*RequestAddressResponse, error) {
	return record[RequestAddressResponse](ctx, r, q)
}

func (r *recorder) ReleaseAddress(ctx context.Context, q *ReleaseAddressRequest) error {
	_, err := record[struct{}](ctx, r, q)
	return err
}

var (
	_ NetworkDriver = (*recorder)(nil)
	_ IPAMDriver    = (*recorder)(nil)
)

// logBook is a writer for a logger that tests can read while it is written.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// lines returns the lines that contain all the parts.
func (l *logBook) lines(parts ...string) []string {
	var found []string
	for line := range strings.Lines(l.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// fixture is a served Server and a client of it.
type fixture struct {
	*Server
	path   string
	log    *logBook
	client *http.Client
	stop   context.CancelFunc
	served chan error
}

// serve starts a server without drivers; change may adjust it before. It is stopped, without an error,
// when the test ends, unless the test has read served itself.
func serve(t testing.TB, options Options, change ...func(*Server)) *fixture {
	t.Helper()
	f := &fixture{log: &logBook{}, path: filepath.Join(t.TempDir(), "p.sock"), served: make(chan error, 1)}
	options.Logger = slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.Server = New(options)
	f.introduced = newIntroduction(0) // else the first request of an address waits for it
	for _, c := range change {
		c(f.Server)
	}
	l, err := Listen(f.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	go func() {
		f.served <- f.Serve(ctx, l)
		close(f.served)
	}()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", f.path)
	}}
	f.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		stop()
		transport.CloseIdleConnections()
		if err := <-f.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return f
}

// dial opens a bare connection, which ends with the test.
func (f *fixture) dial(t testing.TB) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.UnixConn)
}

// post calls a verb as the engine does, and returns status and body.
func (f *fixture) post(t testing.TB, verb, body string) (int, string) {
	t.Helper()
	return f.do(t, http.MethodPost, verb, strings.NewReader(body))
}

func (f *fixture) do(t testing.TB, method, verb string, body io.Reader) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://plugin.moby.localhost/"+verb, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/vnd.docker.plugins.v1.2+json")
	response, err := f.client.Do(request)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, strings.TrimSpace(string(text))
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(5 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

var errDriver = errors.New("no address is left in 10.77.0.0/24")
