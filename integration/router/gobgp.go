package router

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"
)

// gobgp is GoBGP's own daemon.
type gobgp struct{}

func (gobgp) programs() []string { return []string{"gobgpd", "gobgp"} }

func (gobgp) file(c Config, _ string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	var listen []string
	for _, a := range c.Addresses {
		if a.Zone() != "" {
			a = netip.IPv6Unspecified()
		}
		listen = append(listen, fmt.Sprintf("%q", a))
	}
	line("[global.config]\nas = %d\nrouter-id = %q\nport = %d\nlocal-address-list = [%s]", c.ASN, c.routerID(), c.port(), strings.Join(listen, ", "))
	line("%s", c.Extra)
	for _, n := range c.Neighbors {
		gobgpNeighbor(line, c, n)
	}
	return b.String()
}

func gobgpNeighbor(line func(string, ...any), c Config, n Neighbor) {
	line("[[neighbors]]\n[neighbors.config]\npeer-as = %d", n.ASN)
	if zone := n.Address.Zone(); zone != "" {
		line("neighbor-interface = %q", zone)
	} else {
		line("neighbor-address = %q", n.Address)
	}
	if n.LocalASN != 0 {
		line("local-as = %d", n.LocalASN)
	}
	if n.Password != "" {
		line("auth-password = %q", n.Password)
	}
	line("[neighbors.transport.config]\npassive-mode = %v", !n.Dials)
	if n.Port != 0 {
		line("remote-port = %d", n.Port)
	}
	if a := c.local(n); a.Zone() != "" {
		line("local-address = \"::\"")
	} else if a.IsValid() {
		line("local-address = %q", a)
	}
	seconds := int(n.HoldTime / time.Second)
	line("[neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1")
	if seconds > 0 {
		line("hold-time = %d\nkeepalive-interval = %d", seconds, max(seconds/3, 1))
	}
	if n.Multihop > 0 {
		line("[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = %d", n.Multihop)
	}
	if n.TTLSecurity > 0 {
		line("[neighbors.ttl-security.config]\nenabled = true\nttl-min = %d", 256-int(n.TTLSecurity))
	}
	if n.Reflect {
		line("[neighbors.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = %q", c.routerID())
	}
	if n.GracefulRestart > 0 {
		line("[neighbors.graceful-restart.config]\nenabled = true\nnotification-enabled = true\nrestart-time = %d", int(n.GracefulRestart/time.Second))
		line("long-lived-enabled = %v", n.LongLived > 0)
	}
	for _, l := range n.Extra {
		line("%s", l)
	}
	for _, f := range n.families() {
		line("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"%s-unicast\"", f)
		if n.GracefulRestart > 0 {
			line("[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true")
		}
		if n.LongLived > 0 {
			line("[neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = %d", int(n.LongLived/time.Second))
		}
		if n.SendPaths || n.ReceivePaths {
			line("[neighbors.afi-safis.add-paths.config]\nreceive = %v\nsend-max = %d", n.ReceivePaths, map[bool]int{true: 8}[n.SendPaths])
		}
	}
}

func (gobgp) daemon(c Config, dir string) []string {
	argv := []string{"gobgpd", "--pprof-disable", "-t", "toml", "-f", filepath.Join(dir, "conf"), "--api-hosts", "unix://" + filepath.Join(dir, "ctl"), "-l", "info"}
	for _, n := range c.Neighbors {
		if n.Address.Zone() != "" { // whom it takes for the neighbor there is whom the kernel knows
			argv = append([]string{"sh", "-c", `ping -c 1 -w 10 "$1" && shift && exec "$@"`, "sh", n.Address.String()}, argv...)
		}
	}
	return argv
}

func (gobgp) control(dir string) []string {
	return []string{"gobgp", "--target", "unix://" + filepath.Join(dir, "ctl")}
}

func (gobgp) ready() []string { return []string{"global"} }

func (gobgp) originate(ask asker, ps []netip.Prefix) error {
	for _, p := range ps {
		family := IPv4
		if p.Addr().Is6() {
			family = IPv6
		}
		if _, err := ask("global", "rib", "add", p.String(), "-a", string(family)); err != nil {
			return err
		}
	}
	return nil
}

// gobgpPath is a path in the JSON of "gobgp global rib".
type gobgpPath struct {
	Best  bool
	Stale bool
	From  string `json:"neighbor-ip"`
	Attrs []struct {
		Type    int
		ASPaths []struct{ ASNs []uint32 } `json:"as_paths"`
		Nexthop string
		Metric  *uint32
		Value   json.RawMessage
		List    []uint32 `json:"communities"`
	}
}

func (gobgp) routes(ask asker, f Family) ([]Route, error) {
	out, err := ask("-j", "global", "rib", "-a", string(f))
	if err != nil {
		return nil, err
	}
	var table map[string][]gobgpPath
	if err := json.Unmarshal([]byte(out), &table); err != nil {
		return nil, fmt.Errorf("GoBGP's table: %w: %s", err, out)
	}
	var all []Route
	for prefix, paths := range table {
		for _, p := range paths {
			r, err := p.route(prefix)
			if err != nil {
				return nil, fmt.Errorf("GoBGP's table: %w: %s", err, out)
			}
			all = append(all, r)
		}
	}
	return all, nil
}

// route reads a path by the types of its attributes (RFC 4271 and others).
func (p gobgpPath) route(prefix string) (Route, error) {
	at, err := netip.ParsePrefix(prefix)
	if err != nil {
		return Route{}, err
	}
	r := Route{Prefix: at, Best: p.Best, Stale: p.Stale}
	r.From, _ = netip.ParseAddr(p.From) // "<nil>" for its own
	for _, a := range p.Attrs {
		var err error
		switch a.Type {
		case 2:
			for _, s := range a.ASPaths {
				r.ASPath = append(r.ASPath, s.ASNs...)
			}
		case 3, 14:
			r.NextHop, err = netip.ParseAddr(a.Nexthop)
		case 4:
			r.MED = a.Metric
		case 5:
			r.LocalPref = new(uint32)
			err = json.Unmarshal(a.Value, r.LocalPref)
		case 8:
			for _, c := range a.List {
				r.Communities = append(r.Communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
			}
			r.Communities = sorted(r.Communities)
		case 32:
			var list []struct{ ASN, LocalData1, LocalData2 uint32 }
			err = json.Unmarshal(a.Value, &list)
			for _, c := range list {
				r.LargeCommunities = append(r.LargeCommunities, fmt.Sprintf("%d:%d:%d", c.ASN, c.LocalData1, c.LocalData2))
			}
			r.LargeCommunities = sorted(r.LargeCommunities)
		}
		if err != nil {
			return Route{}, err
		}
	}
	return r, nil
}

func (gobgp) neighbor(ask asker, a netip.Addr) (State, error) {
	out, err := ask("-j", "neighbor", a.String())
	if err != nil {
		return State{}, err
	}
	type neighbor struct {
		Conf struct {
			PeerASN uint32 `json:"peer_asn"`
		}
		State struct {
			Session  int    `json:"session_state"`
			RouterID string `json:"router_id"`
		}
		Timers struct {
			State struct {
				Negotiated int `json:"negotiated_hold_time"`
			}
		}
	}
	var n neighbor
	if err := json.Unmarshal([]byte(out), &n); err != nil {
		return State{}, fmt.Errorf("GoBGP's neighbor: %w: %s", err, out)
	}
	words := []string{"Unknown", "Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"}
	s := State{Session: words[n.State.Session%len(words)], ASN: n.Conf.PeerASN, Said: out}
	s.RouterID, _ = netip.ParseAddr(n.State.RouterID)
	if s.Established() {
		s.HoldTime = time.Duration(n.Timers.State.Negotiated) * time.Second
	}
	return s, nil
}
