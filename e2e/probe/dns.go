package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"net"
	"net/netip"
	"strings"
)

// runDNS is a name server that knows one name, and says of all others that
// they do not exist. Without one, each wrong name in a container costs the
// engine's resolver ten seconds.
func runDNS(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("dns", flag.ContinueOnError)
	listen := flags.String("listen", ":53", "address and port, UDP")
	name := flags.String("name", "", "the name")
	address := flags.String("address", "", "its IPv4 address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ip, err := netip.ParseAddr(*address)
	if err != nil {
		return err
	}
	var config net.ListenConfig
	c, err := config.ListenPacket(ctx, "udp", *listen)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	buffer := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if reply := answerDNS(buffer[:n], *name, ip); reply != nil {
			if _, err := c.WriteTo(reply, from); err != nil {
				return err
			}
		}
	}
}

const (
	dnsHeader   = 12
	dnsNoName   = 3
	dnsTypeA    = 1
	dnsResponse = 0x8180 // a response, recursion desired and available
)

// answerDNS makes the reply to a query with one question; nil if it is none.
func answerDNS(query []byte, name string, ip netip.Addr) []byte {
	asked, kind, end := question(query)
	if end == 0 {
		return nil
	}
	reply := append([]byte(nil), query[:end]...)
	flags := uint16(dnsResponse)
	var answers uint16
	switch {
	case !strings.EqualFold(asked, name):
		flags |= dnsNoName
	case kind == dnsTypeA:
		answers = 1
		// The name by reference to the question, class IN, lifetime 60 s.
		reply = append(reply, 0xc0, dnsHeader, 0, dnsTypeA, 0, 1, 0, 0, 0, 60, 0, 4)
		reply = append(reply, ip.AsSlice()...)
	}
	binary.BigEndian.PutUint16(reply[2:], flags)
	binary.BigEndian.PutUint16(reply[6:], answers)
	clear(reply[8:dnsHeader])
	return reply
}

// question reads the name and type that a query asks for, and where the
// question ends; 0 if it is malformed.
func question(query []byte) (name string, kind uint16, end int) {
	if len(query) < dnsHeader || binary.BigEndian.Uint16(query[4:]) != 1 {
		return "", 0, 0
	}
	var labels []string
	rest := query[dnsHeader:]
	for len(rest) > 0 && rest[0] != 0 {
		length := int(rest[0])
		if length > 63 || len(rest) < 1+length {
			return "", 0, 0
		}
		labels = append(labels, string(rest[1:1+length]))
		rest = rest[1+length:]
	}
	if len(rest) < 5 {
		return "", 0, 0
	}
	return strings.Join(labels, "."), binary.BigEndian.Uint16(rest[1:]), len(query) - len(rest) + 5
}
