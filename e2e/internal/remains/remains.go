// Package remains finds and removes what a Lab of the e2e kit can leave on
// the machine when its process dies: processes, control groups, and its
// directory. The kit uses it at its start and end, and the janitor process
// uses it when the kit's process is gone.
//
// A Lab owns nothing outside of these three. Its links and network namespaces
// live exactly as long as its processes, and its mounts are in mount
// namespaces that do so too.
package remains

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Prefix begins the name of every directory and control group of a Lab.
const Prefix = "sea-"

// OwnerFile is the file in a Lab's directory that names its owner process.
const OwnerFile = "owner"

const cgroupRoot = "/sys/fs/cgroup"

// Claim records this process as the owner of the Lab directory dir.
func Claim(dir string) error {
	pid := os.Getpid()
	start, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("claim %s: %w", dir, err)
	}
	text := fmt.Sprintf("%d %s\n", pid, start)
	if err := os.WriteFile(filepath.Join(dir, OwnerFile), []byte(text), 0o600); err != nil {
		return fmt.Errorf("claim %s: %w", dir, err)
	}
	return nil
}

// Orphans lists the Lab directories below base whose owner is dead.
func Orphans(base string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(base, Prefix+"*", OwnerFile))
	if err != nil {
		return nil, fmt.Errorf("list labs in %s: %w", base, err)
	}
	var dirs []string
	for _, f := range files {
		if !ownerLives(f) {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	return dirs, nil
}

// ownerLives tells whether the process named in an owner file still runs. The
// start time tells it from a later process with the same id.
func ownerLives(file string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return false
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil {
		return false
	}
	start, err := startTime(pid)
	return err == nil && start == fields[1]
}

// startTime returns the start time of a process, in ticks since boot.
func startTime(pid int) (string, error) {
	fields, err := stat(pid)
	if err != nil {
		return "", fmt.Errorf("start time of process %d: %w", pid, err)
	}
	return fields[19], nil
}

// stat returns the fields of a process's stat file from its state on.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// The command's name may hold blanks and brackets: count from its end.
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return nil, errors.New("short stat file")
	}
	return fields, nil
}

// Clear ends the processes of the Lab in dir, and removes its control groups
// and the directory itself. It may be called more than once.
func Clear(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("clear %s: %w", dir, err)
	}
	err := errors.Join(
		waitUntil(ctx, "end of the processes of "+dir, func() error { return killProcesses(dir) }),
		RemoveCgroups(ctx, filepath.Base(dir)),
	)
	if rmErr := os.RemoveAll(dir); rmErr != nil {
		err = errors.Join(err, fmt.Errorf("remove %s: %w", dir, rmErr))
	}
	return err
}

// killProcesses sends SIGKILL to every other process of the Lab, and fails
// while there is one.
func killProcesses(dir string) error {
	var left []int
	for _, pid := range Processes(dir) {
		if pid == os.Getpid() {
			continue
		}
		left = append(left, pid)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("processes %v are left", left)
	}
	return nil
}

// Processes lists the processes of the Lab in dir: those that run a program
// from its directory or are in one of its control groups.
func Processes(dir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if belongs(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// belongs tells whether a process is a living one of the Lab in dir.
func belongs(pid int, dir string) bool {
	if fields, err := stat(pid); err != nil || fields[0] == "Z" || fields[0] == "X" {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err == nil && strings.HasPrefix(exe, dir+"/") {
		return true
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(groups), "/"+filepath.Base(dir)+"-")
}

// Cgroups lists the directories of the control groups of the Lab named name,
// in every hierarchy, parents first.
func Cgroups(name string) []string {
	var found []string
	for _, top := range Hierarchies() {
		dirs, err := filepath.Glob(filepath.Join(top, name+"-*"))
		if err == nil {
			found = append(found, dirs...)
		}
	}
	return found
}

// Hierarchies lists the mount points of the control group hierarchies: one
// for version 2, several for version 1.
func Hierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}
	}
	files, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	if err != nil {
		return nil
	}
	tops := make([]string, 0, len(files))
	seen := map[string]bool{}
	for _, f := range files {
		top, err := filepath.EvalSymlinks(filepath.Dir(f))
		if err == nil && !seen[top] {
			seen[top] = true
			tops = append(tops, top)
		}
	}
	return tops
}

// RemoveCgroups removes the control groups of the Lab named name.
func RemoveCgroups(ctx context.Context, name string) error {
	return waitUntil(ctx, "removal of control groups "+name, func() error {
		for _, dir := range Cgroups(name) {
			if err := RemoveCgroup(dir); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveCgroup removes one control group directory and all below it. It fails
// while a process is in one of them.
func RemoveCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove control group: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := RemoveCgroup(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove control group %s: %w", dir, err)
	}
	return nil
}

// waitUntil calls try until it succeeds or ctx ends.
func waitUntil(ctx context.Context, what string, try func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}
