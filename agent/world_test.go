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
	kernelErr         error
	changed           chan struct{} // closed and replaced at each change
	closed            []speaker.Stop
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
	var prefixes []netip.Prefix
	for _, r := range want {
		prefixes = append(prefixes, r.Prefix)
	}
	k.world.kernel = set(prefixes...)
	if !holds(k.world.kernel, k.bgp) {
		k.t.Errorf("the kernel lost a route that is still announced: kernel %v, announced %v", k.world.kernel.Prefixes(), k.bgp.Prefixes())
	}
	if k.established && !holds(k.world.kernel, k.peer) {
		k.t.Errorf("the kernel lost a route that the peer still has: kernel %v, peer %v", k.world.kernel.Prefixes(), k.peer.Prefixes())
	}
	k.touch()
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
	s.bgp = set(d.Prefixes...)
	if !holds(s.kernel, s.bgp) {
		s.t.Errorf("announced before the kernel delivers: announced %v, kernel %v", s.bgp.Prefixes(), s.kernel.Prefixes())
	}
	s.touch()
	return nil
}

func (s fakeSpeaker) Flush(ctx context.Context) error {
	for {
		s.mu.Lock()
		up, changed := s.established, s.changed
		if up {
			s.peer = s.bgp
			s.touch()
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(speaker.ErrNoPeer, ctx.Err())
		}
	}
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
		if how == speaker.Withdraw {
			s.bgp, s.peer = &netipx.IPSet{}, &netipx.IPSet{}
		}
	})
	return nil
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
		Node: "n1", RunDir: h.run, Socket: filepath.Join(h.run, "ipam.sock"), Boot: h.boot, Store: store,
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
	a, err := New(h.t.Context(), parts, s)
	if err != nil {
		h.t.Fatal(errors.Join(err, store.Close()))
	}
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
		Local: speaker.Local{ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.2")},
		Pools: ps, AnnounceTimeout: 5 * time.Second,
		Peers: []speaker.Peer{{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), ASN: 65000}},
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
	d.Gateways = []netip.Prefix{netip.MustParsePrefix("192.168.0.1/0")}
	for _, s := range ranges {
		r, err := pools.ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		d.Ranges = append(d.Ranges, r)
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
