package enginehost

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// WriteSysctls sets values below /proc/sys/net for a network namespace: names are paths such as
// "ipv4/ip_forward". Our own /proc/sys is read-only, the engine's is not. A name that this kernel does
// not have is skipped; every other failure is reported, after all have been tried.
func (h *Host) WriteSysctls(ns *netns.NS, values map[string]string) error {
	return h.Do(func() error {
		if err := ns.Enter(); err != nil { // /proc/sys/net shows the namespace of the thread that looks
			return err
		}
		var failed error
		for name, value := range values {
			path := filepath.Join("/proc/sys/net", name)
			err := os.WriteFile(path, []byte(value), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				failed = errors.Join(failed, fmt.Errorf("set %s to %s: %w", path, value, err))
			}
		}
		return failed
	})
}
