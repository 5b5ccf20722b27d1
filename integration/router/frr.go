package router

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// frr is FRR's bgpd alone: it learns and tells, and installs nothing.
type frr struct{}

const frrDaemon = "/usr/lib/frr/bgpd"

func (frr) programs() []string { return []string{frrDaemon, "vtysh"} }

func (frr) file(c Config, _ string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("hostname tor")
	line("router bgp %d", c.ASN)
	for _, l := range []string{
		"bgp router-id " + c.routerID(), "no bgp ebgp-requires-policy", "no bgp default ipv4-unicast", "no bgp network import-check",
		"bgp graceful-restart stalepath-time 60",
	} {
		line(" %s", l)
	}
	if c.Extra != "" {
		line("%s", strings.TrimRight(c.Extra, "\n"))
	}
	for _, n := range c.Neighbors {
		for _, l := range frrNeighbor(c, n) {
			line(" neighbor %s %s", frrName(n.Address), l)
		}
	}
	for _, f := range []Family{IPv4, IPv6} {
		line(" address-family %s unicast", f)
		for _, p := range c.Originates {
			if p.Addr().Is4() == (f == IPv4) {
				line("  network %s", p)
			}
		}
		for _, n := range c.Neighbors {
			for _, l := range frrFamily(n, f) {
				line("  neighbor %s %s", frrName(n.Address), l)
			}
		}
		line(" exit-address-family")
	}
	return b.String()
}

// frrName is what FRR calls a neighbor.
func frrName(a netip.Addr) string {
	if a.Zone() != "" {
		return a.Zone()
	}
	return a.String()
}

func frrNeighbor(c Config, n Neighbor) []string {
	lines := []string{fmt.Sprintf("remote-as %d", n.ASN)}
	if n.Address.Zone() != "" {
		lines[0] = "interface " + lines[0]
	}
	add := func(when bool, format string, args ...any) {
		if when {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	add(!n.Dials, "passive")
	add(n.Dials, "timers connect 1")
	add(n.Port != 0, "port %d", n.Port)
	add(n.LocalASN != 0, "local-as %d no-prepend replace-as", n.LocalASN)
	add(n.Password != "", "password %s", n.Password)
	add(n.Multihop > 0, "ebgp-multihop %d", n.Multihop)
	add(n.TTLSecurity > 0, "ttl-security hops %d", n.TTLSecurity)
	add(c.Loopback && n.Multihop == 0 && n.TTLSecurity == 0, "disable-connected-check")
	seconds := int(n.HoldTime / time.Second)
	add(seconds > 0, "timers %d %d", seconds/3, seconds)
	if a := c.local(n); a.IsValid() && a.Zone() == "" && n.Dials {
		add(true, "update-source %s", a)
	}
	return append(lines, n.Extra...)
}

func frrFamily(n Neighbor, f Family) []string {
	var lines []string
	for _, carried := range n.families() {
		if carried != f {
			continue
		}
		lines = append(lines, "activate")
		if n.SendPaths {
			lines = append(lines, "addpath-tx-all-paths")
		}
		if !n.ReceivePaths {
			lines = append(lines, "disable-addpath-rx")
		}
		if n.Reflect {
			lines = append(lines, "route-reflector-client")
		}
	}
	return lines
}

func (frr) daemon(c Config, dir string) []string {
	argv := []string{frrDaemon, "-n", "-S", "-f", filepath.Join(dir, "conf"), "-p", strconv.Itoa(int(c.port())), "-P", "0",
		"--vty_socket", dir, "-i", filepath.Join(dir, "pid"), "--log", "file:" + filepath.Join(dir, "log-bgpd")}
	if c.onLinks() {
		return frrWithZebra(dir, argv)
	}
	argv = append(argv, "-Z")
	for _, a := range c.Addresses {
		argv = append(argv, "-l", a.String())
	}
	return argv
}

const zebraDaemon = "/usr/lib/frr/zebra"

// frrWithZebra runs bgpd with the daemon that advertises the router on its links and
// hears its neighbors there, and which ends with it.
func frrWithZebra(dir string, bgpd []string) []string {
	zebra := filepath.Join(dir, "zebra")
	script := `chmod 711 "$1" && install -d -o frr -g frr "$2" && ` +
		zebraDaemon + ` -d -P 0 -z "$2/api" --vty_socket "$2" -i "$2/pid" --log "file:$1/log-zebra" && shift 2 && exec "$@"`
	argv := []string{"unshare", "--pid", "--fork", "--kill-child", "--", "sh", "-c", script, "sh", dir, zebra}
	return append(append(argv, bgpd...), "-z", filepath.Join(zebra, "api"))
}

func (frr) control(dir string) []string { return []string{"vtysh", "--vty_socket", dir, "-c"} }

func (frr) ready() []string { return []string{"show version"} }

func (frr) originate(asker, []netip.Prefix) error { return nil }

// frrPath is a path in "show bgp FAMILY unicast json detail".
type frrPath struct {
	ASPath    *struct{ Segments []struct{ List []uint32 } }
	Metric    *uint32
	LocPrf    *uint32
	Stale     bool
	BestPath  struct{ Overall bool }
	Community struct{ List []string }
	Large     struct{ List []string } `json:"largeCommunity"`
	Nexthops  []struct{ IP, Scope string }
	Peer      struct{ PeerID string }
}

func (frr) routes(ask asker, f Family) ([]Route, error) {
	out, err := ask(fmt.Sprintf("show bgp %s unicast json detail", f))
	if err != nil {
		return nil, err
	}
	var table struct{ Routes map[string][]frrPath }
	if err := json.Unmarshal([]byte(out), &table); err != nil {
		return nil, fmt.Errorf("FRR's table: %w: %s", err, out)
	}
	var all []Route
	for prefix, paths := range table.Routes {
		for _, p := range paths {
			if p.ASPath == nil { // the list's head is about the prefix
				continue
			}
			r, err := p.route(prefix)
			if err != nil {
				return nil, err
			}
			all = append(all, r)
		}
	}
	return all, nil
}

func (p frrPath) route(prefix string) (Route, error) {
	at, err := netip.ParsePrefix(prefix)
	if err != nil {
		return Route{}, err
	}
	r := Route{Prefix: at, MED: p.Metric, LocalPref: p.LocPrf, Best: p.BestPath.Overall, Stale: p.Stale,
		Communities: communities(p.Community.List), LargeCommunities: sorted(p.Large.List)}
	for _, s := range p.ASPath.Segments {
		r.ASPath = append(r.ASPath, s.List...)
	}
	for _, h := range p.Nexthops {
		if a, err := netip.ParseAddr(h.IP); err == nil && (!r.NextHop.IsValid() || h.Scope == "global") {
			r.NextHop = a
		}
	}
	if a, err := netip.ParseAddr(p.Peer.PeerID); err == nil && !a.IsUnspecified() {
		r.From = a
	}
	return r, nil
}

func (frr) neighbor(ask asker, a netip.Addr) (State, error) {
	name := frrName(a)
	out, err := ask(fmt.Sprintf("show bgp neighbors %s json", name))
	if err != nil {
		return State{}, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return State{}, fmt.Errorf("FRR's neighbor: %w: %s", err, out)
	}
	var n struct {
		RemoteAS             uint32
		RemoteRouterID       netip.Addr
		BGPState             string
		BGPTimerHoldTimeMsec int `json:"bgpTimerHoldTimeMsecs"`
	}
	one, has := all[name]
	if !has {
		return State{}, fmt.Errorf("%s: %w: %s", a, errNoNeighbor, out)
	}
	if err := json.Unmarshal(one, &n); err != nil {
		return State{}, fmt.Errorf("FRR's neighbor: %w: %s", err, out)
	}
	s := State{Session: n.BGPState, ASN: n.RemoteAS, RouterID: n.RemoteRouterID, Said: out}
	if s.Established() {
		s.HoldTime = time.Duration(n.BGPTimerHoldTimeMsec) * time.Millisecond
	}
	return s, nil
}
