package kube

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"k8s.io/client-go/rest"
)

// line is a node's only one to the API server. While late is set, watches of pools
// that are opened wait.
type line struct {
	cut, late atomic.Bool
	next      http.RoundTripper

	mu    sync.Mutex
	conns []net.Conn
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.cut.Load() {
		return nil, syscall.ECONNREFUSED
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

func (l *line) sever() {
	l.cut.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.late.Load() && r.URL.Query().Has("watch") && strings.HasSuffix(r.URL.Path, "/"+v1alpha1.AddressPools) {
		return nil, syscall.ECONNRESET // it is asked for again
	}
	return l.next.RoundTrip(r)
}

// outpost is a node at the end of a line, which claims blocks of the pool "fleeting".
type outpost struct {
	*line
	watcher  *Watcher
	requests *counter
}

// outpost starts one that watches until the test ends.
func (c real) outpost(t *testing.T) *outpost {
	t.Helper()
	o := &outpost{line: &line{}}
	config := rest.CopyConfig(c.Config())
	config.Dial = o.dial
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { o.next = next; return o })
	var client *Client
	client, o.requests = counted(t, config)
	o.watcher = client.Watcher("n1")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = o.watcher.Run(ctx, Sight{})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return o
}

// shown says whether the watch has shown the pool, and not yet its end.
func (o *outpost) shown() bool { _, ok := o.watcher.pools.get("", "fleeting"); return ok }

// reads is how often the pool was read since it was asked for last.
func (o *outpost) reads() (n int) {
	for _, made := range o.requests.take() {
		if strings.Contains(made, "metadata.name%3Dfleeting") {
			n++
		}
	}
	return n
}

func (o *outpost) claim(ctx context.Context, p string) error {
	b := webBlock("n1", p)
	b.Pool = "fleeting"
	_, err := o.watcher.Store().Create(ctx, b)
	return err
}

// deletedUnseen has pools deleted while a node is cut off: when it is back, its claims
// may be quicker than its watch.
func (c real) deletedUnseen(t *testing.T) {
	c.empty(t)
	const pool = `{apiVersion: fairway.network/v1alpha1, kind: AddressPool, metadata: {name: fleeting}, spec: {addresses: [10.77.0.0/24]}}`
	if err := c.Apply(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	o := c.outpost(t)
	await(t, "the pool is watched", func() bool { return o.shown() && o.watcher.standing.knows("fleeting", time.Now()) })
	if err := o.claim(t.Context(), "10.77.0.0/26"); err != nil {
		t.Errorf("while the watch is open: %v", err)
	}
	if n := o.reads(); n != 0 {
		t.Errorf("%d reads of a pool that is watched", n)
	}

	o.sever()
	o.late.Store(true)
	if _, err := c.Kubectl(t.Context(), "delete", "addresspool", "fleeting"); err != nil {
		t.Fatal(err)
	}
	o.cut.Store(false)
	if err := o.claim(t.Context(), "10.77.0.64/26"); err == nil || !o.shown() {
		t.Errorf("a claim in a pool that is gone, which the node does not know (%t): %v", o.shown(), err)
	}
	if err := c.Apply(t.Context(), strings.Replace(pool, "77.0.0/24", "78.0.0/24", 1)); err != nil {
		t.Fatal(err)
	}
	if err := o.claim(t.Context(), "10.77.0.64/26"); err == nil || !strings.Contains(err.Error(), "UID") {
		t.Errorf("a claim in a pool that was made anew: %v", err)
	}
	o.late.Store(false)
	await(t, "the node sees the new pool", func() bool {
		p, _ := o.watcher.pools.get("", "fleeting")
		return len(p.Spec.Addresses) == 1 && p.Spec.Addresses[0] == "10.78.0.0/24"
	})
	o.reads()
	for _, cell := range []string{"10.78.0.0/26", "10.78.0.64/26"} {
		if err := o.claim(t.Context(), cell); err != nil {
			t.Errorf("%s in the new pool: %v", cell, err)
		}
	}
	if n := o.reads(); n != 1 {
		t.Errorf("%d reads of the pool for two claims after a lost connection, want 1", n)
	}
	c.claimsNothingOfADeletedPool(t, o)
}

// claimsNothingOfADeletedPool has the pool deleted unseen, and kept by a finalizer: it may
// go at any moment.
func (c real) claimsNothingOfADeletedPool(t *testing.T, o *outpost) {
	t.Helper()
	finalizers := func(list string) {
		t.Helper()
		if _, err := c.Kubectl(t.Context(), "patch", "addresspool", "fleeting", "--type=merge", "-p", `{"metadata":{"finalizers":`+list+`}}`); err != nil {
			t.Fatal(err)
		}
	}
	o.sever()
	o.late.Store(true)
	finalizers(`["fairway.network/test"]`)
	if _, err := c.Kubectl(t.Context(), "delete", "addresspool", "fleeting", "--wait=false"); err != nil {
		t.Fatal(err)
	}
	o.cut.Store(false)
	if err := o.claim(t.Context(), "10.78.0.128/26"); err == nil || !strings.Contains(err.Error(), "being deleted") {
		t.Errorf("a claim in a pool that is about to go: %v", err)
	}
	finalizers(`[]`)
	o.late.Store(false)
}
