package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// fakeCluster says what a test has it say.
type fakeCluster struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	state   ClusterState
	placed  map[string]Placement // by pod
	refused map[string]error     // by pod
	gone    map[string]bool      // by pod
	away    error
	unsaid  map[string]error // by pod: why Gone does not know
	placing int              // calls of Place
	asked   int              // calls of Gone
	said    []string
	reports []Report
	deaf    int        // reports that fail first
	mesh    []MeshNode // nil is not shown
}

func newCluster(ps ...Pool) *fakeCluster {
	return &fakeCluster{
		changed: make(chan struct{}), state: ClusterState{Seen: true, Pools: ps, Machine: "machine-1"},
		placed: map[string]Placement{}, refused: map[string]error{}, gone: map[string]bool{},
	}
}

func (c *fakeCluster) update(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *fakeCluster) Watch(ctx context.Context, changed func()) error {
	for {
		c.mu.Lock()
		next := c.changed
		c.mu.Unlock()
		changed()
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *fakeCluster) State() ClusterState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	s.Pools = slices.Clone(s.Pools)
	return s
}

func (c *fakeCluster) Place(_ context.Context, o pools.Owner, _ string) (Placement, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.placing++
	return c.placed[o.Pod], c.refused[o.Pod]
}

func (c *fakeCluster) Gone(_ context.Context, o pools.Owner) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	return c.gone[o.Pod], errors.Join(c.away, c.unsaid[o.Pod])
}

func (c *fakeCluster) Warn(_ context.Context, o pools.Owner, reason, message string) error {
	c.update(func() { c.said = append(c.said, fmt.Sprintf("%s/%s %s: %s", o.Namespace, o.Pod, reason, message)) })
	return nil
}

func (c *fakeCluster) Report(_ context.Context, r Report) error {
	var err error
	c.update(func() {
		if c.deaf > 0 {
			c.deaf--
			err = errors.New("try again later")
			return
		}
		c.reports = append(c.reports, r)
	})
	return err
}

func (c *fakeCluster) Refresh() {}

func (c *fakeCluster) WatchMesh(ctx context.Context, changed func([]MeshNode)) error {
	var last []MeshNode
	return c.Watch(ctx, func() {
		if now := locked(c, func() []MeshNode { return slices.Clone(c.mesh) }); !reflect.DeepEqual(now, last) {
			last = now
			changed(now)
		}
	})
}

// locked reads something of the cluster.
func locked[T any](c *fakeCluster, read func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return read()
}

// startIn runs an agent that is part of a cluster.
func (h *host) startIn(c Cluster, every cadence) running {
	h.t.Helper()
	return h.startInWith(c, every, settings(h.t))
}

// startInWith is startIn with other settings.
func (h *host) startInWith(c Cluster, every cadence, s Settings) running {
	h.t.Helper()
	parts, store := h.parts()
	parts.Cluster = c
	a, err := New(h.t.Context(), parts, s)
	if err != nil {
		h.t.Fatal(errors.Join(err, store.Close()))
	}
	a.every = every
	return h.runs(a, store)
}

// never is a cadence at which nothing happens by itself.
func never() cadence {
	const long = 24 * time.Hour
	return cadence{firstAudit: long, settled: long, fenced: long, audit: long, lost: long, report: long, tell: long}
}

func podRequest(n int) pools.Request {
	r := request("", n)
	r.Owner.Namespace, r.Owner.Pod = "shop", fmt.Sprintf("web-%d", n)
	return r
}

func TestPodGetsThePoolThatTheClusterSays(t *testing.T) {
	c := newCluster(pool(t, "api", 4, "10.1.0.0/24"), pool(t, "web", 4, "10.2.0.0/24"))
	chosen := netip.MustParseAddr("10.2.0.9")
	c.placed["web-1"] = Placement{Pool: "web", Want: []netip.Addr{chosen}}
	a := newHost(t).startIn(c, never())
	leases := a.leases()
	g, err := leases.Lease(t.Context(), podRequest(1))
	if err != nil || g.Addresses[0].Addr != chosen {
		t.Fatalf("leased %v, %v; want %v", g, err, chosen)
	}
	c.update(func() { c.placed["web-1"] = Placement{Pool: "api"} })
	again, err := leases.Lease(t.Context(), podRequest(1))
	if err != nil || again.Addresses[0].Addr != chosen {
		t.Errorf("the same ADD again leased %v, %v; want %v", again, err, chosen)
	}
	if n := locked(c, func() int { return c.placing }); n != 1 {
		t.Errorf("the cluster was asked %d times; want once", n)
	}
	none := request("", 2)
	if _, err := leases.Lease(t.Context(), none); !errors.Is(err, cni.ErrRefused) || !strings.Contains(err.Error(), "K8S_POD_NAME") {
		t.Errorf("a request for no pod: %v", err)
	}
	none.Pool = "api"
	if _, err := leases.Lease(t.Context(), none); err != nil {
		t.Errorf("a request for no pod in a network that names its pool: %v", err)
	}
}

func TestRefusedPodIsToldOnce(t *testing.T) {
	small := pool(t, "small", 1, "10.1.0.0/31")
	c := newCluster(small)
	c.refused["web-1"] = cni.Refuse(errors.New("pool \"api\" serves other namespaces"))
	for n := 2; n <= 4; n++ {
		c.placed[fmt.Sprintf("web-%d", n)] = Placement{Pool: "small"}
	}
	leases := newHost(t).startIn(c, never()).leases()
	for range 3 {
		if _, err := leases.Lease(t.Context(), podRequest(1)); !errors.Is(err, cni.ErrRefused) {
			t.Errorf("lease: %v", err)
		}
	}
	for n := 2; n <= 3; n++ {
		if _, err := leases.Lease(t.Context(), podRequest(n)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := leases.Lease(t.Context(), podRequest(4)); !errors.Is(err, pools.ErrExhausted) {
			t.Errorf("lease of a third address of two: %v", err)
		}
	}
	eventually(t, "both pods have their event", func() bool { return locked(c, func() int { return len(c.said) }) >= 2 })
	said := strings.Join(locked(c, func() []string { return slices.Sorted(slices.Values(c.said)) }), "\n")
	const want = `shop/web-1 PoolRefused: pool "api" serves other namespaces
shop/web-4 PoolExhausted: pool "small" has no free IPv4 address: size 2, 2 leased on this node`
	if !strings.HasPrefix(said, want) || strings.Count(said, "\n") != 1 {
		t.Errorf("the pods were told\n%s\nwant\n%s", said, want)
	}
}

func TestPodIsToldAgainAfterAWhile(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.refused["web-1"] = cni.Refuse(errors.New("no pool"))
	every := never()
	every.tell = time.Nanosecond
	leases := newHost(t).startIn(c, every).leases()
	for range 2 {
		_, _ = leases.Lease(t.Context(), podRequest(1))
	}
	eventually(t, "there are two events", func() bool { return locked(c, func() int { return len(c.said) }) == 2 })
}

// A pool that is gone, or refused, is kept for as long as somebody uses it.
func TestPoolGoesWithItsLastLease(t *testing.T) {
	web := pool(t, "web", 4, "10.1.0.0/24")
	web.IdleAfter = 0
	c := newCluster(web)
	c.placed["web-1"], c.placed["web-2"] = Placement{Pool: "web"}, Placement{Pool: "web"}
	h := newHost(t)
	a := h.startIn(c, never())
	leases := a.leases()
	if _, err := leases.Lease(t.Context(), podRequest(1)); err != nil {
		t.Fatal(err)
	}
	c.update(func() { c.state.Pools = []Pool{pool(t, "api", 4, "10.2.0.0/24")} })
	eventually(t, "the pool leases nothing new", func() bool {
		_, err := leases.Lease(t.Context(), podRequest(2))
		if err == nil {
			release(t, a, podRequest(2))
		}
		return errors.Is(err, exchange.ErrDraining) && errors.Is(err, cni.ErrRefused)
	})
	if held := leases.Held(podRequest(1).Owner.Attachment); len(held) != 1 {
		t.Fatalf("the lease is gone: %v", held)
	}
	release(t, a, podRequest(1))
	a.call()
	eventually(t, "its block is returned and the pool forgotten", func() bool {
		a.call()
		return a.desk.count() == 0 && slices.Equal(poolNames(a.settings.Load().Pools), []string{"api"})
	})
}

// A pool that clashes is left out, and takes no other one with it.
func TestOneBadPoolLeavesTheOthersAlone(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.placed["web-1"], c.placed["web-2"] = Placement{Pool: "web"}, Placement{Pool: "new"}
	leases := newHost(t).startIn(c, never()).leases()
	if _, err := leases.Lease(t.Context(), podRequest(1)); err != nil {
		t.Fatal(err)
	}
	c.update(func() {
		c.state.Pools = []Pool{pool(t, "bad", 4, "10.1.0.128/25"), pool(t, "new", 4, "10.3.0.0/24"), pool(t, "web", 4, "10.1.0.0/24")}
	})
	eventually(t, "the new pool serves", func() bool {
		_, err := leases.Lease(t.Context(), podRequest(2))
		return err == nil
	})
	if _, err := leases.Lease(t.Context(), podRequest(1)); err != nil {
		t.Error(err)
	}
	c.update(func() { c.placed["web-3"] = Placement{Pool: "bad"} })
	_, err := leases.Lease(t.Context(), podRequest(3))
	if !errors.Is(err, cni.ErrTryAgain) || !strings.Contains(err.Error(), `pool "bad" can't be used on this node now: `) {
		t.Errorf("a pod of the bad pool: %v", err)
	}
}

// As many pools are used as can be, and those that can't are not tried again
// before what is held has changed.
func TestManyPoolsAndSomeBadOnes(t *testing.T) {
	const count = 60
	var all, good []Pool
	for i := range count {
		all = append(all, pool(t, fmt.Sprintf("p%02d", i), 4, fmt.Sprintf("10.1.%d.0/28", i)))
		good = append(good, all[len(all)-1])
		if i%20 == 7 {
			all = append(all, pool(t, fmt.Sprintf("bad%02d", i), 4, fmt.Sprintf("10.1.%d.8/29", i)))
		}
	}
	h := newHost(t)
	parts, store := h.parts()
	defer store.Close()
	parts.Cluster = newCluster(all...)
	a, err := New(t.Context(), parts, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.follow()
	if got := slices.Sorted(slices.Values(poolNames(a.settings.Load().Pools))); !slices.Equal(got, poolNames(good)) || len(a.misfits) != 3 {
		t.Errorf("pools %v; misfits %v", got, a.misfits)
	}
	a.misfits["mark"] = "stays until the pools are looked at again"
	a.dropUnheld()
	if a.misfits["mark"] == "" {
		t.Error("looked at again without a reason")
	}
	if err := a.claim(t.Context(), pools.NoFreeError{Pool: "p00", Family: pools.IPv4}); err != nil {
		t.Fatal(err)
	}
	a.dropUnheld()
	if a.misfits["mark"] != "" {
		t.Error("not looked at again after a change")
	}
}

// A pod may be there before the agent has heard of its pool.
func TestPodOfAPoolThatIsNews(t *testing.T) {
	c := newCluster()
	c.placed["web-1"] = Placement{Pool: "web"}
	leases := newHost(t).startIn(c, never()).leases()
	c.mu.Lock() // without a word
	c.state.Pools = []Pool{pool(t, "web", 4, "10.1.0.0/24")}
	c.mu.Unlock()
	if _, err := leases.Lease(t.Context(), podRequest(1)); err != nil {
		t.Error(err)
	}
}

func TestCordonedNodeTakesNoNewBlock(t *testing.T) {
	web := pool(t, "web", 2, "10.1.0.0/24")
	c := newCluster(web)
	for n := range 4 {
		c.placed[fmt.Sprintf("web-%d", n)] = Placement{Pool: "web"}
	}
	a := newHost(t).startIn(c, never())
	leases := a.leases()
	if _, err := leases.Lease(t.Context(), podRequest(0)); err != nil {
		t.Fatal(err)
	}
	c.update(func() { c.state.Cordoned, c.state.Machine = true, "machine-2" })
	eventually(t, "the agent knows", func() bool { return a.desk.status().Cordoned })
	if got := a.desk.machine(); got != "machine-2" {
		t.Errorf("the machine is %q", got)
	}
	if _, err := leases.Lease(t.Context(), podRequest(1)); err != nil {
		t.Errorf("a lease in a block that is held: %v", err)
	}
	if _, err := leases.Lease(t.Context(), podRequest(2)); !errors.Is(err, exchange.ErrCordoned) || !errors.Is(err, cni.ErrTryAgain) {
		t.Errorf("a lease that takes a new block: %v", err)
	}
	c.update(func() { c.state.Cordoned = false })
	eventually(t, "the agent knows", func() bool { return !a.desk.status().Cordoned })
	if _, err := leases.Lease(t.Context(), podRequest(2)); err != nil {
		t.Errorf("a lease after that: %v", err)
	}
}

func TestStartWaitsForTheCluster(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.state.Seen = false
	h := newHost(t)
	parts, store := h.parts()
	defer store.Close()
	parts.Cluster = c
	made := make(chan error, 1)
	go func() {
		a, err := New(t.Context(), parts, settings(t))
		if err == nil {
			err = a.Close()
		}
		made <- err
	}()
	c.update(func() { c.state.Seen, c.state.Machine = true, "" })
	select {
	case err := <-made:
		t.Fatalf("started without a node: %v", err)
	default:
	}
	c.update(func() { c.state.Machine = "machine-1" })
	if err := <-made; err != nil {
		t.Error(err)
	}
}

func TestReportIsMadeWhenASessionChanges(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	every := never()
	every.report = time.Millisecond
	h := newHost(t)
	h.startIn(c, every)
	reports := func() []Report { return locked(c, func() []Report { return slices.Clone(c.reports) }) }
	eventually(t, "there is a report", func() bool { return len(reports()) > 0 })
	h.update(func() { h.established = false })
	eventually(t, "there is another one", func() bool {
		all := reports()
		return all[len(all)-1].Peers[0].Session == "Idle"
	})
	if n := len(reports()); n > 4 {
		t.Errorf("%d reports of two states", n)
	}
}

// The controller waits for what was heeded: a report that fails is made again soon.
func TestAReportThatFailsIsMadeAgain(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.state.Orders = "o/1"
	c.deaf = 1
	a := newHost(t).startIn(c, never())
	a.hurryReport()
	eventually(t, "there is a report", func() bool {
		return locked(c, func() bool { return len(c.reports) > 0 && c.deaf == 0 })
	})
}

func TestMemory(t *testing.T) {
	dir := t.TempDir()
	rich := define(t, pools.Definition{Name: "rich", BlockSize: 8, ReuseAfter: time.Minute}, "10.1.0.0/24", "10.2.0.7", "fd00::/120")
	rich.IdleAfter, rich.Quiet, rich.Draining = time.Hour, true, true
	want := []Pool{rich, pool(t, "web", 4, "10.3.0.0/24")}
	if err := newMemory(dir, "boot-1").keep("machine-1", want, "speaker/2"); err != nil {
		t.Fatal(err)
	}
	got, err := newMemory(dir, "boot-1").recall()
	if err != nil || got.machine != "machine-1" || got.orders != "speaker/2" || !samePools(got.pools, want) {
		t.Errorf("recalled %+v, %v; want %+v", got, err, want)
	}
	if got, err := newMemory(dir, "boot-2").recall(); err != nil || got.machine != "" || got.pools != nil {
		t.Errorf("after another boot %+v, %v", got, err)
	}
	for _, damaged := range []string{"", "{", `{"boot":"boot-1","pools":[{"name":"web"}]}`} {
		if err := os.WriteFile(filepath.Join(dir, memoryFile), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := newMemory(dir, "boot-1").recall(); err == nil {
			t.Errorf("%q is taken for %+v", damaged, got)
		}
	}
}

// slowCluster says where a pod belongs when it is let, or nobody waits any more.
type slowCluster struct {
	*fakeCluster
	asked, answer chan struct{}
}

func (c slowCluster) Place(ctx context.Context, o pools.Owner, named string) (Placement, error) {
	close(c.asked)
	select {
	case <-c.answer:
	case <-ctx.Done():
	}
	return c.fakeCluster.Place(ctx, o, named)
}

// A runtime gives an ADD up and sends the DEL while the cluster is still asked about the
// pod. No other DEL comes, so nothing must be leased after this one.
func TestReleaseWhileTheClusterIsAsked(t *testing.T) {
	c := slowCluster{newCluster(pool(t, "web", 4, "10.2.0.0/24")), make(chan struct{}), make(chan struct{})}
	c.placed["web-1"] = Placement{Pool: "web"}
	leases, r := newHost(t).startIn(c, never()).leases(), podRequest(1)
	added := make(chan error, 1)
	go func() {
		_, err := leases.Lease(t.Context(), r)
		added <- err
	}()
	<-c.asked
	if err := leases.Release(t.Context(), r.Owner); err != nil {
		t.Errorf("the DEL ends with %v", err)
	}
	close(c.answer)
	if err := <-added; !errors.Is(err, ErrOvertaken) {
		t.Errorf("the ADD ends with %v", err)
	}
	if left := leases.Held(r.Owner.Attachment); len(left) > 0 {
		t.Errorf("%v is leased, and nothing will end it", left)
	}
}
