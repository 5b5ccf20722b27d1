package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	// frontRetry is when an address is tried again that could not be listened on.
	frontRetry = 10 * time.Second
	// frontTime bounds one request, and how long a connection may rest.
	frontTime = 30 * time.Second
	// maxHeader bounds the header of a request.
	maxHeader = 16 << 10
)

// front is where an agent shows its numbers and its health over TCP, from its first
// moment to its last.
type front struct {
	stop  context.CancelFunc
	doors sync.WaitGroup
}

// openFront serves on the addresses that are valid. Pods don't wait for one that
// can't be listened on: it is tried again.
func (a *Agent) openFront(ctx context.Context) *front {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	f := &front{stop: stop}
	muxes := map[netip.AddrPort]*http.ServeMux{}
	of := func(address netip.AddrPort) *http.ServeMux {
		if muxes[address] == nil {
			muxes[address] = http.NewServeMux()
		}
		return muxes[address]
	}
	if a.MetricsAddress.IsValid() {
		of(a.MetricsAddress).Handle("GET /metrics", a.metrics)
	}
	if a.HealthAddress.IsValid() {
		a.serveHealth(of(a.HealthAddress))
	}
	for address, mux := range muxes {
		f.doors.Go(func() { a.serveOn(ctx, address, mux) })
	}
	return f
}

func (f *front) close() {
	if f != nil {
		f.stop()
		f.doors.Wait()
	}
}

// serveOn serves on address until ctx ends.
func (a *Agent) serveOn(ctx context.Context, address netip.AddrPort, handler http.Handler) {
	n := news{log: a.Log}
	for ctx.Err() == nil {
		err := serveHTTP(ctx, address, handler)
		if ctx.Err() == nil && n.isNews(err) {
			a.Log.Error("metrics or health are not served", "address", address, "err", err, "retryEvery", frontRetry)
		}
		pause(ctx, frontRetry)
	}
}

func serveHTTP(ctx context.Context, address netip.AddrPort, handler http.Handler) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address.String())
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	server := &http.Server{
		Handler: handler, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: readTime, ReadTimeout: frontTime, WriteTimeout: frontTime, IdleTimeout: frontTime,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return errors.Join(server.Serve(l), server.Close())
}
