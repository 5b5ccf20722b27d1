package discovery

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// script drives a table by a clock of its own.
type script struct {
	*testing.T
	table
	now   time.Time
	holds bool
}

func newScript(t *testing.T) *script {
	s := &script{T: t, now: time.Unix(1e9, 0)}
	s.jitter = func(time.Duration) time.Duration { return 0 }
	s.setEnd(end{1, netip.MustParseAddr("fe80::a")}, s.now)
	return s
}

// passes lets time pass in steps, with what a link does in each, and counts what is
// sent.
func (s *script) passes(d time.Duration, speaking ...string) map[message]int {
	sent := make(map[message]int)
	for until := s.now.Add(d); s.now.Before(until); s.now = s.now.Add(lookEvery) {
		s.settle(s.now, func(netip.Addr) bool { return s.holds })
		for _, m := range s.due(s.now) {
			sent[m]++
			if m != solicit {
				continue
			}
			for _, a := range speaking {
				s.hear(netip.MustParseAddr(a), s.now)
			}
		}
	}
	return sent
}

func (s *script) goesBy(router string, others int) {
	s.Helper()
	if s.chosen.String() != router || len(s.others()) != others {
		s.Errorf("chosen is %s, with %v beside; want %s and %d", s.chosen, s.others(), router, others)
	}
}

func TestSilentLink(t *testing.T) {
	s := newScript(t)
	sent := s.passes(time.Minute)
	if s.chosen.IsValid() || sent[advert] != 8 || sent[solicit] < 7 || sent[solicit] > 12 || sent[echo] != sent[solicit]-1 {
		t.Errorf("sent %v", sent)
	}
	s.hear(netip.MustParseAddr("fe80::1"), s.now)
	if sent := s.passes(time.Minute); sent[solicit] != 0 || sent[echo] != 0 || sent[advert] < 6 {
		t.Errorf("sent %v after a router was found", sent)
	}
}

// The router is exchanged for another: the new one is taken when the old one does
// not answer any more, unless a session says that it is there.
func TestRouterExchanged(t *testing.T) {
	for _, held := range []bool{false, true} {
		s := newScript(t)
		s.passes(time.Minute, "fe80::1")
		s.goesBy("fe80::1", 0)
		s.holds = held
		s.hear(netip.MustParseAddr("fe80::2"), s.now)
		s.passes(contestTime+time.Second, "fe80::2")
		if held {
			s.goesBy("fe80::1", 1)
		} else {
			s.goesBy("fe80::2", 0)
		}
	}
}

// Of two routers that are both there the first stays.
func TestTwoRouters(t *testing.T) {
	s := newScript(t)
	s.hear(netip.MustParseAddr("fe80::2"), s.now)
	for range 5 {
		s.hear(netip.MustParseAddr("fe80::1"), s.now)
		s.passes(10*time.Second, "fe80::1", "fe80::2")
		s.goesBy("fe80::2", 1)
	}
}

// What was found outlives the loss of the link, and makes room for another router
// that is there afterwards.
func TestLinkLost(t *testing.T) {
	s := newScript(t)
	s.passes(time.Second, "fe80::1")
	up := s.end
	if !s.setEnd(end{}, s.now) || s.setEnd(end{}, s.now) || s.lost != 1 {
		t.Errorf("lost %d times", s.lost)
	}
	if sent := s.passes(time.Minute, "fe80::1"); len(sent) > 0 {
		t.Errorf("sent %v without a link", sent)
	}
	s.goesBy("fe80::1", 0)
	s.setEnd(up, s.now)
	s.passes(time.Minute, "fe80::3")
	s.goesBy("fe80::3", 0)
	if s.lost != 1 {
		t.Errorf("lost %d times", s.lost)
	}
	other := up
	other.own = netip.MustParseAddr("fe80::b")
	if s.setEnd(other, s.now); s.lost != 2 {
		t.Errorf("with another address it was lost %d times", s.lost)
	}
}

// Whoever floods a link fills no memory.
func TestManyRouters(t *testing.T) {
	s := newScript(t)
	a := netip.MustParseAddr("fe80::1:1")
	for range 1000 {
		s.hear(a, s.now)
		a = a.Next()
	}
	if len(s.heard) != maxHeard {
		t.Errorf("%d routers are remembered", len(s.heard))
	}
}

func TestReadRefuses(t *testing.T) {
	advertisement := advert.bytes([]byte{2, 0, 0, 0, 0, 1})
	solicitation := solicit.bytes(nil)
	reply := slices.Concat([]byte{typeEchoReply}, echo.bytes(nil)[1:])
	for name, c := range map[string]struct {
		bytes []byte
		hops  int
		want  kind
	}{
		"advertisement":           {advertisement, 255, fromRouter},
		"solicitation":            {solicitation, 255, solicited},
		"echo":                    {reply, 64, fromRouter},
		"forwarded advertisement": {advertisement, 254, nothing},
		"forwarded solicitation":  {solicitation, 64, nothing},
		"no hop limit":            {advertisement, -1, nothing},
		"cut advertisement":       {advertisement[:15], 255, nothing},
		"cut option":              {advertisement[:20], 255, nothing},
		"option without a length": {append(advertisement[:16:16], 1, 0), 255, nothing},
		"code":                    {append([]byte{typeAdvertisement, 1}, advertisement[2:]...), 255, nothing},
		"another's echo":          {append([]byte{typeEchoReply}, make([]byte, 7)...), 255, nothing},
		"empty":                   {nil, 255, nothing},
	} {
		if got := read(c.bytes, c.hops); got != c.want {
			t.Errorf("%s is read as %d, want %d", name, got, c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(advert.bytes([]byte{2, 0, 0, 0, 0, 1}), 255)
	f.Add(solicit.bytes(nil), 255)
	f.Add(echo.bytes(nil), 64)
	f.Fuzz(func(t *testing.T, b []byte, hops int) {
		if read(b, hops) != nothing && len(b) < 8 {
			t.Errorf("% x says something", b)
		}
	})
}

func FuzzLinkLocal(f *testing.F) {
	f.Add("fe800000000000000000000000000001 02 40 20 80     eth0", 2)
	f.Add("fe800000000000000000000000000001 02 40 20 c0     eth0", 2)
	f.Fuzz(func(t *testing.T, line string, index int) {
		if a, ok := linkLocal(line, index); ok && (!a.IsLinkLocalUnicast() || !a.Is6()) {
			t.Errorf("%q gives %s", line, a)
		}
	})
}
