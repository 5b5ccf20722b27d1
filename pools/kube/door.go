package kube

import (
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// doorTime is how long a request that gets no connection keeps the others waiting.
	doorTime = time.Second
	// watchDoorTime is how long a watch does so with other watches, for which nobody
	// waits: when all agents come back the API server is slow to shake hands, and would
	// be slower yet if each of an agent's watches asked it to after a second.
	watchDoorTime = 8 * time.Second
)

// door lets requests of one client pass one at a time until each has a
// connection. HTTP/2 carries all of them over one; but those that come while
// there is none would each make its own, with a TLS handshake that costs the API
// server more than a watch, and throw it away again. When it has been away, all
// of a client's requests come at such a time. A connection that is not made within
// doorTime may never be, and a watch waits for it for ever: the next one tries then.
type door struct {
	next http.RoundTripper
	open chan struct{} // holds one token
	// watches holds another one, which watches take before that.
	watches chan struct{}
	// reached is told whether the last request that had the time got a connection.
	reached *atomic.Bool

	mu   sync.Mutex
	back chan struct{} // closed when there is a connection again; nil while nobody waits for it
}

// absence is why a request got no connection. Back is closed when another request
// of the same client gets one.
type absence struct {
	error
	back <-chan struct{}
}

// Unwrap is what the dialer or the handshake said.
func (a *absence) Unwrap() error { return a.error }

func newDoor(next http.RoundTripper, reached *atomic.Bool) http.RoundTripper {
	d := &door{next: next, open: make(chan struct{}, 1), watches: make(chan struct{}, 1), reached: reached}
	d.open <- struct{}{}
	d.watches <- struct{}{}
	return d
}

// RoundTrip waits for a connection no longer than the request's context lasts. Its
// error is an absence if there was none before that.
func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	var connected atomic.Bool
	alone := func() {
		if !connected.Load() && r.Context().Err() == nil {
			d.reached.Store(false)
			if connected.Load() { // in between
				d.reached.Store(true)
			}
		}
	}
	passWatch, err := enter(r, d.watches, r.URL.Query().Has("watch"), watchDoorTime, func() {})
	if err != nil {
		return nil, err
	}
	defer passWatch()
	// The next one may find somebody there: this one has its say before.
	pass, err := enter(r, d.open, true, doorTime, alone)
	if err != nil {
		return nil, err
	}
	defer pass() // also without a connection
	back := d.awaited()
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		connected.Store(true)
		d.reached.Store(true)
		d.isBack()
		pass()
		passWatch()
	}}
	answer, err := d.next.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err == nil {
		return answer, nil
	}
	alone()
	if !connected.Load() && r.Context().Err() == nil {
		err = &absence{err, back}
	}
	return answer, err
}

// enter takes the token, if it has to. It is given back by pass, or after a while, when
// late is called before.
func enter(r *http.Request, token chan struct{}, has bool, while time.Duration, late func()) (pass func(), err error) {
	if !has {
		return func() {}, nil
	}
	select {
	case <-token:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	once := sync.OnceFunc(func() { token <- struct{}{} })
	timer := time.AfterFunc(while, func() { late(); once() })
	return func() { timer.Stop(); once() }, nil
}

// awaited is closed at the next connection that a request gets.
func (d *door) awaited() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.back == nil {
		d.back = make(chan struct{})
	}
	return d.back
}

func (d *door) isBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.back != nil {
		close(d.back)
		d.back = nil
	}
}

// WrappedRoundTripper is for client-go, which looks for the transport below.
func (d *door) WrappedRoundTripper() http.RoundTripper { return d.next }
