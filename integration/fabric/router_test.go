package fabric

import (
	"context"
	"fmt"
	"strings"

	"github.com/fairway-network/fairway/integration/lab"
)

// router is what forwards: an implementation with its part that writes the
// kernel's routes.
type router struct {
	name     string
	programs []string
	files    map[string]string
	start    []string
	// stale asks whether its route of each family is kept for a restart; it is an
	// error that there is none.
	stale func(tor *lab.Node) (v4, v6 bool, err error)
	// avoided asks for its routes with the community GRACEFUL_SHUTDOWN, of a family
	// (4 or 6).
	avoided func(tor *lab.Node, family int) (string, error)
}

// holds is an error unless the router has a route of each family, both stale or
// both fresh.
func (r router) holds(tor *lab.Node, stale bool) error {
	v4, v6, err := r.stale(tor)
	if err == nil && (v4 != stale || v6 != stale) {
		err = fmt.Errorf("stale: IPv4 %t, IPv6 %t, want both %t", v4, v6, stale)
	}
	return err
}

func routers() []router {
	return []router{frr(), bird()}
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
		avoided: func(tor *lab.Node, family int) (string, error) {
			return tor.Exec(context.Background(), "vtysh", "-c", fmt.Sprintf("show bgp ipv%d unicast community graceful-shutdown", family))
		},
		stale: func(tor *lab.Node) (v4, v6 bool, err error) {
			ask := func(family, pool string) (bool, error) {
				out, err := tor.Exec(context.Background(), "vtysh", "-c", "show bgp "+family+" unicast")
				if err != nil {
					return false, err
				}
				for line := range strings.Lines(out) {
					if strings.Contains(line, pool) {
						return strings.HasPrefix(line, "S"), nil
					}
				}
				return false, fmt.Errorf("FRR has no %s route:\n%s", family, out)
			}
			if v4, err = ask("ipv4", pool4); err != nil {
				return
			}
			v6, err = ask("ipv6", pool6)
			return
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
		start: []string{"install -d /run/bird", "bird -c /etc/bird/bird.conf"},
		avoided: func(tor *lab.Node, family int) (string, error) {
			return tor.Exec(context.Background(), "birdc", "show", "route", "table", fmt.Sprintf("master%d", family), "where", "(65535,0)", "~", "bgp_community")
		},
		stale: func(tor *lab.Node) (v4, v6 bool, err error) {
			ask := func(table, pool, protocol string) (bool, error) {
				out, err := tor.Exec(context.Background(), "birdc", "show", "route", "table", table)
				if err == nil && !strings.Contains(out, "\n"+pool) {
					err = fmt.Errorf("BIRD has no route in %s:\n%s", table, out)
				}
				if err != nil {
					return false, err
				}
				out, err = tor.Exec(context.Background(), "birdc", "show", "protocols", "all", protocol)
				return strings.Contains(out, "Neighbor graceful restart active"), err
			}
			if v4, err = ask("master4", pool4, "tor4"); err != nil {
				return
			}
			v6, err = ask("master6", pool6, "tor6")
			return
		},
	}
}
