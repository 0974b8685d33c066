package kit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// sharedEtc is what a machine's /etc has from the real one: what programs need
// to run at all. Above all there is no docker/daemon.json, and no seaway.
var sharedEtc = []string{
	"alternatives", "ethertypes", "group", "iproute2", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
	"nsswitch.conf", "os-release", "passwd", "protocols", "services", "xtables.conf",
}

// writeEtc makes the /etc of a machine.
func writeEtc(dir, name string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var paths []string
	for _, file := range sharedEtc {
		path := filepath.Join("/etc", file)
		if _, err := os.Lstat(path); err == nil {
			paths = append(paths, path)
		}
	}
	args := append([]string{"--archive", "--target-directory", dir}, paths...)
	if _, err := output(exec.Command("cp", args...)); err != nil {
		return fmt.Errorf("copy /etc: %w", err)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "hostname"), []byte(name+"\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "hosts"), []byte("127.0.0.1 localhost "+name+"\n::1 localhost\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver "+WorldAddress.String()+"\n"), 0o644),
	)
}
