package server

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
)

// The number of accepted routes is what counting them says, whatever routers tell
// and however the rules change.
func TestAcceptedAgainstHistory(t *testing.T) {
	t.Parallel()
	rules := []speaker.Accept{{}, everything(), {Prefixes: []speaker.PrefixRule{{Network: netip.MustParsePrefix("10.1.0.0/16"), AtMost: 24}}}}
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 5))
		now := time.Unix(1, 0)
		table := newLessons()
		table.begin(speaker.Local{ASN: nodeASN, GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: time.Minute}}, now)
		l, history := newLearned(newMemorySink().open, nil), naiveHistory{}
		l.table = table
		peers := make(map[netip.Addr]speaker.Peer)
		for range 200 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(3))})
			if _, has := peers[a]; !has || random.IntN(10) == 0 {
				peers[a] = peerWithDefaults(speaker.Peer{Name: a.String(), Address: a, ASN: 65000, Accept: rules[random.IntN(len(rules))]})
				table.configure(peers, nil, nil)
			}
			history.step(random, table, a.String(), now)
			for address, r := range history {
				want := 0
				for p := range r.said {
					if table.teachers[address].accepts(p) {
						want++
					}
				}
				if got := l.tallies()[address][speaker.IPv4].accepted; got != want {
					t.Fatalf("seed %d: %d routes of %s are accepted, want %d", seed, got, address, want)
				}
			}
		}
	}
}

// GoBGP takes all that it received for accepted: the rules of this node are none of
// its own.
func TestAcceptedInState(t *testing.T) {
	t.Parallel()
	l := newLedger(speaker.GracefulRestart{})
	p := peerWithDefaults(nobody("192.0.2.1"))
	_, err := l.add(p, false)
	must(t, err)
	address := p.Address.String()
	l.established(address)
	peers := map[string]*api.Peer{address: {
		State:    &api.PeerState{SessionState: api.PeerState_ESTABLISHED},
		AfiSafis: []*api.AfiSafi{{State: &api.AfiSafiState{Family: unicast(speaker.IPv4), Received: 3, Accepted: 3}}},
	}}
	l.sessions[address].negotiated = map[speaker.Family]bool{speaker.IPv4: true}
	nothing := newLearned(nil, nil)
	for want, accepted := range []map[string]map[speaker.Family]tally{nothing.tallies(), {address: {speaker.IPv4: {accepted: 1}, speaker.IPv6: {accepted: 7}}}} {
		f := l.state(peers, accepted).Peers[0].Families
		if len(f) != 1 || f[0].Received != 3 || f[0].Accepted != want {
			t.Errorf("%+v: want %d of 3 accepted", f, want)
		}
	}
}
