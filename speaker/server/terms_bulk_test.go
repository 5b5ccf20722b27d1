package server

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// manyPrefixes are n of 10.0.0.0/8, each of one address.
func manyPrefixes(n int) []netip.Prefix {
	list := make([]netip.Prefix, n)
	for i := range list {
		list[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}
	return list
}

// Many prefixes at once arrive, in the words of their terms and at none but their
// peers, can be changed and withdrawn like others, all at once, too, and come again.
func TestBulk(t *testing.T) {
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			t.Parallel()
			f := join(t, i, nil)
			s, d := f.up(t, speaker.Desired{Local: local()})
			before := stateOf(t, s, "tor4")
			d.Terms = map[string]speaker.Terms{"med": {"tor4": {MED: number(5)}}, "none": {"tor6": {}}}
			few := d.Announcements
			for range 2 {
				d.Announcements = nil
				must(t, s.Set(t.Context(), d))
				must(t, s.Flush(within(t, soon), prefixes(ours4, ours6)))
				d.Announcements = few
				f.bulk(t, s, d)
			}
			undisturbed(t, s, before)
		})
	}
}

// bulk has many prefixes come, some go, and then all.
func (f *fabric) bulk(t *testing.T, s speaker.Speaker, d speaker.Desired) {
	t.Helper()
	many := manyPrefixes(3 * bulk)
	unheard := func(p netip.Prefix) bool { n := slices.Index(many, p); return n >= 0 && n%3 == 2 }
	for n, p := range many {
		d.Announcements = append(slices.Clip(d.Announcements), speaker.Announcement{Prefix: p, Terms: []string{"", "med", "none"}[n%3]})
	}
	must(t, s.Set(t.Context(), d))
	heard := slices.DeleteFunc(d.Prefixes(), unheard)
	must(t, s.Flush(within(t, soon), heard))
	var want []string
	for _, p := range heard {
		want = append(want, p.String())
	}
	f.tor.Has(t, want...)
	for _, r := range f.tor.Routes(t) {
		n := slices.Index(many, r.Prefix)
		if n >= 0 && (len(r.LargeCommunities) > 0 || n%3 == 1 != (r.MED != nil && *r.MED == 5)) {
			t.Fatalf("the router has %+v", r)
		}
	}
	d.Announcements = slices.DeleteFunc(slices.Clone(d.Announcements), func(a speaker.Announcement) bool { return a.Prefix == many[0] })
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), many[:1]))
	f.tor.Has(t, slices.DeleteFunc(want, func(p string) bool { return p == many[0].String() })...)
	d.Announcements = nil
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), heard))
	f.tor.Has(t)
}

// A table is sent as a whole only where nothing of it was told, and to nobody who may
// hold routes of before: that one would drop them with an End-of-RIB that comes first.
func TestMayLoad(t *testing.T) {
	now := time.Now()
	address := netip.MustParseAddr("192.0.2.1")
	prefix := prefixes(ours4)[0]
	for name, c := range map[string]struct {
		change func(l *ledger, s *session)
		may    bool
	}{
		"nothing told":            {func(*ledger, *session) {}, true},
		"no session":              {func(_ *ledger, s *session) { s.up = false }, false},
		"another may hold routes": {func(l *ledger, _ *session) { l.sessions["192.0.2.2"] = &session{holds: now.Add(time.Minute)} }, false},
		"another held routes":     {func(l *ledger, _ *session) { l.sessions["192.0.2.2"] = &session{holds: now.Add(-time.Minute)} }, true},
		"GoBGP defers":            {func(_ *ledger, s *session) { s.restarting = true }, false},
		"something is wanted":     {func(l *ledger, _ *session) { l.want[prefix] = l.everybody[familyOf(prefix.Addr())] }, false},
		"something was told":      {func(_ *ledger, s *session) { s.out[speaker.IPv4].sent[prefix] = struct{}{} }, false},
		"a withdrawal is pending": {func(_ *ledger, s *session) { s.out[speaker.IPv4].extra[prefix] = 1 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(speaker.GracefulRestart{Enabled: true, Time: time.Minute})
			p := speaker.Peer{Name: "tor", Address: address, Session: speaker.Session{Families: []speaker.Family{speaker.IPv4}}}
			_, err := l.add(p, false)
			must(t, err)
			l.established(address.String())
			c.change(l, l.sessions[address.String()])
			if l.mayLoad(now) != c.may {
				t.Errorf("mayLoad is %v", !c.may)
			}
		})
	}
}
