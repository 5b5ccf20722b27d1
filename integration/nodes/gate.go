package nodes

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/internal/namespace"
)

// Gate is the only way from a node to the API server, which listens on the loopback
// interface of the test's namespace. While it is shut connections end as soon as they
// begin; while it is stuck they last, and nothing gets through.
type Gate struct {
	listener net.Listener
	server   string

	mu      sync.Mutex
	shut    bool
	stuck   bool
	unstuck sync.Cond             // of mu
	conns   map[net.Conn]struct{} // both ends of each
}

// newGate opens one in a node's namespace at the address that the server has in the
// test's. It is gone when the test ends.
func newGate(t *testing.T, at router.Namespace, server string) *Gate {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{server: u.Host, conns: map[net.Conn]struct{}{}}
	g.unstuck.L = &g.mu
	err = namespace.Inside(fmt.Sprintf("/proc/%d/ns/net", at.PID()), func() (err error) {
		g.listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", g.server)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { g.serve(&serving) })
	t.Cleanup(func() {
		_ = g.listener.Close()
		g.Close()
		serving.Wait()
	})
	return g
}

func (g *Gate) serve(serving *sync.WaitGroup) {
	for {
		near, err := g.listener.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { g.join(near) })
	}
}

// join is one connection, until either end has enough or the gate is shut.
func (g *Gate) join(near net.Conn) {
	defer near.Close()
	if !g.keep(near) {
		return
	}
	defer g.forget(near)
	far, err := new(net.Dialer).DialContext(context.Background(), "tcp", g.server)
	if err != nil {
		return
	}
	defer far.Close()
	if !g.keep(far) {
		return
	}
	defer g.forget(far)
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(far, passing{near, g})
		_ = far.Close()
	})
	_, _ = io.Copy(near, passing{far, g})
	_ = near.Close()
	up.Wait()
}

// passing is what one end of a connection sends, as the gate lets it through.
type passing struct {
	from net.Conn
	gate *Gate
}

func (p passing) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.wait()
	return n, err
}

// wait returns when the gate is not stuck. The lock is held, though not meanwhile.
func (g *Gate) wait() {
	for g.stuck {
		g.unstuck.Wait()
	}
}

// keep notes a connection, unless the gate is shut.
func (g *Gate) keep(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wait()
	if !g.shut {
		g.conns[c] = struct{}{}
	}
	return !g.shut
}

func (g *Gate) forget(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// Close ends all connections and lets none through.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.stuck = true, false
	g.unstuck.Broadcast()
	for c := range g.conns {
		_ = c.Close()
	}
}

// Stick lets nothing through, and ends nothing: a network that drops all packets.
func (g *Gate) Stick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stuck = true
}

// Open lets connections through again.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.stuck = false, false
	g.unstuck.Broadcast()
}
