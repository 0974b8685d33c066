package kit

import (
	"archive/tar"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Image is the image that every host has. It holds Debian's static busybox
// with all its applets, and the probe program as /probe. Its command is
// "/probe serve", which answers on port 8080 and ends at once on SIGTERM.
const Image = "box:latest"

// writeImage writes the root file system of Image as a tar file.
func writeImage(ctx context.Context, file, probe string) error {
	busybox, err := findBusybox()
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	applets, err := output(exec.CommandContext(ctx, busybox, "--list"))
	if err != nil {
		return fmt.Errorf("make image: list applets of %s: %w", busybox, err)
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	w := &imageWriter{tar: tar.NewWriter(f)}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"} {
		w.add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, "")
	}
	w.file("bin/busybox", busybox)
	w.file("probe", probe)
	for applet := range strings.FieldsSeq(applets) {
		if applet != "busybox" {
			w.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}, "")
		}
	}
	w.add(tar.Header{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0:root:/root:/bin/sh\n")
	w.add(tar.Header{Name: "etc/group", Mode: 0o644}, "root:x:0:\n")
	if err := errors.Join(w.err, w.tar.Close(), f.Close()); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	return nil
}

// findBusybox finds a busybox that needs no library.
func findBusybox() (string, error) {
	const advice = "install Debian's package busybox-static"
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("%s: %w", advice, err)
	}
	program, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = program.Close() }()
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is not static: %s", path, advice)
		}
	}
	return path, nil
}

// An imageWriter adds files to a tar file and keeps the first error.
type imageWriter struct {
	tar *tar.Writer
	err error
}

func (w *imageWriter) add(h tar.Header, content string) {
	h.Size = int64(len(content))
	if w.err == nil {
		w.err = w.tar.WriteHeader(&h)
	}
	if w.err == nil {
		_, w.err = io.WriteString(w.tar, content)
	}
}

// file adds a program.
func (w *imageWriter) file(name, path string) {
	content, err := os.ReadFile(path)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	w.add(tar.Header{Name: name, Mode: 0o755}, string(content))
}
