package router

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// bird is BIRD 2. Without the kernel protocol it installs nothing.
type bird struct{}

func (bird) programs() []string { return []string{"bird", "birdc"} }

func (bird) file(c Config, _ string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("router id %s;", c.routerID())
	line("protocol device {}")
	for _, f := range []Family{IPv4, IPv6} {
		line("protocol static own_%s {", f)
		line("  %s;", f)
		for _, p := range c.Originates {
			if p.Addr().Is4() == (f == IPv4) {
				line("  route %s blackhole;", p)
			}
		}
		line("}")
	}
	line("%s", c.Extra)
	for i, n := range c.Neighbors {
		line("protocol bgp n%d {", i)
		for _, l := range birdNeighbor(c, n) {
			line("  %s;", l)
		}
		for _, f := range n.families() {
			line("  %s { import all; export all; %s };", f, birdPaths(n)+birdHops(n, f))
		}
		line("}")
	}
	return b.String()
}

func birdNeighbor(c Config, n Neighbor) []string {
	asn := c.ASN
	if n.LocalASN != 0 {
		asn = n.LocalASN
	}
	port := n.Port
	if port == 0 {
		port = 179
	}
	lines := []string{
		fmt.Sprintf("local %s port %d as %d", c.local(n).WithZone(""), c.port(), asn),
		fmt.Sprintf("neighbor %s port %d as %d", n.Address, port, n.ASN),
		"strict bind on", "connect retry time 1", "error wait time 1, 5",
	}
	add := func(when bool, format string, args ...any) {
		if when {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	add(!n.Dials, "passive on")
	add(n.Password != "", "password %q", n.Password)
	switch {
	case n.TTLSecurity > 1:
		add(true, "multihop %d", n.TTLSecurity)
	case n.Multihop > 0:
		add(true, "multihop %d", n.Multihop)
	case c.Loopback:
		add(true, "multihop 2")
	default:
		add(true, "direct")
	}
	add(n.TTLSecurity > 0, "ttl security on")
	seconds := int(n.HoldTime / time.Second)
	add(seconds > 0, "hold time %d", seconds)
	add(seconds > 0, "keepalive time %d", seconds/3)
	add(n.GracefulRestart > 0, "graceful restart on")
	add(n.GracefulRestart > 0, "graceful restart time %d", int(n.GracefulRestart/time.Second))
	add(n.Reflect, "rr client")
	return append(lines, n.Extra...)
}

// birdHops are needed for IPv4 prefixes over a link without IPv4 (RFC 8950).
func birdHops(n Neighbor, f Family) string {
	if n.Address.Zone() != "" && f == IPv4 {
		return "extended next hop on;"
	}
	return ""
}

func birdPaths(n Neighbor) string {
	switch {
	case n.SendPaths && n.ReceivePaths:
		return "add paths on;"
	case n.SendPaths:
		return "add paths tx;"
	case n.ReceivePaths:
		return "add paths rx;"
	}
	return ""
}

func (bird) daemon(_ Config, dir string) []string {
	return []string{"bird", "-f", "-c", filepath.Join(dir, "conf"), "-s", filepath.Join(dir, "ctl"), "-P", filepath.Join(dir, "pid")}
}

func (bird) control(dir string) []string { return []string{"birdc", "-s", filepath.Join(dir, "ctl")} }

func (bird) ready() []string { return []string{"show", "status"} }

func (bird) originate(asker, []netip.Prefix) error { return nil }

func (bird) routes(ask asker, f Family) ([]Route, error) {
	out, err := ask("show", "route", "all", "table", "master"+string(f[len(f)-1:]))
	if err != nil {
		return nil, err
	}
	var all []Route
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if len(all) > 0 && strings.HasPrefix(line, "\t") {
			if err := all[len(all)-1].birdAttribute(line); err != nil {
				return nil, err
			}
			continue
		}
		r, is := birdRoute(line, all)
		if is {
			all = append(all, r)
		}
	}
	return all, nil
}

// birdRoute reads the first line of a path; a further path of the same prefix
// leaves it out.
func birdRoute(line string, before []Route) (Route, bool) {
	fields := strings.Fields(line)
	open := strings.Index(line, "[")
	if len(fields) == 0 || open < 0 {
		return Route{}, false
	}
	var r Route
	if p, err := netip.ParsePrefix(fields[0]); err == nil {
		r.Prefix = p
	} else if len(before) > 0 && line[0] == ' ' {
		r.Prefix = before[len(before)-1].Prefix
	} else {
		return Route{}, false
	}
	inside, after, _ := strings.Cut(line[open+1:], "]")
	if _, from, has := strings.Cut(inside, " from "); has {
		r.From, _ = netip.ParseAddr(strings.Fields(from)[0])
	}
	r.Best = strings.Contains(strings.SplitN(after, "(", 2)[0], "*")
	r.Stale = strings.Contains(after, "(100s)")
	return r, true
}

// birdAttribute reads one of the lines below a path.
func (r *Route) birdAttribute(line string) error {
	name, value, has := strings.Cut(strings.TrimSpace(line), ": ")
	if via, is := strings.CutPrefix(name, "via "); !has && is && !r.From.IsValid() {
		if a, err := netip.ParseAddr(strings.Fields(via)[0]); err == nil {
			r.From = a // a direct neighbor is named only here
		}
	}
	var err error
	switch name {
	case "BGP.as_path":
		r.ASPath, err = numbers(value)
	case "BGP.next_hop":
		r.NextHop, err = netip.ParseAddr(strings.Fields(value)[0])
	case "BGP.med":
		r.MED, err = number(value)
	case "BGP.local_pref":
		r.LocalPref, err = number(value)
	case "BGP.community":
		r.Communities = communities(birdLists(value))
	case "BGP.large_community":
		r.LargeCommunities = sorted(birdLists(value))
	}
	if err != nil {
		return fmt.Errorf("BIRD says %q: %w", line, err)
	}
	return nil
}

// birdLists reads "(1, 2) (3, 4)" as "1:2" and "3:4".
func birdLists(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ")") {
		if _, list, has := strings.Cut(part, "("); has {
			out = append(out, strings.ReplaceAll(strings.ReplaceAll(list, " ", ""), ",", ":"))
		}
	}
	return out
}

func number(text string) (*uint32, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	v := uint32(n)
	return &v, err
}

func (bird) neighbor(ask asker, a netip.Addr) (State, error) {
	out, err := ask("show", "protocols", "all")
	if err != nil {
		return State{}, err
	}
	for part := range strings.SplitSeq(out, "\n\n") {
		if !strings.Contains(part, "Neighbor address: "+a.String()+"\n") && !strings.Contains(part, "Neighbor address: "+a.String()+"%") {
			continue
		}
		s := State{Said: part}
		for line := range strings.Lines(part) {
			if err := s.birdLine(strings.TrimSpace(line)); err != nil {
				return State{}, err
			}
		}
		return s, nil
	}
	return State{}, fmt.Errorf("%s: %w: %s", a, errNoNeighbor, out)
}

func (s *State) birdLine(line string) error {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	var err error
	switch name {
	case "BGP state":
		s.Session = value
	case "Neighbor AS":
		var n *uint32
		n, err = number(value)
		s.ASN = *n
	case "Neighbor ID":
		s.RouterID, err = netip.ParseAddr(value)
	case "Hold timer":
		_, agreed, _ := strings.Cut(value, "/")
		var n *uint32
		n, err = number(agreed)
		s.HoldTime = time.Duration(*n) * time.Second
	}
	if err != nil {
		return fmt.Errorf("BIRD says %q: %w", line, err)
	}
	return nil
}
