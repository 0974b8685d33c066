package main

import (
	"context"
	"encoding/json"
	"flag"
	"net"
	"os"
	"time"
)

// Roundtrips is what rr reports.
type Roundtrips struct {
	Roundtrips int
	Seconds    float64
}

// runRR sends a datagram to a server, waits for it to come back, and does so
// again: how often in a given time is what the path costs.
func runRR(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("rr", flag.ContinueOnError)
	length := flags.Duration("for", time.Second, "how long to go on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", flags.Arg(0))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	began := time.Now()
	// A lost datagram ends the run, and the report says so by its seconds.
	if err := c.SetDeadline(began.Add(*length)); err != nil {
		return err
	}
	report := Roundtrips{}
	buffer := make([]byte, 64)
	for {
		if _, err := c.Write(buffer[:8]); err != nil {
			break
		}
		if _, err := c.Read(buffer); err != nil {
			break
		}
		report.Roundtrips++
	}
	report.Seconds = time.Since(began).Seconds()
	return json.NewEncoder(os.Stdout).Encode(report)
}
