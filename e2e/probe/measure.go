package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// blockSize is how much of a stream one acknowledgement byte stands for.
const blockSize = 64 << 10

// settle is how long after the last datagram a reply still counts. On a busy
// machine both ends wait for their turn.
const settle = 3 * time.Second

// Loss is what "probe loss" reports.
type Loss struct {
	Sent, Received int
	// LongestGapMS is the longest time between two replies, in milliseconds.
	LongestGapMS int64
}

// Stream is what "probe stream" reports.
type Stream struct {
	Blocks int
	// LongestStallMS is the longest time without progress, in milliseconds.
	LongestStallMS int64
	// Timeouts is how often nothing came back for so long that TCP sent again
	// what it had sent (RFC 6298; from 200 ms on in Linux). A network that holds
	// data up makes it do that; a busy machine, on which a process waits for its
	// turn, does not.
	Timeouts int
	// Broken says why the connection ended early, if it did.
	Broken string `json:",omitempty"`
}

// gauge keeps the longest time between two marks.
type gauge struct {
	last    time.Time
	longest time.Duration
}

func (g *gauge) mark() {
	now := time.Now()
	if !g.last.IsZero() {
		g.longest = max(g.longest, now.Sub(g.last))
	}
	g.last = now
}

// runLoss sends a numbered datagram to an echo server at each tick and counts
// the different ones that come back.
func runLoss(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("loss", flag.ContinueOnError)
	interval := flags.Duration("interval", 5*time.Millisecond, "time between datagrams")
	length := flags.Duration("for", time.Hour, "how long to send")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", flags.Arg(0))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, *length)
	defer cancel()

	replies := make(chan Loss, 1)
	go func() { replies <- countReplies(c) }()
	sent := sendNumbered(ctx, c, *interval)
	if err := c.SetReadDeadline(time.Now().Add(settle)); err != nil {
		return fmt.Errorf("end reading: %w", err)
	}
	report := <-replies
	report.Sent = sent
	return json.NewEncoder(os.Stdout).Encode(report)
}

// sendNumbered sends until ctx ends, and returns how many it sent. One that
// the kernel refuses is lost, and counts as sent.
func sendNumbered(ctx context.Context, c net.Conn, interval time.Duration) int {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for sent := 0; ; sent++ {
		select {
		case <-ctx.Done():
			return sent
		case <-tick.C:
		}
		if _, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(sent))); err != nil {
			fmt.Fprintf(os.Stderr, "probe loss: datagram %d: %v\n", sent, err)
		}
	}
}

// countReplies counts different datagrams until the read deadline.
func countReplies(c net.Conn) Loss {
	var report Loss
	var g gauge
	seen := map[uint64]bool{}
	buffer := make([]byte, 64)
	for {
		n, err := c.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			report.LongestGapMS = g.longest.Milliseconds()
			return report
		}
		if err != nil || n != 8 {
			continue // An ICMP error: the datagram is missing among the replies.
		}
		if number := binary.BigEndian.Uint64(buffer); !seen[number] {
			seen[number] = true
			report.Received++
			g.mark()
		}
	}
}

// runStream sends blocks to a server, as fast as it takes them or at a rate,
// and measures the time between acknowledgements.
func runStream(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("stream", flag.ContinueOnError)
	length := flags.Duration("for", time.Hour, "how long to send")
	rate := flags.Int("rate", 0, "MiB to send per second; 0: as many as go")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", flags.Arg(0))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, *length)
	defer cancel()
	// At the end the server gets a moment to acknowledge what is under way: a
	// stall that has begun is seen.
	context.AfterFunc(ctx, func() {
		_ = c.SetWriteDeadline(time.Now())
		_ = c.SetReadDeadline(time.Now().Add(settle))
	})
	before, err := timeouts()
	if err != nil {
		return err
	}
	go sendBlocks(c, *rate)
	report := countAcks(ctx, c)
	after, err := timeouts()
	report.Timeouts = after - before
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(report))
}

// sendBlocks writes until that fails, and then tells the server that no more
// will come. The reading side reports what went wrong.
func sendBlocks(c net.Conn, rate int) {
	block := make([]byte, blockSize)
	began := time.Now()
	for sent := 1; ; sent++ {
		if _, err := c.Write(block); err != nil {
			break
		}
		if rate > 0 {
			due := time.Duration(sent) * time.Second / time.Duration(rate<<20/blockSize)
			time.Sleep(due - time.Since(began))
		}
	}
	if half, ok := c.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// timeouts is how often TCP has run into a retransmission timeout in this network
// namespace (proc_net_netstat(5), TCPTimeouts): the kernel had to send something
// again because no answer came at all.
func timeouts() (int, error) {
	table, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TcpExt:" {
			continue
		}
		if i := slices.Index(names, "TCPTimeouts"); i >= 0 && i < len(fields) {
			return strconv.Atoi(fields[i])
		}
		names = fields
	}
	return 0, errors.New("this kernel does not count TCP's timeouts")
}

// countAcks counts acknowledgements until the stream ends. An end before that
// of ctx is a broken stream.
func countAcks(ctx context.Context, c net.Conn) Stream {
	var report Stream
	var g gauge
	g.mark()
	buffer := make([]byte, 4096)
	for {
		n, err := c.Read(buffer)
		report.Blocks += n
		if n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			g.mark()
		}
		if err == nil {
			continue
		}
		if ctx.Err() == nil {
			report.Broken = err.Error()
		}
		report.LongestStallMS = g.longest.Milliseconds()
		return report
	}
}
