package server

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// sessionLog is what happens to one IPv4 session with FRR, and what the log says.
type sessionLog struct {
	router func(c *routers.Config, n *routers.Neighbor)
	node   func(d *speaker.Desired)
	// then is done once the session is up; without it none comes up.
	then func(t *testing.T, f *fabric, c *testChild)
	// want are the lines, with NODE and ROUTER for addresses; "…" is anything.
	want []string
}

const (
	lineUp    = `level=INFO msg="BGP session established" peer=tor4 address=ROUTER asn=64513 from=OpenConfirm to=Established`
	lineLost  = `level=WARN msg="BGP session lost" peer=tor4 address=ROUTER asn=64513 from=Established to=Idle reason=`
	lineEnded = `level=INFO msg="BGP session ended" peer=tor4 address=ROUTER asn=64513 from=Established to=Idle reason=`
)

func sessionLogs() map[string]sessionLog {
	return map[string]sessionLog{
		"hold timer expired": {
			node: func(d *speaker.Desired) { d.Peers[0].HoldTime, d.Peers[0].Keepalive = 3*time.Second, time.Second },
			then: func(t *testing.T, f *fabric, _ *testChild) { f.cut(t) },
			want: []string{lineUp, lineLost + `"sent NOTIFICATION code 4(hold timer expired) subcode 0(undefined)"`},
		},
		"administrative shutdown": {
			then: func(t *testing.T, f *fabric, _ *testChild) {
				f.tor.Do(t, "configure terminal", "-c", fmt.Sprintf("router bgp %d", routerASN), "-c", fmt.Sprintf("neighbor %s shutdown message see ticket 42", f.node4))
			},
			want: []string{lineUp, lineLost + `"received NOTIFICATION …code 6(cease) subcode 2(administrative shutdown): \"see ticket 42\""`},
		},
		"wrong ASN": {
			node: func(d *speaker.Desired) { d.Peers[0].ASN = 64999 },
			want: []string{`level=WARN msg="no BGP session" peer=tor4 address=ROUTER asn=64999 from=OpenSent to=Idle reason="sent NOTIFICATION code 2(open) subcode 2(bad peer as): as number mismatch expected 64999, received 64513"`},
		},
		"wrong password": {
			router: func(_ *routers.Config, n *routers.Neighbor) { n.Password = "swordfish" },
			node:   func(d *speaker.Desired) { d.Peers[0].Password = "cuttlefish" },
			want:   []string{`level=WARN msg="no BGP session" peer=tor4 address=ROUTER asn=64513 from=Active to=Active reason="cannot connect to port 179: i/o timeout (another password on the two sides looks like this)"`},
		},
		"BFD down": {
			then: func(t *testing.T, _ *fabric, c *testChild) { must(t, c.Fail(t.Context(), "tor4")) },
			want: []string{lineUp, lineLost + `"BFD down: the router does not answer"`},
		},
		"too many prefixes": {
			router: func(c *routers.Config, _ *routers.Neighbor) {
				c.Originates = prefixes("10.9.0.0/24", "10.9.1.0/24", "10.9.2.0/24")
			},
			node: func(d *speaker.Desired) { d.Peers[0].Accept.Max = 1 },
			want: []string{lineUp, lineLost + `"the peer sent more than 1 prefixes (ipv4-unicast): filter what it announces to this node…`},
		},
		"the peer is taken away": {
			then: func(t *testing.T, _ *fabric, c *testChild) {
				must(t, c.Set(t.Context(), speaker.Desired{Local: local()}))
			},
			want: []string{lineUp, lineEnded + `"it is no peer of this node any more"`},
		},
		"another option": {
			then: func(t *testing.T, f *fabric, c *testChild) {
				peers := f.peers(routerASN, speaker.Session{ConnectRetry: time.Second, ExtendedMessages: true})
				must(t, c.Set(t.Context(), speaker.Desired{Local: local(), Peers: peers[:1], Announcements: announce(ours4)}))
			},
			want: []string{lineUp, lineEnded + `"its settings changed: a new session begins"`, lineUp},
		},
		"collision": {
			router: func(_ *routers.Config, n *routers.Neighbor) { n.Dials = true },
			node:   func(d *speaker.Desired) { d.Local.Listen = []netip.Addr{netip.IPv4Unspecified()} },
			then:   func(*testing.T, *fabric, *testChild) {},
			want:   []string{lineUp},
		},
	}
}

// Each change of a session is one line that says whose, from which state to which,
// and why, in the words of the RFCs.
func TestSessionLog(t *testing.T) {
	t.Parallel()
	for name, l := range sessionLogs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l.try(t)
		})
	}
}

func (l sessionLog) try(t *testing.T) {
	f := join(t, routers.FRR, func(c *routers.Config, v4, _ *routers.Neighbor) {
		if l.router != nil {
			l.router(c, v4)
		}
	})
	out, spawn := &lines{}, testSpawn(t)
	spawn.Log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	c := childOf(spawn)
	t.Cleanup(func() { _ = c.Close(within(t, soon), speaker.Forward) })
	d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{ConnectRetry: time.Second})[:1], Announcements: announce(ours4)}
	if l.node != nil {
		l.node(&d)
	}
	if len(d.Local.Listen) > 0 { // on addresses that no other test listens on
		d.Local.Listen = []netip.Addr{f.node4}
	}
	must(t, c.Set(t.Context(), d))
	if l.then != nil {
		comesUp(t, c, "tor4")
		l.then(t, f, c)
	}
	var got []string
	eventually(t, "the log has the lines", func() bool {
		got = sessionLines(out.String(), f)
		return len(got) >= len(l.want)
	})
	for i, want := range l.want {
		begins, ends, any := strings.Cut(want, "…")
		if any && !(strings.HasPrefix(got[i], begins) && strings.HasSuffix(got[i], ends)) || !any && got[i] != want {
			t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(l.want, "\n"))
			return
		}
	}
}

// A session that this node's settings shut has ended and was not lost, of a peer and of a
// router of a range alike.
func TestShutIsNoLoss(t *testing.T) {
	t.Parallel()
	f := join(t, routers.FRR, func(_ *routers.Config, _, v6 *routers.Neighbor) { v6.Dials = true })
	out, spawn := &lines{}, testSpawn(t)
	spawn.Log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	c := childOf(spawn)
	t.Cleanup(func() { _ = c.Close(within(t, soon), speaker.Forward) })
	d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{ConnectRetry: time.Second})[:1], Ranges: ranges(speaker.Session{})[1:]}
	d.Local.Listen = []netip.Addr{f.node6}
	must(t, c.Set(t.Context(), d))
	router := "leaf6/" + f.tor6.String()
	comesUp(t, c, "tor4")
	comesUp(t, c, router)
	for _, s := range []*speaker.Session{&d.Peers[0].Session, &d.Ranges[0].Session} {
		s.Down, s.DownMessage = true, "see ticket 42"
	}
	must(t, c.Set(t.Context(), d))
	eventually(t, "the log has both", func() bool { return strings.Count(out.String(), `shut down on this node`) == 2 })
	for name, address := range map[string]netip.Addr{"tor4": f.tor4, router: f.tor6} {
		want := fmt.Sprintf(`level=INFO msg="BGP session ended" peer=%s address=%s asn=%d from=Established to=Idle reason="shut down on this node, by its configuration or by command: \"see ticket 42\""`, name, address, routerASN)
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("the log lacks %s:\n%s", want, out)
		}
	}
	if p := stateOf(t, c, "tor4"); p.Flaps != 0 || p.Reason() != speaker.ReasonShutdown {
		t.Errorf("state %+v", p)
	}
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// sessionLines are those of a log that are about BGP sessions.
func sessionLines(log string, f *fabric) []string {
	log = strings.NewReplacer(f.tor4.String(), "ROUTER", f.node4.String(), "NODE").Replace(log)
	var of []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "BGP session") {
			of = append(of, strings.TrimSuffix(line, "\n"))
		}
	}
	return of
}

// cut takes the link to the router down.
func (f *fabric) cut(t *testing.T) {
	t.Helper()
	link := linkOf(t, f.node4)
	if out, err := exec.Command("ip", "link", "set", link, "down").CombinedOutput(); err != nil {
		t.Fatalf("take %s down: %v: %s", link, err, out)
	}
}

// linkOf is the interface with an address.
func linkOf(t *testing.T, a netip.Addr) string {
	t.Helper()
	out, err := exec.Command("ip", "-brief", "address", "show", "to", a.String()).Output()
	must(t, err)
	name, _, _ := strings.Cut(string(out), " ")
	name, _, _ = strings.Cut(name, "@")
	return name
}

// A stranger that connects again and again makes no line: the log is for what is
// configured.
func TestStrangersMakeNoLines(t *testing.T) {
	t.Parallel()
	good := startRaw(t, "good", "127.0.3.86")
	node := netip.AddrPortFrom(netip.MustParseAddr("127.0.3.87"), nodePort)
	out, spawn := &lines{}, testSpawn(t)
	spawn.Log = slog.New(slog.NewTextHandler(out, nil))
	c := childOf(spawn)
	t.Cleanup(func() { _ = c.Close(within(t, soon), speaker.Forward) })
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{good.peer}}
	d.Local.Listen, d.Local.Port = []netip.Addr{node.Addr()}, node.Port()
	must(t, c.Set(t.Context(), d))
	comesUp(t, c, "good")
	before := strings.Count(out.String(), "\n")
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 88)}}
	for range 200 {
		conn, err := stranger.Dial("tcp", node.String())
		must(t, err)
		_, _ = io.Copy(io.Discard, conn) // until it is hung up on
		must(t, conn.Close())
	}
	if more := strings.Count(out.String(), "\n") - before; more > 0 {
		t.Errorf("%d lines about a stranger: %s", more, out)
	}
	if p := stateOf(t, c, "good"); !p.Established() || p.Flaps != 0 {
		t.Errorf("state %+v", p)
	}
}
