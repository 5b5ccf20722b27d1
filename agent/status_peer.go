package agent

import (
	"net/netip"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

// PeerStatus is one BGP session.
type PeerStatus struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// Interface is where an unnumbered peer is looked for; "" for others.
	Interface string `json:"interface,omitempty"`
	ASN       uint32 `json:"asn"`
	// Range is the name of the range that the router came by; "" for a peer.
	Range   string    `json:"range,omitempty"`
	Session string    `json:"session"`        // of RFC 4271, section 8.2.2
	Since   time.Time `json:"since,omitzero"` // when it reached or left Established
	Flaps   int       `json:"flaps"`          // how many sessions were lost
	// Advertised prefixes were written to the router, Received ones came from it,
	// of which Accepted ones are not filtered.
	Advertised int `json:"advertised"`
	Received   int `json:"received"`
	Accepted   int `json:"accepted"`
	// LastError is why the last session ended or none came about, in words, and
	// Reason the same in one word out of a fixed set.
	LastError string `json:"lastError,omitempty"`
	Reason    string `json:"reason,omitempty"`

	// What follows is about the session that is established.

	RouterID     netip.Addr     `json:"routerID,omitzero"` // the router's
	HoldTime     time.Duration  `json:"holdTime,omitzero"` // as agreed, in nanoseconds
	Families     []FamilyStatus `json:"families,omitempty"`
	Capabilities []string       `json:"capabilities,omitempty"` // the router's, in words
	// BFD is nil where the path to the peer is not watched.
	BFD *BFDStatus `json:"bfd,omitempty"`
}

// FamilyStatus is one family of an established session, in numbers of prefixes.
type FamilyStatus struct {
	Family     string `json:"family"`
	Advertised int    `json:"advertised"`
	Received   int    `json:"received"`
	Accepted   int    `json:"accepted"`
	// Echoes of the received ones the router has from nodes of this ASN. Without
	// them there may be as many as Limit.
	Echoes int `json:"echoes"`
	Limit  int `json:"limit"`
}

// Established says whether there is a session.
func (p PeerStatus) Established() bool { return speaker.PeerState{Session: p.Session}.Established() }

func peerStatus(p speaker.PeerState, bfd *BFDStatus) PeerStatus {
	s := PeerStatus{
		Name: p.Name, Address: p.Address, Interface: p.Interface, ASN: p.ASN, Range: p.Range, Session: p.Session, Since: p.Since, Flaps: p.Flaps,
		Advertised: p.Advertised, Received: p.Received, LastError: p.LastError, Reason: string(p.Reason()),
		RouterID: p.RouterID, HoldTime: p.HoldTime, Capabilities: p.Capabilities, BFD: bfd,
	}
	for _, f := range p.Families {
		s.Accepted += f.Accepted
		s.Families = append(s.Families, FamilyStatus{string(f.Family), f.Advertised, f.Received, f.Accepted, f.Echoes, f.Limit})
	}
	return s
}
