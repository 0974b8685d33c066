package kit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// The modern engine: what is built for ENGINE=modern. The other versions are
// those that this version of the engine is developed with.
const (
	mobyVersion       = "v2.0.0-beta.24"
	containerdVersion = "v2.3.5"
	runcVersion       = "v1.5.1"
)

// EngineCacheVariable is the environment variable that overrides where the
// modern engine is kept once it is built.
const EngineCacheVariable = "SEAWAY_ENGINE_CACHE"

// An Engine is a dockerd to run, with the programs that belong to it.
type Engine struct {
	// Name is "debian" or "modern".
	Name string
	// Dockerd is the path of the daemon.
	Dockerd string
	// Dir holds the programs that the daemon calls; empty if they are in PATH.
	Dir string
	// Args are the arguments that this engine needs.
	Args []string
}

// Modern tells whether the engine is version 29 or later; it is 20.10 if not.
func (e Engine) Modern() bool { return e.Name == "modern" }

// FindEngine returns the engine with a name: "debian" (also if it is empty) is
// the machine's own dockerd, "modern" a current one, which is built at the
// first time; that takes some minutes.
func FindEngine(ctx context.Context, name string) (Engine, error) {
	switch name {
	case "", "debian":
		path, err := exec.LookPath("dockerd")
		if err != nil {
			return Engine{}, fmt.Errorf("find engine: install Debian's package docker.io: %w", err)
		}
		return Engine{Name: "debian", Dockerd: path}, nil
	case "modern":
		return modernEngine(ctx)
	}
	return Engine{}, fmt.Errorf("find engine: ENGINE is %q; it can be debian or modern", name)
}

// environment is that of the daemon.
func (e Engine) environment() []string {
	path := os.Getenv("PATH")
	if e.Dir != "" {
		path = e.Dir + ":" + path
	}
	// Old clients, such as docker-compose 1, speak old versions of the API.
	return []string{"PATH=" + path, "HOME=/root", "DOCKER_MIN_API_VERSION=1.24"}
}

// modernEngine returns the modern engine, after building it if need be.
func modernEngine(ctx context.Context) (Engine, error) {
	cache := os.Getenv(EngineCacheVariable)
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return Engine{}, fmt.Errorf("find engine: %w", err)
		}
		cache = filepath.Join(user, "seaway", "engine")
	}
	dir := filepath.Join(cache, mobyVersion+"-"+runtime.GOARCH)
	if err := buildOnce(ctx, dir); err != nil {
		return Engine{}, fmt.Errorf("build engine %s: %w", mobyVersion, err)
	}
	return Engine{
		Name: "modern", Dockerd: filepath.Join(dir, "dockerd"), Dir: dir,
		Args: []string{
			"--feature", "containerd-snapshotter=false",
			"--userland-proxy-path", filepath.Join(dir, "docker-proxy"),
		},
	}, nil
}

// buildOnce makes dir, whole or not at all, also if several processes try.
func buildOnce(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	unlock, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err = os.Stat(dir); err == nil {
		return nil // another process has built it while this one waited
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "building-")
	if err != nil {
		return err
	}
	if err := buildEngine(ctx, temp); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return os.Rename(temp, dir)
}

// lockFile takes an exclusive lock, which the kernel drops if the process
// dies.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = WaitFor(ctx, "lock "+path, func(context.Context) error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// buildEngine builds the modern engine's programs from the Go module proxy.
func buildEngine(ctx context.Context, dir string) error {
	fmt.Fprintf(os.Stderr, "building Docker Engine %s, once; this takes some minutes\n", mobyVersion)
	if err := exec.CommandContext(ctx, "pkg-config", "--exists", "libseccomp").Run(); err != nil {
		return fmt.Errorf("install Debian's packages libseccomp-dev, pkg-config and gcc: %w", err)
	}
	for _, line := range []string{
		"github.com/moby/moby/v2/cmd/dockerd@" + mobyVersion,
		"github.com/moby/moby/v2/cmd/docker-proxy@" + mobyVersion,
		"github.com/containerd/containerd/v2/cmd/containerd@" + containerdVersion,
		"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@" + containerdVersion,
		"-tags seccomp github.com/opencontainers/runc@" + runcVersion,
	} {
		args := append([]string{"install"}, strings.Fields(line)...)
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir // not in the checkout, whose go.mod has no say here
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "GOOS=", "GOARCH=", "CGO_ENABLED=1")
		if _, err := output(cmd); err != nil {
			return fmt.Errorf("go install %s: %w", line, err)
		}
	}
	return nil
}

// storageDriver is overlay2 if the kernel and the file system of dir can do
// it, and vfs, which is slow and works everywhere, if not.
func storageDriver(ctx context.Context, dir string) string {
	base := filepath.Join(dir, "overlay-trial")
	defer func() { _ = os.RemoveAll(base) }() // else with the Lab
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(base, name), 0o700); err != nil {
			return "vfs"
		}
	}
	// In a mount namespace of its own the trial leaves nothing behind.
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", base)
	cmd := exec.CommandContext(ctx, "unshare", "--mount",
		"mount", "-t", "overlay", "overlay", "-o", options, filepath.Join(base, "merged"))
	if cmd.Run() != nil {
		return "vfs"
	}
	return "overlay2"
}
