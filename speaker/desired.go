package speaker

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// Desired is the whole state that a speaker should have.
type Desired struct {
	Local Local
	Peers []Peer // by name, each once
	// Ranges are networks whose routers may open sessions without being named.
	Ranges []Range
	// Announcements are the prefixes that this node tells of, each once, in any order.
	Announcements []Announcement
	// Terms are what Announcements may be made under, by name.
	Terms map[string]Terms
}

// Announcement is a prefix that this node can deliver, and how it is told.
type Announcement struct {
	Prefix netip.Prefix // masked
	// Terms names the entry of Desired.Terms that says who is told and how. With
	// "" every peer is, with no attributes but those that it must have.
	Terms string
}

// Change is what makes other announcements of some.
type Change struct {
	Announced []Announcement // new ones, and those with other terms
	Withdrawn []netip.Prefix
}

// Apply gives what c makes of a list, in no order. The list is not to be used any more.
func (c Change) Apply(list []Announcement) []Announcement {
	changed := make(map[netip.Prefix]bool, len(c.Announced)+len(c.Withdrawn))
	for _, one := range c.Announced {
		changed[one.Prefix] = true
	}
	for _, p := range c.Withdrawn {
		changed[p] = true
	}
	list = slices.DeleteFunc(list, func(one Announcement) bool { return changed[one.Prefix] })
	return append(list, c.Announced...)
}

// Terms say to whom a prefix is told and with which attributes, by the name of
// the peer (of the Range, for a peer that is in one). A peer that is not in it is
// not told of the prefix: what is told can't be taken for granted, so a peer has
// to be named.
//
// A change of them ends no session. Link-local peers that have one address on several
// links are told the same or nothing.
type Terms map[string]Attributes

// Attributes are what one peer is told with a prefix. The zero value adds
// nothing.
type Attributes struct {
	Communities      []Community // RFC 1997
	LargeCommunities []LargeCommunity
	// LocalPreference goes to iBGP peers alone (RFC 4271, section 5.1.5).
	LocalPreference *uint32
	MED             *uint32 // RFC 4271, section 5.1.4
	// Prepend is how many times more this node's ASN stands in the AS path. iBGP peers,
	// which would take it for a loop, do not see it.
	Prepend uint8
	// NextHops are where the peer shall send packets to, at most one of each family, for
	// prefixes of that. Of a family without one it is this node's end of the session.
	NextHops []netip.Addr
}

// Community is one of RFC 1997: an ASN in the upper half, a number of its in
// the lower.
type Community uint32

// GracefulShutdown asks a peer to prefer other ways (RFC 8326).
const GracefulShutdown Community = 65535 << 16

// LargeCommunity is one of RFC 8092.
type LargeCommunity struct{ Global, Local1, Local2 uint32 }

// Local is this node's side of every session. A change of it restarts BGP as a
// whole: all sessions are ended with a Cease and begun anew.
type Local struct {
	ASN      uint32
	RouterID netip.Addr // IPv4
	// Listen are the addresses to accept sessions on; none means that the
	// speaker only dials.
	Listen []netip.Addr
	Port   uint16 // to listen on; 0 is 179
	// APISocket and APIAddress are where GoBGP's gRPC API is served, read
	// only: a unix socket path and a loopback host:port. Empty is not served.
	APISocket  string
	APIAddress string
	GracefulRestart
}

// GracefulRestart is RFC 4724 as the restarting speaker, with the notifications
// of RFC 8538.
type GracefulRestart struct {
	Enabled bool
	// Time is how long a peer keeps forwarding without a session.
	Time time.Duration
	// LongLived is for how long after Time a peer keeps the routes as stale ones,
	// which it uses if it has no other (RFC 9494); 0 is not at all. Whole seconds
	// below 2^24. A prefix is then gone for certain only after both.
	LongLived time.Duration
	// Deferral bounds how long a restarted speaker waits for its peers'
	// End-of-RIB before it sends its own.
	Deferral time.Duration
	// Restarting says that this start follows a loss of the speaker with the
	// kernel's forwarding kept: set the restart bit in the first OPENs. It is
	// about the first start of a speaker alone: a change of Local is no
	// restart in this sense.
	Restarting bool
}

// Kept is how long peers may keep this node's routes after they have noticed that
// its session is gone: longer than Time only with those that know long-lived
// graceful restart.
func (g GracefulRestart) Kept() time.Duration { return g.Time + g.LongLived }

// Family of addresses that a session carries.
type Family string

const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// DefaultHoldTime is that of peers which are given none (RFC 4271, section 10).
const DefaultHoldTime = 90 * time.Second

// Peer is one router to speak with.
type Peer struct {
	Name string // for messages; unique
	// Address of the router. A link-local one has a zone. It is the zero address
	// for a router that is found on Interface.
	Address netip.Addr
	// Interface is the link on which the router is found by its router
	// advertisements, with a session over link-local addresses ("unnumbered").
	Interface string
	// ASN of the router; 0 is any but this node's, for an unnumbered one.
	ASN uint32
	Session
	Accept Accept
}

// Range is a network whose routers may open sessions. They are passive peers, and
// told and known by the name of the range with their address.
type Range struct {
	Name    string // unique among peers and ranges
	Network netip.Prefix
	ASN     uint32
	// Most is how many sessions there may be at a time; 0 is 100.
	Most int
	Session
	Accept Accept
}

// Session is how to speak with a router.
type Session struct {
	Port     uint16 // of the router; 0 is 179
	Families []Family
	// LocalAddress is this node's end of the session; the zero address is the
	// kernel's choice.
	LocalAddress netip.Addr
	// LocalASN stands for this node's ASN towards this router alone, in place of
	// it (RFC 7705, with no-prepend and replace-as); 0 is Local's.
	LocalASN uint32
	// Passive sessions are opened by the router alone.
	Passive  bool
	Password Secret // TCP MD5 (RFC 2385), empty for none
	// Multihop is the TTL for a peer that is not directly connected; 0 is a
	// directly connected one. It is for eBGP; iBGP ignores it.
	Multihop uint8
	// TTLSecurity is how many hops away the router may be at most, whose packets
	// then need the TTL to show it (RFC 5082); 0 does not look. It excludes
	// Multihop.
	TTLSecurity uint8
	HoldTime    time.Duration // 0 is 90 s; else at least 3 s
	Keepalive   time.Duration // 0 is a third of the hold time
	// ConnectRetry is the pause between attempts to reach the router; 0 is 2 s.
	ConnectRetry time.Duration
	// RouteReflectorClient reflects to the router what other iBGP peers announce.
	// A speaker that exports its own prefixes alone has nothing to reflect, so
	// it only marks the session.
	RouteReflectorClient bool
	// ReceivePaths takes several paths of a prefix (ADD-PATH, RFC 7911). This node has
	// one of each of its own, so the capability to send more is not offered.
	ReceivePaths bool
	// ExtendedMessages takes messages of up to 65,535 octets of a router that offers
	// them, too (RFC 8654). It is sent none above 4,096.
	ExtendedMessages bool
	// Down keeps the session shut, with these words for the people on the other
	// side (RFC 9003) if they are not empty: at most 255 bytes of UTF-8.
	Down        bool
	DownMessage string
}

// Accept says which routes of a router count. The zero value is none.
type Accept struct {
	Prefixes []PrefixRule
	// Max is how many prefixes of a family the router may send, accepted or not,
	// before its session is shut for a minute; 0 is 10,000.
	Max int
}

// PrefixRule accepts the routes inside Network with a length from AtLeast to
// AtMost, as ge and le of a router's prefix list: with neither, Network alone; with
// AtLeast alone, all from that length on.
type PrefixRule struct {
	Network         netip.Prefix
	AtLeast, AtMost int
}

// Secret is a string that prints as stars.
type Secret string

// String hides the secret.
func (s Secret) String() string { return "******" }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return "******" }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue("******") }

// Prefixes of all announcements, in their order.
func (d Desired) Prefixes() []netip.Prefix {
	out := make([]netip.Prefix, len(d.Announcements))
	for i, a := range d.Announcements {
		out[i] = a.Prefix
	}
	return out
}

// Plainly announces prefixes to every peer, with no attributes but those that
// they must have.
func Plainly(prefixes ...netip.Prefix) []Announcement {
	out := make([]Announcement, len(prefixes))
	for i, p := range prefixes {
		out[i] = Announcement{Prefix: p}
	}
	return out
}
