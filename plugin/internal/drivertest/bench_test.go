package drivertest

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkStartStop is what a container's start and stop wait for, without a kernel. Run it where the
// state will be: TMPDIR=… go test -bench StartStop.
func BenchmarkStartStop(b *testing.B) {
	for name, known := range map[string]bool{"new": false, "again": true} {
		b.Run(name, func(b *testing.B) {
			e := New(b, true)
			n := e.MustCreate(Spec{Subnets: []Subnet{{Subnet: "10.0.0.0/8"}}})
			updates, commits := 0, 0
			e.Host.Fault = func(p Point) error {
				if p.After && p.What == "store" {
					commits++
				} else if p.After {
					updates++
				}
				return nil
			}
			var starts, stops []time.Duration
			for i := 0; b.Loop(); i++ {
				run := Run{Name: "web"}
				if !known {
					run.Name = e.id("name")
				}
				began := time.Now()
				c := e.MustStart(n, run)
				started := time.Now()
				e.Stop(c)
				starts, stops = append(starts, started.Sub(began)), append(stops, time.Since(started))
			}
			report := func(name string, times []time.Duration) {
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2].Microseconds()), name+"-p50-µs")
				b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), name+"-p99-µs")
			}
			report("start", starts)
			report("stop", stops)
			b.ReportMetric(float64(updates)/float64(len(starts)), "updates/op")
			b.ReportMetric(float64(commits)/float64(len(starts)), "commits/op")
		})
	}
}
