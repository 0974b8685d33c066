package kit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTime = 60 * time.Second // engines start their plugins first, which may take 12 s each
	pidFile   = "/run/docker.pid"
	logName   = "dockerd.log"
)

// StartEngine starts dockerd with further arguments and waits until it serves
// its API.
func (h *Host) StartEngine(ctx context.Context, args ...string) error {
	if err := h.startDaemon(args); err != nil {
		return fmt.Errorf("start engine of %s: %w", h.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	failed := make(chan struct{})
	d := h.daemon
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		defer close(failed)
		if d.wait(ctx) == nil {
			stop(fmt.Errorf("dockerd ended: %w", d.err))
		}
	}()
	err := WaitFor(ctx, "the API", h.ping)
	stop(nil)
	<-failed
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			err = errors.Join(cause, err)
		}
		return fmt.Errorf("start engine of %s: %w\n%s", h.Name, err, h.LogTail(20))
	}
	return nil
}

// startDaemon starts dockerd on the host.
func (h *Host) startDaemon(args []string) error {
	if h.daemon != nil {
		return errors.New("it is running")
	}
	argv := append(h.daemonArgs(), args...)
	d, err := h.background(logName, h.lab.engine.environment(), argv...)
	if err != nil {
		return err
	}
	h.daemon = d
	return nil
}

// daemonArgs is the command line of dockerd.
func (h *Host) daemonArgs() []string {
	argv := []string{
		h.lab.engine.Dockerd,
		"--data-root", h.DataRoot(), "--exec-root", "/run/docker", "--pidfile", pidFile,
		"-H", "unix:///run/docker.sock", "-H", "unix://" + h.Socket(),
		"--storage-driver", h.lab.storage,
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/" + h.cgroup(),
	}
	argv = append(argv, h.lab.engine.Args...)
	return append(argv, h.opt.EngineArgs...)
}

// ping asks the engine whether it serves its API.
func (h *Host) ping(ctx context.Context) error {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket())
		},
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// EnginePID is the id of dockerd on the real machine.
func (h *Host) EnginePID() (int, error) {
	text, err := os.ReadFile(filepath.Join(h.Root(), pidFile))
	if err != nil {
		return 0, fmt.Errorf("find dockerd of %s: %w", h.Name, err)
	}
	inner, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("find dockerd of %s: %w", h.Name, err)
	}
	pid, err := h.outer(inner)
	if err != nil {
		return 0, fmt.Errorf("find dockerd: %w", err)
	}
	return pid, nil
}

// StopEngine asks dockerd to end and waits until it has.
func (h *Host) StopEngine(ctx context.Context) error {
	return h.endEngine(ctx, syscall.SIGTERM)
}

// KillEngine ends dockerd with kill -9. Its containerd, the containers and the
// plugins go on running until the engine is started again.
func (h *Host) KillEngine(ctx context.Context) error {
	return h.endEngine(ctx, syscall.SIGKILL)
}

func (h *Host) endEngine(ctx context.Context, signal syscall.Signal) error {
	if h.daemon == nil {
		return fmt.Errorf("end engine of %s: it is not running", h.Name)
	}
	pid, err := h.EnginePID()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return fmt.Errorf("send %v to dockerd of %s: %w", signal, h.Name, err)
	}
	if err := h.daemon.wait(ctx); err != nil {
		return fmt.Errorf("end engine of %s: %w", h.Name, err)
	}
	h.daemon = nil
	return nil
}

// RestartEngine stops the engine gracefully and starts it with further
// arguments, such as --live-restore.
func (h *Host) RestartEngine(ctx context.Context, args ...string) error {
	if err := h.StopEngine(ctx); err != nil {
		return err
	}
	return h.StartEngine(ctx, args...)
}

// LogFile is the file that holds all that dockerd has written, on every start.
// The plugins' logs are in it.
func (h *Host) LogFile() string { return filepath.Join(h.dir, logName) }

// LogTail returns the last lines of the LogFile.
func (h *Host) LogTail(lines int) string { return tail(h.LogFile(), lines) }
