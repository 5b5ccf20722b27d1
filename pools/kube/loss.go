package kube

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// dialer makes connections.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// countingLosses counts the ends of connections, before whoever uses them hears of it.
func countingLosses(dial dialer, ends *atomic.Int64) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &mortal{Conn: conn, end: sync.OnceFunc(func() { ends.Add(1) })}, nil
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
