package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	"github.com/fairway-network/fairway/integration/lab/labtest"
	"github.com/fairway-network/fairway/integration/router"
)

// holdTime is the shortest that BGP has, and restartTime how long routers keep the routes
// of a node that they hear nothing of.
const (
	holdTime    = 3 * time.Second
	restartTime = 3 * time.Second
)

// withoutBFD is for routers of which nothing but BGP tells that they are lost.
const withoutBFD = `node: node1
bgp:
  asn: 64512
  routerID: 10.0.1.2
  gracefulRestart: {enabled: GRACEFUL, restartTime: 3s, deferralTime: 2s}
peers:
- {name: tor1, address: 10.0.1.1, asn: 65001, holdTime: 3s, connectRetryTime: 1s}
- {name: tor2, address: 10.0.2.1, asn: 65002, holdTime: 3s, connectRetryTime: 1s}
pools:
- {name: web, addresses: [10.244.120.0/24], blockSize: 16}
`

// One of two routers is lost: a client behind both loses packets for as long as stands
// here, and none if the node has asked it to go by the other router before.
func TestRouterLost(t *testing.T) {
	table := interop.Open(t)
	for _, i := range []router.Implementation{router.FRR, router.BIRD} {
		table.Try(t, "two routers", i, router.IPv4)
	}
	t.Parallel()
	f := newDual(t, strings.Replace(withoutBFD, "GRACEFUL", "false", 1))
	for _, name := range []string{"tor1", "tor2"} {
		f.lose("the path to "+name+" is cut", name, holdTime+processing, func() { f.cut(name) }, func() { f.mend(name) })
	}
	f.Configure(t, strings.Replace(withoutBFD, "GRACEFUL", "true", 1))
	f.await("the node offers graceful restart", func() error {
		frr, bird := f.say(f.tor1, "vtysh", "-d", "bgpd", "-c", "show bgp neighbors 10.0.1.2"), f.bird("show", "protocols", "all", "node")
		if !strings.Contains(frr, "Remote Restart timer is 3 seconds") || !strings.Contains(bird, "Restart time: 3") {
			return fmt.Errorf("FRR: %s; BIRD: %s", frr, bird)
		}
		return nil
	})
	f.whole()
	for _, name := range []string{"tor1", "tor2"} {
		f.lose("the path to "+name+" is cut, with graceful restart", name, holdTime+restartTime+processing, func() { f.cut(name) }, func() { f.mend(name) })
	}
	f.goodbyes()
	f.lose("tor1 is without power", "tor1", processing, func() {
		if err := f.tor1.Kill(); err != nil {
			t.Fatal(err)
		}
	}, nil)
}

// goodbyes are losses that somebody tells of.
func (f *dual) goodbyes() {
	f.t.Helper()
	f.lose("FRR shuts its session", "tor1", processing,
		func() { f.configureTor1("neighbor 10.0.1.2 shutdown") }, func() { f.configureTor1("no neighbor 10.0.1.2 shutdown") })
	f.lose("BIRD shuts its session", "tor2", processing,
		func() { labtest.Exec(f.t, f.tor2, "birdc", "-s", "/run/bird.ctl", "disable", "node") },
		func() { labtest.Exec(f.t, f.tor2, "birdc", "-s", "/run/bird.ctl", "enable", "node") })
	for _, name := range []string{"tor1", "tor2"} {
		enable := func() { f.Run(f.t, "peer", "enable", name) }
		f.lose("the node shuts its session with "+name, name, processing, func() { f.Run(f.t, "peer", "disable", name) }, enable)
		f.lose("the node shuts its session with "+name+" after maintenance", name, 0, func() {
			f.Run(f.t, "agent", "maintenance", "on", "--peer", name)
			f.goesBy(f.other(name))
			f.Run(f.t, "peer", "disable", name)
		}, func() {
			f.Run(f.t, "agent", "maintenance", "off", "--peer", name)
			enable()
		})
	}
}

// lose has the client prefer a router, which is lost then: the packets are back by the
// other one after most, 0 for none lost, and the session with that one is not touched.
func (f *dual) lose(what, name string, most time.Duration, loss, mend func()) {
	f.t.Helper()
	f.prefer(name)
	before := f.mustPeers()
	s := f.stream()
	s.Flows()
	loss()
	other := f.other(name)
	f.goesBy(other)
	s.Flows()
	count := s.End()
	f.t.Logf("%s: %s", what, count)
	if count.Gap > most || most == 0 && len(count.Lost) > 0 {
		f.t.Errorf("%s: %s: want at most %s", what, count, most)
	}
	labtest.Undisturbed(f.t, before[other], f.mustPeers()[other])
	if mend != nil {
		mend()
		f.whole()
	}
}
