package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// serveHealth answers on l until the function that it returns is called.
//
// /healthz fails when a leader has not renewed its Lease for too long and yet
// goes on: it has to be killed. /readyz fails while a leader has not read the
// cluster yet. A controller that waits to lead is healthy and ready.
func (c *Controller) serveHealth(l net.Listener) (stop func()) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", answer(c.healthy))
	mux.HandleFunc("GET /readyz", answer(c.ready))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		// It ends when the server is closed.
		_ = server.Serve(l)
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
	}
}

func answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

func (c *Controller) healthy() error {
	e := c.election.elector.Load()
	if e == nil {
		return nil
	}
	return e.Check(c.terms.duration)
}

func (c *Controller) ready() error {
	if s := c.cluster.Load(); s != nil && !s.known() {
		return errors.New("pools, blocks, pods and nodes are not read yet")
	}
	return nil
}
