package kit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seaway-net/seaway/e2e/internal/remains"
)

// A Machine is a simulated computer: process, mount, network, name and IPC
// namespaces of its own, and a control group that holds all its processes. It
// has its own /etc, /run, /proc and /sys; the rest of its files are the real
// machine's.
type Machine struct {
	// Name is its host name.
	Name string

	lab    *Lab
	dir    string // its disk: what survives PowerOff
	shared bool   // whether / is a shared mount
	init   *exec.Cmd
	alive  io.Closer
	exited chan struct{}
}

// newMachine makes the disk of a machine that is switched off.
func (l *Lab) newMachine(name string, shared bool) (*Machine, error) {
	m := &Machine{Name: name, lab: l, dir: filepath.Join(l.dir, name), shared: shared}
	if err := os.Mkdir(m.dir, 0o711); err != nil {
		return nil, fmt.Errorf("make disk of %s: %w", name, err)
	}
	if err := writeEtc(m.etc(), name); err != nil {
		return nil, fmt.Errorf("make /etc of %s: %w", name, err)
	}
	return m, nil
}

func (m *Machine) etc() string { return filepath.Join(m.dir, "etc") }

// cgroup is the name of the machine's control group in every hierarchy.
func (m *Machine) cgroup() string { return m.lab.Name() + "-" + m.Name }

// boot starts process 1 in new namespaces and waits until it has set up the
// machine's mounts.
func (m *Machine) boot(ctx context.Context) error {
	if m.init != nil {
		return fmt.Errorf("boot %s: it is running", m.Name)
	}
	log, err := openLog(filepath.Join(m.dir, "init.log"))
	if err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(m.lab.Probe, "init", "-name", m.Name, "-etc", m.etc(),
		"-cgroup", m.cgroup(), "-shared="+strconv.FormatBool(m.shared))
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	alive, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	if err = cmd.Start(); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	m.init, m.alive, m.exited = cmd, alive, make(chan struct{})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	go func() {
		_ = cmd.Wait() // it always ends by a signal
		close(m.exited)
	}()
	if err != nil || line != "ready\n" {
		return errors.Join(fmt.Errorf("boot %s: process 1 said %q: %s", m.Name, line, tail(log.Name(), 5)), m.powerOff(ctx))
	}
	return nil
}

// powerOff kills all processes of the machine at once, by killing process 1 of
// its process namespace, and waits until nothing is left but the disk.
func (m *Machine) powerOff(ctx context.Context) error {
	if m.init == nil {
		return nil
	}
	if err := m.init.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("power off %s: %w", m.Name, err)
	}
	select {
	case <-m.exited:
	case <-ctx.Done():
		return fmt.Errorf("power off %s: %w", m.Name, ctx.Err())
	}
	m.init = nil
	_ = m.alive.Close() // the reader is gone
	if err := remains.RemoveCgroups(ctx, m.cgroup()); err != nil {
		return fmt.Errorf("power off %s: %w", m.Name, err)
	}
	return nil
}

// Running tells whether the machine is switched on.
func (m *Machine) Running() bool { return m.init != nil }

// Root is the path by which this process sees the machine's root directory.
func (m *Machine) Root() string {
	return fmt.Sprintf("/proc/%d/root", m.init.Process.Pid)
}

// Command prepares a command that runs on the machine, in all its namespaces,
// as root. It dies with ctx, and with this process.
func (m *Machine) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := m.enter(append([]string{"-attached", "-cgroup", m.cgroup(), "--"}, argv...))
	bound := exec.CommandContext(ctx, cmd[0], cmd[1:]...)
	bound.WaitDelay = 2 * time.Second
	return bound
}

// enter is the command line that runs "probe join" on the machine.
func (m *Machine) enter(args []string) []string {
	pid := "0" // no such process: nsenter says so
	if m.init != nil {
		pid = strconv.Itoa(m.init.Process.Pid)
	}
	return append([]string{
		"nsenter", "--target", pid, "--mount", "--net", "--uts", "--ipc", "--pid", "--",
		m.lab.Probe, "join",
	}, args...)
}

// A task is a program that a machine runs in the background.
type task struct {
	exited chan struct{}
	err    error // how it ended, once exited is closed
}

// background starts a program that runs until it ends or the machine does.
// What it writes goes to a file on the machine's disk.
func (m *Machine) background(logName string, environment []string, argv ...string) (*task, error) {
	log, err := openLog(filepath.Join(m.dir, logName))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	line := m.enter(append([]string{"-cgroup", m.cgroup(), "--"}, argv...))
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = environment
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t := &task{exited: make(chan struct{})}
	go func() {
		t.err = cmd.Wait()
		close(t.exited)
	}()
	return t, nil
}

// wait waits for the end of the task.
func (t *task) wait(ctx context.Context) error {
	select {
	case <-t.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Exec runs a command on the machine and returns its standard output without
// surrounding white space. An error holds what it wrote to standard error.
func (m *Machine) Exec(ctx context.Context, argv ...string) (string, error) {
	out, err := output(m.Command(ctx, argv...))
	if err != nil {
		return out, fmt.Errorf("on %s: %s: %w", m.Name, strings.Join(argv, " "), err)
	}
	return out, nil
}

// ip runs several lines of ip(8) on the machine, in its network namespace
// only: process ids in them are the real machine's.
func (m *Machine) ip(ctx context.Context, lines ...string) error {
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(m.init.Process.Pid), "--net", "--",
		"ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("on %s: ip: %w", m.Name, err)
	}
	return nil
}
