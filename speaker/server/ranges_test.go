package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// ranges are two that every router of join is in.
func ranges(s speaker.Session) []speaker.Range {
	return []speaker.Range{
		{Name: "leaf4", Network: netip.MustParsePrefix("100.64.0.0/10"), ASN: routerASN, Session: s},
		{Name: "leaf6", Network: netip.MustParsePrefix("2001:db8::/32"), ASN: routerASN, Session: s},
	}
}

// Routers that nobody named open sessions, are told what is announced, are named
// in the state, and lose their sessions with their range alone.
func TestRange(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "range of routers", i, both()...)
			t.Parallel()
			password := "swordfish"
			if i == routers.OpenBGPD {
				password = "" // it takes no TCP MD5 on Linux
			}
			f := join(t, i, func(c *routers.Config, v4, v6 *routers.Neighbor) {
				c.Originates = prefixes(theirs4, theirs6)
				for _, n := range []*routers.Neighbor{v4, v6} {
					n.Dials, n.Password, n.GracefulRestart = true, password, time.Minute
				}
			})
			d := speaker.Desired{Local: local(), Ranges: ranges(speaker.Session{Password: speaker.Secret(password)}), Announcements: announce(ours4, ours6)}
			d.Local.Listen = []netip.Addr{f.node4, f.node6}
			s := newTestChild(t)
			must(t, s.Set(t.Context(), d))
			f.tor.Has(t, ours4, ours6)
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			name4, name6 := "leaf4/"+f.tor4.String(), "leaf6/"+f.tor6.String()
			if p := stateOf(t, s, name4); !p.Established() || p.Range != "leaf4" || p.Address != f.tor4 || p.ASN != routerASN {
				t.Errorf("state %+v", p)
			}
			other := stateOf(t, s, name6)
			f.losesRange(t, s, d, name4)
			undisturbed(t, s, other)
			must(t, s.Fail(t.Context(), name6))
			eventually(t, "the session is ended", func() bool { return stateOf(t, s, name6).Since != other.Since })
			f.hurry(t, f.node6)
			f.tor.Has(t, ours4, ours6)
		})
	}
}

// The speaker's process is killed: the routers of its range, which help with graceful
// restart, have the routes whenever they are asked, and fresh ones in the end.
func TestRangeAfterCrash(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "graceful restart of a range", i, both()...)
			t.Parallel()
			f := join(t, i, func(_ *routers.Config, v4, v6 *routers.Neighbor) {
				for _, n := range []*routers.Neighbor{v4, v6} {
					n.Dials, n.GracefulRestart = true, time.Minute
				}
			})
			d := speaker.Desired{Local: local(), Ranges: ranges(speaker.Session{}), Announcements: announce(ours4, ours6)}
			d.Local.Listen = []netip.Addr{f.node4, f.node6}
			s := newTestChild(t)
			must(t, s.Set(t.Context(), d))
			f.tor.Has(t, ours4, ours6)
			pid := s.signal(t, syscall.SIGKILL)
			routers.Await(t, "the routers have sessions with the next process", soon, func() error {
				f.keeps(t)
				for _, near := range []netip.Addr{f.node4, f.node6} {
					if !f.tor.Neighbor(t, near).Established() || s.pid() == pid {
						return fmt.Errorf("no session with %s", near)
					}
				}
				return nil
			})
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			f.tor.Has(t, ours4, ours6)
			if stale := f.keeps(t); stale != "" {
				t.Errorf("%s is stale yet", stale)
			}
		})
	}
}

// A router that comes by a range reads in the OPEN whether this node went on forwarding:
// after a restart, and after a session that was lost, but not at a first start.
func TestRestartBitOfRange(t *testing.T) {
	t.Parallel()
	for i, restarting := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarting %v", restarting), func(t *testing.T) {
			t.Parallel()
			node := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("127.0.7.%d", i+1)), nodePort)
			r := newRaw(t, "", fmt.Sprintf("127.0.8.%d", i+1))
			r.helps = true
			close(r.gate)
			s := newTestServer(t)
			d := speaker.Desired{Local: local(), Announcements: announce("10.1.0.0/26"), Ranges: []speaker.Range{
				{Name: "rack", Network: netip.PrefixFrom(r.peer.Address, 32), ASN: routerASN}}}
			d.Local.Listen, d.Local.Port, d.Local.Restarting = []netip.Addr{node.Addr()}, node.Port(), restarting
			must(t, s.Set(t.Context(), d))
			conn := r.dial(t, node)
			r.opensWith(t, restarting, "in the first OPEN")
			name := "rack/" + r.peer.Address.String()
			comesUp(t, s, name)
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			must(t, conn.Close())
			eventually(t, "the session is lost", func() bool { return !stateOf(t, s, name).Established() })
			eventually(t, "the speaker takes connections again", func() bool { return stateOf(t, s, name).Session == "Active" })
			r.dial(t, node)
			r.opensWith(t, true, "after a session that was lost")
			comesUp(t, s, name)
			must(t, s.Close(within(t, soon), speaker.Withdraw)) // as long as the connection lasts
		})
	}
}

// losesRange takes the first range away and gives it back.
func (f *fabric) losesRange(t *testing.T, s speaker.Speaker, d speaker.Desired, name string) {
	t.Helper()
	less := d
	less.Ranges = d.Ranges[1:]
	must(t, s.Set(t.Context(), less))
	f.tor.Has(t, ours6)
	if p := stateOf(t, s, name); p.Name != "" {
		t.Errorf("a router of a range that is gone: %+v", p)
	}
	must(t, s.Set(t.Context(), d))
	f.hurry(t, f.node4)
	f.tor.Has(t, ours4, ours6)
}

// hurry has the router dial at once where it would wait for half a minute.
func (f *fabric) hurry(t *testing.T, node netip.Addr) {
	t.Helper()
	if f.tor.Implementation == routers.OpenBGPD {
		f.tor.Do(t, "neighbor", node.String(), "clear")
	}
}

// A range has no more sessions than it may, a wrong router leaves nothing behind,
// and a Peer inside a range is no member of it.
func TestRangeIsBounded(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	node := netip.MustParseAddr("127.0.0.50")
	d := speaker.Desired{Local: local(), Announcements: announce("10.1.0.0/26"), Ranges: []speaker.Range{
		{Name: "rack", Network: netip.MustParsePrefix("127.0.0.48/28"), ASN: routerASN, Most: 2},
		{Name: "one", Network: netip.MustParsePrefix("127.0.0.56/32"), ASN: routerASN},
	}}
	d.Local.Listen, d.Local.Port = []netip.Addr{node}, nodePort
	named := newRaw(t, "named", "127.0.0.51")
	close(named.gate)
	d.Peers = []speaker.Peer{named.peer}
	d.Peers[0].Passive = true
	must(t, s.Set(t.Context(), d))
	names := func() (up []string, all int) {
		st, err := s.State(within(t, soon))
		must(t, err)
		for _, p := range st.Peers {
			if p.Established() {
				up = append(up, p.Name)
			}
		}
		return up, len(st.Peers)
	}
	// GoBGP takes no connection of a peer that it has just been told of.
	eventually(t, "the named one may dial", func() bool { return stateOf(t, s, "named").Session == "Active" })
	var dialled []*raw
	for _, host := range []int{51, 52, 53, 56} {
		r := named
		if host != 51 {
			r = newRaw(t, "", fmt.Sprintf("127.0.0.%d", host))
			close(r.gate)
		}
		r.dial(t, netip.AddrPortFrom(node, nodePort))
		dialled = append(dialled, r)
	}
	want := []string{"named", "one/127.0.0.56", "rack/127.0.0.52", "rack/127.0.0.53"}
	eventually(t, "the sessions are up", func() bool { up, _ := names(); return slices.Equal(up, want) })
	for _, r := range dialled {
		eventually(t, "it is told the prefix", func() bool { return r.heard.Load() == 1 })
	}
	for _, host := range []int{54, 55} {
		r := newRaw(t, "", fmt.Sprintf("127.0.0.%d", host))
		close(r.gate)
		conn := r.dial(t, netip.AddrPortFrom(node, nodePort))
		if err := conn.SetReadDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "those that are too many are gone", func() bool { up, all := names(); return slices.Equal(up, want) && all == len(want) })
	d.Ranges[0].Most, d.Ranges[0].Down = 3, true
	must(t, s.Set(t.Context(), d))
	if up, all := names(); !slices.Equal(up, want[:2]) || all != 2 {
		t.Errorf("with the range shut: %v of %d", up, all)
	}
}

// A router that is in by a range becomes a peer of its own, also one that is back
// as soon as it has lost its session, and a member again.
func TestMemberBecomesPeer(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	node := netip.MustParseAddr("127.0.0.97")
	d := speaker.Desired{Local: local(), Announcements: announce("10.1.0.0/26"), Ranges: []speaker.Range{
		{Name: "rack", Network: netip.MustParsePrefix("127.0.0.96/28"), ASN: routerASN},
		{Name: "hall", Network: netip.MustParsePrefix("127.0.0.96/27"), ASN: routerASN},
	}}
	d.Local.Listen, d.Local.Port = []netip.Addr{node}, nodePort
	must(t, s.Set(t.Context(), d))
	r := newRaw(t, "named", "127.0.0.98")
	close(r.gate)
	r.insist(t, netip.AddrPortFrom(node, nodePort), time.Millisecond)
	for port := range uint16(2) {
		comesUp(t, s, "rack/127.0.0.98")
		named := d
		named.Peers = []speaker.Peer{r.peer}
		named.Peers[0].Passive = true
		for range 2 { // the second time with another setting, so that it is removed and added
			must(t, s.Set(t.Context(), named))
			comesUp(t, s, "named")
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			if p := stateOf(t, s, "rack/127.0.0.98"); p.Name != "" {
				t.Errorf("a peer is a member, too: %+v", p)
			}
			named.Peers[0].Port += 1 + port
		}
		must(t, s.Set(t.Context(), d))
	}
	comesUp(t, s, "rack/127.0.0.98")
}

// insist dials from its own address for as long as the test lasts, again a while after
// a session has ended.
func (r *raw) insist(t *testing.T, node netip.AddrPort, every time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.peer.Address, 0))}
	go func() {
		defer close(ended)
		pace := time.NewTicker(every)
		defer pace.Stop()
		for ctx.Err() == nil {
			<-pace.C
			conn, err := d.DialContext(ctx, "tcp", node.String())
			if err != nil {
				continue
			}
			hangUp := context.AfterFunc(ctx, func() { _ = conn.Close() })
			r.greet(conn)
			hangUp()
			_ = conn.Close()
			pace.Reset(every)
		}
	}()
}

// The record of a peer that GoBGP has is not lost to one that it does not take.
func TestRecordsOfMembers(t *testing.T) {
	t.Parallel()
	l := newLedger(speaker.GracefulRestart{})
	l.open(speaker.Range{Name: "rack", Network: netip.MustParsePrefix("192.0.2.0/24"), ASN: routerASN})
	p := peerWithDefaults(speaker.Peer{Name: "named", Address: netip.MustParseAddr("192.0.2.1"), ASN: routerASN})
	address := p.Address.String()
	takeBack, err := l.add(p, false)
	must(t, err)
	l.welcome(address)
	takeBack()
	if !l.isMember(address) {
		t.Error("a router that came while the peer was being added is forgotten")
	}
	if _, err := l.add(p, false); !errors.Is(err, errMember) || !l.isMember(address) {
		t.Errorf("a peer in place of a member: %v", err)
	}
	l.forget(address)
	_, err = l.add(p, false)
	must(t, err)
	before := l.sessions[address]
	takeBack, err = l.add(p, true)
	must(t, err)
	takeBack()
	if l.sessions[address] != before {
		t.Error("the record of before is lost")
	}
}

// dial opens a session from its own address.
func (r *raw) dial(t *testing.T, node netip.AddrPort) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.peer.Address, 0))}
	conn, err := d.DialContext(within(t, soon), "tcp", node.String())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	go r.greet(conn)
	return conn
}

func TestRefusedRanges(t *testing.T) {
	t.Parallel()
	listens := local()
	listens.Listen = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	for want, change := range map[string]func(rg *speaker.Range, l *speaker.Local){
		"has no name":        func(rg *speaker.Range, _ *speaker.Local) { rg.Name = "" },
		"without host bits":  func(rg *speaker.Range, _ *speaker.Local) { rg.Network = netip.MustParsePrefix("10.0.0.1/8") },
		"ASN 0":              func(rg *speaker.Range, _ *speaker.Local) { rg.ASN = 0 },
		"-1 sessions":        func(rg *speaker.Range, _ *speaker.Local) { rg.Most = -1 },
		"does not listen":    func(_ *speaker.Range, l *speaker.Local) { l.Listen = nil },
		"never connects":     func(rg *speaker.Range, _ *speaker.Local) { rg.ConnectRetry = time.Second },
		"set one of them":    func(rg *speaker.Range, _ *speaker.Local) { rg.Multihop, rg.TTLSecurity = 2, 2 },
		"or a peer has this": func(rg *speaker.Range, _ *speaker.Local) { rg.Name = "nobody" },
	} {
		rg, l := speaker.Range{Name: "rack", Network: netip.MustParsePrefix("10.0.0.0/8"), ASN: routerASN}, listens
		change(&rg, &l)
		_, err := checkRanges([]speaker.Range{rg}, []speaker.Peer{nobody("127.0.0.9")}, l)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
	rg := speaker.Range{Name: "a", Network: netip.MustParsePrefix("10.0.0.0/8"), ASN: routerASN}
	twin := rg
	twin.Name = "b"
	if good, err := checkRanges([]speaker.Range{rg, twin}, nil, listens); err == nil || len(good) != 1 || !strings.Contains(err.Error(), "is that of range a") {
		t.Errorf("the same network twice: %v, %v", good, err)
	}
	s := newTestServer(t)
	if err := s.Set(t.Context(), speaker.Desired{Local: local(), Ranges: []speaker.Range{rg}}); !errors.Is(err, speaker.ErrPeers) {
		t.Errorf("Set: %v", err)
	}
}

// A router of a range that comes back may hold what it held when it was lost, until it is
// told anew.
func TestWelcomeOfHolder(t *testing.T) {
	t.Parallel()
	const address = "192.0.2.9"
	now := time.Now()
	l := newLedger(speaker.GracefulRestart{Enabled: true, Time: time.Minute})
	l.open(speaker.Range{Name: "rack", Network: netip.MustParsePrefix("192.0.2.0/24"), Session: speaker.Session{HoldTime: 3 * time.Second}})
	l.welcome(address)
	s := l.sessions[address]
	if s.mayHold(now) {
		t.Error("a router that was never here holds something")
	}
	s.holds = l.holdsFromNow(s)
	l.welcome(address)
	if s := l.sessions[address]; !s.mayHold(now) || s.mayHold(now.Add(time.Hour)) {
		t.Errorf("it holds until %v, was lost at %v", s.holds, now)
	}
}
