package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/log"
	gobgp "github.com/osrg/gobgp/v3/pkg/server"
)

// A router is a GoBGP server on a loopback address, the peer of a speaker
// under test. It waits to be dialled, as a top-of-rack router does.
type router struct {
	bgp     *gobgp.BgpServer
	address netip.Addr
	port    uint16
	asn     uint32

	mu      sync.Mutex
	heard   []string // "+prefix" and "-prefix" as they came
	table   map[netip.Prefix]string
	changed chan struct{}
}

const (
	nodeASN   = 64512
	routerASN = 64513
	// Ports below the ones that the kernel gives to dialling sockets; every
	// router has an address of its own.
	routerPort = 1790
	nodePort   = 1791
	apiPort    = 1792
)

func startRouter(t *testing.T, address string, asn uint32) *router {
	t.Helper()
	oneServerUnderRace(t)
	r := &router{
		bgp:     gobgp.NewBgpServer(gobgp.LoggerOption(quiet{})),
		address: netip.MustParseAddr(address),
		asn:     asn,
		port:    routerPort,
		table:   make(map[netip.Prefix]string),
		changed: make(chan struct{}),
	}
	go r.bgp.Serve()
	ctx := context.Background()
	must(t, r.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: asn, RouterId: "192.0.2.1", ListenPort: int32(r.port), ListenAddresses: []string{address},
	}}))
	t.Cleanup(r.bgp.Stop)
	r.watch(t)
	return r
}

// oneServerUnderRace skips where the race detector would only report GoBGP.
func oneServerUnderRace(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("GoBGP keeps its route selection options in process-wide variables: two servers in one process race for them")
	}
}

// accept makes the router take the node's session.
func (r *router) accept(t *testing.T, node string, password string, families ...speaker.Family) {
	t.Helper()
	p := peerWithDefaults(speaker.Peer{Address: netip.MustParseAddr(node), ASN: nodeASN, Session: speaker.Session{Families: families, Password: speaker.Secret(password)}})
	peer := peerOf(p, speaker.Local{ASN: r.asn, GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: 30 * time.Second}}, false)
	peer.Transport.PassiveMode = true
	must(t, r.bgp.AddPeer(context.Background(), &api.AddPeerRequest{Peer: peer}))
}

func (r *router) watch(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	must(t, r.bgp.WatchEvent(ctx, &api.WatchEventRequest{Table: &api.WatchEventRequest_Table{
		Filters: []*api.WatchEventRequest_Table_Filter{{Type: api.WatchEventRequest_Table_Filter_BEST}},
	}}, func(e *api.WatchEventResponse) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range e.GetTable().GetPaths() {
			r.hear(p)
		}
		close(r.changed)
		r.changed = make(chan struct{})
	}))
}

func (r *router) hear(p *api.Path) {
	var n api.IPAddressPrefix
	if p.GetNlri().UnmarshalTo(&n) != nil {
		return
	}
	prefix := netip.PrefixFrom(netip.MustParseAddr(n.Prefix), int(n.PrefixLen))
	if p.IsWithdraw {
		r.heard = append(r.heard, "-"+prefix.String())
		delete(r.table, prefix)
		return
	}
	r.heard = append(r.heard, "+"+prefix.String())
	r.table[prefix] = nextHop(p)
}

func nextHop(p *api.Path) string {
	for _, a := range p.Pattrs {
		var v4 api.NextHopAttribute
		var v6 api.MpReachNLRIAttribute
		if a.UnmarshalTo(&v4) == nil {
			return v4.NextHop
		}
		if a.UnmarshalTo(&v6) == nil {
			return v6.NextHops[0]
		}
	}
	return ""
}

// has waits until the router's table is exactly want.
func (r *router) has(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	deadline := time.After(soon)
	for {
		r.mu.Lock()
		got = got[:0]
		for p := range r.table {
			got = append(got, p.String())
		}
		changed := r.changed
		r.mu.Unlock()
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the router's table is %v, want %v", got, want)
		}
	}
}

func (r *router) log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heard)
}

func (r *router) peer(name string, families ...speaker.Family) speaker.Peer {
	return speaker.Peer{Name: name, Address: r.address, ASN: r.asn, Session: speaker.Session{Port: r.port, Families: families}}
}

// quiet drops a router's log.
type quiet struct{}

func (quiet) Panic(msg string, f log.Fields) { panic(fmt.Sprint(msg, f)) }
func (quiet) Fatal(msg string, f log.Fields) { panic(fmt.Sprint(msg, f)) }
func (quiet) Error(string, log.Fields)       {}
func (quiet) Warn(string, log.Fields)        {}
func (quiet) Info(string, log.Fields)        {}
func (quiet) Debug(string, log.Fields)       {}
func (quiet) SetLevel(log.LogLevel)          {}
func (quiet) GetLevel() log.LogLevel         { return log.InfoLevel }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// soon bounds what takes seconds at most on a machine with nothing else to do.
const soon = 30 * time.Second

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(soon)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// announce announces prefixes to every peer.
func announce(list ...string) []speaker.Announcement { return speaker.Plainly(prefixes(list...)...) }

func prefixes(list ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func local() speaker.Local {
	return speaker.Local{
		ASN: nodeASN, RouterID: netip.MustParseAddr("192.0.2.9"),
		GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: 30 * time.Second, Deferral: 2 * time.Second},
	}
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func stateOf(t *testing.T, s speaker.Speaker, name string) speaker.PeerState {
	t.Helper()
	st, err := s.State(within(t, soon))
	must(t, err)
	for _, p := range st.Peers {
		if p.Name == name {
			return p
		}
	}
	return speaker.PeerState{}
}
