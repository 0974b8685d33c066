// Package kerneltest runs tests on the real kernel without touching the machine: the whole test binary
// runs in namespaces of its own (mounts, network, processes), and so do the engines and containers that
// it simulates. Only tests import it.
package kerneltest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/kernel/netns"
)

// inside tells the second run of the test binary that it is in its own namespaces.
const inside = "SEAWAY_KERNELTEST"

// sandbox hides what the machine has below /run and runs the test binary below a shell, which is process
// 1: when it ends, however it ends, the kernel ends every process that the tests left.
const sandbox = `
	awk '$5 ~ "^/run(/|$)" { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount -l
	mount -t tmpfs tmpfs /run && ip link set lo up && "$0" "$@"
	exit $?`

// Main runs the tests of a package in namespaces of their own, and fails if they leave a link, a mount,
// a process or a thread in a foreign namespace there. Call it from TestMain.
func Main(m *testing.M) {
	if os.Getenv(inside) == "" {
		enter()
	}
	before := leftovers()
	code := m.Run()
	if left := waitClean(before); len(left) > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "the tests left something behind:\n%s\n", strings.Join(left, "\n"))
		code = 1
	}
	os.Exit(code)
}

// enter replaces this process by the sandbox. It returns only by ending the process.
func enter() {
	options := []string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"}
	if out, err := exec.Command("unshare", append(options, "ip", "link")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "no tests on the kernel: namespaces cannot be made (%v): %s\n", err, out)
		os.Exit(missingCode())
	}
	path, err := exec.LookPath("unshare")
	if err == nil {
		args := slices.Concat([]string{"unshare"}, options, []string{"sh", "-c", sandbox}, os.Args)
		err = syscall.Exec(path, args, append(os.Environ(), inside+"=1"))
	}
	fmt.Fprintln(os.Stderr, "no tests on the kernel:", err)
	os.Exit(1)
}

// missingCode is how a run ends that the machine does not allow: well on a laptop, not in CI.
func missingCode() int {
	if os.Getenv("CI") != "" {
		return 1
	}
	return 0
}

// Missing skips the test because the machine lacks something; where CI is set, it fails instead.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("missing in CI: "+format, args...)
	}
	t.Skipf("missing: "+format, args...)
}

// Tool skips the test, or fails it in CI, if a program is missing.
func Tool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		Missing(t, "%v", err)
	}
}

// deadline bounds every wait for a condition.
const deadline = 20 * time.Second

// Eventually waits until the condition holds, and fails the test if that takes too long.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !until(time.Now().Add(deadline), holds) {
		t.Fatalf("not within %v: %s", deadline, what)
	}
}

func until(end time.Time, holds func() bool) bool {
	for !holds() {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(5 * time.Millisecond) // between two looks, not instead of one
	}
	return true
}

// waitClean returns what there is now and was not before, if it does not go away.
func waitClean(before []string) []string {
	var left []string
	until(time.Now().Add(5*time.Second), func() bool {
		left = slices.DeleteFunc(leftovers(), func(s string) bool { return slices.Contains(before, s) })
		return len(left) == 0
	})
	return left
}

// leftovers lists what tests could leave: links, mounts, processes, and the namespaces of our threads.
func leftovers() []string {
	var found []string
	links, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*")
	for _, link := range links {
		found = append(found, "link "+filepath.Base(link))
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		found = append(found, "mount "+strings.TrimSpace(line))
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, process := range processes {
		if stat, err := os.ReadFile(process); err == nil {
			found = append(found, "process "+string(stat[:bytes.LastIndexByte(stat, ')')+1]))
		}
	}
	threads, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, thread := range threads {
		if ns, err := os.Readlink(thread); err == nil {
			found = append(found, "a thread in "+ns)
		}
	}
	return found
}

// NewNS makes a network namespace that ends with the test.
func NewNS(t testing.TB) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return ns
}

// Run runs a command line, split at spaces, in a network namespace and returns what it prints. The test
// fails if the command does.
func Run(t testing.TB, ns *netns.NS, line string) string {
	t.Helper()
	out, err := Try(ns, line)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try is Run for commands that may fail.
func Try(ns *netns.NS, line string) (string, error) {
	var out string
	err := ns.Do(func() (err error) {
		out, err = command(line)
		return err
	})
	return out, err
}

// command runs a command line in the namespaces of the calling thread.
func command(line string) (string, error) {
	args := strings.Fields(line)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return string(out), nil
}

// Process starts a process that does nothing, in what the given command line (unshare, nsenter) makes,
// after a shell script. It is killed and waited for when the test ends.
func Process(t testing.TB, line, script string) int {
	t.Helper()
	args := strings.Fields(line)
	cmd := exec.Command(args[0], append(args[1:], "sh", "-c", "set -e; "+script+"; echo ready; exec sleep infinity")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been killed by the test
		_ = cmd.Wait()         // with the signal as its error
	})
	if _, err := out.Read(make([]byte, len("ready\n"))); err != nil {
		t.Fatalf("%s: %v: %s", line, err, &stderr)
	}
	return cmd.Process.Pid
}

// Descriptors counts the open descriptors of this process.
func Descriptors(t testing.TB) int {
	t.Helper()
	runtime.GC() // what the garbage collector closes is no leak
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// Kill ends a process that Process started, before the test ends.
func Kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "process "+strconv.Itoa(pid)+" is dead", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}
