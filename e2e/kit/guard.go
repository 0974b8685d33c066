package kit

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/seaway-net/seaway/e2e/internal/remains"
)

// SharedVariable is the environment variable that tells, if it is not empty,
// that others use the machine at the same time. What cannot be told from their
// doing does not fail a run then.
const SharedVariable = "SEAWAY_E2E_SHARED"

// A Guard knows what was on the machine before a run, and so what the run has
// left behind.
type Guard struct {
	before stock
}

// A stock is a set of things on the machine. The value tells whether a thing
// is certainly from this process's Labs.
type stock map[string]bool

// NewGuard takes stock of the machine.
func NewGuard() (*Guard, error) {
	now, err := takeStock()
	if err != nil {
		return nil, err
	}
	return &Guard{before: now}, nil
}

// Check fails if there is something on the machine that was not there before:
// of the Labs, or in the machine's own namespaces, where neither the kit nor a
// plugin on a simulated host has any business. It waits for such a thing to
// go, until ctx ends.
func (g *Guard) Check(ctx context.Context) error {
	sharing := os.Getenv(SharedVariable) != ""
	return WaitFor(ctx, "a clean machine (if others use it too, set "+SharedVariable+")", func(context.Context) error {
		now, err := takeStock()
		if err != nil {
			return err
		}
		var left []string
		for item, certain := range now {
			if _, old := g.before[item]; !old && (certain || !sharing) {
				left = append(left, item)
			}
		}
		if len(left) > 0 {
			sort.Strings(left)
			return fmt.Errorf("the run has left behind: %s", strings.Join(left, "; "))
		}
		return nil
	})
}

// takeStock lists the machine's links, mounts and named network namespaces,
// and the directories, control groups and processes of this process's Labs.
func takeStock() (stock, error) {
	all := stock{}
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if !hasPrefix(l.Name, "veth", "br-", "docker") { // the machine's own engine's
			all["link "+l.Name] = false
		}
	}
	if err := all.addMounts(); err != nil {
		return nil, err
	}
	for _, pattern := range []string{"/run/netns/*", "/run/docker/plugins/seaway*", "/etc/seaway*"} {
		all.addFiles("file", pattern, false)
	}
	own := fmt.Sprintf("%s%d-", remains.Prefix, os.Getpid())
	all.addFiles("directory", filepath.Join(os.TempDir(), own+"*"), true)
	for _, top := range remains.Hierarchies() {
		all.addFiles("control group", filepath.Join(top, own+"*"), true)
	}
	all.addProcesses(own)
	return all, nil
}

// addMounts adds the machine's mounts.
func (s stock) addMounts() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		// The machine's own engine mounts in its own directories only.
		if len(fields) > 4 && !hasPrefix(fields[4], "/var/lib/docker/", "/run/docker/", "/run/user/") {
			s["mount "+fields[4]] = false
		}
	}
	return nil
}

// addProcesses adds the processes of this process's Labs.
func (s stock) addProcesses(own string) {
	files, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is well formed
	for _, exe := range files {
		dir := filepath.Dir(exe)
		target, err := os.Readlink(exe)
		if err != nil {
			continue // a kernel thread, or it has ended
		}
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil {
			continue
		}
		if strings.Contains(target, "/"+own) || strings.Contains(string(groups), "/"+own) {
			s["process "+filepath.Base(dir)+" "+target] = true
		}
	}
}

// addFiles adds the files that match a pattern.
func (s stock) addFiles(kind, pattern string, certain bool) {
	files, _ := filepath.Glob(pattern) // the patterns are well formed
	for _, f := range files {
		s[kind+" "+f] = certain
	}
}

func hasPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
