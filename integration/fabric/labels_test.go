package fabric

import (
	"strings"

	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// labelled says what agentConfig says, for the nodes of all racks: a label holds no IPv6
// address.
const labelled = `node: node1
labels: {example.com/asn: "64512", example.com/tor-asn: "65000", example.com/tor: 10.0.1.1, rack: RACK, row: ROW}
bgp:
  asnFrom: {label: example.com/asn}
  routerID: 10.0.1.2
  gracefulRestart: {restartTime: 60s, deferralTime: 2s}
templates:
- {name: tor, asnFrom: {label: example.com/tor-asn}, holdTime: 9s}
peers:
- {name: tor4, template: tor, addressFrom: {label: example.com/tor}, nodeSelector: {rack: r1}}
- {name: tor6, template: tor, address: "fd00:0:1::1", nodeSelector: {row: a}}
pools:
- {name: web, addresses: [10.244.120.0/24, "fd00:244:120::/120"], blockSize: 4}
`

// label has the agent take its peers from a template and from labels: a session that is the
// same stays, and each comes and goes with a label of its own.
func (f *fabric) label() {
	f.t.Helper()
	place := func(rack, row, stays string) {
		f.t.Helper()
		before, err := f.Peers(f.t)
		must(f.t, err)
		f.Configure(f.t, strings.NewReplacer("RACK", rack, "ROW", row).Replace(labelled))
		switch {
		case row != "a":
			f.await("the router has no IPv6 route", func() error { return f.without(6) })
		case rack != "r1":
			f.await("the router has no IPv4 route", func() error { return f.without(4) })
			f.await("the router has an IPv6 route", func() error { _, err := f.router.stale(f.tor, 6); return err })
		default:
			f.fresh()
		}
		if now, err := f.Peers(f.t); err != nil || stays != "" {
			must(f.t, err)
			labtest.Undisturbed(f.t, before[stays], now[stays])
		}
	}
	place("r1", "b", "tor4")
	place("r2", "a", "")
	place("r1", "a", "tor6")
}
