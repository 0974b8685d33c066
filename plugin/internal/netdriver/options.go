package netdriver

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/seaway-net/seaway/plugin/internal/journal"
)

// Docker's own options that this driver knows.
const (
	optionMTU      = "com.docker.network.driver.mtu"
	optionIfPrefix = "com.docker.network.container_iface_prefix"
	optionIfName   = "com.docker.network.endpoint.ifname"
)

const (
	// defaultIfPrefix begins the names of links in containers.
	defaultIfPrefix = "eth"
	// maxIfPrefix leaves room for a number in the kernel's 15 characters.
	maxIfPrefix = 12
	maxIfName   = 15
	// minMTU and maxMTU are what IPv4 demands of a link (RFC 791) and what a veth can carry; minMTU6 is
	// what IPv6 demands (RFC 8200).
	minMTU, maxMTU, minMTU6 = 68, 65535, 1280
)

// readOptions takes the `-o` options of a network into its Copy. All bad ones are named at once: those
// that begin with "seaway." and are unknown or do not work yet, and the bridge driver's, which would be
// accepted and have no effect. Names of other programs are theirs.
func readOptions(options map[string]string, c *journal.Copy) error {
	var bad []string
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if reason := readOption(name, options[name], c); reason != "" {
			bad = append(bad, name+" ("+reason+")")
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("option -o refused: %s", strings.Join(bad, "; "))
	}
	return nil
}

// readOption takes one option, or says why not.
func readOption(name, value string, c *journal.Copy) (reason string) {
	switch name {
	case optionMTU:
		return readMTU(value, c)
	case optionIfPrefix:
		return readIfPrefix(value, c)
	case "seaway.scope":
		return oneOf(value, "host", "this Seaway keeps every network on its host")
	case "seaway.propagate":
		return oneOf(value, "false", "networks do not appear on other hosts by themselves yet")
	case "seaway.gateway":
		return oneOf(value, "engine", "the engine keeps the gateway; native does not work yet")
	case "seaway.vni", "seaway.encrypt":
		return "does not work yet"
	}
	switch {
	case strings.HasPrefix(name, "seaway."):
		return "unknown; known are seaway.scope, seaway.propagate and seaway.gateway"
	case strings.HasPrefix(name, "com.docker.network.bridge."):
		return "an option of Docker's bridge driver, without effect here"
	}
	return ""
}

func oneOf(value, want, why string) string {
	if value == want {
		return ""
	}
	return fmt.Sprintf("%q is not possible, only %s: %s", value, want, why)
}

func readMTU(value string, c *journal.Copy) string {
	least := minMTU
	for _, s := range c.Network.Subnets {
		if s.Prefix.Addr().Is6() {
			least = minMTU6
		}
	}
	mtu, err := strconv.Atoi(value)
	if err != nil || mtu < least || mtu > maxMTU {
		return fmt.Sprintf("%q is no MTU of this network: write a number of bytes from %d to %d", value, least, maxMTU)
	}
	c.Network.MTU = mtu
	return ""
}

func readIfPrefix(value string, c *journal.Copy) string {
	c.IfPrefix = value
	return badLinkName(value, maxIfPrefix)
}

// badIfName says what is wrong with the name that a container's link is to have.
func badIfName(value any) string {
	name, ok := value.(string)
	if !ok {
		return "it is no text"
	}
	return badLinkName(name, maxIfName)
}

// badLinkName says what is wrong with a link's name, or its beginning.
func badLinkName(name string, longest int) string {
	for _, r := range name {
		if r <= ' ' || r > '~' || strings.ContainsRune("/%:", r) {
			return fmt.Sprintf("%q cannot be in the name of a link", r)
		}
	}
	if name == "" || name == "." || name == ".." || len(name) > longest {
		return fmt.Sprintf("write 1 to %d characters", longest)
	}
	return ""
}

// checkEndpointOptions refuses what `--driver-opt` of one attachment asks for and cannot have.
func checkEndpointOptions(options map[string]any) error {
	var bad []string
	for _, name := range slices.Sorted(maps.Keys(options)) {
		switch {
		case strings.HasPrefix(name, "seaway."):
			bad = append(bad, name+" (unknown)")
		case name == optionIfName && badIfName(options[name]) != "":
			bad = append(bad, name+" ("+badIfName(options[name])+")")
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("option --driver-opt refused: %s", strings.Join(bad, "; "))
	}
	return nil
}
