// Seaway is a Docker managed plugin: container networks for plain Docker Engine. This is the process
// that the engine runs; see docs/ARCHITECTURE.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/seaway-net/seaway/plugin/internal/app"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := app.Run(ctx, version, os.Getenv)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "seaway:", err)
		os.Exit(1)
	}
}
