package config

import (
	"log/slog"
	"net/netip"
	"time"

	"go4.org/netipx"

	"github.com/fairway-network/fairway/pools"
)

// Tags of the fields below:
//
//	key        name in the file; "-" is not in the file
//	default    what holds without it, as it would stand in the file; commas part a list
//	otherwise  what holds without it, in words, where it can't be a fixed value
//	required   "true" where nothing can stand in for it
//	limits     lowest and highest value
//	unit       the value is a multiple of this
//	oneof      the words that it may be
//	lone       "true" where a list may be written as its one element
//	quiet      "true" where an error must not repeat the value

// Config is the agent's configuration. It never changes: a reload makes a new
// one.
type Config struct {
	// This node's name among all nodes: a DNS name in lower case. In Kubernetes
	// it is the name of the Node object.
	Node string `key:"node" otherwise:"the host name"`
	// This node's labels, which peers may be selected by, with
	// `store: embedded`. With `store: kubernetes` they are those of the Node object.
	Labels Labels `key:"labels" otherwise:"kubernetes.io/hostname alone, which is node"`
	// This node's side of every BGP session.
	BGP BGP `key:"bgp"`
	// The routers to announce to. Without any, nothing leaves this node.
	Peers []Peer `key:"peers"`
	// What peers have in common. A peer names one with `template`, and what it
	// says itself goes before. A template has a name and any key of a peer from
	// `nodeSelector` on.
	Templates []Template `key:"templates"`
	// How peers are told of pools. For each pool and peer the first entry that is
	// about both counts. A pool that no entry is about for a peer is told plainly.
	Announcements []Announcement `key:"announcements"`
	// The address pools of this node. Two pools never share an address. With
	// `store: kubernetes` pools are AddressPool objects, and none stand here.
	Pools []Pool `key:"pools"`
	// Where pools and blocks are kept: pools in this file and blocks in a file
	// of this host in stateDir (`embedded`), or both as objects of the
	// Kubernetes API server (`kubernetes`).
	Store Store `key:"store" default:"embedded" oneof:"embedded,kubernetes"`
	// How to reach the API server, with `store: kubernetes`.
	Kubernetes APIServer `key:"kubernetes"`
	// Directory for what must outlive a reboot.
	StateDir string `key:"stateDir" default:"/var/lib/fairway"`
	// Directory for what must not outlive a reboot: the lease journal and the
	// sockets. Use a tmpfs.
	RunDir string `key:"runDir" default:"/run/fairway"`
	// How CNI plugins reach the agent.
	IPAM IPAM `key:"ipam"`
	// What the agent writes into route tables.
	Routes Routes `key:"routes"`
	// Where the agent's numbers are served, for Prometheus.
	Metrics Metrics `key:"metrics"`
	// Where the agent says whether it is well, and what counts as well.
	Health Health `key:"health"`
	// What the agent says on standard error.
	Log Log `key:"log"`

	// Warnings are what Load found doubtful but did not refuse.
	Warnings Problems `key:"-"`
}

// Store is where blocks are kept.
type Store string

const (
	Embedded   Store = "embedded"
	Kubernetes Store = "kubernetes"
)

// APIServer is how to reach the API server of the cluster that this node is
// part of. The zero APIServer is for an agent that runs in a pod.
type APIServer struct {
	// Kubeconfig file with the API server's address and the agent's
	// credentials. The agent needs rights that are for its own node alone.
	Kubeconfig string `key:"kubeconfig" otherwise:"the service account of the agent's pod"`
}

// BGP is this node's side of every session. A zero RouterID is for the agent
// to find.
type BGP struct {
	// This node's autonomous system number, as one plain number. It or asnFrom is
	// required as soon as there are peers.
	ASN ASN `key:"asn" limits:"1..4294967295" otherwise:"none"`
	// This node's autonomous system number is the value of a label or an
	// annotation of the node.
	ASNFrom NodeValue `key:"asnFrom"`
	// BGP identifier (RFC 4271), written like an IPv4 address.
	RouterID netip.Addr `key:"routerID" otherwise:"in a cluster the Node object's internal IPv4 address, else the host's lowest global one that faces a peer, else its lowest, none of a pool or a pool's gateway; without one, a number made of the node's name. It stays until the next boot"`
	// Where routers may connect to.
	Listen Listen `key:"listen"`
	// GoBGP's own gRPC API, read-only, for the `gobgp` command.
	API API `key:"api"`
	// Keep traffic flowing while the agent restarts (RFC 4724).
	GracefulRestart GracefulRestart `key:"gracefulRestart"`
	// Sessions with all other nodes of the cluster that have this, too.
	Mesh Mesh `key:"mesh"`
	// What a stopping agent does: `forward` leaves announcements and routes
	// as they are, for the next agent to take over; `withdraw` takes them back.
	OnStop OnStop `key:"onStop" default:"forward" oneof:"forward,withdraw"`
	// How long the first pod of a new block waits for the block's
	// announcement to leave. `0` does not wait.
	AnnounceTimeout time.Duration `key:"announceTimeout" default:"10s" limits:"0s..45s"`
}

// ASN is an autonomous system number (RFC 6793).
type ASN uint32

// OnStop is what a stopping agent does with what it announced.
type OnStop string

const (
	Forward  OnStop = "forward"
	Withdraw OnStop = "withdraw"
)

// Listen is where routers may connect to.
type Listen struct {
	// Local addresses to accept sessions on. `[]` accepts none: the agent
	// dials its peers only.
	Addresses []netip.Addr `key:"addresses" default:"0.0.0.0,::"`
	// TCP port of those addresses.
	Port uint16 `key:"port" default:"179" limits:"1..65535"`
}

// API is where GoBGP's API is served.
type API struct {
	// Unix socket of the API (`gobgp --target unix://PATH`).
	Socket string `key:"socket" default:"{runDir}/gobgp.sock"`
	// Loopback address and port of the API, such as `127.0.0.1:50051`. The
	// API has no authentication, so no other address is taken.
	Address netip.AddrPort `key:"address" otherwise:"not served over TCP"`
}

// GracefulRestart is this node as the restarting speaker of RFC 4724.
type GracefulRestart struct {
	// Offer graceful restart to the peers.
	Enabled bool `key:"enabled" default:"true"`
	// How long a peer keeps forwarding to this node without a session.
	RestartTime time.Duration `key:"restartTime" default:"120s" limits:"1s..4095s" unit:"1s"`
	// For how long after that a peer keeps this node's routes as stale ones, which
	// it uses if it has no other (RFC 9494). `0` is not at all.
	LongLivedTime time.Duration `key:"longLivedTime" default:"0s" limits:"0s..4660h" unit:"1s"`
	// How long a restarted agent waits at most for its peers' End-of-RIB
	// before it sends its own.
	DeferralTime time.Duration `key:"deferralTime" default:"10s" limits:"1s..4095s" unit:"1s"`
}

// Family is an address family of a session.
type Family string

const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// Pool is one address pool and what this node does with it.
type Pool struct {
	// The pool's name, as CNI configurations name it: a DNS label; each once.
	Name string `key:"name" required:"true"`
	// CIDRs, ranges with both ends in them, and single addresses, of one
	// family or both.
	Addresses []netipx.IPRange `key:"addresses" required:"true"`
	// Addresses of the pool that no pod gets, written in the same ways.
	Exclude []netipx.IPRange `key:"exclude" otherwise:"none"`
	// How many addresses a node takes at a time: a power of two. It counts
	// addresses, not bits: 64 is a /26 or a /122.
	BlockSize int `key:"blockSize" default:"64" limits:"1..65536"`
	// Next hop of the pods and prefix length of their interfaces, at most one
	// for each family, such as `10.244.120.1/24`.
	Gateways []netip.Prefix `key:"gateways" otherwise:"for IPv4 the lowest address of the pool that can be one, which no pod gets then; for IPv6 fe80::1"`
	// How long an address rests between two pods.
	ReuseAfter time.Duration `key:"reuseAfter" default:"60s" limits:"0s..168h"`
	// How long an empty block is kept before it is given back.
	IdleAfter time.Duration `key:"idleAfter" default:"5m" limits:"1s..168h"`
	// Announce the pool's blocks and route them on this node. `false` is for
	// pods on a network of their own, such as a macvlan, where addresses are
	// found without this node.
	Announce bool `key:"announce" default:"true"`

	checked *pools.Pool
}

// Checked is the pool that p defines. It is there in every loaded Config.
func (p Pool) Checked() *pools.Pool { return p.checked }

// Definition is p in the words of package pools.
func (p Pool) Definition() pools.Definition {
	return pools.Definition{
		Name: p.Name, Ranges: p.Addresses, Exclude: p.Exclude, BlockSize: p.BlockSize,
		Gateways: p.Gateways, ReuseAfter: p.ReuseAfter,
	}
}

// IPAM is how CNI plugins reach the agent.
type IPAM struct {
	// Unix socket that `fairway-ipam` connects to. Where this is changed, the
	// CNI configuration has to name it too.
	Socket string `key:"socket" default:"{runDir}/ipam.sock"`
}

// Routes is what the agent writes into route tables.
type Routes struct {
	// The kernel's route table on this node.
	Kernel KernelRoutes `key:"kernel"`
	// Where the routes go that peers tell and `accept` takes. A change takes a
	// restart of the agent.
	Learned LearnedRoutes `key:"learned"`
}

// LearnedRoutes is what the agent does with accepted routes.
type LearnedRoutes struct {
	// Write them into the kernel. Without a peer that accepts something there are
	// none.
	Enabled *bool `key:"enabled" otherwise:"as routes.kernel.enabled"`
	// Number of their route table; 254 is the main one.
	Table uint32 `key:"table" limits:"1..4294967295" otherwise:"as routes.kernel.table"`
	// Protocol number that marks them. The agent deletes stale routes under this
	// number, so nobody else may use it.
	Protocol uint8 `key:"protocol" limits:"5..255" otherwise:"a number of their own"`
	// Their metric. A route to the same prefix with a lower one goes before it.
	Metric uint32 `key:"metric" default:"4096" limits:"1..4294967295"`
}

// KernelRoutes is what the agent writes into the kernel.
type KernelRoutes struct {
	// Keep a blackhole route for what this node holds, so that packets to an
	// address without a pod are dropped here rather than sent in circles.
	Enabled bool `key:"enabled" default:"true"`
	// Number of the route table; 254 is the main one.
	Table uint32 `key:"table" default:"254" limits:"1..4294967295"`
	// Protocol number that marks the agent's own routes. The agent deletes
	// stale routes under this number, so nobody else may use it.
	Protocol uint8 `key:"protocol" limits:"5..255" otherwise:"the agent's own number"`
	// Metric of the agent's routes.
	Metric uint32 `key:"metric" default:"2048" limits:"1..4294967295"`
	// Kernel settings that pods need (forwarding, rp_filter, duplicate address
	// detection on new links): `set` them,
	// `check` them and refuse to run with wrong ones, or leave them alone (`off`).
	Sysctls Sysctls `key:"sysctls" default:"set" oneof:"set,check,off"`
}

// Sysctls is what the agent does about kernel settings.
type Sysctls string

const (
	SetSysctls   Sysctls = "set"
	CheckSysctls Sysctls = "check"
	LeaveSysctls Sysctls = "off"
)

// Log is what the agent says.
type Log struct {
	// The least important messages to write.
	Level slog.Level `key:"level" default:"info" oneof:"debug,info,warn,error"`
	// `text` for people, `json` for machines.
	Format LogFormat `key:"format" default:"text" oneof:"text,json"`
}

// LogFormat is how messages are written.
type LogFormat string

const (
	Text LogFormat = "text"
	JSON LogFormat = "json"
)
