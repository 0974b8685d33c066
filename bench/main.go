// Command bench measures Seaway on a real engine on a simulated host and prints what it costs, as ratios to
// Docker's own bridge driver taken in the same run, and as figures of its own. It is what `make bench` runs;
// with -json it also writes the figures to a file.
//
// Ratios are of medians, the two sides measured in turn, so that a noisy machine slows both. Absolute
// figures are of this machine and this moment only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"github.com/seaway-net/seaway/e2e/kit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	jsonFile := flag.String("json", "", "write the figures to this file, as JSON")
	rounds := flag.Int("rounds", 20, "how often each pair is measured")
	flag.Parse()
	lab, err := kit.Open(ctx)
	if err != nil {
		return err
	}
	b := &bench{lab: lab, rounds: *rounds}
	if err = errors.Join(b.measure(ctx), lab.Close()); err != nil {
		return err
	}
	print(lab.Engine(), b.figures)
	return save(*jsonFile, b.figures)
}

// save writes the figures to a file, if there is to be one.
func save(path string, figures []figure) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// figure is one line of the table.
type figure struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Of and Ratio compare with the bridge driver, if there is something to compare with.
	Of    float64 `json:"bridge,omitempty"`
	Ratio float64 `json:"ratio,omitempty"`
}

func print(engine kit.Engine, figures []figure) {
	fmt.Printf("engine: %s\n\n", engine.Name)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "what\tSeaway\tbridge\tunit\tratio\t")
	for _, f := range figures {
		if f.Ratio != 0 {
			fmt.Fprintf(w, "%s\t%.4g\t%.4g\t%s\t%.2f\t\n", f.What, f.Value, f.Of, f.Unit, f.Ratio)
		} else {
			fmt.Fprintf(w, "%s\t%.4g\t\t%s\t\t\n", f.What, f.Value, f.Unit)
		}
	}
	_ = w.Flush() // to standard output
}
