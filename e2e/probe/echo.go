package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"syscall"
	"time"
)

// runEcho sends one datagram to an echo server, and prints the address from
// which the same datagram came back. The address may be that of a group.
func runEcho(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("echo", flag.ContinueOnError)
	size := flags.Int("size", 64, "length of the datagram in bytes, without headers")
	whole := flags.Bool("whole", false, "fail rather than send it in fragments")
	timeout := flags.Duration("timeout", 3*time.Second, "how long to wait")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	to, err := net.ResolveUDPAddr("udp", flags.Arg(0))
	if err != nil {
		return err
	}
	var listen net.ListenConfig
	if *whole {
		listen.Control = neverFragment
	}
	c, err := listen.ListenPacket(ctx, "udp", ":0")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err = c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	sent := bytes.Repeat([]byte("seaway"), *size/6+1)[:*size]
	if _, err = c.WriteTo(sent, to); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if replier, ok := from.(*net.UDPAddr); ok && bytes.Equal(buffer[:n], sent) {
			fmt.Println(replier.AddrPort().Addr().Unmap())
			return nil
		}
	}
}

// neverFragment has the kernel refuse datagrams that are longer than the MTU.
func neverFragment(network, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_PMTUDISC_DO)
		if network == "udp6" {
			failed = errors.Join(failed, syscall.SetsockoptInt(int(fd),
				syscall.IPPROTO_IPV6, syscall.IPV6_MTU_DISCOVER, syscall.IPV6_PMTUDISC_DO))
		}
	})
	return errors.Join(err, failed)
}
