package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// greeting is what a client sends to be told who serves. Anything else that
// begins a connection is counted (bulk) and everything in UDP is echoed.
const greeting = "who\n"

// runServe answers on one TCP and UDP port until ctx ends. A client that sends
// the greeting is told the server's host name and the client's own address as
// the server sees it; other TCP connections get an acknowledgement byte per
// block received; UDP datagrams come back as they are.
func runServe(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	address := flags.String("listen", ":8080", "address and port for TCP and UDP")
	group := flags.String("group", "", "answer datagrams to this multicast group too, on the link eth0")
	socket := flags.String("socket", "", "serve only connections, on this unix socket")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var listen net.ListenConfig
	if *socket != "" {
		return serveSocket(ctx, *socket)
	}
	tcp, err := listen.Listen(ctx, "tcp", *address)
	if err != nil {
		return err
	}
	udp, err := listen.ListenPacket(ctx, "udp", *address)
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	failed := make(chan error, 3)
	if *group != "" {
		if err := joinGroup(*group, udp, failed); err != nil {
			return errors.Join(err, tcp.Close(), udp.Close())
		}
	}
	fmt.Println("serving")
	go func() { failed <- serveTCP(tcp) }()
	go func() { failed <- serveUDP(udp) }()
	select {
	case <-ctx.Done():
		return errors.Join(tcp.Close(), udp.Close())
	case err := <-failed:
		return err
	}
}

// joinGroup answers datagrams to a group, on the next port: the one of udp is
// taken for all addresses.
func joinGroup(group string, udp net.PacketConn, failed chan<- error) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	to := &net.UDPAddr{IP: net.ParseIP(group)}
	if local, ok := udp.LocalAddr().(*net.UDPAddr); ok {
		to.Port = local.Port + 1
	}
	c, err := net.ListenMulticastUDP("udp", link, to)
	if err != nil {
		return err
	}
	go func() { failed <- serveUDP(c) }()
	return nil
}

// serveSocket answers connections to a unix socket until ctx ends.
func serveSocket(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	if err := serveTCP(l); ctx.Err() == nil {
		return err
	}
	return nil
}

// serveTCP answers connections until the listener is closed.
func serveTCP(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			if err := answer(c); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintf(os.Stderr, "probe serve: %s: %v\n", c.RemoteAddr(), err)
			}
		}()
	}
}

// answer serves one connection.
func answer(c net.Conn) error {
	head := make([]byte, len(greeting))
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	if string(head) != greeting {
		return acknowledge(c, len(head))
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	host := c.RemoteAddr().String()
	if c.RemoteAddr().Network() == "tcp" {
		if host, _, err = net.SplitHostPort(host); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(c, "%s %s\n", name, strings.TrimPrefix(host, "::ffff:"))
	return err
}

// acknowledge sends one byte for each block received, of which the first have
// been read already.
func acknowledge(c net.Conn, have int) error {
	buffer := make([]byte, blockSize)
	for {
		if _, err := io.ReadFull(c, buffer[have:]); err != nil {
			return err
		}
		have = 0
		if _, err := c.Write([]byte{'.'}); err != nil {
			return err
		}
	}
}

// serveUDP sends datagrams back until the socket is closed.
func serveUDP(c net.PacketConn) error {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			return err
		}
		// A reply that cannot be sent now is a lost one: the client counts it.
		if _, err := c.WriteTo(buffer[:n], from); err != nil {
			fmt.Fprintf(os.Stderr, "probe serve: reply to %s: %v\n", from, err)
		}
	}
}

// runGet asks a server who it is, prints the answer, and fails if there is
// none in time.
func runGet(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	timeout := flags.Duration("timeout", 3*time.Second, "how long to try")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", flags.Arg(0))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err = c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err = io.WriteString(c, greeting); err != nil {
		return err
	}
	reply, err := io.ReadAll(c)
	if err == nil && len(reply) == 0 {
		err = errors.New("empty answer")
	}
	fmt.Print(string(reply))
	return err
}
