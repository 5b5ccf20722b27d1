package main

import (
	"io"
	"net/http"
	"sync/atomic"
)

// wireMeter counts the bytes of answers' bodies, as they come over the wire.
type wireMeter struct {
	next  http.RoundTripper
	bytes atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (m *wireMeter) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := m.next.RoundTrip(r)
	if err == nil {
		answer.Body = &meteredBody{answer.Body, m}
	}
	return answer, err
}

type meteredBody struct {
	io.ReadCloser
	meter *wireMeter
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.meter.bytes.Add(int64(n))
	return n, err
}
