package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	"github.com/seaway-net/seaway/plugin/internal/ipam"
)

// Settings are what `docker plugin set` can change, read from the environment. Their defaults are here
// and not in config.json, because an upgrade brings no new defaults.
type Settings struct {
	// SubnetPool is where subnets come from when a network is created without one.
	SubnetPool netip.Prefix
	// SubnetSize is the length in bits of such a subnet.
	SubnetSize int
	// MTU of containers' links in bytes; 0: that of the host's uplink.
	MTU int
	// LogLevel is the least level that is logged.
	LogLevel slog.Level
}

// Limits of the MTU setting and option in bytes: what IPv4 demands of a link (RFC 791) and what the
// kernel's veth can carry.
const (
	MinMTU = 68
	MaxMTU = 65535
)

// ReadSettings reads the settings. Every bad one is named in the error, with what to type instead; the
// settings returned then hold the defaults in its place.
func ReadSettings(getenv func(string) string) (Settings, error) {
	s := Settings{SubnetPool: netip.MustParsePrefix("10.192.0.0/11"), SubnetSize: 24}
	var failed error
	read := func(name string, parse func(string) error) {
		value := strings.TrimSpace(getenv(name))
		if value == "" {
			return
		}
		if err := parse(value); err != nil {
			failed = errors.Join(failed, fmt.Errorf("setting %s=%q: %w", name, value, err))
		}
	}
	read("SUBNET_POOL", func(v string) error { return readPool(v, &s.SubnetPool) })
	read("SUBNET_SIZE", func(v string) error { return readSize(v, s.SubnetPool, &s.SubnetSize) })
	read("MTU", func(v string) error { return readMTU(v, &s.MTU) })
	read("LOG_LEVEL", func(v string) error {
		if err := s.LogLevel.UnmarshalText([]byte(v)); err != nil {
			return errors.New("write debug, info, warn or error")
		}
		return nil
	})
	if failed == nil && s.SubnetSize < s.SubnetPool.Bits() {
		failed = fmt.Errorf("setting SUBNET_SIZE=%d: a /%d does not fit into SUBNET_POOL=%s",
			s.SubnetSize, s.SubnetSize, s.SubnetPool)
	}
	return s, failed
}

func readPool(value string, into *netip.Prefix) error {
	pool, err := netip.ParsePrefix(value)
	if err != nil || !pool.Addr().Is4() {
		return errors.New("write an IPv4 range such as 10.192.0.0/11")
	}
	if err := ipam.CheckSubnet(pool); err != nil {
		return err
	}
	*into = pool
	return nil
}

func readSize(value string, pool netip.Prefix, into *int) error {
	size, err := strconv.Atoi(strings.TrimPrefix(value, "/"))
	if err != nil || size < 8 || size > 30 {
		return fmt.Errorf("write the length of a subnet, from %d to 30", max(8, pool.Bits()))
	}
	*into = size
	return nil
}

func readMTU(value string, into *int) error {
	if strings.EqualFold(value, "auto") {
		return nil
	}
	mtu, err := strconv.Atoi(value)
	if err != nil || mtu < MinMTU || mtu > MaxMTU {
		return fmt.Errorf("write auto, or a number of bytes from %d to %d", MinMTU, MaxMTU)
	}
	*into = mtu
	return nil
}

// repair is appended to the error of a bad setting: how to change it.
const repair = "; change it with: docker plugin disable -f NAME, docker plugin set NAME SETTING=value, docker plugin enable NAME" +
	" (NAME as docker plugin ls shows it; running containers do not notice)"
