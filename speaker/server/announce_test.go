package server

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairway-network/fairway/speaker"
)

// A change leaves a speaker as a Set of all does: with the same prefixes in the ledger, in the
// same words for the peer, and with the same to return to.
func TestAnnounceIsSet(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	d := speaker.Desired{
		Local: speaker.Local{ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.2")},
		Peers: []speaker.Peer{{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), ASN: 65001, Session: speaker.Session{Down: true}}},
		Terms: map[string]speaker.Terms{"a": {"tor": {Prepend: 1}}, "b": {"tor": {Prepend: 2}}, "nobody": {}},
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	changed, whole := New(log), New(log)
	for _, s := range []*Server{changed, whole} {
		must(t, s.Set(t.Context(), d))
		t.Cleanup(func() { must(t, s.Close(context.Background(), speaker.Forward)) })
	}
	for range 200 {
		var c speaker.Change
		for i := range 6 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16)
			switch random.IntN(4) {
			case 0:
				c.Announced = append(c.Announced, speaker.Announcement{Prefix: p, Terms: []string{"", "a", "b", "nobody"}[random.IntN(4)]})
			case 1:
				c.Withdrawn = append(c.Withdrawn, p)
			}
		}
		d.Announcements = c.Apply(slices.Clone(d.Announcements))
		must(t, changed.Announce(t.Context(), c))
		e := d
		e.Announcements = slices.Clone(d.Announcements)
		must(t, whole.Set(t.Context(), e))
		if got, want := wordsFor(changed), wordsFor(whole); !maps.Equal(got, want) {
			t.Fatalf("%+v made %v, want %v", c, got, want)
		}
		if got, want := setOf(changed.run.Load().asked.list), setOf(whole.run.Load().asked.list); !maps.Equal(got, want) {
			t.Fatalf("%+v made %v of what is announced, want %v", c, got, want)
		}
	}
	for _, one := range []speaker.Announcement{{Prefix: netip.MustParsePrefix("10.0.0.1/8")}, {Prefix: netip.MustParsePrefix("10.0.0.0/8"), Terms: "other"}} {
		if err := changed.Announce(t.Context(), speaker.Change{Announced: []speaker.Announcement{one}}); err == nil {
			t.Errorf("%+v is taken", one)
		}
	}
}

// wordsFor are the prefixes that are wanted and the words that its only peer hears them in; the
// zero words where it hears nothing.
func wordsFor(s *Server) map[netip.Prefix]variant {
	l := s.run.Load().ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[netip.Prefix]variant)
	for p, c := range l.want {
		for _, session := range l.sessions {
			all[p], _ = l.tells(session, c)
		}
	}
	return all
}

func setOf(list []speaker.Announcement) map[speaker.Announcement]bool {
	all := make(map[speaker.Announcement]bool, len(list))
	for _, one := range list {
		all[one] = true
	}
	return all
}
