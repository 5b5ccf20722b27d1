package agent

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// routerIDAt is the router ID of an agent on h that is told none.
func (h *host) routerIDAt(c *fakeCluster, ps []Pool, host ...string) string {
	h.t.Helper()
	parts, store := h.parts()
	defer store.Close()
	if c != nil {
		parts.Cluster = c
	}
	s := settings(h.t, ps...)
	s.Local.RouterID, s.Host = netip.Addr{}, addrs(host...)
	a, err := New(h.t.Context(), parts, s)
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Close()
	return a.settings.Load().Local.RouterID.String()
}

func TestRouterIDIsOfTheNodeAndNotOfItsPods(t *testing.T) {
	inside, err := pools.ParseRange("10.1.0.0/24")
	if err != nil {
		t.Fatal(err)
	}
	outside, err := pools.ParseRange("10.2.0.0/24")
	if err != nil {
		t.Fatal(err)
	}
	var ps []Pool
	for _, d := range []pools.Definition{
		{Name: "in", BlockSize: 4, Ranges: []netipx.IPRange{inside}}, // its gateway is 10.1.0.1
		{Name: "out", BlockSize: 4, Ranges: []netipx.IPRange{outside}, Gateways: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}},
	} {
		p, err := pools.New(d)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, Pool{Pool: p})
	}
	host := []string{"127.0.0.1", "10.1.0.1", "10.0.0.1", "10.1.0.7", "169.254.0.1", "2001:db8::1", "198.51.100.9", "192.0.2.9"}
	for name, c := range map[string]struct {
		node []string // nil for no cluster
		host []string
		want string
	}{
		"alone":                     {nil, host, "192.0.2.9"},
		"in a cluster":              {[]string{"2001:db8::1", "198.51.100.9"}, host, "198.51.100.9"},
		"the node's are of a pool":  {[]string{"10.1.0.7"}, host, "192.0.2.9"},
		"the cluster does not know": {[]string{}, host, "192.0.2.9"},
		"no IPv4":                   {nil, []string{"2001:db8::1", "10.0.0.1"}, numberOf("n1").String()},
		"nothing":                   {nil, nil, numberOf("n1").String()},
	} {
		h := newHost(t)
		if c.node == nil {
			if got := h.routerIDAt(nil, ps, c.host...); got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
			continue
		}
		cluster := newCluster(ps...)
		cluster.state.Addresses = addrs(c.node...)
		if got := h.routerIDAt(cluster, nil, c.host...); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// What stands for the node is reached from elsewhere: the loopback addresses, which come
// first of what the host says, are not, nor those of pods' links.
func TestOwnAddresses(t *testing.T) {
	inside, err := pools.ParseRange("2001:db8:1::/64")
	if err != nil {
		t.Fatal(err)
	}
	p, err := pools.New(pools.Definition{Name: "in", BlockSize: 4, Ranges: []netipx.IPRange{inside}})
	if err != nil {
		t.Fatal(err)
	}
	host := []string{"127.0.0.1", "::1", "192.0.2.9", "192.0.2.8", "fe80::1", "2001:db8:1::7", "2001:db8:2::7"}
	for name, c := range map[string]struct {
		routerID string
		node     []string // nil for no cluster
		facing   []string
		host     []string
		want     []netip.Addr
	}{
		"the lowest":                        {"", nil, nil, host, addrs("192.0.2.8", "2001:db8:2::7")},
		"those that face the peers":         {"", nil, []string{"2001:db8:3::7", "192.0.2.9", "127.0.0.1"}, host, addrs("192.0.2.9", "2001:db8:3::7")},
		"the router ID of the host":         {"192.0.2.9", nil, nil, host, addrs("192.0.2.9", "2001:db8:2::7")},
		"a router ID that is only a number": {"1.2.3.4", nil, nil, host, addrs("192.0.2.8", "2001:db8:2::7")},
		"the node's":                        {"1.2.3.4", []string{"198.51.100.9", "2001:db8:9::9"}, []string{"192.0.2.9"}, host, addrs("198.51.100.9", "2001:db8:9::9")},
		"the node has one family":           {"", []string{"192.0.2.9"}, nil, host, addrs("192.0.2.9", "2001:db8:2::7")},
		"no global one":                     {"1.2.3.4", nil, []string{"127.0.0.1"}, host[:2], nil},
	} {
		h := newHost(t)
		parts, store := h.parts()
		cluster := newCluster(Pool{Pool: p})
		cluster.state.Addresses = addrs(c.node...)
		s := settings(t, Pool{Pool: p})
		if c.node != nil {
			parts.Cluster, s.Pools = cluster, nil
		}
		s.Local.RouterID, s.Host, s.Facing = netip.Addr{}, addrs(c.host...), addrs(c.facing...)
		if c.routerID != "" {
			s.Local.RouterID = netip.MustParseAddr(c.routerID)
		}
		a, err := New(t.Context(), parts, s)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.settings.Load().own; !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if err := errors.Join(a.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	}
}

// The addresses of the Node object count from when they are known, also after a restart
// that did not wait for the API server: the next hop of what is announced stays.
func TestOwnAddressesAreKnownAfterARestart(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.placed["web-1"] = Placement{Pool: "web"}
	h := newHost(t)
	s := settings(t)
	s.Local.RouterID, s.Host = netip.MustParseAddr("1.2.3.4"), addrs("192.0.2.1", "2001:db8::1")
	first := h.startInWith(c, never(), s)
	own := func(a *Agent) []netip.Addr { return a.settings.Load().own }
	if got, want := own(first.Agent), s.Host; !slices.Equal(got, want) {
		t.Errorf("before the Node object has any: %v, want %v", got, want)
	}
	want := addrs("192.0.2.9", "2001:db8::9")
	c.update(func() { c.state.Addresses = want })
	eventually(t, "those of the Node object count", func() bool { return slices.Equal(own(first.Agent), want) })
	if _, err := first.leases().Lease(t.Context(), podRequest(1)); err != nil {
		t.Fatal(err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	c.update(func() { c.state = ClusterState{} })
	second := h.startInWith(c, never(), s)
	if got := own(second.Agent); !slices.Equal(got, want) {
		t.Errorf("after a restart: %v, want %v", got, want)
	}
}

func TestRouterIDStaysUntilTheNextBoot(t *testing.T) {
	h := newHost(t)
	wants := func(when, want string, host ...string) {
		t.Helper()
		if got := h.routerIDAt(nil, nil, host...); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	wants("at first", "192.0.2.9", "192.0.2.9")
	wants("with a lower one", "192.0.2.9", "192.0.2.8", "192.0.2.9")
	wants("when it is gone", "192.0.2.8", "192.0.2.8")
	wants("when it is back", "192.0.2.8", "192.0.2.8", "192.0.2.7")
	h.boot = "boot-2"
	wants("after a boot", "192.0.2.7", "192.0.2.8", "192.0.2.7")
	if err := os.WriteFile(filepath.Join(h.run, identityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	wants("with a damaged file", "192.0.2.6", "192.0.2.8", "192.0.2.6")
}

func TestRouterIDStaysUnderARunningAgent(t *testing.T) {
	h := newHost(t)
	configured := settings(t)
	a := h.start(configured)
	routerID := func() netip.Addr { return a.settings.Load().Local.RouterID }
	bare := configured
	bare.Local.RouterID = netip.Addr{}
	for _, step := range []struct {
		s    Settings
		host []netip.Addr
		want string
	}{
		{bare, addrs("192.0.2.9"), "192.0.2.9"},
		{bare, addrs("192.0.2.8"), "192.0.2.9"},
		{configured, addrs("192.0.2.8"), "192.0.2.2"},
		{bare, addrs("192.0.2.8"), "192.0.2.9"},
	} {
		step.s.Host = step.host
		if err := a.Reload(step.s); err != nil || routerID().String() != step.want {
			t.Errorf("with %v: %s, %v; want %s", step.host, routerID(), err, step.want)
		}
	}
}

// An agent that takes over from a version that kept no choice chooses as that one did:
// under another router ID its peers would drop what they kept.
func TestRouterIDOutlivesAnUpgrade(t *testing.T) {
	h := newHost(t)
	record, err := json.Marshal(toldRecord{Boot: h.boot})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.run, toldFile), record, 0o600); err != nil {
		t.Fatal(err)
	}
	cluster := newCluster()
	cluster.state.Addresses = addrs("198.51.100.9")
	for _, when := range []string{"after the upgrade", "and after the next restart"} {
		if got := h.routerIDAt(cluster, nil, "198.51.100.9", "192.0.2.9"); got != "192.0.2.9" {
			t.Errorf("%s: %s, want 192.0.2.9", when, got)
		}
	}
}
