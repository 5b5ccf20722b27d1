package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
)

const (
	// ControlSocket, in the run directory, is where the fairway command asks
	// a running agent.
	ControlSocket = "agent.sock"

	requestTime = 50 * time.Second // for one CNI request, claim and all
	readTime    = 5 * time.Second  // for a plugin to say what it wants
	maxPlugins  = 1024             // at once; more wait to be accepted
)

// listen makes a unix socket for root alone. The caller holds a lock on the
// socket's name, so what is there under it is left over.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, errors.Join(err, l.Close()))
	}
	return l, nil
}

// serveCNI answers plugins until ctx ends, then those that are under way.
func (a *Agent) serveCNI(ctx context.Context, l net.Listener) {
	h := &cni.Handler{Leases: a.desk}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var plugins sync.WaitGroup
	defer plugins.Wait()
	slots := make(chan struct{}, maxPlugins)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			a.Log.Error("a plugin was not accepted", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond): // out of file descriptors, most likely
			}
			continue
		}
		slots <- struct{}{}
		plugins.Go(func() {
			a.answer(ctx, conn, h)
			<-slots
		})
	}
}

func (a *Agent) answer(ctx context.Context, conn net.Conn, h *cni.Handler) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	_ = conn.SetReadDeadline(time.Now().Add(readTime))
	// One byte more than is allowed, so that the handler sees the excess.
	request, err := io.ReadAll(io.LimitReader(conn, wire.MaxRequest+1))
	if err != nil {
		a.Log.Warn("a plugin did not finish its request", "err", err)
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(requestTime))
	if _, err := conn.Write(h.Serve(ctx, request)); err != nil {
		a.Log.Warn("a plugin did not wait for its answer", "err", err)
	}
}

// Status is what a person is told of a running agent.
type Status struct {
	Node   string         `json:"node"`
	Blocks []pools.Held   `json:"blocks"`
	Pools  []pools.Usage  `json:"pools"`
	Leases []pools.Record `json:"leases"`
	BGP    speaker.State  `json:"bgp"`
}

func (a *Agent) controlServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		status, err := a.status(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status)
	})
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Drain(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return &http.Server{Handler: mux, ReadHeaderTimeout: readTime}
}

func (a *Agent) status(ctx context.Context) (Status, error) {
	s := Status{Node: a.Node}
	a.desk.mu.Lock()
	s.Blocks, s.Pools, s.Leases = a.desk.ledger.Blocks(), a.desk.ledger.Usage(a.desk.now()), a.desk.ledger.Grants()
	a.desk.mu.Unlock()
	var err error
	s.BGP, err = a.Speaker.State(ctx)
	return s, err
}
