package kit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// HostOptions shape a host. The zero value is a host as most are.
type HostOptions struct {
	// PrivateRoot leaves / a private mount, as minimal virtual machines and
	// containers have it. It is shared otherwise, as systemd makes it.
	PrivateRoot bool
	// EngineArgs are further arguments of dockerd, on every start.
	EngineArgs []string
	// MTU is that of the underlay; 1500 if 0.
	MTU int
}

// A Host is a machine with a Docker Engine, joined to the Lab's switch.
type Host struct {
	*Machine
	// Address and Address6 are the host's on the underlay.
	Address, Address6 netip.Addr

	number int
	opt    HostOptions
	daemon *task
}

// newHost makes a host that is switched off.
func newHost(l *Lab, number int, opt HostOptions) (*Host, error) {
	m, err := l.newMachine(fmt.Sprintf("h%d", number), !opt.PrivateRoot)
	if err != nil {
		return nil, err
	}
	if opt.MTU == 0 {
		opt.MTU = 1500
	}
	h := &Host{Machine: m, number: number, opt: opt}
	h.Address, h.Address6 = underlay(number)
	return h, nil
}

// PowerOn boots the host: everything is new but its disk, which is the
// engine's data root and /etc. It returns when the engine answers; at the
// first time it also imports the Image.
func (h *Host) PowerOn(ctx context.Context) error {
	if err := h.boot(ctx); err != nil {
		return err
	}
	if err := h.plugIn(ctx); err != nil {
		return err
	}
	if err := h.StartEngine(ctx); err != nil {
		return err
	}
	return h.importImage(ctx)
}

// PowerOff ends the host as a power failure does: kill -9 of all processes at
// once. Its links, mounts and control groups go with them; the disk stays.
func (h *Host) PowerOff(ctx context.Context) error {
	if !h.Running() {
		return nil
	}
	if err := h.powerOff(ctx); err != nil {
		return err
	}
	if h.daemon != nil {
		if err := h.daemon.wait(ctx); err != nil {
			return fmt.Errorf("power off %s: %w", h.Name, err)
		}
		h.daemon = nil
	}
	return h.waitUnplugged(ctx)
}

// Remove switches the host off and destroys its disk.
func (h *Host) Remove(ctx context.Context) error {
	if err := h.PowerOff(ctx); err != nil {
		return err
	}
	h.lab.forget(h)
	if err := os.RemoveAll(h.dir); err != nil {
		return fmt.Errorf("remove %s: %w", h.Name, err)
	}
	return nil
}

// Socket is the path of the engine's API socket on the real machine.
func (h *Host) Socket() string { return filepath.Join(h.dir, "docker.sock") }

// DataRoot is the engine's data root.
func (h *Host) DataRoot() string { return filepath.Join(h.dir, "data") }

// Env is the environment for programs on the real machine that talk to this
// host's engine, such as docker and docker-compose.
func (h *Host) Env() []string {
	return append(os.Environ(),
		"DOCKER_HOST=unix://"+h.Socket(),
		"DOCKER_CONFIG="+filepath.Join(h.lab.dir, "docker-cli"),
	)
}

// DockerCommand prepares a call of the docker CLI against the host's engine.
func (h *Host) DockerCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = h.Env()
	return cmd
}

// Docker calls the docker CLI against the host's engine, and returns its
// trimmed standard output. An error holds what it wrote to standard error.
func (h *Host) Docker(ctx context.Context, args ...string) (string, error) {
	out, err := output(h.DockerCommand(ctx, args...))
	if err != nil {
		return out, fmt.Errorf("on %s: docker %s: %w", h.Name, strings.Join(args, " "), err)
	}
	return out, nil
}

// importImage makes Image known to the engine unless it is.
func (h *Host) importImage(ctx context.Context) error {
	_, err := h.Docker(ctx, "image", "inspect", Image)
	if err == nil {
		return nil
	}
	if said := new(CommandError); !errors.As(err, &said) || !strings.Contains(strings.ToLower(said.Stderr), "no such image") {
		return err
	}
	_, err = h.Docker(ctx, "import", "--change", `CMD ["/probe","serve"]`, "--change", "ENV PATH=/bin",
		h.lab.imageFile(), Image)
	return err
}
