package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// The tests in the files fault_*_test.go break something and look at what
// containers notice of it. This file has what they share.

const (
	// stallLimit is how long a network may hold a bulk transfer up. Nothing
	// that is tried here may touch it.
	stallLimit = 500 * time.Millisecond
	// bulkRate is that of the bulk transfer, in MiB per second: several tests
	// run at once, and have to leave each other some of the machine.
	bulkRate = "32"
	// noticed is how soon what was deleted is back when the kernel tells.
	noticed = 5 * time.Second
	// unnoticed is how soon it is back when nothing tells.
	unnoticed = 30 * time.Second
	// cleared is how soon the data plane goes with its last network.
	cleared = 10 * time.Second
)

// seawayNetwork makes a network of ours that ends with the test.
func seawayNetwork(t *testing.T, h *kit.Host, name string, args ...string) {
	t.Helper()
	network(t, h, name, append([]string{"-d", kit.Plugin, "--ipam-driver", kit.Plugin}, args...)...)
}

// traffic is what runs between containers while something is broken: numbered
// datagrams, and a bulk transfer.
type traffic struct {
	h    *kit.Host
	name string
}

// startTraffic starts traffic on a network, and returns when it flows.
func startTraffic(t *testing.T, h *kit.Host, network string) traffic {
	t.Helper()
	f := traffic{h: h, name: network}
	container(t, h, f.server(), "--network", network)
	container(t, h, f.loss(), "--network", network, "--", "/probe", "loss", f.server()+":8080")
	container(t, h, f.stream(), "--network", network, "--", "/probe", "stream", "-rate", bulkRate, f.server()+":8080")
	f.flows(t)
	return f
}

func (f traffic) server() string { return f.name + "-server" }
func (f traffic) loss() string   { return f.name + "-loss" }
func (f traffic) stream() string { return f.name + "-stream" }

// flows waits until replies have arrived at both ends that ask for them.
func (f traffic) flows(t *testing.T) {
	t.Helper()
	for _, name := range []string{f.loss(), f.stream()} {
		before := received(t, f.h, name)
		waitFor(t, 15*time.Second, "traffic of "+name, func(context.Context) error {
			if now := received(t, f.h, name); now < before+50 {
				return fmt.Errorf("%d packets have arrived", now-before)
			}
			return nil
		})
	}
}

// received is how many packets have arrived in a container.
func received(t *testing.T, h *kit.Host, name string) int {
	t.Helper()
	n, err := strconv.Atoi(in(t, h, name, "cat", "/sys/class/net/eth0/statistics/rx_packets"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// unharmed ends the traffic, of which nothing may have been lost.
func (f traffic) unharmed(t *testing.T) {
	t.Helper()
	f.flows(t)
	var lost lossReport
	report(t, f.h, f.loss(), &lost)
	var stalled streamReport
	report(t, f.h, f.stream(), &stalled)
	t.Logf("traffic: %d datagrams, %d lost, longest gap %d ms; %d MiB of bulk, longest stall %d ms, %d timeouts of TCP", lost.Sent,
		lost.Sent-lost.Received, lost.LongestGapMS, stalled.Blocks>>4, stalled.LongestStallMS, stalled.Timeouts)
	if lost.Sent < 100 || lost.Received != lost.Sent {
		t.Errorf("datagrams were lost: %+v", lost)
	}
	// A stall without a timeout is the machine's, not the network's.
	held := stalled.Timeouts > 0 && stalled.LongestStallMS > stallLimit.Milliseconds()
	if stalled.Broken != "" || stalled.Blocks == 0 || held {
		t.Errorf("the bulk transfer suffered: %+v", stalled)
	}
}

// on runs a command on the host itself, which must succeed.
func on(t *testing.T, h *kit.Host, argv ...string) string {
	t.Helper()
	out, err := h.Exec(testContext(t), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// script runs a shell script on the host itself, which must succeed.
func script(t *testing.T, h *kit.Host, text string) string {
	t.Helper()
	return on(t, h, "sh", "-ec", text)
}

// address is a container's IPv4 address on its first link, as it says itself.
func address(t *testing.T, h *kit.Host, name string) string {
	t.Helper()
	fields := strings.Fields(in(t, h, name, "ip", "-o", "-4", "address", "show", "dev", "eth0"))
	if len(fields) < 4 {
		t.Fatalf("%s has no address: %q", name, fields)
	}
	ip, _, _ := strings.Cut(fields[3], "/")
	return ip
}

// allDiffer asks containers for their addresses, no two of which may be the
// same.
func allDiffer(t *testing.T, h *kit.Host, names ...string) {
	t.Helper()
	owners := map[string]string{}
	for _, name := range names {
		ip := address(t, h, name)
		if other, taken := owners[ip]; taken {
			t.Errorf("%s and %s both have %s", other, name, ip)
		}
		owners[ip] = name
	}
}

// reaches checks that one container gets an answer from another, by name.
func reaches(t *testing.T, h *kit.Host, from, to string) {
	t.Helper()
	if err := asks(testContext(t), h, from, to); err != nil {
		t.Error(err)
	}
}

// asks has one container ask another, by name, who it is.
func asks(ctx context.Context, h *kit.Host, from, to string) error {
	_, err := h.Docker(ctx, "exec", from, "/probe", "get", "-timeout", "2s", to+":8080")
	return err
}

// runWorks checks that a new container starts on a network and gets an answer
// from one that is there.
func runWorks(t *testing.T, h *kit.Host, network, server string) {
	t.Helper()
	docker(t, h, "run", "--rm", "--network", network, kit.Image, "/probe", "get", server+":8080")
}

// nothingLeft waits until the kernel holds nothing of ours.
func nothingLeft(t *testing.T, h *kit.Host) {
	t.Helper()
	waitFor(t, cleared, "the end of the data plane", func(ctx context.Context) error {
		names, err := h.Exec(ctx, "ip", "netns", "list")
		if err != nil {
			return err
		}
		if names != "" {
			return fmt.Errorf("namespaces: %q", names)
		}
		links, err := h.Exec(ctx, "ip", "-brief", "link")
		if err != nil {
			return err
		}
		for _, line := range strings.Split(links, "\n") {
			if strings.HasPrefix(line, "sw") || strings.HasPrefix(line, "br-") {
				return errors.New(line)
			}
		}
		return nil
	})
}

// ports are the names of the ports in the data plane.
func ports(t *testing.T, h *kit.Host) []string {
	t.Helper()
	return planeLinks(t, h, "veth")
}

// noPorts waits until the data plane has no ports: the engine does not wait for
// that when it takes a container down.
func noPorts(t *testing.T, h *kit.Host) {
	t.Helper()
	waitFor(t, noticed, "the end of all ports", func(context.Context) error {
		if left := ports(t, h); len(left) != 0 {
			return fmt.Errorf("ports without containers: %v", left)
		}
		return nil
	})
}

// planeLinks are the names of the data plane's links of one kind.
func planeLinks(t *testing.T, h *kit.Host, kind string) []string {
	t.Helper()
	var names []string
	for _, line := range strings.Split(on(t, h, "ip", "-n", "seaway", "-brief", "link", "show", "type", kind), "\n") {
		if fields := strings.Fields(line); len(fields) > 0 {
			name, _, _ := strings.Cut(fields[0], "@")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// portOf is the name of the port of a container on a network.
func portOf(t *testing.T, h *kit.Host, name, network string) string {
	t.Helper()
	id := docker(t, h, "inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).EndpointID}}", network), name)
	if len(id) < 12 {
		t.Fatalf("%s is not on %s", name, network)
	}
	return "sw" + id[:12]
}

// enabled checks that the engine has not switched the plugin off.
func enabled(t *testing.T, h *kit.Host) {
	t.Helper()
	if state := docker(t, h, "plugin", "inspect", "-f", "{{.Enabled}}", kit.Plugin); state != "true" {
		t.Errorf("enabled: %s", state)
	}
}

// killPlugin ends the plugin with kill -9.
func killPlugin(t *testing.T, h *kit.Host) {
	t.Helper()
	if err := h.KillPlugin(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// numbered returns prefix0, prefix1 and so on.
func numbered(prefix string, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = prefix + strconv.Itoa(i)
	}
	return names
}
