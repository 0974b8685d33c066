package drivertest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mutant is a line of safety that is taken out of a copy of the source; the model must then fail.
type mutant struct{ what, file, old, new string }

// What only another Host or a store that answers late would show is not among them: the condition of a
// claim, and whose record a sweep deletes.
func mutants() []mutant {
	return []mutant{
		{
			"the answer leaves before the journal holds it", "ipamdriver/addresses.go",
			"\tif err := d.putAddress(bound); err != nil {\n\t\ts.settle(picked.hold, before)",
			"\tif err := error(nil); err != nil {\n\t\ts.settle(picked.hold, before)",
		},
		{
			"no intent before a claim", "ipamdriver/addresses.go",
			"\tif err := d.putAddress(a); err != nil {\n\t\treturn 0, err\n\t}\n", "",
		},
		{
			"an unknown claim is forgotten", "ipamdriver/addresses.go",
			"if !errors.Is(reason, store.ErrConflict) {", "if false {",
		},
		{
			"any pool releases any address", "ipamdriver/addresses.go",
			"\treturn !lives, err\n", "\treturn true || lives, err\n",
		},
		{
			"an address in use is given", "ipamdriver/space.go",
			"case h.busy || h.State != journal.Owned:", "case h.busy:",
		},
		{
			"the gateway and the addresses set aside are free", "ipamdriver/driver.go",
			"for _, addr := range reserved(subnet) {", "for _, addr := range reserved(subnet)[:0] {",
		},
		{
			"what the journal holds is free after a restart", "ipamdriver/driver.go",
			"if a.State == journal.Owned {", "if delete(s.held, a.Addr); a.State == journal.Owned && s.held[a.Addr] != nil {",
		},
		{
			"an orphan is one that has an endpoint", "ipamdriver/sweep.go",
			"|| h.Replayed || used[addr]:", "|| h.Replayed || used == nil && used[addr]:",
		},
		{
			"a second network takes the subnet", "netdriver/networks.go",
			"if s.Prefix.Overlaps(o.Prefix) {", "if false && s.Prefix.Overlaps(o.Prefix) {",
		},
		{
			"a network without its pools", "netdriver/networks.go",
			"if err == nil && c.OwnIPAM && len(c.Pools)", "if false && len(c.Pools)",
		},
		{
			"an endpoint that never joined stays", "netdriver/endpoints.go",
			"return e.Sandbox == \"\" || errors", "return e.Sandbox != \"\" && errors",
		},
	}
}

// TestMutants shows that the model would notice. It builds each mutant, which takes minutes: MUTANTS=1.
func TestMutants(t *testing.T) {
	if os.Getenv("MUTANTS") == "" {
		t.Skip("set MUTANTS=1")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants() {
		t.Run(m.what, func(t *testing.T) {
			path := filepath.Join(root, "plugin/internal", m.file)
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(source), m.old) != 1 {
				t.Fatalf("%s has %q not once: adapt the mutant", m.file, m.old)
			}
			changed, overlay := filepath.Join(t.TempDir(), "mutant.go"), filepath.Join(t.TempDir(), "overlay.json")
			err = os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600)
			if err == nil {
				err = os.WriteFile(overlay, []byte(`{"Replace":{"`+path+`":"`+changed+`"}}`), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "go", "test", "-overlay", overlay, "-count=1", "-run", "TestModel",
				"./plugin/internal/drivertest", "-rapid.nofailfile", "-rapid.checks=1000", "-rapid.shrinktime=1ms")
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			switch text := string(out); {
			case err == nil:
				t.Error("the model does not notice")
			case !strings.Contains(text, "--- FAIL: TestModel"):
				t.Errorf("the mutant cannot be built: %s", text)
			default:
				at := strings.Index(text, "failed after")
				line, _, _ := strings.Cut(text[max(at, 0):], "\n")
				t.Log(line)
			}
		})
	}
}
