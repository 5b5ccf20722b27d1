package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

// HealthyPeers are those that need a session for the agent to be ready.
type HealthyPeers int

const (
	AnyPeer  HealthyPeers = iota // where there are peers
	AllPeers                     // but for those that are kept shut, and of ranges; and any
	NoPeers
)

const (
	// stuckTime is how long the loop may take for a pass, and for the pause after it.
	stuckTime = 2 * time.Minute
	// healthTime bounds what the speaker takes to answer: a kubelet waits a second.
	healthTime = 800 * time.Millisecond
	// maxNamed bounds how many peers an answer names.
	maxNamed = 8
)

// isServing says whether Run has begun: what the agent holds is known.
func (a *Agent) isServing() bool {
	select {
	case <-a.serving:
		return true
	default:
		return false
	}
}

// stuck says why the agent should be started anew; nil is for not at all. Waiting
// for the API server is none of the reasons: another start would wait, too.
func (a *Agent) stuck(now time.Time) error {
	if !a.isServing() || a.isDraining() {
		return nil
	}
	looked := time.Unix(0, max(a.metrics.looked.Load(), a.servingSince.Load()))
	if idle := now.Sub(looked); idle > stuckTime {
		return fmt.Errorf("the agent has not looked after its routes for %v: it looks at least every %v", idle.Round(time.Second), resync)
	}
	return nil
}

// unready says why pods should not be sent here now; nil is for ready.
func (a *Agent) unready(ctx context.Context) error {
	if !a.isServing() {
		return a.starting()
	}
	var why []error
	select {
	case <-a.started:
	default:
		why = append(why, errors.New("the routes are not looked after yet: the first pass is under way"))
	}
	if a.isDraining() {
		why = append(why, errors.New("the agent withdraws everything, as it was told to, and ends"))
	} else if a.desk.isLeaving() {
		why = append(why, errors.New("the agent serves no new pods: a drain waits until the last one is gone"))
	}
	if a.Cluster != nil && !a.Cluster.State().Seen {
		why = append(why, errors.New("the API server has not shown the pools and this node since the agent's start"))
	}
	why = append(why, a.desk.failing(), a.settings.Load().unserved(), a.peerless(ctx))
	return errors.Join(why...)
}

// starting says what the start waits for.
func (a *Agent) starting() error {
	why := errors.New("it reads what it holds")
	if d := a.entrance.Load(); d != nil {
		d.mu.Lock()
		why = d.why
		d.mu.Unlock()
	}
	return fmt.Errorf("the agent is starting: %w", why)
}

// failing is why the last pass failed, or the last lease could not be kept.
func (d *desk) failing() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.trouble.pass, d.trouble.journal)
}

// peerless says which sessions are missing that the settings want.
func (a *Agent) peerless(ctx context.Context) error {
	upkeep, _ := a.upkeep.current()
	s := upkeep.onto(a.settings.Load())
	if s.Healthy == NoPeers || len(s.Peers)+len(s.Ranges) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	bgp, err := a.Speaker.State(ctx)
	if err != nil {
		return fmt.Errorf("the BGP speaker does not answer: %w", err)
	}
	shut := map[string]bool{}
	for _, p := range s.Peers {
		shut[p.Name] = p.Down
	}
	var absent, missing []string // missing are those that all wants
	for _, p := range bgp.Peers {
		if p.Established() {
			continue
		}
		absent = append(absent, missed(p))
		if !shut[p.Name] && p.Range == "" {
			missing = append(missing, missed(p))
		}
	}
	up := len(bgp.Peers) - len(absent)
	switch {
	case up > 0 && (s.Healthy == AnyPeer || len(missing) == 0):
		return nil
	case len(absent) == 0:
		return errors.New(strings.TrimSuffix("no BGP session is established: no router has come yet: "+bgp.RangeTrouble, ": "))
	case up == 0:
		missing = absent
	}
	if more := len(missing) - maxNamed; more > 0 {
		missing = append(slices.Clip(missing[:maxNamed]), fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%d BGP sessions are established; missing: %s", up, strings.Join(missing, "; "))
}

// missed says which peer has no session, where it is looked for, and why.
func missed(p speaker.PeerState) string {
	where := p.Address.String()
	if !p.Address.IsValid() {
		where = p.Interface
	}
	return fmt.Sprintf("%s (%s): %s", p.Name, where, cmp.Or(p.LastError, "no session yet"))
}

// serveHealth adds the answers of people and programs that ask whether the agent is
// well. The body says why it is not, one reason a line.
func (a *Agent) serveHealth(mux *http.ServeMux) {
	answer := func(w http.ResponseWriter, err error, well, ill string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err == nil {
			fmt.Fprintln(w, well)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "%s:\n%s\n", ill, err)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, a.stuck(time.Now()), "alive", "stuck")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		answer(w, a.unready(r.Context()), "ready", "not ready")
	})
}
