package server

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// Subcodes of Cease.
const (
	ceaseShutdown  = bgp.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN
	ceaseHardReset = bgp.BGP_ERROR_SUB_HARD_RESET
	ceaseBFDDown   = 10 // RFC 9384
)

// bfdDown are the words for the end of a session by Fail.
const bfdDown = "BFD down: the router does not answer"

// Fail implements Speaker. It waits for no other call.
func (s *Server) Fail(ctx context.Context, peer string) error {
	r, err := s.current()
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("peer %s: %w: nothing was set yet", peer, speaker.ErrUnknownPeer)
	}
	r.negotiate(ctx)
	p, hard, up := r.ledger.fail(peer)
	switch {
	case p.Name == "":
		return fmt.Errorf("peer %s: %w", peer, speaker.ErrUnknownPeer)
	case !up:
		return nil
	}
	_ = r.sayCease(p, ceaseBFDDown, hard, nil) // the router may well be out of reach
	// GoBGP drops what the peer announced over a reset of its own, and would
	// keep it as stale over a connection that was cut.
	if err := r.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: p.Address.String(), Communication: bfdDown}); err != nil {
		return fmt.Errorf("peer %s (%s): end its session: %w", p.Name, p.Address, err)
	}
	return nil
}

// communication is the data of RFC 9003.
func communication(words string) []byte {
	if words == "" {
		return nil
	}
	return append([]byte{byte(len(words))}, words...)
}

// sayCease writes a Cease on the live connection with a router, which GoBGP can't
// say: it knows some subcodes only, and does not wrap the one that a hard reset
// stands for (RFC 8538, section 3). It leaves together with GoBGP's own, which is to
// follow at once and is read by nobody then: would it leave before, the router could
// close the connection first, and GoBGP take that for a restart of the router. A
// connection that takes nothing more is an error.
func (r *run) sayCease(p speaker.Peer, subcode uint8, hard bool, data []byte) error {
	if hard {
		data = append([]byte{bgp.BGP_ERROR_CEASE, subcode}, data...)
		subcode = ceaseHardReset
	}
	message, err := bgp.NewBGPNotificationMessage(bgp.BGP_ERROR_CEASE, subcode, data).Serialize()
	if err != nil {
		return err
	}
	return onConnections(netip.AddrPortFrom(p.Address, p.Port), portOf(r.local), func(fd int) error {
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_CORK, 1); err != nil {
			return err
		}
		_, err := syscall.Write(fd, message)
		return err
	})
}
