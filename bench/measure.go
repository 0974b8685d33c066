package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seaway-net/seaway/e2e/kit"
)

// The two networks that are compared.
const (
	ours   = "seaway"
	theirs = "bridge"
)

// bench is one run.
type bench struct {
	lab     *kit.Lab
	host    *kit.Host
	rounds  int
	figures []figure
}

func (b *bench) measure(ctx context.Context) error {
	var err error
	if b.host, err = b.lab.AddHost(ctx, kit.HostOptions{}); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		b.install, b.networks, b.start, b.roundtrips, b.stream, b.memory, b.verbs,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// install measures the time from `docker plugin enable` to its end: the engine itself waits half a second
// before it first looks for the plugin's socket.
func (b *bench) install(ctx context.Context) error {
	if err := b.host.InstallPlugin(ctx, "LOG_LEVEL=debug"); err != nil {
		return err
	}
	if _, err := b.host.Docker(ctx, "plugin", "disable", "-f", kit.Plugin); err != nil {
		return err
	}
	began := time.Now()
	if _, err := b.host.Docker(ctx, "plugin", "enable", kit.Plugin); err != nil {
		return err
	}
	b.add(figure{What: "docker plugin enable", Value: milliseconds(time.Since(began)), Unit: "ms"})
	return nil
}

func (b *bench) networks(ctx context.Context) error {
	if _, err := b.host.Docker(ctx, "network", "create", "-d", kit.Plugin, "--ipam-driver", kit.Plugin, ours); err != nil {
		return err
	}
	_, err := b.host.Docker(ctx, "network", "create", theirs+"0")
	return err
}

// network is the name of the network to measure.
func network(which string) string {
	if which == theirs {
		return theirs + "0" // the engine has a network called bridge
	}
	return which
}

// start compares docker run -d and docker rm -f.
func (b *bench) start(ctx context.Context) error {
	runs, removals := map[string][]float64{}, map[string][]float64{}
	for round := range b.rounds + 1 {
		for _, which := range []string{ours, theirs} {
			began := time.Now()
			id, err := b.host.Docker(ctx, "run", "-d", "--network", network(which), kit.Image)
			if err != nil {
				return err
			}
			ran := milliseconds(time.Since(began))
			began = time.Now()
			if _, err := b.host.Docker(ctx, "rm", "-f", id); err != nil {
				return err
			}
			if round > 0 { // the first warms up
				runs[which] = append(runs[which], ran)
				removals[which] = append(removals[which], milliseconds(time.Since(began)))
			}
		}
	}
	b.compare("docker run -d, median", "ms", runs)
	b.compare("docker rm -f, median", "ms", removals)
	return nil
}

// roundtrips compares the round trips of a datagram between two containers.
func (b *bench) roundtrips(ctx context.Context) error {
	return b.traffic(ctx, "round trips of a datagram", "1/s", "rr", func(report []byte) (float64, error) {
		var r struct {
			Roundtrips int
			Seconds    float64
		}
		err := json.Unmarshal(report, &r)
		return float64(r.Roundtrips) / r.Seconds, err
	})
}

// stream compares bulk transfers between two containers.
func (b *bench) stream(ctx context.Context) error {
	return b.traffic(ctx, "bulk transfer over TCP", "blocks/s", "stream", func(report []byte) (float64, error) {
		var s struct{ Blocks int }
		err := json.Unmarshal(report, &s)
		return float64(s.Blocks) / trafficTime.Seconds(), err
	})
}

// trafficTime is how long one measurement of traffic takes.
const trafficTime = 500 * time.Millisecond

// traffic runs a sub-command of the probe in one container against another, on both networks in turn.
func (b *bench) traffic(ctx context.Context, what, unit, command string, value func([]byte) (float64, error)) error {
	measured := map[string][]float64{}
	servers := map[string]string{}
	for _, which := range []string{ours, theirs} {
		server, client := "server-"+which, "client-"+which
		for _, name := range []string{server, client} {
			if _, err := b.host.Docker(ctx, "run", "-d", "--network", network(which), "--name", name, kit.Image); err != nil {
				return err
			}
			defer func() { _, _ = b.host.Docker(context.WithoutCancel(ctx), "rm", "-f", name) }() // the host ends anyway
		}
		servers[which] = server
	}
	for range b.rounds {
		for which, server := range servers {
			report, err := b.host.Docker(ctx, "exec", "client-"+which,
				"/probe", command, "-for", trafficTime.String(), server+":8080")
			if err != nil {
				return err
			}
			v, err := value([]byte(report))
			if err != nil {
				return fmt.Errorf("read the report of %s: %w", command, err)
			}
			measured[which] = append(measured[which], v)
		}
	}
	b.compare(what, unit, measured)
	return nil
}

// memory reads the plugin's resident memory.
func (b *bench) memory(context.Context) error {
	pid, err := b.host.PluginPID()
	if err != nil {
		return err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			b.add(figure{What: "memory of the plugin", Value: kib / 1024, Unit: "MiB"})
			return err
		}
	}
	return fmt.Errorf("process %d has no resident memory", pid)
}

// call is a line of the plugin's log about one verb.
var call = regexp.MustCompile(`verb=(\S+?) duration=([^\s"\\]+)`)

// verbs reads from the plugin's log how long each verb took.
func (b *bench) verbs(context.Context) error {
	log, err := os.Open(b.host.LogFile())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // read only
	took := map[string][]float64{}
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if m := call.FindStringSubmatch(lines.Text()); m != nil {
			d, err := time.ParseDuration(m[2])
			if err != nil {
				return fmt.Errorf("read the plugin's log: %w", err)
			}
			took[m[1]] = append(took[m[1]], milliseconds(d))
		}
	}
	// Containers are started one after the other here, so the n-th of both are of one container.
	const both = "NetworkDriver.CreateEndpoint+Join"
	for i := range min(len(took["NetworkDriver.CreateEndpoint"]), len(took["NetworkDriver.Join"])) {
		took[both] = append(took[both], took["NetworkDriver.CreateEndpoint"][i]+took["NetworkDriver.Join"][i])
	}
	for _, verb := range []string{
		both, "IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join",
		"NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress",
	} {
		b.add(figure{What: verb + ", p50", Value: quantile(took[verb], 0.5), Unit: "ms"})
		b.add(figure{What: verb + ", p99", Value: quantile(took[verb], 0.99), Unit: "ms"})
	}
	return nil
}

func (b *bench) add(f figure) { b.figures = append(b.figures, f) }

// compare adds the medians of both networks and their ratio.
func (b *bench) compare(what, unit string, measured map[string][]float64) {
	f := figure{What: what, Unit: unit, Value: quantile(measured[ours], 0.5), Of: quantile(measured[theirs], 0.5)}
	f.Ratio = f.Value / f.Of
	b.add(f)
}

// quantile returns the q-th of the values; 0 if there are none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
