package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	gobgp "github.com/osrg/gobgp/v3/pkg/server"
)

// reviveTime bounds the return to the run before, when the new one failed.
const reviveTime = 10 * time.Second

// failure is a Local that passed every check and failed at the start.
type failure struct {
	local speaker.Local
	err   error
}

// running gives the BGP server for local, started or restarted if need be.
// With an error it gives the one before, if there is one: it runs on.
func (s *Server) running(ctx context.Context, local speaker.Local) (*run, error) {
	old := s.run.Load()
	if old != nil && sameLocal(old.local, local) {
		s.failed = nil
		return old, nil
	}
	if f := s.failed; f != nil && old != nil && sameLocal(f.local, local) {
		return old, refused(old, fmt.Errorf("not tried again until they change or the agent is restarted, since that ends all sessions: %w", f.err))
	}
	ends, err := prepare(ctx, old, local)
	if err != nil {
		return old, refused(old, err)
	}
	if old == nil {
		r, err := s.start(ctx, local, ends)
		return r, refused(nil, err)
	}
	return s.replace(ctx, old, local, ends)
}

// refused is the error for a Local that can't be had.
func refused(old *run, err error) error {
	switch {
	case err == nil:
		return nil
	case old == nil:
		return fmt.Errorf("%w: %w", speaker.ErrLocal, err)
	}
	return fmt.Errorf("%w: the old ones, and the peers as they were, stay in force: %w", speaker.ErrLocal, err)
}

// prepare checks all that can be checked of local while old, if there is one,
// runs on.
func prepare(ctx context.Context, old *run, local speaker.Local) (*endpoints, error) {
	if err := checkLocal(local); err != nil {
		return nil, err
	}
	held := old.holds()
	if err := probeListen(ctx, local, held); err != nil {
		return nil, err
	}
	ends, err := newEndpoints(ctx, local, held)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, ends.close())
	}
	return ends, nil
}

// replace ends old with a Cease and starts a run for local, or one as old was
// if that fails.
func (s *Server) replace(ctx context.Context, old *run, local speaker.Local, ends *endpoints) (*run, error) {
	s.log.Info("restarting BGP: this node's own settings changed")
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := s.stop(stopCtx, old); err != nil {
		s.log.Warn("BGP did not end cleanly before its restart", "err", err)
	}
	r, err := s.start(ctx, local, ends)
	if err == nil {
		s.failed = nil
		return r, nil
	}
	s.failed = &failure{local: local, err: err}
	s.log.Error("BGP does not start with the new settings; returning to the old ones", "err", err)
	revived, reviveErr := s.revive(ctx, old)
	if reviveErr != nil {
		return revived, fmt.Errorf("%w: %w; and the old ones do not start again: %w", speaker.ErrLocal, err, reviveErr)
	}
	return revived, refused(old, err)
}

// revive starts a run with what old had. It takes its own time: ctx's may be
// what ended the attempt before.
func (s *Server) revive(ctx context.Context, old *run) (*run, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviveTime)
	defer cancel()
	ends, err := prepare(ctx, nil, old.local)
	if err != nil {
		return nil, err
	}
	r, err := s.start(ctx, old.local, ends)
	if err != nil {
		return nil, err
	}
	r.ledger.carry(old.ledger.carriage())
	return r, errors.Join(r.setAnnouncements(ctx, old.asked, old.peers, old.ranges), r.setPeers(ctx, old.peers), r.setRanges(ctx, old.ranges))
}

func (s *Server) start(ctx context.Context, local speaker.Local, ends *endpoints) (*run, error) {
	local.Restarting = local.Restarting && !s.later
	l := newLedger(local.GracefulRestart)
	l.inherited, l.asn = s.holders, local.ASN
	g := newGuards(local.GracefulRestart)
	options := append(ends.options(), gobgp.LoggerOption(tap{log: s.log, ledger: l, learned: s.learned, guards: g}))
	r := &run{
		log: s.log, local: local, peers: make(map[netip.Addr]speaker.Peer), told: make(map[netip.Addr]*api.Peer),
		ranges: make(map[string]speaker.Range), ceased: make(map[netip.Addr]bool),
		bgp: gobgp.NewBgpServer(options...), ledger: l, guards: g, thrift: s.thrift, ends: ends, begun: time.Now(),
	}
	if err := g.attach(r.bgp); err != nil {
		return nil, errors.Join(err, ends.close())
	}
	s.learned.begin(local, time.Now())
	go r.bgp.Serve()
	err := r.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: globalOf(local)})
	if err == nil {
		err = errors.Join(importLocal(ctx, r.bgp), r.publish(ctx))
	}
	if err == nil {
		err = ends.publish(ctx, l)
	}
	if err != nil {
		r.bgp.Stop()
		return nil, fmt.Errorf("start BGP: %w", errors.Join(err, ends.close()))
	}
	tendCtx, stop := context.WithCancel(context.Background())
	r.stop, r.tended = stop, make(chan struct{})
	go s.tend(tendCtx, r)
	go s.endFloods(tendCtx, r)
	if len(local.Listen) > 0 {
		go s.watchSignatures(tendCtx, l)
	}
	s.run.Store(r)
	return r, nil
}

// stop ends the BGP server with a Cease for every session.
func (s *Server) stop(ctx context.Context, r *run) error {
	s.run.Store(nil)
	s.later, s.holders = true, r.ledger.holders()
	r.ledger.replace()
	s.learned.begin(r.local, time.Now()) // what was learned outlives the sessions
	r.stop()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.bgp.Stop()
	}()
	select {
	case <-stopped:
		return r.ends.close()
	case <-ctx.Done():
		return errors.Join(ctx.Err(), r.ends.close())
	}
}

// held is what a run has bound, and what the one in its place may bind again.
type held struct {
	addresses []netip.AddrPort
	socket    string
}

// holds is nothing for no run.
func (r *run) holds() held {
	if r == nil {
		return held{}
	}
	h := held{socket: r.local.APISocket}
	for _, a := range r.local.Listen {
		h.addresses = append(h.addresses, netip.AddrPortFrom(a, portOf(r.local)))
	}
	if a, err := netip.ParseAddrPort(r.local.APIAddress); err == nil {
		h.addresses = append(h.addresses, a)
	}
	return h
}

// has says whether a is bound already, or its port at an address that stands
// for a's.
func (h held) has(a netip.AddrPort) bool {
	return slices.ContainsFunc(h.addresses, func(b netip.AddrPort) bool {
		return a.Port() == b.Port() && (a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
	})
}

// probeListen binds what GoBGP is going to bind: its own failure would leave a
// half-started server behind.
func probeListen(ctx context.Context, l speaker.Local, h held) error {
	for _, a := range l.Listen {
		if err := probe(ctx, netip.AddrPortFrom(a, portOf(l)), h); err != nil {
			return fmt.Errorf("%w: if another BGP speaker runs on this node, stop it; else listen on an address of this node and a free port", err)
		}
	}
	return nil
}

// probe says whether a TCP address can be listened on. Of one that is held,
// the address alone is tried.
func probe(ctx context.Context, a netip.AddrPort, h held) error {
	port := a.Port()
	if h.has(a) {
		port = 0
	}
	network := "tcp6"
	if a.Addr().Is4() {
		network = "tcp4"
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, net.JoinHostPort(a.Addr().String(), strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	return l.Close()
}
