package learned

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/integration/interop"
	"github.com/fairway-network/fairway/integration/router"
)

// manyPrefixes are n of each family.
func manyPrefixes(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("2001:db8:%x::/48", 0x1000+i))
	}
	return list
}

// Routers with thousands of prefixes tell them in UPDATEs of more than 4,096 octets, and
// the node has all of them in its kernel, for as long as the session lasts.
func TestExtendedMessages(t *testing.T) {
	table := interop.Open(t)
	table.Lacks(t, "extended messages", router.OpenBGPD, "does not know RFC 8654")
	table.Lacks(t, "extended messages", router.GoBGP, "does not know RFC 8654")
	const n = 4000
	each(t, []router.Implementation{router.FRR, router.BIRD}, func(t *testing.T, i router.Implementation) {
		table.Try(t, "extended messages", i, router.IPv4, router.IPv6)
		tells, want := manyPrefixes(n), 2*n
		one := startTorWith(t, i, 1, func(c *router.Config) {
			if i == router.BIRD {
				c.Extra = beyondOrdinary()
				for j := range c.Neighbors {
					c.Neighbors[j].Extra = []string{"enable extended messages on"}
				}
			}
		}, tells...)
		d := desired(one.peers(rules("10.0.0.0/8 24", "172.16.0.0/12 16", "2001:db8::/32 48")))
		for j := range d.Peers {
			d.Peers[j].ExtendedMessages = true
		}
		c := startSpeaker(t, d)
		if i == router.BIRD {
			want += 2
		}
		await(t, want)
		one.saysMuchAtOnce(t)
		st, err := c.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range st.Peers {
			if !p.Established() || p.Flaps > 0 || p.Received != want/2 {
				t.Errorf("%+v: want a session with %d prefixes", p, want/2)
			}
		}
		d.Peers = d.Peers[:1]
		set(t, c, d)
		await(t, want/2)
	})
}

// await waits until the kernel has so many learned routes.
func await(t *testing.T, n int) {
	t.Helper()
	router.Await(t, fmt.Sprintf("the kernel has %d routes", n), soon, func() error {
		if got := learned(t); len(got) != n {
			return fmt.Errorf("it has %d", len(got))
		}
		return nil
	})
}

// beyondOrdinary is BIRD's configuration of a route of each family with more attributes
// than an ordinary message holds: without extended ones it tells them to nobody.
func beyondOrdinary() string {
	var communities strings.Builder
	for i := range 400 {
		fmt.Fprintf(&communities, " bgp_large_community.add((65001, 1, %d));", i)
	}
	var b strings.Builder
	for family, prefix := range map[router.Family]string{router.IPv4: "172.16.0.0/16", router.IPv6: "2001:db8:f000::/48"} {
		fmt.Fprintf(&b, "protocol static long_%s {\n  %s;\n  route %s blackhole {%s };\n}\n", family, family, prefix, &communities)
	}
	return b.String()
}

// saysMuchAtOnce fails the test where the router's UPDATEs are ordinary ones.
func (r *tor) saysMuchAtOnce(t *testing.T) {
	t.Helper()
	for _, n := range r.Config.Neighbors {
		said := r.Neighbor(t, n.Address).Said
		switch r.Implementation {
		case router.BIRD: // which has told what does not fit into others
			if !strings.Contains(said, "Extended message") {
				t.Errorf("BIRD says of %s:\n%s", n.Address, said)
			}
		case router.FRR:
			ordinary := bytesOf(r.Config.Originates, n.Address.Is4()) / 4096
			if sent := frrUpdates(t, said, n.Address); sent > ordinary {
				t.Errorf("FRR has sent %d UPDATEs to %s, where %d full ordinary ones do not hold all", sent, n.Address, ordinary)
			}
		}
	}
}

// bytesOf are the octets of a family's prefixes on the wire.
func bytesOf(list []netip.Prefix, four bool) (n int) {
	for _, p := range list {
		if p.Addr().Is4() == four {
			n += 1 + (p.Bits()+7)/8
		}
	}
	return n
}

// frrUpdates is how many UPDATEs FRR has sent to a neighbor, the End-of-RIB not counted.
func frrUpdates(t *testing.T, said string, a netip.Addr) int {
	t.Helper()
	var all map[string]struct {
		MessageStats struct{ UpdatesSent int }
	}
	if err := json.Unmarshal([]byte(said), &all); err != nil || all[a.String()].MessageStats.UpdatesSent == 0 {
		t.Fatalf("FRR says of %s: %v: %s", a, err, said)
	}
	return all[a.String()].MessageStats.UpdatesSent - 1
}
