package server

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// A router that dials with another TCP MD5 password than this node has, without one, or
// with one that this node lacks: nobody but the kernel knows, and a person is told, of a
// peer and of a range alike.
func TestDialersWithAnotherPassword(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		router     routers.Implementation
		here, away string
		drops      string
	}{
		"wrong":      {routers.FRR, "swordfish", "cuttlefish", "with a wrong TCP MD5 signature"},
		"missing":    {routers.BIRD, "swordfish", "", "without the TCP MD5 signature"},
		"unexpected": {routers.BIRD, "", "swordfish", "with a TCP MD5 signature that no password is set for"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := join(t, c.router, func(_ *routers.Config, v4, v6 *routers.Neighbor) {
				for _, n := range []*routers.Neighbor{v4, v6} {
					n.Dials, n.Password = true, c.away
				}
			})
			desired := func(password string) speaker.Desired {
				s := speaker.Session{Password: speaker.Secret(password), Passive: true}
				d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, s)[:1], Ranges: ranges(speaker.Session{Password: s.Password})[1:], Announcements: announce(ours4, ours6)}
				d.Local.Listen = []netip.Addr{f.node4, f.node6}
				return d
			}
			log, spawn := &lines{}, testSpawn(t)
			spawn.Log = slog.New(slog.NewTextHandler(log, nil))
			s := childOf(spawn)
			t.Cleanup(func() { _ = s.Close(within(t, soon), speaker.Forward) })
			must(t, s.Set(t.Context(), desired(c.here)))
			eventually(t, "the state of the peer, and of the range, says what is dropped", func() bool {
				st, err := s.State(within(t, soon))
				must(t, err)
				return len(st.Peers) == 1 && strings.Contains(st.Peers[0].LastError, c.drops) && st.Peers[0].Reason() == speaker.ReasonCannotConnect &&
					strings.HasPrefix(st.RangeTrouble, "leaf6: segments ") && strings.Contains(st.RangeTrouble, c.drops)
			})
			for _, who := range []string{"peer=tor4", "range=leaf6"} {
				line := `msg="no BGP session" ` + who
				eventually(t, "the log says so of "+who, func() bool { return strings.Contains(log.String(), line) }) // which comes by another way than the state
				if n := strings.Count(log.String(), line); n > 2 {                                                    // other tests' routers share the kernel's counters
					t.Errorf("%d lines about %s:\n%s", n, who, log)
				}
			}
			must(t, s.Set(t.Context(), desired(c.away)))
			comesUp(t, s, "tor4")
			comesUp(t, s, "leaf6/"+f.tor6.String())
			if p := stateOf(t, s, "tor4"); p.LastError != "" {
				t.Errorf("with the right password: %+v", p)
			}
		})
	}
}

// Whom drops may be about, and what they don't hide.
func TestSuspects(t *testing.T) {
	t.Parallel()
	l, now := newLedger(speaker.GracefulRestart{}), time.Now()
	add := func(name, address string, s speaker.Session) *session {
		p := peerWithDefaults(speaker.Peer{Name: name, Address: netip.MustParseAddr(address), ASN: routerASN, Session: s})
		_, err := l.add(p, false)
		must(t, err)
		return l.sessions[address]
	}
	signed := add("signed", "10.1.0.1", speaker.Session{Passive: true, Password: "swordfish"})
	plain := add("plain", "10.1.0.2", speaker.Session{Passive: true})
	tried := add("tried", "10.1.0.3", speaker.Session{Passive: true, Password: "swordfish"})
	tried.trouble = "the peer refused our OPEN"
	add("dialled", "10.1.0.4", speaker.Session{Password: "swordfish"})
	add("shut", "10.1.0.5", speaker.Session{Passive: true, Password: "swordfish", Down: true})
	l.open(speaker.Range{Name: "rack", Network: netip.MustParsePrefix("10.2.0.0/24"), ASN: routerASN, Session: speaker.Session{Passive: true, Password: "swordfish"}})
	drop := func(dropped signatures, at time.Time, lines int, want map[*session]string, rack string) {
		t.Helper()
		if news := l.suspect(dropped, at); len(news) != lines {
			t.Errorf("%+v: the log says %v, want %d lines", dropped, news, lines)
		}
		for _, s := range l.sessions {
			if words := want[s]; s != tried && (words == "" && s.trouble != shutOf(s) || !strings.HasPrefix(s.trouble, words)) {
				t.Errorf("%+v: %s: %q, want %q", dropped, s.peer.Name, s.trouble, words)
			}
		}
		if words := l.rangeTrouble(at); rack == "" && words != "" || !strings.HasPrefix(words, rack) {
			t.Errorf("%+v: of the range: %q, want %q", dropped, words, rack)
		}
	}
	const (
		wrong   = "segments with a wrong TCP MD5 signature were dropped on this node"
		both    = "segments with a wrong TCP MD5 signature, and others without the TCP MD5 signature that a password asks for were dropped"
		missing = "segments without the TCP MD5 signature"
		surplus = "segments with a TCP MD5 signature that no password is set for were dropped on this node"
	)
	drop(signatures{}, now, 0, nil, "")
	drop(signatures{wrong: 1}, now, 2, map[*session]string{signed: wrong}, "rack: "+wrong)
	drop(signatures{wrong: 7}, now, 0, map[*session]string{signed: wrong}, "rack: "+wrong)
	drop(signatures{missing: 1}, now, 2, map[*session]string{signed: both}, "rack: "+both)
	// Once in the log, however often the two take turns.
	drop(signatures{wrong: 1}, now, 0, map[*session]string{signed: both}, "rack: "+both)
	drop(signatures{missing: 1}, now, 0, map[*session]string{signed: both}, "rack: "+both)
	drop(signatures{unexpected: 1}, now, 1, map[*session]string{signed: both, plain: surplus}, "rack: "+both)
	if _, ok := l.established("10.1.0.1"); !ok {
		t.Fatal("no session")
	}
	later := now.Add(2 * suspicionTime)
	drop(signatures{}, later, 0, map[*session]string{plain: surplus}, "")
	drop(signatures{missing: 1}, later, 1, map[*session]string{plain: surplus}, "rack: "+missing)
	l.welcome("10.2.0.7")
	drop(signatures{missing: 1}, later, 1, map[*session]string{plain: surplus, l.sessions["10.2.0.7"]: missing}, "")
	if _, ok := l.established("10.2.0.7"); !ok {
		t.Fatal("no session of a router of the range")
	}
	drop(signatures{missing: 1}, later, 1, map[*session]string{plain: surplus}, "rack: "+missing) // another router of it
	if tried.trouble != "the peer refused our OPEN" {
		t.Errorf("of an attempt there is no word any more: %q", tried.trouble)
	}
}

// shutOf is what the record of a peer that nobody has tried says.
func shutOf(s *session) string {
	if s.peer.Down {
		return shutWords(s.peer)
	}
	return ""
}

// This kernel's counters are read, and those of others.
func TestCountSignatures(t *testing.T) {
	t.Parallel()
	if _, err := readSignatures(); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]signatures{
		"TcpExt: A TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure\nTcpExt: 9 1 2 3\nIpExt: X\nIpExt: 1\n": {3, 1, 2},
		"IpExt: TCPMD5Failure\nIpExt: 1\nTcpExt: TCPMD5NotFound\nTcpExt: 4\n":                            {missing: 4},
		"TcpExt: A TCPMD5NotFound\nTcpExt: 5\n":                                                          {},
	} {
		if got, err := countSignatures([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "TcpExt: TCPMD5NotFound\n", "TcpExt: TCPMD5NotFound\nTcpExt: -1\n"} {
		if got, err := countSignatures([]byte(text)); err == nil || got != (signatures{}) {
			t.Errorf("%q: %+v, %v, want an error", text, got, err)
		}
	}
}

func FuzzCountSignatures(f *testing.F) {
	f.Add([]byte("TcpExt: A TCPMD5NotFound\nTcpExt: 9 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := countSignatures(text); err != nil && got != (signatures{}) {
			t.Errorf("%+v with %v", got, err)
		}
	})
}
