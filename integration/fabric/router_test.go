package fabric

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/fairway-network/fairway/integration/lab"
)

// router is what forwards: an implementation with its part that writes the kernel's
// routes. Families are 4 and 6.
type router struct {
	name     string
	programs []string
	files    map[string]string
	start    []string
	// stale asks whether its route to the pool is kept for a restart; it is an error that
	// there is none.
	stale func(tor *lab.Node, family int) (bool, error)
	// tagged asks for its routes with a community.
	tagged func(tor *lab.Node, family int, asn, value uint16) (string, error)
}

// holds is an error unless the router has a route of each family, both stale or
// both fresh.
func (r router) holds(tor *lab.Node, stale bool) error {
	for _, family := range []int{4, 6} {
		if is, err := r.stale(tor, family); err != nil || is != stale {
			return fmt.Errorf("the IPv%d route is stale: %t, want %t: %w", family, is, stale, err)
		}
	}
	return nil
}

// drops is how many packets to an address the router may drop of its own accord while its
// kernel is told of changes: FRR changes an IPv6 route by a removal and an addition.
func (r router) drops(to netip.Addr, events []string) (most int) {
	for _, e := range events {
		if r.name == "FRR" && to.Is6() && strings.HasPrefix(e, "Deleted "+pool6) {
			most++
		}
	}
	return most
}

// pool is where the pool's addresses of a family begin.
func pool(family int) string {
	if family == 4 {
		return pool4
	}
	return pool6
}

// errNone is of a router without a route to the pool.
type errNone struct {
	family int
	table  string
}

func (e errNone) Error() string {
	return fmt.Sprintf("there is no IPv%d route in\n%s", e.family, e.table)
}

func routers() []router {
	return []router{frr(), bird(), openbgpd(), gobgp()}
}

func frr() router {
	return router{
		name:     "FRR",
		programs: []string{"/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "vtysh"},
		files: map[string]string{"/etc/frr/bgpd.conf": `router bgp 65000
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor 10.0.1.2 remote-as 64512
 neighbor 10.0.1.2 passive
 neighbor fd00:0:1::2 remote-as 64512
 neighbor fd00:0:1::2 passive
 address-family ipv4 unicast
  neighbor 10.0.1.2 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor fd00:0:1::2 activate
 exit-address-family
`},
		start: []string{
			"install -d -o frr -g frr -m 755 /run/frr /var/log/frr",
			"/usr/lib/frr/zebra -d -A 127.0.0.1",
			"/usr/lib/frr/bgpd -d -A 127.0.0.1 -f /etc/frr/bgpd.conf",
		},
		tagged: func(tor *lab.Node, family int, asn, value uint16) (string, error) {
			return tor.Exec(context.Background(), "vtysh", "-c", fmt.Sprintf("show bgp ipv%d unicast community %d:%d", family, asn, value))
		},
		stale: func(tor *lab.Node, family int) (bool, error) {
			out, err := tor.Exec(context.Background(), "vtysh", "-c", fmt.Sprintf("show bgp ipv%d unicast", family))
			if err != nil {
				return false, err
			}
			for line := range strings.Lines(out) {
				if strings.Contains(line, pool(family)) {
					return strings.HasPrefix(line, "S"), nil
				}
			}
			return false, errNone{family, out}
		},
	}
}

func bird() router {
	return router{
		name:     "BIRD",
		programs: []string{"bird", "birdc"},
		files: map[string]string{"/etc/bird/bird.conf": `router id 10.0.1.1;
protocol device {}
protocol kernel { ipv4 { export all; import none; }; }
protocol kernel { ipv6 { export all; import none; }; }
protocol bgp tor4 { local 10.0.1.1 as 65000; neighbor 10.0.1.2 as 64512; passive on; ipv4 { import all; export none; }; }
protocol bgp tor6 { local fd00:0:1::1 as 65000; neighbor fd00:0:1::2 as 64512; passive on; ipv6 { import all; export none; }; }
`},
		start:  []string{"install -d /run/bird", "bird -c /etc/bird/bird.conf"},
		tagged: birdTagged,
		stale: func(tor *lab.Node, family int) (bool, error) {
			out, err := tor.Exec(context.Background(), "birdc", "show", "route", "table", fmt.Sprintf("master%d", family))
			if err == nil && !strings.Contains(out, "\n"+pool(family)) {
				err = errNone{family, out}
			}
			if err != nil {
				return false, err
			}
			out, err = tor.Exec(context.Background(), "birdc", "show", "protocols", "all", fmt.Sprintf("tor%d", family))
			return strings.Contains(out, "Neighbor graceful restart active"), err
		},
	}
}

func birdTagged(tor *lab.Node, family int, asn, value uint16) (string, error) {
	return tor.Exec(context.Background(), "birdc", "show", "route", "table", fmt.Sprintf("master%d", family), "where", fmt.Sprintf("(%d,%d)", asn, value), "~", "bgp_community")
}

// forwarder is BIRD beside a daemon that writes no routes of the kernel, as route servers
// have it: it learns them by iBGP over the loopback interface, with the next hops of the
// daemon's neighbors.
const forwarder = `router id 10.0.1.254;
protocol device {}
protocol direct { ipv4; ipv6; }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; }
protocol kernel { ipv6 { export where source = RTS_BGP; import none; }; }
protocol bgp server {
  local 127.0.0.2 as 65000;
  neighbor 127.0.0.1 as 65000;
  strict bind on;
  connect retry time 1;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
`

// openbgpd writes no routes of the kernel on Linux, "fib-update yes" or not: that part of
// it is not in the portable release.
func openbgpd() router {
	return router{
		name:     "OpenBGPD",
		programs: []string{"/usr/sbin/bgpd", "bgpctl", "bird", "birdc"},
		files: map[string]string{"/etc/bird/bird.conf": forwarder, "/etc/openbgpd.conf": `AS 65000
router-id 10.0.1.1
socket "/run/openbgpd/ctl"
fib-update no
listen on 10.0.1.1
listen on fd00:0:1::1
listen on 127.0.0.1
neighbor 10.0.1.2 {
  remote-as 64512
  passive
  announce IPv6 none
}
neighbor fd00:0:1::2 {
  remote-as 64512
  passive
  announce IPv4 none
  announce IPv6 unicast
}
neighbor 127.0.0.2 {
  remote-as 65000
  passive
  local-address 127.0.0.1
  announce IPv4 unicast
  announce IPv6 unicast
  set nexthop no-modify
}
allow from any
allow to 127.0.0.2
`},
		start: []string{
			"install -d /run/bird /run/openbgpd",
			"install -m 600 /etc/openbgpd.conf /run/openbgpd.conf", // it takes no file that others may read
			"/usr/sbin/bgpd -f /run/openbgpd.conf",
			"bird -c /etc/bird/bird.conf",
		},
		tagged: birdTagged,
		stale: func(tor *lab.Node, family int) (bool, error) {
			out, err := tor.Exec(context.Background(), "bgpctl", "-j", "-s", "/run/openbgpd/ctl", "show", "rib")
			if err != nil {
				return false, err
			}
			var table struct {
				RIB []struct {
					Prefix string
					Stale  bool
				}
			}
			if err := json.Unmarshal([]byte(out), &table); err != nil {
				return false, fmt.Errorf("%w: %s", err, out)
			}
			for _, r := range table.RIB {
				if strings.HasPrefix(r.Prefix, pool(family)) {
					return r.Stale, nil
				}
			}
			return false, errNone{family, out}
		},
	}
}

// gobgp writes routes of the kernel by way of FRR's zebra alone, whose protocol it knows
// up to FRR 8.1.
func gobgp() router {
	return router{
		name:     "GoBGP",
		programs: []string{"gobgpd", "gobgp", "bird", "birdc"},
		files: map[string]string{"/etc/bird/bird.conf": forwarder, "/etc/gobgpd.conf": `[global.config]
as = 65000
router-id = "10.0.1.1"
local-address-list = ["10.0.1.1", "fd00:0:1::1", "127.0.0.1"]
` + gobgpNeighbor("10.0.1.2", 64512, "ipv4") + gobgpNeighbor("fd00:0:1::2", 64512, "ipv6") + gobgpNeighbor("127.0.0.2", 65000, "ipv4", "ipv6")},
		start: []string{
			"install -d /run/bird",
			"sh -c 'gobgpd -t toml -f /etc/gobgpd.conf --pprof-disable >/var/log/gobgpd.log 2>&1 &'",
			"bird -c /etc/bird/bird.conf",
		},
		tagged: birdTagged,
		stale: func(tor *lab.Node, family int) (bool, error) {
			out, err := tor.Exec(context.Background(), "gobgp", "-j", "global", "rib", "-a", fmt.Sprintf("ipv%d", family))
			if err != nil {
				return false, err
			}
			var table map[string][]struct{ Stale bool }
			if err := json.Unmarshal([]byte(out), &table); err != nil {
				return false, fmt.Errorf("%w: %s", err, out)
			}
			for prefix, paths := range table {
				if strings.HasPrefix(prefix, pool(family)) && len(paths) > 0 {
					return paths[0].Stale, nil
				}
			}
			return false, errNone{family, out}
		},
	}
}

func gobgpNeighbor(address string, asn int, families ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[[neighbors]]\n[neighbors.config]\nneighbor-address = %q\npeer-as = %d\n[neighbors.transport.config]\npassive-mode = true\n[neighbors.timers.config]\nidle-hold-time-after-reset = 1\n"+
		"[neighbors.graceful-restart.config]\nenabled = true\nnotification-enabled = true\nrestart-time = 60\n", address, asn)
	for _, f := range families {
		fmt.Fprintf(&b, "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"%s-unicast\"\n[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n", f)
	}
	return b.String()
}
