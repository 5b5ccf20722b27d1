package kube

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// dialer makes connections.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// lines are the connections of one client.
type lines struct {
	// open is how many there are, losses how many have ended. An end is a loss before it
	// is not open any more: who sees fewer open than before, and then looks at losses,
	// sees that, too.
	open, losses atomic.Int64
}

// counting counts a connection before whoever asked for it has it, and its end before
// whoever uses it hears of that.
func (l *lines) counting(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		l.open.Add(1)
		return &mortal{Conn: conn, end: sync.OnceFunc(func() {
			l.losses.Add(1)
			l.open.Add(-1)
		})}, nil
	}
}

// mortal is a connection of which somebody wants to know when it has ended.
type mortal struct {
	net.Conn
	end func()
}

// Read is for TLS, which sets no deadlines for it: whatever fails is the end.
func (m *mortal) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if err != nil {
		m.end()
	}
	return n, err
}

// Close ends it.
func (m *mortal) Close() error {
	m.end()
	return m.Conn.Close()
}
