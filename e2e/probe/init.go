package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/seaway-net/seaway/e2e/internal/remains"
)

// runInit is process 1 of a simulated machine. The kit has started it in new
// namespaces of every kind that a machine has of its own; what is left to do
// is to give it its own mounts and name. It then says "ready" on standard
// output, and reaps orphans until standard input ends, which happens when the
// kit closes it or dies. With it the kernel ends every process of the machine.
func runInit(args []string) error {
	flags := flag.NewFlagSet("init", flag.ContinueOnError)
	name := flags.String("name", "", "name of the machine")
	etc := flags.String("etc", "", "directory that becomes /etc")
	cgroup := flags.String("cgroup", "", "control group of the machine")
	shared := flags.Bool("shared", false, "make / a shared mount")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := joinCgroup(*cgroup); err != nil {
		return err
	}
	if err := setUpMounts(*etc, *shared); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(*name)); err != nil {
		return fmt.Errorf("set host name %s: %w", *name, err)
	}
	children := make(chan os.Signal, 16)
	signal.Notify(children, syscall.SIGCHLD)
	if _, err := fmt.Println("ready"); err != nil {
		return fmt.Errorf("report readiness: %w", err)
	}
	go reap(children)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// reap collects the exit status of every orphan of the machine.
func reap(children <-chan os.Signal) {
	for range children {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
		}
	}
}

// setUpMounts turns a copy of the real machine's mounts into those of a
// machine of its own: what shows processes and links shows the new
// namespaces' ones, /run is empty as after a boot, /etc is its own.
func setUpMounts(etc string, shared bool) error {
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/var/lib/docker"} {
		if err := detachBelow(dir); err != nil {
			return err
		}
	}
	if err := errors.Join(
		mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV),
		mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC),
		mountSys(),
		mount(etc, "/etc", "", syscall.MS_BIND),
	); err != nil {
		return err
	}
	if shared {
		return mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED)
	}
	return nil
}

// mountSys mounts a sysfs of the new network namespace and puts the control
// groups back into it.
func mountSys() error {
	const keep = "/run/cgroup"
	if err := os.Mkdir(keep, 0o700); err != nil {
		return fmt.Errorf("keep control groups: %w", err)
	}
	if err := mount("/sys/fs/cgroup", keep, "", syscall.MS_BIND|syscall.MS_REC); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC); err != nil {
		return err
	}
	if err := mount(keep, "/sys/fs/cgroup", "", syscall.MS_BIND|syscall.MS_REC); err != nil {
		return err
	}
	if err := syscall.Unmount(keep, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", keep, err)
	}
	return os.Remove(keep)
}

// mount is mount(2) with an error that says what was mounted where.
func mount(source, target, kind string, flags uintptr) error {
	if err := syscall.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mount %s %s on %s (flags %#x): %w", kind, source, target, flags, err)
	}
	return nil
}

// detachBelow unmounts, in this namespace only, everything at and below dir: a
// copy of a mount of the real machine's engine would keep it busy there.
func detachBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			points = append(points, unescapeMount(fields[4]))
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	for _, p := range points {
		if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// runJoin enters the control group given as first argument and becomes the
// program given by the others. With -attached the program dies with the
// process that asked for it.
func runJoin(args []string) error {
	flags := flag.NewFlagSet("join", flag.ContinueOnError)
	attached := flags.Bool("attached", false, "die with the parent process")
	cgroup := flags.String("cgroup", "", "control group to enter")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no program given")
	}
	if err := joinCgroup(*cgroup); err != nil {
		return err
	}
	return become(flags.Args(), *attached)
}

// joinCgroup moves this process into the "init" group below the machine's
// control group, in every hierarchy, and makes both if need be.
func joinCgroup(name string) error {
	for _, top := range remains.Hierarchies() {
		group := filepath.Join(top, name)
		leaf := filepath.Join(group, "init")
		if err := os.MkdirAll(leaf, 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
		if err := initCpuset(top, group, leaf); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join control group %s: %w", leaf, err)
		}
		if err := delegate(top, group); err != nil {
			return err
		}
	}
	return nil
}

// initCpuset copies the processors and memory nodes of top to the groups: in
// version 1 a group without them takes no process.
func initCpuset(top string, groups ...string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(top, file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read processors of control group: %w", err)
		}
		for _, g := range groups {
			if err := os.WriteFile(filepath.Join(g, file), value, 0); err != nil {
				return fmt.Errorf("set processors of control group: %w", err)
			}
		}
	}
	return nil
}

// delegate gives a version 2 group the controllers that its parent has.
func delegate(top, group string) error {
	text, err := os.ReadFile(filepath.Join(top, "cgroup.subtree_control"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read controllers of control group: %w", err)
	}
	for _, controller := range strings.Fields(string(text)) {
		file := filepath.Join(group, "cgroup.subtree_control")
		if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("delegate %s to control group %s: %w", controller, group, err)
		}
	}
	return nil
}

// runJanitor waits until standard input ends, which means that the kit is
// gone, and then clears the Lab in the directory given as its argument. The
// descriptor of its own program keeps that running meanwhile.
func runJanitor(args []string) error {
	if len(args) != 2 {
		return errors.New("want a directory and a number of seconds")
	}
	seconds, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("parse seconds: %w", err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fmt.Errorf("wait for the kit: %w", err)
	}
	return clearLab(args[0], seconds)
}
