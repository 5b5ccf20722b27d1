package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go4.org/netipx"

	"github.com/fairway-network/fairway/pools"
)

// asTrans stands in for large numbers towards old routers (RFC 6793).
const asTrans = 23456

// parse reads a scalar as a person wrote it and holds it against its rules.
// The error names the text and the way out.
func (s *shape) parse(text string) (any, error) {
	if s.oneof != nil && !slices.Contains(s.oneof, text) {
		return nil, fmt.Errorf("%q: write %s", text, orList(s.oneof))
	}
	v, err := parseAs(s.typ, text)
	if err != nil || s.low == "" {
		return v, err
	}
	low, high := s.bound(s.low), s.bound(s.high)
	if n := number(v); n < low || n > high {
		return nil, fmt.Errorf("%s is out of bounds: write %s to %s", text, s.low, s.high)
	}
	if s.unit != "" && number(v)%s.bound(s.unit) != 0 {
		return nil, fmt.Errorf("%s is too fine: write a multiple of %s", text, s.unit)
	}
	return v, nil
}

// bound reads a limit out of a tag; the tests hold all of them to be readable.
func (s *shape) bound(text string) int64 {
	v, err := parseAs(s.typ, text)
	if err != nil {
		panic("config: limit of " + s.typ.String() + ": " + err.Error())
	}
	return number(v)
}

func number(v any) int64 {
	if d, ok := v.(time.Duration); ok {
		return int64(d)
	}
	n, _ := v.(int64)
	return n
}

// parseAs reads text as a t. Whole numbers of all types come as int64.
func parseAs(t reflect.Type, text string) (any, error) {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return pools.ParseAddr(text)
	case reflect.TypeFor[netip.Prefix]():
		return parseInterface(text)
	case reflect.TypeFor[netip.AddrPort]():
		return parseAddrPort(text)
	case reflect.TypeFor[netipx.IPRange]():
		return pools.ParseRange(text)
	case reflect.TypeFor[time.Duration]():
		return parseDuration(text)
	case reflect.TypeFor[slog.Level]():
		var l slog.Level
		err := l.UnmarshalText([]byte(text))
		return l, err
	case reflect.TypeFor[ASN]():
		return parseASN(text)
	case reflect.TypeFor[Network]():
		return parseNetwork(text)
	case reflect.TypeFor[Community]():
		return parseCommunity(text)
	case reflect.TypeFor[LargeCommunity]():
		return parseLargeCommunity(text)
	case reflect.TypeFor[NextHop]():
		return parseNextHop(text)
	}
	switch t.Kind() {
	case reflect.String:
		return text, nil
	case reflect.Bool:
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%q: write true or false", text)
		}
		return text == "true", nil
	}
	return parseInt(text)
}

func parseInt(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%q is not a whole number: write it in decimal digits", text)
	}
	return n, nil
}

// dotted is an ASN in the asdot notation of RFC 5396.
var dotted = compiled(`^(\d{1,5})\.(\d{1,5})$`)

func parseASN(text string) (int64, error) {
	if !strings.Contains(text, ".") {
		return parsePlainASN(text)
	}
	if m := dotted().FindStringSubmatch(text); m != nil {
		high, tooHigh := strconv.ParseUint(m[1], 10, 16)
		low, tooLow := strconv.ParseUint(m[2], 10, 16)
		if tooHigh != nil || tooLow != nil {
			return 0, fmt.Errorf("%s is not an ASN: write one plain number", text)
		}
		return 0, fmt.Errorf("%s: an ASN is one plain number here: write %d", text, high<<16+low)
	}
	return parsePlainASN(text)
}

func parsePlainASN(text string) (int64, error) {
	n, err := parseInt(text)
	switch {
	case err == nil && n == 0:
		return 0, errors.New("0 is reserved (RFC 7607): write the ASN, 64512 to 65534 are for private use")
	case n == asTrans:
		return 0, fmt.Errorf("%d is AS_TRANS (RFC 6793), a placeholder that routers show for a number they can't: write the real ASN", n)
	}
	return n, err
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, notNumber := strconv.ParseFloat(text, 64); notNumber == nil {
		return 0, fmt.Errorf("%s has no unit: write %ss, %sm or %sh", text, text, text, text)
	}
	return 0, fmt.Errorf("%q is not a duration: write 90s, 5m or 1h30m", text)
}

// parseInterface reads an address with the prefix length of its network.
func parseInterface(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err == nil {
		_, err = pools.ParseAddr(p.Addr().String())
		return p, err
	}
	if a, err := pools.ParseAddr(text); err == nil {
		return netip.Prefix{}, fmt.Errorf("%s has no prefix length: write the one of the pods' interfaces after it, such as %s/24 or %s/%d", a, a, a, a.BitLen())
	}
	return netip.Prefix{}, fmt.Errorf("%q is not an address with a prefix length: write 10.0.0.1/24 or fd00::1/64", text)
}

func parseAddrPort(text string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return ap, fmt.Errorf("%q: write address:port, such as 127.0.0.1:50051 or [::1]:50051", text)
	}
	_, err = pools.ParseAddr(ap.Addr().String())
	return ap, err
}

// parseNetwork reads a prefix without host bits.
func parseNetwork(text string) (Network, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return Network{}, fmt.Errorf("%q is not a CIDR: write 10.0.0.0/24 or fd00::/64", text)
	}
	if _, err := pools.ParseAddr(p.Addr().String()); err != nil {
		return Network{}, err
	}
	if p != p.Masked() {
		return Network{}, fmt.Errorf("CIDR %q has host bits set: write %s", text, p.Masked())
	}
	return Network{p}, nil
}

// wellKnown are the communities that have names, as routers write them.
func wellKnown() map[string]int64 {
	return map[string]int64{
		"graceful-shutdown": 0xFFFF0000, "blackhole": 0xFFFF029A, // RFC 8326, RFC 7999
		"no-export": 0xFFFFFF01, "no-advertise": 0xFFFFFF02, "no-export-subconfed": 0xFFFFFF03, // RFC 1997
		"no-peer": 0xFFFFFF04, // RFC 3765
	}
}

func parseCommunity(text string) (int64, error) {
	names := wellKnown()
	if n, ok := names[text]; ok {
		return n, nil
	}
	if parts, ok := numbers(text, 2, 16); ok {
		return int64(parts[0]<<16 | parts[1]), nil
	}
	if meant := closest(text, slices.Sorted(maps.Keys(names))); meant != "" {
		return 0, fmt.Errorf("%q: did you mean %s?", text, meant)
	}
	return 0, fmt.Errorf("%q is not a community: write two numbers up to 65535, such as 64512:100, or %s; with a larger ASN use largeCommunities", text, orList(slices.Sorted(maps.Keys(names))))
}

func parseLargeCommunity(text string) (LargeCommunity, error) {
	parts, ok := numbers(text, 3, 32)
	if !ok {
		return LargeCommunity{}, fmt.Errorf("%q is not a large community: write three numbers up to 4294967295, such as 64512:1:2", text)
	}
	return LargeCommunity{uint32(parts[0]), uint32(parts[1]), uint32(parts[2])}, nil
}

// numbers reads count decimal numbers of so many bits, with colons between.
func numbers(text string, count, size int) (out []uint64, ok bool) {
	words := strings.Split(text, ":")
	for _, w := range words {
		n, err := strconv.ParseUint(w, 10, size)
		if err != nil || strconv.FormatUint(n, 10) != w {
			return nil, false
		}
		out = append(out, n)
	}
	return out, len(words) == count
}

func parseNextHop(text string) (NextHop, error) {
	if n := NextHop(text); n == NextHopSelf || n == NextHopUnchanged {
		return n, nil
	}
	a, err := pools.ParseAddr(text)
	if err != nil {
		return "", fmt.Errorf("%q: write self, unchanged or an IP address", text)
	}
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return "", fmt.Errorf("%s is nowhere to send packets to: write an address that the peer reaches", a)
	}
	return NextHop(a.String()), nil
}

func orList(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
