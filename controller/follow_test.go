package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/watch"
)

// history is an API server's nodes, of which one snapshot can be restored. A
// watch shows what is later than the version it begins with, as a real one does:
// also what came between the list and the beginning of the watch.
type history struct {
	mu      sync.Mutex
	nodes   nodes
	version int
	past    []node // what came with each of the last versions, up to this one
	lists   int
	watches []func(watch.EventType, node, string)
	begin   []int // with which versions watches began
	cut     chan struct{}
}

func newHistory(version int) *history {
	return &history{nodes: nodes{}, version: version, cut: make(chan struct{})}
}

func (h *history) page(_ context.Context, _ string, each func(node)) (version, next string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lists++
	for _, n := range h.nodes {
		each(n)
	}
	return strconv.Itoa(h.version), "", nil
}

func (h *history) now(context.Context) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strconv.Itoa(h.version), nil
}

func (h *history) watch(ctx context.Context, version string, each func(watch.EventType, node, string)) error {
	from, err := strconv.Atoi(version)
	if err != nil {
		return err
	}
	h.mu.Lock()
	cut := h.cut
	h.begin = append(h.begin, from)
	for i, n := range h.past {
		if v := h.version - len(h.past) + 1 + i; v > from {
			each(watch.Modified, n, strconv.Itoa(v))
		}
	}
	h.watches = append(h.watches, func(change watch.EventType, n node, at string) {
		if v, _ := strconv.Atoi(at); v > from {
			each(change, n, at)
		}
	})
	h.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-cut:
		return errors.New("cut off")
	}
}

func (h *history) put(n node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version++
	h.past = append(h.past, n)
	h.nodes.put(n)
	for _, each := range h.watches {
		each(watch.Modified, n, strconv.Itoa(h.version))
	}
}

// restore goes back to a snapshot, and cuts all watches off.
func (h *history) restore(version int, all nodes) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version, h.past, h.nodes, h.watches = version, nil, all, nil
	close(h.cut)
	h.cut = make(chan struct{})
}

type historySource struct{ *history }

func (h historySource) version(ctx context.Context) (string, error) { return h.now(ctx) }

func (h *history) follow(t *testing.T) (m *mirror[node, nodes], changed chan struct{}) {
	changed = make(chan struct{}, 1)
	m = newMirror("nodes", source[node](historySource{h}), func() nodes { return nodes{} }, slog.New(slog.DiscardHandler), changed)
	run(t, func(ctx context.Context) error {
		m.follow(ctx)
		return nil
	})
	return m, changed
}

// until waits until a mirror's table is as it should be.
func until(t *testing.T, changed <-chan struct{}, m *mirror[node, nodes], what string, is func(nodes) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		ok := false
		if m.read(func(all nodes) { ok = is(all) }); ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("waited in vain for ", what)
		}
	}
}

// When etcd is restored from a snapshot, versions go back, and a watch from the
// version that was seen last would show nothing.
func TestVersionsThatGoBackAreSeen(t *testing.T) {
	h := newHistory(100)
	h.put(node{name: "old", machine: "1"})
	m, changed := h.follow(t)
	until(t, changed, m, "the list", func(all nodes) bool { return len(all) == 1 })
	for i := range 50 {
		h.put(node{name: fmt.Sprint("later-", i), machine: "1"})
	}
	until(t, changed, m, "the changes", func(all nodes) bool { return len(all) == 51 })
	h.restore(110, nodes{"old": {name: "old", machine: "0"}})
	until(t, changed, m, "what was restored", func(all nodes) bool { return len(all) == 1 && all["old"].machine == "0" })
	h.put(node{name: "new", machine: "1"})
	until(t, changed, m, "what came after it", func(all nodes) bool { return len(all) == 2 })
	// A watch that is merely cut off goes on from where it was.
	h.mu.Lock()
	before, at := h.lists, h.version
	close(h.cut)
	h.cut, h.watches = make(chan struct{}), nil
	h.mu.Unlock()
	h.awaitWatch(t)
	h.put(node{name: "newer", machine: "1"})
	until(t, changed, m, "what came after the cut", func(all nodes) bool { return len(all) == 3 })
	h.mu.Lock()
	defer h.mu.Unlock()
	if from := h.begin[len(h.begin)-1]; h.lists != before || from != at {
		t.Errorf("%d more lists for a cut, and the watch began at %d; want none, and %d", h.lists-before, from, at)
	}
}

// awaitWatch waits until somebody watches.
func (h *history) awaitWatch(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		h.mu.Lock()
		n := len(h.watches)
		h.mu.Unlock()
		if n > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("nobody watches again")
		}
	}
}

// Of versions that have gone back and passed the last one that was seen nobody
// can tell; a list now and then shows what is different.
func TestAListIsDueNowAndThen(t *testing.T) {
	h := newHistory(1)
	h.put(node{name: "a", machine: "1"})
	m := newMirror("nodes", source[node](historySource{h}), func() nodes { return nodes{} }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a watch ends at once
	version := ""
	turn := func(want int) {
		t.Helper()
		if err := m.turn(ctx, &version); !errors.Is(err, context.Canceled) || h.lists != want {
			t.Fatalf("%d lists and %v, want %d", h.lists, err, want)
		}
	}
	turn(1)
	turn(1)
	if d := m.relist.Sub(m.since); d < relistLeast || d > 2*relistLeast {
		t.Errorf("the next list comes after %v", d)
	}
	m.relist = time.Now().Add(-time.Second)
	turn(2)
	turn(2)
}

// What a kubelet or a person writes into an object most of the time is none of
// the controller's business.
func TestOnlyNewsWakeAnybody(t *testing.T) {
	all := nodes{}
	a := node{name: "a", machine: "1"}
	for i, c := range []struct {
		n    node
		drop bool
		want bool
	}{
		{n: a, want: true},
		{n: a}, // a heartbeat
		{n: node{name: "a", machine: "1", out: true}, want: true},
		{n: node{name: "a", machine: "2"}, want: true},
		{n: a, drop: true, want: true},
		{n: a, drop: true},
	} {
		put := all.put
		if c.drop {
			put = all.drop
		}
		if got := put(c.n); got != c.want {
			t.Errorf("step %d: a node that is news: %v, want %v", i, got, c.want)
		}
	}
	held := pods{}
	for i, c := range []struct {
		p    pod
		want bool
	}{
		{aPod(1), false}, {aPod(1, "10.0.0.1"), true}, {aPod(1, "10.0.0.1"), false}, {aPod(1, "10.0.0.2"), true}, {aPod(1), true},
	} {
		if got := held.put(c.p); got != c.want {
			t.Errorf("step %d: a pod that is news: %v, want %v", i, got, c.want)
		}
	}
	objects := poolObjects{}
	o := accepted(aPool("web", 1, "10.0.0.0/24"))
	if !objects.put(o) {
		t.Error("a new pool is no news")
	}
	counted := o.DeepCopy()
	counted.Status.Used++
	if objects.put(counted) {
		t.Error("numbers are news")
	}
	grown := o.DeepCopy()
	grown.Generation++
	if !objects.put(grown) {
		t.Error("another spec is no news")
	}
}
