package router

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// openbgpd is OpenBGPD, which leaves the kernel's tables alone.
type openbgpd struct{}

const openbgpdDaemon = "/usr/sbin/bgpd"

func (openbgpd) programs() []string { return []string{openbgpdDaemon, "bgpctl"} }

func (openbgpd) file(c Config, dir string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("AS %d", c.ASN)
	line("router-id %s", c.routerID())
	line("socket %q", filepath.Join(dir, "ctl"))
	line("fib-update no")
	line("connect-retry 1")
	for _, a := range c.Addresses {
		line("listen on %s port %d", a, c.port())
	}
	for _, p := range c.Originates {
		line("network %s", p)
	}
	line("%s", c.Extra)
	for _, n := range c.Neighbors {
		line("neighbor %s {", n.Address)
		for _, l := range openbgpdNeighbor(c, n) {
			line("  %s", l)
		}
		line("}")
	}
	line("allow from any")
	line("allow to any")
	return b.String()
}

func openbgpdNeighbor(c Config, n Neighbor) []string {
	lines := []string{fmt.Sprintf("remote-as %d", n.ASN)}
	add := func(when bool, format string, args ...any) {
		if when {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	if a := c.local(n); a.IsValid() {
		add(true, "local-address %s", a)
	}
	add(!n.Dials, "passive")
	add(n.Port != 0, "port %d", n.Port)
	add(n.LocalASN != 0, "local-as %d", n.LocalASN)
	add(n.Password != "", "tcp md5sig password %q", n.Password)
	switch {
	case n.TTLSecurity > 0:
		add(true, "ttl-security yes")
	case n.Multihop > 0:
		add(true, "multihop %d", n.Multihop)
	case c.Loopback:
		add(true, "multihop 2")
	}
	add(n.HoldTime > 0, "holdtime %d", int(n.HoldTime/time.Second))
	has := map[Family]bool{}
	for _, f := range n.families() {
		has[f] = true
	}
	for _, f := range []Family{IPv4, IPv6} {
		word := map[bool]string{true: "unicast", false: "none"}[has[f]]
		add(true, "announce %s %s", strings.Replace(string(f), "ip", "IP", 1), word)
	}
	add(n.SendPaths, "announce add-path send all")
	add(n.ReceivePaths, "announce add-path recv yes")
	add(n.Reflect, "route-reflector")
	return append(lines, n.Extra...)
}

func (openbgpd) daemon(_ Config, dir string) []string {
	return []string{openbgpdDaemon, "-d", "-v", "-f", filepath.Join(dir, "conf")}
}

func (openbgpd) control(dir string) []string {
	return []string{"bgpctl", "-j", "-s", filepath.Join(dir, "ctl")}
}

// octal is how bgpctl writes the bytes of a text that are not ASCII, which is no JSON.
var octal = regexp.MustCompile(`\\\\|\\[0-7]{3}`)

// openbgpdJSON is what bgpctl says as JSON.
func openbgpdJSON(said string) []byte {
	return octal.ReplaceAllFunc([]byte(said), func(escape []byte) []byte {
		n, err := strconv.ParseUint(string(escape[1:]), 8, 8)
		if err != nil { // an escaped backslash
			return escape
		}
		return []byte{byte(n)}
	})
}

func (openbgpd) ready() []string { return []string{"show", "summary"} }

func (openbgpd) originate(asker, []netip.Prefix) error { return nil }

func (openbgpd) routes(ask asker, f Family) ([]Route, error) {
	out, err := ask("show", "rib", map[Family]string{IPv4: "inet", IPv6: "inet6"}[f], "detail")
	if err != nil {
		return nil, err
	}
	var table struct {
		RIB []struct {
			Prefix      netip.Prefix
			ASPath      string
			ExitNexthop netip.Addr `json:"exit_nexthop"`
			Neighbor    struct {
				RemoteAddr string `json:"remote_addr"`
			}
			Best, Announced, Stale bool
			Source                 string
			Metric, LocalPref      uint32
			Communities            []string
			Large                  []string `json:"large_communities"`
		}
	}
	if err := json.Unmarshal(openbgpdJSON(out), &table); err != nil {
		return nil, fmt.Errorf("OpenBGPD's table: %w: %s", err, out)
	}
	var all []Route
	for _, p := range table.RIB {
		r := Route{Prefix: p.Prefix, NextHop: p.ExitNexthop, MED: &p.Metric, LocalPref: &p.LocalPref, Best: p.Best, Stale: p.Stale,
			Communities: communities(p.Communities), LargeCommunities: sorted(p.Large)}
		if r.ASPath, err = numbers(p.ASPath); err != nil {
			return nil, err
		}
		if p.Source != "announced" && !p.Announced {
			r.From, _ = netip.ParseAddr(p.Neighbor.RemoteAddr)
		}
		all = append(all, r)
	}
	return all, nil
}

func (openbgpd) neighbor(ask asker, a netip.Addr) (State, error) {
	out, err := ask("show", "neighbor", a.String())
	if err != nil {
		return State{}, err
	}
	var list struct {
		Neighbors []struct {
			RemoteAS   json.RawMessage `json:"remote_as"`
			RemoteAddr string          `json:"remote_addr"`
			BGPID      string
			State      string
			Session    struct{ HoldTime int }
		}
	}
	if err := json.Unmarshal(openbgpdJSON(out), &list); err != nil {
		return State{}, fmt.Errorf("OpenBGPD's neighbor: %w: %s", err, out)
	}
	for _, n := range list.Neighbors {
		if n.RemoteAddr != a.String() {
			continue
		}
		s := State{Session: n.State, HoldTime: time.Duration(n.Session.HoldTime) * time.Second, Said: out}
		asn, err := number(strings.Trim(string(n.RemoteAS), `"`))
		if err != nil {
			return State{}, fmt.Errorf("OpenBGPD's neighbor: %w: %s", err, out)
		}
		s.ASN = *asn
		s.RouterID, _ = netip.ParseAddr(n.BGPID) // absent without a session
		return s, nil
	}
	return State{}, fmt.Errorf("%s: %w: %s", a, errNoNeighbor, out)
}
