// Package rootfsbuild tests the plugin's manifest, which the engine itself does not check.
package rootfsbuild

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"
)

// manifest is the part of config.json that this test has an opinion on.
type manifest struct {
	Interface struct {
		Types  []string
		Socket string
	}
	Entrypoint []string
	Network    struct{ Type string }
	PidHost    bool
	IpcHost    bool
	Mounts     []any
	// PropagatedMount is where the plugin keeps its state.
	PropagatedMount string
	Env             []struct {
		Name, Description, Value string
		Settable                 []string
	}
	Linux struct {
		Capabilities    []string
		AllowAllDevices bool
		Devices         []any
	}
}

func readManifest(t *testing.T) manifest {
	t.Helper()
	text, err := os.ReadFile("../config.json")
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("config.json: %v", err)
	}
	return m
}

// The engine lists these verbatim to whoever installs the plugin; docs/privileges.md
// must explain each, and explain nothing that is not asked for.
func TestEveryPrivilegeIsExplained(t *testing.T) {
	m := readManifest(t)
	asked := append([]string{"network " + m.Network.Type, "propagatedMount " + m.PropagatedMount}, m.Linux.Capabilities...)
	if m.PidHost {
		asked = append(asked, "pidhost")
	}

	page, err := os.ReadFile("../docs/privileges.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, heading := range regexp.MustCompile(`(?m)^## ((?:CAP_|network|propagatedMount|pidhost).*)$`).FindAllSubmatch(page, -1) {
		explained = append(explained, string(heading[1]))
	}
	slices.Sort(asked)
	slices.Sort(explained)
	if !slices.Equal(asked, explained) {
		t.Errorf("config.json asks for %q, docs/privileges.md explains %q", asked, explained)
	}
	if len(m.Mounts) != 0 || len(m.Linux.Devices) != 0 || m.Linux.AllowAllDevices || m.IpcHost {
		t.Error("config.json asks for mounts, devices or the host's IPC: docs/privileges.md promises none")
	}
}

// A plugin whose socket path is too long, or whose interfaces are misspelt, installs
// and then does nothing.
func TestTheEngineFindsBothDrivers(t *testing.T) {
	m := readManifest(t)
	if want := []string{"docker.networkdriver/1.0", "docker.ipamdriver/1.0"}; !slices.Equal(m.Interface.Types, want) {
		t.Errorf("interface types %q, want %q", m.Interface.Types, want)
	}
	if len(m.Interface.Socket) > 22 {
		t.Errorf("socket name %q is longer than the 22 bytes that the engine's path leaves", m.Interface.Socket)
	}
	if want := []string{"/usr/bin/seaway"}; !slices.Equal(m.Entrypoint, want) {
		t.Errorf("entrypoint %q, want %q", m.Entrypoint, want)
	}
}

// An upgrade by the engine keeps the old settings and brings no new values, so a
// default that stood here would reach only new installations.
func TestSettingsHaveTheirDefaultsInTheCode(t *testing.T) {
	for _, setting := range readManifest(t).Env {
		if setting.Value != "" {
			t.Errorf("%s has the value %q here; its default belongs in the code", setting.Name, setting.Value)
		}
		if !regexp.MustCompile(`\(default .+\)$`).MatchString(setting.Description) {
			t.Errorf("%s: the description %q does not name the default", setting.Name, setting.Description)
		}
		if !slices.Equal(setting.Settable, []string{"value"}) {
			t.Errorf("%s is not settable", setting.Name)
		}
	}
}
