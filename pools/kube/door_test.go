package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Requests that come while there is no connection share the one that is made.
func TestOneConnectionForAll(t *testing.T) {
	const requests = 6
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	var dialed atomic.Int32
	var come sync.WaitGroup
	come.Add(requests)
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			come.Wait()
			dialed.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	door := newDoor(transport, new(atomic.Bool))
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			come.Done()
			if err != nil {
				t.Error(err)
				return
			}
			answer, err := door.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = answer.Body.Close()
		})
	}
	all.Wait()
	if n := dialed.Load(); n != 1 {
		t.Errorf("%d connections were made for %d requests", n, requests)
	}
}

// stuck never gets a connection.
type stuck struct{}

func (stuck) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Who waits for a connection that others make waits no longer than it wants to,
// and when one gives up the next one tries.
func TestNobodyWaitsForTheDoorForEver(t *testing.T) {
	d := newDoor(stuck{}, new(atomic.Bool))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nowhere.invalid", nil)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := d.RoundTrip(r); err == nil {
				t.Error("there is an answer")
			}
		})
	}
	all.Wait()
}

// A server that takes a connection and then says nothing, as behind a balancer that
// has lost it, holds up the request that was unlucky, and the next one for a moment.
func TestADeadConnectionHoldsUpOne(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer server.Close()
	transport := server.Client().Transport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	first, dialing := true, make(chan struct{})
	var mu sync.Mutex
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if first {
			first, address = false, silent.Addr().String()
			close(dialing)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	var reached atomic.Bool
	d := newDoor(transport, &reached)
	call := func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			return err
		}
		answer, err := d.RoundTrip(r)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	var unlucky sync.WaitGroup
	watching, end := context.WithCancel(t.Context())
	defer func() { end(); unlucky.Wait() }()
	unlucky.Go(func() { _ = call(watching) }) // it may get the next one's connection
	<-dialing
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := call(ctx); err != nil {
		t.Errorf("the next request: %v", err)
	}
	if !reached.Load() {
		t.Error("a server that has answered counts as away")
	}
	end()
	unlucky.Wait() // or it might get a connection after the next one did not
	server.Close()
	transport.CloseIdleConnections()
	if err := call(ctx); err == nil || reached.Load() {
		t.Errorf("a server that is closed: %v, there: %t", err, reached.Load())
	}
}

// Who got no connection is told when another one gets it.
func TestWhoIsLeftOutsideHearsOfIt(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer server.Close()
	refused := true
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if refused {
			return nil, syscall.ECONNREFUSED
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: newDoor(transport, new(atomic.Bool))}
	var backs []<-chan struct{}
	for range 2 {
		_, err := client.Get(server.URL)
		var away *absence
		if !errors.As(err, &away) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("without a connection the error is %v", err)
		}
		backs = append(backs, away.back)
		select {
		case <-away.back:
			t.Fatal("there is said to be a connection")
		default:
		}
	}
	refused = false
	answer, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	for _, back := range backs {
		select {
		case <-back:
		default:
			t.Error("one of those without a connection was not told that there is one")
		}
	}
}

// crush counts the requests that wait for a connection, which none gets.
type crush struct{ all, watches atomic.Int32 }

func (c *crush) RoundTrip(r *http.Request) (*http.Response, error) {
	c.all.Add(1)
	if r.URL.Query().Has("watch") {
		c.watches.Add(1)
	}
	return stuck{}.RoundTrip(r)
}

// While an API server is slow to shake hands, an agent's watches do not each ask for
// a connection, but a claim does after a second.
func TestWatchesAreInNoHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crush{}
		d := newDoor(c, new(atomic.Bool))
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		knock := func(query string) {
			all.Go(func() {
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nowhere.invalid/"+query, nil)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = d.RoundTrip(r)
			})
		}
		look := func(after time.Duration, all, watches int32) {
			t.Helper()
			<-time.After(after)
			synctest.Wait()
			if c.all.Load() != all || c.watches.Load() != watches {
				t.Errorf("%d requests and %d watches ask for a connection, want %d and %d", c.all.Load(), c.watches.Load(), all, watches)
			}
		}
		for range 3 {
			knock("?watch=1")
		}
		look(doorTime*3, 1, 1)
		knock("")
		look(doorTime, 2, 1)
		look(watchDoorTime, 3, 2)
		cancel()
		all.Wait()
	})
}
