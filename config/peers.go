package config

import (
	"net/netip"
	"time"
)

// Peer is one router, or a network of routers, to speak with.
type Peer struct {
	// Name for messages, logs, metrics and `announcements`; each once.
	Name string `key:"name" required:"true"`
	// The template that holds for what this entry does not say.
	Template string `key:"template" otherwise:"none"`
	// The router's address.
	Address netip.Addr `key:"address" otherwise:"a peer needs one of address, addressFrom, interface and range"`
	// The router's address is the value of a label or an annotation of the
	// node. A label can't hold an IPv6 address.
	AddressFrom NodeValue `key:"addressFrom"`
	// The link on which the router is, for a session over the link-local
	// addresses of both ends (BGP unnumbered). IPv4 prefixes then have IPv6 next
	// hops (RFC 8950).
	Interface string `key:"interface" otherwise:"none"`
	// Network whose routers may open sessions without being named, such as
	// `10.0.1.0/24`.
	Range   Network `key:"range" otherwise:"none"`
	Options `key:",squash"`

	// Password is what PasswordFile held when it was loaded.
	Password Secret `key:"-"`
}

// Template is what several peers have in common.
type Template struct {
	// The name that peers give; each once.
	Name    string `key:"name" required:"true"`
	Options `key:",squash"`
}

// Options are the keys that a peer may have from a template.
type Options struct {
	// The nodes that have this peer: those that have all of these labels. The
	// others know nothing of it.
	NodeSelector Labels `key:"nodeSelector" otherwise:"all nodes"`
	// The router's autonomous system number. The same as `bgp.asn` makes the
	// session iBGP.
	ASN ASN `key:"asn" limits:"1..4294967295" otherwise:"asn or asnFrom is needed, except with interface: any but this node's"`
	// The router's autonomous system number is the value of a label or an
	// annotation of the node.
	ASNFrom NodeValue `key:"asnFrom"`
	// How many sessions there may be at a time with the routers of a range.
	Most int `key:"most" limits:"1..10000" otherwise:"100 for a range"`
	// Address families that the session carries. `ipv6` needs a session over
	// IPv6.
	Families []Family `key:"families" oneof:"ipv4,ipv6" otherwise:"the family of the address; both with interface"`
	// TCP port of the router.
	Port uint16 `key:"port" default:"179" limits:"1..65535"`
	// This node's end of the session.
	LocalAddress netip.Addr `key:"localAddress" otherwise:"as the node's routes have it"`
	// The ASN that this node has towards this router, in place of `bgp.asn` (RFC
	// 7705, with no-prepend and replace-as).
	LocalASN ASN `key:"localASN" limits:"1..4294967295" otherwise:"as bgp.asn"`
	// Wait for the router to open the session.
	Passive bool `key:"passive" default:"false"`
	// File that holds the TCP MD5 password (RFC 2385), 1 to 80 bytes; the
	// line end is not part of it. Nobody but its owner should be able to read it.
	PasswordFile string `key:"passwordFile" quiet:"true" otherwise:"no password"`
	// TTL for an eBGP router that is not directly connected.
	EBGPMultihop uint8 `key:"ebgpMultihop" limits:"1..255" otherwise:"directly connected"`
	// How many hops away the router may be, 1 for a neighbour; packets from
	// further away are dropped by their TTL (RFC 5082). The router needs the same
	// setting.
	TTLSecurity uint8 `key:"ttlSecurity" limits:"1..254" otherwise:"no look at the TTL"`
	// How long the session lives without a message from the router; the
	// lower one of both sides counts.
	HoldTime time.Duration `key:"holdTime" default:"90s" limits:"3s..65535s" unit:"1s"`
	// Pause between two messages to the router that say that this node lives.
	KeepaliveTime time.Duration `key:"keepaliveTime" limits:"1s..65534s" unit:"1s" otherwise:"a third of the hold time"`
	// Pause between two attempts to reach the router.
	ConnectRetryTime time.Duration `key:"connectRetryTime" limits:"1s..1h" unit:"1s" otherwise:"2s"`
	// Tell the router as a route reflector would tell its client (RFC 4456).
	RouteReflectorClient bool `key:"routeReflectorClient" default:"false"`
	// Several paths for one prefix (RFC 7911).
	AddPaths AddPaths `key:"addPaths"`
	// Take messages of up to 65,535 octets in place of 4,096 from a router that offers
	// them, too (RFC 8654), for routes with very many attributes. It is sent none.
	ExtendedMessages bool `key:"extendedMessages" default:"false"`
	// Keep the session shut.
	Shutdown bool `key:"shutdown" default:"false"`
	// Words for the people who look after the router (RFC 9003), at most 255
	// bytes.
	ShutdownMessage string `key:"shutdownMessage" otherwise:"none"`
	// Notice within milliseconds that the way to the router is broken (RFC 5880,
	// 5881 and 5883). The router needs BFD for the session, too.
	BFD BFD `key:"bfd"`
	// Which of the router's routes go into the kernel of this node. None are
	// passed on.
	Accept Accept `key:"accept"`
}

// NodeValue names a label or an annotation of the node. The zero value names
// none.
type NodeValue struct {
	// Key of the label.
	Label string `key:"label" otherwise:"none"`
	// Key of the annotation, of a Node object.
	Annotation string `key:"annotation" otherwise:"none"`
}

// AddPaths is ADD-PATH. This node has one path of each of its own prefixes to send, so
// there is the other direction alone.
type AddPaths struct {
	// Take several paths of a prefix. Nothing is sent in this way: the node has one path of each of its own prefixes, and tells no others.
	Receive bool `key:"receive" default:"false"`
}

// BFD is how the way to a router is watched.
type BFD struct {
	// Watch it, and end the BGP session when it breaks.
	Enabled bool `key:"enabled" default:"false"`
	// Pause between two packets to the router.
	Interval time.Duration `key:"interval" default:"300ms" limits:"10ms..60s" unit:"1us"`
	// Least pause between two packets from the router that this node can take.
	ReceiveInterval time.Duration `key:"receiveInterval" default:"300ms" limits:"10ms..60s" unit:"1us"`
	// How many packets in a row the other side misses before it takes the way
	// for broken.
	Multiplier uint8 `key:"multiplier" default:"3" limits:"1..255"`
}

// Accept says which of a router's routes count.
type Accept struct {
	// The routes that count; without any, none does.
	Prefixes []PrefixRule `key:"prefixes"`
	// How many routes of a family the router may send, accepted or not, but for
	// those that it has from nodes of this ASN. With one more the session is shut
	// for a minute.
	Max int `key:"max" default:"10000" limits:"1..2147483647"`
}

// PrefixRule takes the routes inside of a network that have certain lengths.
type PrefixRule struct {
	// The network, such as `0.0.0.0/0`.
	Prefix Network `key:"prefix" required:"true"`
	// Shortest length that counts.
	GE int `key:"ge" limits:"0..128" otherwise:"the network's own"`
	// Longest length that counts.
	LE int `key:"le" limits:"0..128" otherwise:"with ge the longest there is, else the network's own"`
}

// Network is a prefix without host bits.
type Network struct{ netip.Prefix }
