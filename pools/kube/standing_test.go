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

// deletedUnseen has pools deleted while a node is cut off: when it is back, its claims
// may be quicker than its watch.
func (c real) deletedUnseen(t *testing.T) {
	c.empty(t)
	l := &line{}
	config := rest.CopyConfig(c.Config())
	config.Dial = l.dial
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { l.next = next; return l })
	const pool = `{apiVersion: fairway.network/v1alpha1, kind: AddressPool, metadata: {name: fleeting}, spec: {addresses: [10.77.0.0/24]}}`
	if err := c.Apply(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	agent, requests := counted(t, config)
	reads := func() (n int) {
		for _, made := range requests.take() {
			if strings.Contains(made, "metadata.name%3Dfleeting") {
				n++
			}
		}
		return n
	}
	w := agent.Watcher("n1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.Run(ctx, Sight{})
	}()
	defer func() { cancel(); <-ended }()
	shown := func() bool { _, ok := w.pools.get("", "fleeting"); return ok }
	await(t, "the pool is shown", shown)
	s := w.Store()
	claim := func(p string) error {
		b := webBlock("n1", p)
		b.Pool = "fleeting"
		_, err := s.Create(t.Context(), b)
		return err
	}
	if err := claim("10.77.0.0/26"); err != nil {
		t.Errorf("while the watch is open: %v", err)
	}
	if n := reads(); n != 0 {
		t.Errorf("%d reads of a pool that is watched", n)
	}

	l.sever()
	l.late.Store(true)
	if _, err := c.Kubectl(t.Context(), "delete", "addresspool", "fleeting"); err != nil {
		t.Fatal(err)
	}
	l.cut.Store(false)
	if err := claim("10.77.0.64/26"); err == nil || !shown() {
		t.Errorf("a claim in a pool that is gone, which the node does not know (%t): %v", shown(), err)
	}
	if err := c.Apply(t.Context(), strings.Replace(pool, "77.0.0/24", "78.0.0/24", 1)); err != nil {
		t.Fatal(err)
	}
	if err := claim("10.77.0.64/26"); err == nil || !strings.Contains(err.Error(), "UID") {
		t.Errorf("a claim in a pool that was made anew: %v", err)
	}
	l.late.Store(false)
	await(t, "the node sees the new pool", func() bool {
		p, _ := w.pools.get("", "fleeting")
		return len(p.Spec.Addresses) == 1 && p.Spec.Addresses[0] == "10.78.0.0/24"
	})
	reads()
	for _, cell := range []string{"10.78.0.0/26", "10.78.0.64/26"} {
		if err := claim(cell); err != nil {
			t.Errorf("%s in the new pool: %v", cell, err)
		}
	}
	if n := reads(); n != 1 {
		t.Errorf("%d reads of the pool for two claims after a lost connection, want 1", n)
	}
	c.claimsNothingOfADeletedPool(t, l, claim)
}

// claimsNothingOfADeletedPool has the pool deleted unseen, and kept by a finalizer: it may
// go at any moment.
func (c real) claimsNothingOfADeletedPool(t *testing.T, l *line, claim func(string) error) {
	t.Helper()
	finalizers := func(list string) {
		t.Helper()
		if _, err := c.Kubectl(t.Context(), "patch", "addresspool", "fleeting", "--type=merge", "-p", `{"metadata":{"finalizers":`+list+`}}`); err != nil {
			t.Fatal(err)
		}
	}
	l.sever()
	l.late.Store(true)
	finalizers(`["fairway.network/test"]`)
	if _, err := c.Kubectl(t.Context(), "delete", "addresspool", "fleeting", "--wait=false"); err != nil {
		t.Fatal(err)
	}
	l.cut.Store(false)
	if err := claim("10.78.0.128/26"); err == nil || !strings.Contains(err.Error(), "being deleted") {
		t.Errorf("a claim in a pool that is about to go: %v", err)
	}
	finalizers(`[]`)
	l.late.Store(false)
}
