package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/embedded"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
	"go4.org/netipx"
)

// world is a kernel and a network that keep the agent to its order: every
// step that would send a packet into the void is recorded as a breach.
type world struct {
	t  *testing.T
	mu sync.Mutex
	// kernel is what the kernel delivers, bgp what the speaker was told, peer
	// what has arrived at the peer.
	kernel, bgp, peer *netipx.IPSet
	established       bool
	down              map[pools.Family]bool // the peer does not carry these at the moment
	kernelErr         error                 // of the whole table
	refused           []netip.Prefix        // the kernel does not take what overlaps these
	closeErr          error
	stuck             bool          // no route leaves the kernel
	lingered          int           // how often one did not
	unflushed         int           // how often nothing left
	tolerant          bool          // a route may be announced that the kernel does not hold
	changed           chan struct{} // closed and replaced at each change
	closed            []speaker.Stop
	desired           speaker.Desired // the last
}

func newWorld(t *testing.T) *world {
	return &world{t: t, kernel: &netipx.IPSet{}, bgp: &netipx.IPSet{}, peer: &netipx.IPSet{}, established: true, changed: make(chan struct{})}
}

func set(prefixes ...netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		b.AddPrefix(p)
	}
	s, err := b.IPSet()
	if err != nil {
		panic(err)
	}
	return s
}

func holds(outer, inner *netipx.IPSet) bool {
	return !slices.ContainsFunc(inner.Ranges(), func(r netipx.IPRange) bool { return !outer.ContainsRange(r) })
}

// touch is called with the lock held.
func (w *world) touch() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) update(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.touch()
}

// await waits until the world is as cond, called with the lock held, says.
func (w *world) await(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		w.mu.Lock()
		ok, changed := cond(), w.changed
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			w.t.Fatalf("not so after 10 s: %s", what)
		}
	}
}

// eventually looks until cond holds, for what gives no signal.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(10 * time.Second); !cond(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 10 s: %s", what)
		}
	}
}

type fakeKernel struct{ *world }

func (k fakeKernel) Sync(_ context.Context, want []routes.Route) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kernelErr != nil {
		return k.kernelErr
	}
	var prefixes, missing []netip.Prefix
	for _, r := range want {
		if slices.ContainsFunc(k.refused, r.Prefix.Overlaps) {
			missing = append(missing, r.Prefix)
			continue
		}
		prefixes = append(prefixes, r.Prefix)
	}
	var lingering []netip.Prefix
	if old := k.world.kernel.Prefixes(); k.stuck && len(prefixes) < len(old) {
		lingering = old
		k.lingered++
	} else {
		k.world.kernel = set(prefixes...)
	}
	defer k.touch()
	if len(lingering) > 0 {
		return &routes.SyncError{Lingering: lingering, Err: errors.New("the route is busy")}
	}
	if len(missing) > 0 {
		return &routes.SyncError{Missing: missing, Err: errors.New("somebody else has that route")}
	}
	if !k.tolerant && !holds(k.world.kernel, k.bgp) {
		k.t.Errorf("the kernel lost a route that is still announced: kernel %v, announced %v", k.world.kernel.Prefixes(), k.bgp.Prefixes())
	}
	if !k.tolerant && k.established && !holds(k.world.kernel, k.peer) {
		k.t.Errorf("the kernel lost a route that the peer still has: kernel %v, peer %v", k.world.kernel.Prefixes(), k.peer.Prefixes())
	}
	return nil
}

func (k fakeKernel) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

type fakeSpeaker struct{ *world }

func (s fakeSpeaker) Set(_ context.Context, d speaker.Desired) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bgp, s.desired = set(d.Prefixes()...), d
	if !s.tolerant && !holds(s.kernel, s.bgp) {
		s.t.Errorf("announced before the kernel delivers: announced %v, kernel %v", s.bgp.Prefixes(), s.kernel.Prefixes())
	}
	s.touch()
	return nil
}

func (s fakeSpeaker) Fail(context.Context, string) error { return nil }

func (s fakeSpeaker) Flush(ctx context.Context, prefixes []netip.Prefix) error {
	for {
		s.mu.Lock()
		up := s.established && !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return s.down[pools.FamilyOf(p.Addr())] })
		changed := s.changed
		if up {
			s.peer = s.arrived(prefixes)
			s.touch()
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			s.update(func() { s.unflushed++ })
			return errors.Join(speaker.ErrNoPeer, ctx.Err())
		}
	}
}

// arrived is what the peer has once it has been told of prefixes.
func (s fakeSpeaker) arrived(prefixes []netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddSet(s.peer)
	for _, p := range prefixes {
		b.RemovePrefix(p)
	}
	var news netipx.IPSetBuilder
	news.AddSet(set(prefixes...))
	news.Intersect(s.bgp)
	n, _ := news.IPSet()
	b.AddSet(n)
	out, _ := b.IPSet()
	return out
}

func (s fakeSpeaker) State(context.Context) (speaker.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := speaker.PeerState{Name: "tor", Session: "Idle"}
	if s.established {
		p.Session = "Established"
	}
	return speaker.State{Peers: []speaker.PeerState{p}}, nil
}

func (s fakeSpeaker) Close(_ context.Context, how speaker.Stop) error {
	s.update(func() {
		s.closed = append(s.closed, how)
		if how == speaker.Withdraw && s.closeErr == nil {
			s.bgp, s.peer = &netipx.IPSet{}, &netipx.IPSet{}
		}
	})
	return s.closeErr
}

// orderedStore keeps the agent to its order, too: a block comes back last.
type orderedStore struct {
	*embedded.Store
	world *world
}

func (s orderedStore) Delete(ctx context.Context, b exchange.Stored) error {
	w := s.world
	w.mu.Lock()
	if w.kernel.OverlapsPrefix(b.Prefix) || w.bgp.OverlapsPrefix(b.Prefix) || w.established && w.peer.OverlapsPrefix(b.Prefix) {
		w.t.Errorf("%s was returned too early: kernel %v, announced %v, peer %v", b.Prefix, w.kernel.Prefixes(), w.bgp.Prefixes(), w.peer.Prefixes())
	}
	w.mu.Unlock()
	return s.Store.Delete(ctx, b)
}

// host is where agents run one after the other: its directories stay.
type host struct {
	*world
	run, state string
	boot       string
}

func newHost(t *testing.T) *host {
	return &host{world: newWorld(t), run: t.TempDir(), state: t.TempDir(), boot: "boot-1"}
}

func (h *host) parts() (Parts, *embedded.Store) {
	h.t.Helper()
	store, err := embedded.Open(filepath.Join(h.state, "blocks.db"), "n1")
	if err != nil {
		h.t.Fatal(err)
	}
	return Parts{
		Node: "n1", RunDir: h.run, Socket: filepath.Join(h.run, "ipam.sock"), Boot: h.boot, Store: orderedStore{store, h.world},
		Kernel: fakeKernel{h.world}, Speaker: fakeSpeaker{h.world}, Log: slog.New(slog.NewTextHandler(h.t.Output(), nil)),
	}, store
}

// agent is one that runs until stop is called.
type running struct {
	*Agent
	stop func() error
}

// start runs an agent. crash leaves out all that an orderly end does.
func (h *host) start(s Settings) running {
	h.t.Helper()
	parts, store := h.parts()
	return h.startWith(parts, store, s)
}

// startWith is start with other parts, which have store among them.
func (h *host) startWith(parts Parts, store *embedded.Store, s Settings) running {
	h.t.Helper()
	a, err := New(h.t.Context(), parts, s)
	if err != nil {
		h.t.Fatal(errors.Join(err, store.Close()))
	}
	return h.runs(a, store)
}

// runs has an agent run until stop is called, or the test ends, and closes its store then.
func (h *host) runs(a *Agent, store *embedded.Store) running {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- errors.Join(a.Run(ctx), store.Close()) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	h.t.Cleanup(func() { _ = stop() })
	return running{a, stop}
}

func settings(t *testing.T, ps ...Pool) Settings {
	return Settings{
		Local: speaker.Local{ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.2"),
			GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: 120 * time.Second}},
		Pools: ps, AnnounceTimeout: 5 * time.Second,
		Peers: []speaker.Peer{{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), ASN: 65000, Session: speaker.Session{Families: []speaker.Family{speaker.IPv4, speaker.IPv6}}}},
	}
}

func pool(t testing.TB, name string, blockSize int, ranges ...string) Pool {
	t.Helper()
	return define(t, pools.Definition{Name: name, BlockSize: blockSize}, ranges...)
}

// resting is a pool whose addresses rest for an hour.
func resting(t testing.TB, name string, ranges ...string) Pool {
	t.Helper()
	return define(t, pools.Definition{Name: name, BlockSize: 4, ReuseAfter: time.Hour}, ranges...)
}

func define(t testing.TB, d pools.Definition, ranges ...string) Pool {
	t.Helper()
	for _, s := range ranges {
		r, err := pools.ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		d.Ranges = append(d.Ranges, r)
		if r.From().Is4() { // so that no address of the pool is the gateway
			d.Gateways = []netip.Prefix{netip.MustParsePrefix("192.168.0.1/0")}
		}
	}
	p, err := pools.New(d)
	if err != nil {
		t.Fatal(err)
	}
	return Pool{Pool: p, IdleAfter: time.Hour}
}

func request(pool string, n int) pools.Request {
	return pools.Request{Pool: pool, Owner: pools.Owner{
		Attachment: pools.Attachment{Network: "net", ContainerID: fmt.Sprintf("c%d", n), IfName: "eth0"}, PodUID: fmt.Sprintf("uid%d", n)}}
}
