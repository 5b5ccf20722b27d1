package server

import (
	"net/netip"
	"slices"
	"testing"

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
	many := manyPrefixes(3 * sampled)
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
