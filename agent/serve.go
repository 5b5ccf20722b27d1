package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
)

const (
	// ControlSocket, in the run directory, is where the fairway command asks
	// a running agent.
	ControlSocket = "agent.sock"

	readTime = 5 * time.Second // for the fairway command to say what it wants
)

// listen makes a unix socket for root alone. The caller holds a lock on the
// socket's name, so what is there under it is left over.
func listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, errors.Join(err, l.Close()))
	}
	return l, nil
}

// Status is what a person is told of a running agent.
type Status struct {
	Node string `json:"node"`
	// Trouble is what does not work now, empty if all does.
	Trouble string `json:"trouble,omitempty"`
	// Returning and Waiting are the blocks that are being given back, and
	// those of which the network has not been told yet.
	Returning []netip.Prefix `json:"returning,omitempty"`
	Waiting   []netip.Prefix `json:"waiting,omitempty"`
	Blocks    []pools.Held   `json:"blocks"`
	Pools     []pools.Usage  `json:"pools"`
	Leases    []pools.Record `json:"leases"`
	BGP       speaker.State  `json:"bgp"`
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
	d := a.desk
	d.mu.Lock()
	s.Blocks, s.Pools, s.Leases = d.ledger.Blocks(), d.ledger.Usage(d.now()), d.ledger.Grants()
	if err := d.trouble.err(); err != nil {
		s.Trouble = err.Error()
	}
	for _, h := range s.Blocks {
		switch dr := d.doors[h.Prefix]; {
		case h.Closed:
			s.Returning = append(s.Returning, h.Prefix)
		case !dr.isOpen():
			s.Waiting = append(s.Waiting, h.Prefix)
		}
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var err error
	s.BGP, err = a.Speaker.State(ctx)
	return s, err
}
