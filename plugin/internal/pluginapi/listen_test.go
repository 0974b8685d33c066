package pluginapi

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "plugins", "seaway.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket with 0600", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there after Close")
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as after kill -9
	_ = dead.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	served := filepath.Join(dir, "served.sock")
	l, err := Listen(served)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		served:                      "another process serves it",
		file:                        "no socket",
		filepath.Join(file, "sock"): "not a directory",
		filepath.Join(dir, strings.Repeat("x", maxSocketPath-len(dir))): "the kernel allows 107",
	} {
		l, err := Listen(path)
		if err == nil {
			_ = l.Close()
			t.Errorf("Listen(%s) succeeded", path)
		} else if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "listen on "+path) {
			t.Errorf("Listen(%s): %v, want %q", path, err, want)
		}
	}
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("a file that is not ours is gone: %v", err)
	}
}

func TestListenLongestPath(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(filepath.Join(dir, strings.Repeat("x", maxSocketPath-len(dir)-1)))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}
