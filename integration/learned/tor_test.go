package learned

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// tor is a router with a link to the node. Its sessions are one for each family.
type tor struct {
	*router.Router
	host   router.Namespace
	number int
}

// startTor starts the router of a number, which tells prefixes.
func startTor(t *testing.T, i router.Implementation, number int, tells ...string) *tor {
	t.Helper()
	return startTorWith(t, i, number, func(*router.Config) {}, tells...)
}

// startTorWith is startTor of a router with more in its Config.
func startTorWith(t *testing.T, i router.Implementation, number int, more func(*router.Config), tells ...string) *tor {
	t.Helper()
	r := &tor{host: router.NewNamespace(t), number: number}
	end := func(last int) []netip.Prefix {
		return []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("192.0.%d.%d/24", number, last)),
			netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::%d/64", number, last)),
		}
	}
	connect(t, r.host, number, end(2), end(1))
	c := router.Config{
		Addresses: []netip.Addr{end(1)[0].Addr(), end(1)[1].Addr()},
		ASN:       uint32(65000 + number), RouterID: netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", number)),
	}
	if i == router.FRR {
		c.Extra = " bgp graceful-restart\n bgp graceful-restart restart-time 8\n bgp graceful-restart preserve-fw-state\n"
	}
	for _, p := range tells {
		c.Originates = append(c.Originates, netip.MustParsePrefix(p))
	}
	for _, node := range end(2) {
		c.Neighbors = append(c.Neighbors, router.Neighbor{Address: node.Addr(), ASN: nodeASN, HoldTime: 9 * time.Second, GracefulRestart: 8 * time.Second})
	}
	more(&c)
	r.Router = router.Start(t, i, r.host, c)
	return r
}

// connect makes the link of a number between the node and a router.
func connect(t *testing.T, host router.Namespace, number int, near, far []netip.Prefix) {
	t.Helper()
	name := fmt.Sprintf("up%d", number)
	// That of an earlier test goes with its router's namespace, sooner or later.
	_ = exec.Command("ip", "link", "del", name).Run()
	router.Connect(t, router.End{Interface: name, Addresses: near}, router.End{Namespace: host, Interface: "node0", Addresses: far})
}

// peers are the router's sessions as the node has them.
func (r *tor) peers(accept speaker.Accept) (list []speaker.Peer) {
	for i, a := range r.Config.Addresses {
		list = append(list, speaker.Peer{Name: fmt.Sprintf("tor%d-%d", r.number, i), Address: a, ASN: r.Config.ASN,
			Session: speaker.Session{HoldTime: 9 * time.Second, ConnectRetry: time.Second}, Accept: accept})
	}
	return list
}

// tells changes what a running router originates.
func (r *tor) tells(t *testing.T, prefixes ...string) {
	t.Helper()
	var now []netip.Prefix
	for _, p := range prefixes {
		now = append(now, netip.MustParsePrefix(p))
	}
	before := r.Config.Originates
	r.Config.Originates = now
	r.Configure(t)
	if r.Implementation == router.BIRD {
		r.Do(t, "configure")
		return
	}
	for _, p := range before {
		if !slices.Contains(now, p) {
			r.edit(t, false, p)
		}
	}
	for _, p := range now {
		if !slices.Contains(before, p) {
			r.edit(t, true, p)
		}
	}
}

// edit has a running router originate one prefix more or less.
func (r *tor) edit(t *testing.T, more bool, p netip.Prefix) {
	t.Helper()
	family := "ipv4"
	if p.Addr().Is6() {
		family = "ipv6"
	}
	word := func(yes, no string) string {
		if more {
			return yes
		}
		return no
	}
	switch r.Implementation {
	case router.FRR:
		r.Do(t, "configure terminal", "-c", fmt.Sprintf("router bgp %d", r.Config.ASN), "-c", "address-family "+family+" unicast", "-c", word("", "no ")+"network "+p.String())
	case router.OpenBGPD:
		r.Do(t, "network", word("add", "delete"), p.String())
	case router.GoBGP:
		r.Do(t, "global", "rib", word("add", "del"), p.String(), "-a", family)
	}
}

func (r *tor) established(t *testing.T) {
	t.Helper()
	for _, n := range r.Config.Neighbors {
		router.Await(t, fmt.Sprintf("tor%d has a session with %s", r.number, n.Address), soon, func() error {
			if s := r.Neighbor(t, n.Address); !s.Established() {
				return fmt.Errorf("it is %s", s.Session)
			}
			return nil
		})
	}
}
