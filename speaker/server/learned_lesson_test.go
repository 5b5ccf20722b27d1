package server

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// An UPDATE whose attributes can't be relied on withdraws what it announces (RFC 7606);
// one whose prefixes can't be told is none.
func TestLessonOfWrongUpdate(t *testing.T) {
	t.Parallel()
	origin, path, hop := []byte{0x40, 1, 1, 0}, []byte{0x40, 2, 6, 2, 1, 0, 0, 253, 233}, []byte{0x40, 3, 4, 192, 0, 2, 1}
	for name, c := range map[string]struct {
		attributes [][]byte
		nlri       []byte
		want       string // of 10.1.0.0/16
	}{
		"good":                    {[][]byte{origin, path, hop}, []byte{16, 10, 1}, "told"},
		"in any order":            {[][]byte{hop, path, origin}, []byte{16, 10, 1}, "told"},
		"twice, the first counts": {[][]byte{origin, path, hop, {0x40, 1, 1, 9}}, []byte{16, 10, 1}, "told"},
		"unknown attribute":       {[][]byte{origin, path, hop, {0xc0, 99, 1, 1}}, []byte{16, 10, 1}, "told"},
		"bad origin":              {[][]byte{{0x40, 1, 1, 3}, path, hop}, []byte{16, 10, 1}, "withdrawn"},
		"flags":                   {[][]byte{{0xc0, 1, 1, 0}, path, hop}, []byte{16, 10, 1}, "withdrawn"},
		"no origin":               {[][]byte{path, hop}, []byte{16, 10, 1}, "withdrawn"},
		"no path":                 {[][]byte{origin, hop}, []byte{16, 10, 1}, "withdrawn"},
		"no next hop":             {[][]byte{origin, path}, []byte{16, 10, 1}, "withdrawn"},
		"path cut short":          {[][]byte{origin, {0x40, 2, 4, 2, 3, 0, 0}, hop}, []byte{16, 10, 1}, "withdrawn"},
		"next hop of no host":     {[][]byte{origin, path, {0x40, 3, 4, 224, 0, 0, 1}}, []byte{16, 10, 1}, "withdrawn"},
		"short communities":       {[][]byte{origin, path, hop, {0xc0, 8, 3, 0, 0, 0}}, []byte{16, 10, 1}, "withdrawn"},
		"attributes cut short":    {[][]byte{origin, path, hop, {0xc0, 8, 9, 0}}, []byte{16, 10, 1}, "withdrawn"},
		"prefix too long":         {[][]byte{origin, path, hop}, []byte{33, 10, 1, 0, 0, 0}, "unreadable"},
		"prefix cut short":        {[][]byte{origin, path, hop}, []byte{24, 10, 1}, "unreadable"},
		"two MP_UNREACH":          {[][]byte{{0x80, 15, 3, 0, 2, 1}, {0x80, 15, 3, 0, 2, 1}}, nil, "unreadable"},
	} {
		list := bytes.Join(c.attributes, nil)
		u, p := new(lesson), []telling{{prefix: netip.MustParsePrefix("10.1.0.0/16")}}
		got := "nothing"
		switch err := u.read(slices.Concat([]byte{0, 0, 0, byte(len(list))}, list, c.nlri), nil); {
		case err != nil:
			got = "unreadable"
		case slices.Equal(u.told, p) && len(u.withdrawn) == 0:
			got = "told"
		case slices.Equal(u.withdrawn, p) && len(u.told) == 0:
			got = "withdrawn"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A router that knows narrow ASNs alone tells the wide ones beside (RFC 6793): they
// count for what they stand for.
func TestWideASNsBeside(t *testing.T) {
	t.Parallel()
	narrow, _ := readPath([]byte{2, 3, 0xfd, 0xe9, 0x5b, 0xa0, 0x5b, 0xa0}) // 65001 AS_TRANS AS_TRANS
	wide, _ := readSegments([]byte{2, 2, 0, 1, 0, 0, 0, 1, 0, 1}, 4)        // 65536 65537
	for _, own := range []uint32{65001, 65537, 65002} {
		w := new(way)
		if free := w.along(narrow, wide, own); free != (own == 65002) || w.length != 3 || w.neighbor != 65001 {
			t.Errorf("AS%d: %+v, free of it: %t", own, w, free)
		}
	}
	if w := new(way); !w.along(wide, narrow, 65001) || w.length != 2 {
		t.Errorf("a path beside that is longer counts: %+v", w)
	}
}

// What is read of an UPDATE is what GoBGP reads where it finds nothing wrong.
func FuzzLesson(f *testing.F) {
	some, err := bgp.NewTestBGPUpdateMessage().Body.Serialize()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(some, false)
	f.Add([]byte{0, 0, 0, 0}, true)
	f.Add([]byte{0, 4, 24, 10, 9, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 253, 233, 0x40, 3, 4, 10, 0, 0, 2, 24, 10, 1, 0}, false)
	f.Add([]byte{0, 8, 0, 0, 0, 7, 24, 10, 9, 0, 0, 0}, true)
	f.Add([]byte{0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1}, false)
	f.Add([]byte{0, 0, 0, 42, 0x40, 1, 1, 2, 0x40, 2, 0, 0x80, 14, 32, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 64, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 5, 0, 0}, false)
	paths := &bgp.MarshallingOption{AddPath: map[bgp.RouteFamily]bgp.BGPAddPathMode{
		bgp.RF_IPv4_UC: bgp.BGP_ADD_PATH_RECEIVE, bgp.RF_IPv6_UC: bgp.BGP_ADD_PATH_RECEIVE}}
	rfs := map[bgp.RouteFamily]bgp.BGPAddPathMode{bgp.RF_IPv4_UC: 0, bgp.RF_IPv6_UC: 0}
	f.Fuzz(func(t *testing.T, body []byte, addPath bool) {
		var agreed *bgp.MarshallingOption
		if addPath {
			agreed = paths
		}
		u := new(lesson)
		got := u.read(body, agreed)
		if !ordinary(body) || len(body) > bgp.BGP_MAX_MESSAGE_LENGTH {
			return // which is a matter of the guard's
		}
		m := new(bgp.BGPUpdate)
		if m.DecodeFromBytes(body, agreed) != nil {
			return
		}
		if ok, _ := bgp.ValidateUpdateMsg(m, rfs, true, false, true); !ok {
			return
		}
		if want := naiveLesson(m); got != nil || !reflect.DeepEqual(tellingsOf(u), tellingsOf(want)) || u.end != want.end {
			t.Errorf("%x: read %+v (%v), want %+v", body, u, got, want)
		}
	})
}

func tellingsOf(u *lesson) [3][]telling {
	return [3][]telling{slices.Concat(u.withdrawn), slices.Concat(u.told), slices.Concat(u.reached)}
}

// naiveLesson has the prefixes of GoBGP's form of an UPDATE.
func naiveLesson(m *bgp.BGPUpdate) *lesson {
	u := new(lesson)
	tell := func(list *[]telling, n bgp.AddrPrefixInterface) {
		*list = append(*list, telling{prefixOf(n).Masked(), n.PathIdentifier()})
	}
	for _, n := range m.WithdrawnRoutes {
		tell(&u.withdrawn, n)
	}
	for _, n := range m.NLRI {
		tell(&u.told, n)
	}
	for _, a := range m.PathAttributes {
		switch a := a.(type) {
		case *bgp.PathAttributeMpUnreachNLRI:
			for _, n := range a.Value {
				tell(&u.withdrawn, n)
			}
		case *bgp.PathAttributeMpReachNLRI:
			for _, n := range a.Value {
				tell(&u.reached, n)
			}
		}
	}
	switch is, family := m.IsEndOfRib(); {
	case is && family == bgp.RF_IPv4_UC:
		u.end = speaker.IPv4
	case is && family == bgp.RF_IPv6_UC:
		u.end = speaker.IPv6
	}
	return u
}
