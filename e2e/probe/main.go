// Command probe is the e2e kit's own program. It is static, so that it runs
// everywhere the kit needs it, and has two families of sub-commands:
//
// On a simulated machine (the kit's use only):
//
//	probe init         process 1 of a machine: mounts, reaping, death with the kit
//	probe join         enter a machine's control group, then become a program
//	probe janitor      clean up after a kit that died
//	probe dns          the name server of the simulated world
//
// In a container, or anywhere else:
//
//	probe serve        echo servers for TCP and UDP that also say who answers
//	probe get          ask a server who it is
//	probe echo         send one datagram to a server and get it back
//	probe loss         count lost datagrams and the longest silence
//	probe rr           count round trips of a datagram
//	probe stream       move bulk data over TCP and measure the longest stall
//
// The measuring ones print one line of JSON when they end: after -for, or on
// SIGTERM or SIGINT.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "probe: %v\n", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// run dispatches one sub-command.
func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: probe init|join|janitor|dns|serve|get|echo|loss|rr|stream [arguments]")
	}
	name, args := args[0], args[1:]
	switch name {
	case "init":
		return runInit(args)
	case "join":
		return runJoin(args)
	case "janitor":
		return runJanitor(args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch name {
	case "dns":
		return runDNS(ctx, args)
	case "serve":
		return runServe(ctx, args)
	case "get":
		return runGet(ctx, args)
	case "echo":
		return runEcho(ctx, args)
	case "loss":
		return runLoss(ctx, args)
	case "rr":
		return runRR(ctx, args)
	case "stream":
		return runStream(ctx, args)
	}
	return fmt.Errorf("no sub-command %q", name)
}
