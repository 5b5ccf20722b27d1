// Package speaker tells the network which prefixes this node can deliver: it is
// the contract of a BGP speaker, and the way to one in a process of its own.
//
// A caller hands over whole desired states and reads back what is; there are
// no add and remove calls to keep in step. BGP runs in a child process (Child),
// because GoBGP has no bound on what it buffers for a peer and ends the process that
// it runs in over what it did not expect, and because the agent need not link it.
// Package server is the same contract inside one process, and what the child runs.
package speaker

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// ErrNoPeer: no session is established that carries the family, so nothing can
// have left.
var ErrNoPeer = errors.New("no established BGP peer")

// ErrPeers: some peers are not as desired, and everything else is: the
// announcements stand for the other peers.
var ErrPeers = errors.New("not all BGP peers are as configured")

// ErrLocal: the Local of a Set can't be had. If the speaker ran before, it
// runs on with the Local and the peers that it had, and with the prefixes of
// the new Set.
var ErrLocal = errors.New("this node's own BGP settings were refused")

// ErrUnknownPeer: no peer of the last Set has this name.
var ErrUnknownPeer = errors.New("no such BGP peer")

// ErrClosed: the speaker was closed; make a new one.
var ErrClosed = errors.New("the BGP speaker is closed")

// Speaker is a BGP speaker steered by desired states.
type Speaker interface {
	// Set makes the speaker what d says and returns when every difference was
	// handed to BGP: new prefixes before old ones are withdrawn, all prefixes
	// before a peer is added, and no session dropped but those whose own
	// settings changed. It may be called again with the same state. One
	// peer's failure does not stop the others: the errors are joined, under
	// ErrPeers if nothing but peers failed. A Local that can't be had is tried
	// before anything is stopped, and refused with ErrLocal.
	Set(ctx context.Context, d Desired) error
	// Flush returns when what the last Set made of each of these prefixes
	// (announced; withdrawn, if it is not in the last Set) has been written
	// to every established peer that carries the prefix's family, and there
	// is at least one such peer for each of their families. Other prefixes do
	// not hold it up. A prefix that is not in the last Set, announced in this
	// life or in one before, has gone only where nothing is kept of an earlier
	// session: for it Flush waits, too, for the End-of-RIB to every peer that
	// helps graceful restart (RFC 4724 section 4.2; a restart defers it by up
	// to Deferral), and for each peer without a session that may still hold
	// routes of this node, until it has one or its hold time and
	// GracefulRestart.Time are over. An error of such a wait names the peer.
	// Flush waits for a first peer until ctx ends, and then
	// returns an error that wraps ErrNoPeer and ctx's and names the family. For a
	// family that no configured peer carries, and for a prefix whose terms name none,
	// it returns ErrNoPeer at once: nothing will change that but a Set. A prefix with
	// terms has left when the peers that are told of it were written it in the words
	// of the last Set, and the others its withdrawal. No prefixes are written already.
	Flush(ctx context.Context, prefixes []netip.Prefix) error
	// State reports what is, not what was asked for.
	State(ctx context.Context) (State, error)
	// Fail ends the session of a peer (of a router of a Range: by its State's name)
	// at once, since its router is known to be out of reach: with a Cease "BFD
	// down" (RFC 9384) that leaves it nothing of this node's to keep, and without
	// keeping its routes here. The session may come back by itself. Without one
	// there is nothing to end. An unknown name is ErrUnknownPeer.
	Fail(ctx context.Context, peer string) error
	// Close ends the speaker. With Forward the sessions are cut without a
	// Cease notification, so that peers with graceful restart keep
	// forwarding to this node; with Withdraw all prefixes are withdrawn and the
	// sessions closed with a Cease. It waits, within ctx, for peers without a
	// session that may still hold routes of this node (they help its graceful
	// restart), and names those that it could not tell. Whatever it returns, the
	// speaker has ended.
	Close(ctx context.Context, how Stop) error
}

// Stop is how a speaker ends.
type Stop int

const (
	Forward Stop = iota
	Withdraw
)

// State is what a speaker really does.
type State struct {
	Peers []PeerState // by name
	// Silent is why the speaker can't be asked, as while its process is started again;
	// empty if it can. Its peers are then Idle, and nothing else is known.
	Silent   string
	Prefixes int // announced by this node
	// RangeTrouble is why routers of Ranges may not get in that have not come before; empty
	// if nothing is known to keep them out.
	RangeTrouble string
	// Learned is how many routes of routers are in force, LearnedRefused how many
	// the kernel does not take, and LearnedTrouble why routes that are accepted, or
	// would be, are not in force; empty if all are.
	Learned        int
	LearnedRefused int
	LearnedTrouble string
}

// PeerState is one session.
type PeerState struct {
	Name string
	// Address of the router; the zero address while none was found on Interface.
	Address    netip.Addr
	Interface  string    // of an unnumbered peer
	ASN        uint32    // where any is taken: of the session that is established, or 0
	Session    string    // of RFC 4271 section 8: Idle, Connect, Active, OpenSent, OpenConfirm, Established
	Since      time.Time // when the session reached or left Established; zero if never
	Received   int       // prefixes, accepted or not
	Advertised int
	LastError  string // why the last session ended, in words; empty if none did

	// Range is the name of the Range that the router came by; empty for a Peer.
	Range string
	Flaps int // how many sessions were lost

	// What follows is about the session that is established.

	RouterID netip.Addr    // the router's
	HoldTime time.Duration // as agreed
	Families []FamilyState // those that both sides carry, by name
	// Capabilities are what the router offered in its OPEN beside families, in
	// words for people, sorted.
	Capabilities []string
}

// FamilyState is one family of an established session, in numbers of prefixes.
type FamilyState struct {
	Family     Family
	Received   int
	Accepted   int // of the received: by the rules of Accept; 0 where nothing is learned
	Echoes     int // of the received: the router has them from nodes of this ASN
	Limit      int // that the received but the echoes may reach
	Advertised int // written to the router
}

// Established says whether routes flow.
func (p PeerState) Established() bool { return p.Session == "Established" }
