package server

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// The numbers of a router's routes are what counting its last words says, with and
// without a sink.
func TestTallyAgainstHistory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 9))
		now := time.Unix(1, 0)
		table, address := newLessons(), "192.0.2.1"
		table.sinkless = seed%2 == 0
		table.begin(speaker.Local{ASN: nodeASN}, now)
		a := netip.MustParseAddr(address)
		table.configure(map[netip.Addr]speaker.Peer{a: peerWithDefaults(speaker.Peer{Name: "tor", Address: a, ASN: 65009, Accept: everything()})}, nil, nil)
		r := table.teacher(address)
		table.up(r, now)
		said := make(map[string]bool) // by prefix and number: whether it is an echo
		for range 200 {
			n := bgp.NewIPAddrPrefix(24, fmt.Sprintf("%d.0.%d.0", []int{10, 127}[random.IntN(2)], random.IntN(6)))
			n.SetPathIdentifier(uint32(random.IntN(3)))
			key := fmt.Sprint(n.String(), n.PathIdentifier())
			switch what := random.IntN(10); {
			case what < 5:
				said[key] = false
				table.update(address, lessonOf(nil, []*bgp.IPAddrPrefix{n}, attributesOf(address, 65009)...), now)
			case what < 8:
				said[key] = true
				table.update(address, lessonOf(nil, []*bgp.IPAddrPrefix{n}, attributesOf(address, 65009, nodeASN)...), now)
			default:
				delete(said, key)
				table.update(address, lessonOf([]*bgp.IPAddrPrefix{n}, nil), now)
			}
			if !table.sinkless && random.IntN(4) == 0 {
				table.take(5)
			}
			echoes := 0
			for _, echo := range said {
				if echo {
					echoes++
				}
			}
			if c := r.counts[speaker.IPv4]; c != nil && (c.told != len(said) || c.echoes != echoes) {
				t.Fatalf("seed %d: %+v, want %d, %d of them echoes", seed, *c, len(said), echoes)
			}
		}
		table.down(r, false, now)
		table.take(1000)
		if c := r.counts[speaker.IPv4]; c.told != 0 || c.echoes != 0 || c.accepted != 0 || table.sinkless && len(table.entries) > 0 {
			t.Fatalf("seed %d: %+v and %d prefixes are left", seed, *c, len(table.entries))
		}
	}
}

// A router has told too much with one route more than the maximum, whether they are
// accepted or not; those that it has from this node don't count, up to a bound.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddr("192.0.2.1")
	now := time.Unix(1, 0)
	table := newLessons()
	table.begin(speaker.Local{ASN: nodeASN}, now)
	configure := func(most int) []flood {
		p := speaker.Peer{Name: "tor", Address: a, ASN: 65009, Accept: speaker.Accept{Max: most}}
		table.configure(map[netip.Addr]speaker.Peer{a: peerWithDefaults(p)}, nil, nil)
		return table.takeFloods()
	}
	tell := func(first, n int, path ...uint32) []flood {
		var nlri []*bgp.IPAddrPrefix
		for i := first; i < first+n; i++ {
			nlri = append(nlri, bgp.NewIPAddrPrefix(32, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()))
		}
		for part := range slices.Chunk(nlri, 400) { // as many as a message holds
			table.update(a.String(), lessonOf(nil, part, attributesOf(a.String(), path...)...), now)
		}
		return table.takeFloods()
	}
	step := func(what string, got []flood, want ...flood) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
	}
	step("the settings", configure(3))
	table.up(table.teacher(a.String()), now)
	step("as many as may be", tell(0, 3, 65009))
	step("the same again", tell(0, 3, 65009, 65010))
	step("its own sent back", tell(100, 50, 65009, nodeASN))
	step("more may be", configure(4))
	step("less may be", configure(2), flood{a.String(), speaker.IPv4, 2, false})
	step("nobody is told twice", tell(3, 10, 65009))
	table.down(table.teachers[a.String()], false, now)
	table.up(table.teachers[a.String()], now)
	step("the next session", tell(0, 2, 65009))
	step("one too many", tell(2, 1, 65009), flood{a.String(), speaker.IPv4, 2, false})
	table.down(table.teachers[a.String()], false, now)
	table.up(table.teachers[a.String()], now)
	step("many sent back", tell(0, maxEchoes, 65009, nodeASN))
	step("too many sent back", tell(maxEchoes, 1, 65009, nodeASN), flood{a.String(), speaker.IPv4, maxEchoes, true})
}

// A session that takes the place of one that sent too much, as with other settings, is
// not shut with it: nobody would open it again.
func TestFloodOfSessionBefore(t *testing.T) {
	t.Parallel()
	tor := startRaw(t, "tor", "127.0.3.23")
	s := newTestServer(t)
	must(t, s.Set(t.Context(), speaker.Desired{Local: local(), Peers: []speaker.Peer{tor.peer}}))
	comesUp(t, s, "tor")
	was := stateOf(t, s, "tor").Since
	late := flood{address: tor.peer.Address.String(), family: speaker.IPv4, most: 1}
	must(t, s.run.Load().endFlood(t.Context(), late, session{peer: peerWithDefaults(tor.peer)}))
	eventually(t, "there is a session again", func() bool {
		p := stateOf(t, s, "tor")
		return p.Established() && p.Since != was
	})
}

// A router that sent too much reads so in the NOTIFICATION, with the bound (RFC
// 4486), and as a hard reset where it would keep this node's routes over it.
func TestFloodNotification(t *testing.T) {
	t.Parallel()
	bound := []byte{0, 1, 1, 0, 0, 0, 2} // IPv4, unicast
	for name, c := range map[string]struct {
		helps   bool
		subcode uint8
		data    []byte
	}{
		"127.0.3.7": {false, 1, bound},
		"127.0.3.8": {true, ceaseHardReset, append([]byte{bgp.BGP_ERROR_CEASE, 1}, bound...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRaw(t, "tor", name)
			r.helps, r.notifications = c.helps, c.helps
			close(r.gate)
			r.listen(t)
			r.peer.Accept.Max = 2
			s := newTestServer(t)
			d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}}
			d.Local.GracefulRestart = speaker.GracefulRestart{Enabled: true, Time: time.Minute, Deferral: time.Second}
			must(t, s.Set(t.Context(), d))
			comesUp(t, s, "tor")
			must(t, writeMessage(<-r.sessions, announcement(0, 3)))
			var n *bgp.BGPNotification
			select {
			case n = <-r.notes:
			case <-time.After(soon):
				t.Fatal("no NOTIFICATION came")
			}
			if n.ErrorCode != bgp.BGP_ERROR_CEASE || n.ErrorSubcode != c.subcode || !slices.Equal(n.Data, c.data) {
				t.Errorf("NOTIFICATION %d/%d %v, want %d/%d %v", n.ErrorCode, n.ErrorSubcode, n.Data, bgp.BGP_ERROR_CEASE, c.subcode, c.data)
			}
			eventually(t, "the session is shut, and says why", func() bool {
				p := stateOf(t, s, "tor")
				return !p.Established() && p.Reason() == speaker.ReasonMaxPrefixes
			})
			const want = "tor: the peer sent more than 2 prefixes (ipv4-unicast): filter what it announces to this node"
			if st, err := s.State(t.Context()); err != nil || st.LearnedTrouble != want {
				t.Errorf("the trouble is %q, %v", st.LearnedTrouble, err)
			}
		})
	}
}

// A router of a range that sent too much gets no session for a while either, however
// often it dials.
func TestFloodFromRange(t *testing.T) {
	t.Parallel()
	node := netip.AddrPortFrom(netip.MustParseAddr("127.0.7.9"), nodePort)
	r := newRaw(t, "", "127.0.8.9")
	close(r.gate)
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Ranges: []speaker.Range{
		{Name: "rack", Network: netip.PrefixFrom(r.peer.Address, 32), ASN: routerASN, Accept: speaker.Accept{Max: 2}}}}
	d.Local.Listen, d.Local.Port = []netip.Addr{node.Addr()}, node.Port()
	must(t, s.Set(t.Context(), d))
	r.dial(t, node)
	name := "rack/" + r.peer.Address.String()
	comesUp(t, s, name)
	must(t, writeMessage(<-r.sessions, announcement(0, 3)))
	eventually(t, "the session is shut", func() bool { return !stateOf(t, s, name).Established() })
	since := stateOf(t, s, name).Since
	for range 3 {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: r.peer.Address.AsSlice()}}).Dial("tcp", node.String())
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(soon)))
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("it is not sent away: %v", err)
		}
		_ = conn.Close()
		eventually(t, "the state says why", func() bool {
			p := stateOf(t, s, name)
			return !p.Established() && p.Since.Equal(since) && p.Reason() == speaker.ReasonMaxPrefixes
		})
	}
}
