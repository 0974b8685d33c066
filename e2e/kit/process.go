package kit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Process is one of a machine's, as the real machine sees it.
type Process struct {
	PID    int      // its id on the real machine
	Inner  int      // its id on the simulated machine; 0 if it is in a container's process namespace
	Parent int      // its parent's id on the real machine
	Args   []string // its command line
}

// Processes lists the processes of the machine, those in containers too.
func (m *Machine) Processes() ([]Process, error) {
	if m.init == nil {
		return nil, nil
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.init.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", m.Name, err)
	}
	stats, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", m.Name, err)
	}
	var all []Process
	for _, file := range stats {
		p, ids, err := readProcess(filepath.Dir(file))
		if err != nil {
			continue // it has ended meanwhile
		}
		ns, err := os.Readlink(filepath.Join(filepath.Dir(file), "ns/pid"))
		if err == nil && ns == own {
			p.Inner = ids[len(ids)-1]
		}
		all = append(all, p)
	}
	return descendants(all, m.init.Process.Pid), nil
}

// readProcess reads one directory of /proc. The ids are those of the process
// in each nested process namespace, outermost first.
func readProcess(dir string) (Process, []int, error) {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return Process{}, nil, err
	}
	var p Process
	var ids []int
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "PPid":
			p.Parent, err = strconv.Atoi(strings.TrimSpace(value))
		case "NSpid":
			ids, err = atois(strings.Fields(value))
		}
		if err != nil {
			return Process{}, nil, err
		}
	}
	if len(ids) == 0 {
		return Process{}, nil, errors.New("no process ids")
	}
	p.PID = ids[0]
	args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	p.Args = strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
	return p, ids, err
}

func atois(words []string) ([]int, error) {
	numbers := make([]int, 0, len(words))
	for _, w := range words {
		n, err := strconv.Atoi(w)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// descendants returns the process root and all that descend from it, and those
// that were put into its namespace from outside, whose parents are elsewhere.
func descendants(all []Process, root int) []Process {
	in := map[int]bool{root: true}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if !in[p.PID] && (in[p.Parent] || p.Inner != 0) {
				in[p.PID], grown = true, true
			}
		}
	}
	var found []Process
	for _, p := range all {
		if in[p.PID] {
			found = append(found, p)
		}
	}
	return found
}

// outer finds the real machine's id of a process of the machine.
func (m *Machine) outer(inner int) (int, error) {
	all, err := m.Processes()
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		if p.Inner == inner {
			return p.PID, nil
		}
	}
	return 0, fmt.Errorf("%s has no process %d", m.Name, inner)
}
