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
	"strings"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
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
	// Cordoned nodes take no new blocks.
	Cordoned bool `json:"cordoned,omitempty"`
	// Upkeep is what was disabled or put under maintenance by command.
	Upkeep Upkeep        `json:"upkeep,omitzero"`
	Pools  []PoolStatus  `json:"pools"`
	Blocks []BlockStatus `json:"blocks"`
	// Loans are the parts of blocks that other nodes have, or are to have.
	Loans []LoanStatus `json:"loans,omitempty"`
	// Requests are what this node asks of others.
	Requests []RequestStatus `json:"requests,omitempty"`
	Leases   []LeaseStatus   `json:"leases"`
	Peers    []PeerStatus    `json:"peers"`
	// Routes is how many prefixes are to be announced.
	Routes int `json:"routes"`
	// Silent is why the speaker can't be asked; what is said of its sessions and of
	// learned routes is then not known. Empty if it can.
	Silent string `json:"silent,omitempty"`
	// Learned is how many routes of routers are in the kernel, and LearnedRefused how
	// many it does not take.
	Learned        int `json:"learned"`
	LearnedRefused int `json:"learnedRefused,omitempty"`
}

// LoanStatus is a part of a block of this node that another one has.
type LoanStatus struct {
	Prefix netip.Prefix `json:"prefix"`
	Block  netip.Prefix `json:"block"`
	Pool   string       `json:"pool"`
	Node   string       `json:"node"`
}

// RequestStatus is what this node asks the others for, once for each grant.
type RequestStatus struct {
	Pool   string     `json:"pool"`
	Family string     `json:"family"`
	Want   netip.Addr `json:"want,omitzero"`
	Count  int        `json:"count"`
	// Lender and Granted are the answer, if there is one.
	Lender  string       `json:"lender,omitempty"`
	Granted netip.Prefix `json:"granted,omitzero"`
}

func requestStatus(r exchange.Request) (out []RequestStatus) {
	open := RequestStatus{Pool: r.Pool, Family: r.Family.String(), Want: r.Want, Count: r.Count}
	if len(r.Grants) == 0 {
		return []RequestStatus{open}
	}
	for _, g := range r.Grants {
		granted := open
		granted.Lender, granted.Granted = g.Lender, g.Prefix
		out = append(out, granted)
	}
	return out
}

// PoolStatus counts the addresses of a pool in this node's blocks. Those that
// are lent other nodes have.
type PoolStatus struct {
	Name     string `json:"name"`
	Leased   int    `json:"leased"`
	Free     int    `json:"free"`
	Cooling  int    `json:"cooling"`
	Blocks   int    `json:"blocks"`
	Lent     int    `json:"lent"`
	Draining bool   `json:"draining,omitempty"`
}

// BlockStatus is one block of this node. Its State is ready, waiting (the
// network has not been told yet) or returning.
type BlockStatus struct {
	Prefix  netip.Prefix `json:"prefix"`
	Pool    string       `json:"pool"`
	Leases  int          `json:"leases"`
	Created time.Time    `json:"created"`
	State   string       `json:"state"`
	Lender  string       `json:"lender,omitempty"` // the node that lent it; "" for a cell
}

// LeaseStatus is one leased address and who holds it.
type LeaseStatus struct {
	Address   netip.Addr `json:"address"`
	Pool      string     `json:"pool"`
	Network   string     `json:"network"`
	Container string     `json:"container"`
	Interface string     `json:"interface"`
	Namespace string     `json:"namespace,omitempty"`
	Pod       string     `json:"pod,omitempty"`
	PodUID    string     `json:"podUID,omitempty"`
	Since     time.Time  `json:"since"`
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
		drain := a.Drain
		if r.URL.Query().Has("wait") {
			drain = a.DrainWhenEmpty
		}
		if err := drain(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	a.serveUpkeep(mux)
	a.serveHealth(mux)
	mux.Handle("GET /metrics", a.metrics)
	return &http.Server{Handler: mux, ReadHeaderTimeout: readTime}
}

func (a *Agent) status(ctx context.Context) (Status, error) {
	s := a.desk.status()
	s.Node = a.Node
	if err := a.settings.Load().Unmet; err != nil {
		s.Trouble = strings.TrimPrefix(s.Trouble+"\n"+err.Error(), "\n")
	}
	s.Upkeep, _ = a.upkeep.current()
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	bgp, err := a.Speaker.State(ctx)
	if bgp.LearnedTrouble != "" {
		s.Trouble = strings.TrimPrefix(s.Trouble+"\nlearned routes: "+bgp.LearnedTrouble, "\n")
	}
	if bgp.RangeTrouble != "" {
		s.Trouble = strings.TrimPrefix(s.Trouble+"\nranges of routers: "+bgp.RangeTrouble, "\n")
	}
	s.Silent, s.Learned, s.LearnedRefused = bgp.Silent, bgp.Learned, bgp.LearnedRefused
	watched := a.paths.states()
	for _, p := range bgp.Peers {
		s.Peers = append(s.Peers, peerStatus(p, watched[p.Name]))
	}
	return s, err
}

func (d *desk) status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{Cordoned: d.cordoned}
	if err := d.trouble.err(); err != nil {
		s.Trouble = err.Error()
	}
	for _, u := range d.ledger.Usage(d.now()) {
		s.Pools = append(s.Pools, PoolStatus{u.Pool, u.Leased, u.Free, u.Cooling, u.Blocks, u.Lent, d.draining[u.Pool]})
	}
	d.blockStatus(&s)
	for _, r := range d.requests {
		if r.Node == d.node.Name {
			s.Requests = append(s.Requests, requestStatus(r)...)
		}
	}
	for _, rec := range d.ledger.Grants() {
		for _, a := range rec.Addrs {
			o := rec.Owner
			s.Leases = append(s.Leases, LeaseStatus{a, rec.Pool, o.Network, o.ContainerID, o.IfName, o.Namespace, o.Pod, o.PodUID, rec.At})
		}
	}
	return s
}

// blockStatus adds what is held, and what of it others have. The lock is held.
func (d *desk) blockStatus(s *Status) {
	blocks := d.ledger.Blocks()
	for _, h := range blocks {
		s.Blocks = append(s.Blocks, BlockStatus{h.Prefix, h.Pool, h.Leases, h.Created, d.stateOf(h), h.Lender})
	}
	for _, u := range d.unfits() {
		s.Blocks = append(s.Blocks, BlockStatus{u.Prefix, u.Pool, 0, u.Created, "returning", u.Lender})
	}
	for _, b := range d.ledger.Asides() {
		s.Loans = append(s.Loans, LoanStatus{b.Prefix, d.ledger.BlockOf(b.Pool, b.Prefix.Addr()), b.Pool, b.Node})
	}
	for _, name := range poolsOf(blocks) {
		if !d.quiet[name] {
			s.Routes += len(d.ledger.Effective(name, func(h pools.Held) bool { return !h.Closed }).Prefixes())
		}
	}
}

// stateOf says in a word how far a block is. The lock is held.
func (d *desk) stateOf(h pools.Held) string {
	switch {
	case h.Closed:
		return "returning"
	case d.quiet[h.Pool] || d.reach.set.OverlapsPrefix(h.Prefix):
		return "ready"
	}
	return "waiting"
}
