package exchange

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// Settle is how long after its caller has given up a write may come to count, at
// most.
const Settle = 10 * time.Second

// What a store answers. Every other error means that nothing was changed, and
// that trying again later may help.
var (
	// ErrExists: there is an object of that name already.
	ErrExists = errors.New("exists already")
	// ErrGone: there is no such object (any more), or another one of its name.
	ErrGone = errors.New("gone")
	// ErrConflict: the object was changed since it was read.
	ErrConflict = errors.New("changed by somebody else")
	// ErrUnknown: a write may have happened, or may yet happen within Settle, or
	// not: nobody answered.
	ErrUnknown = errors.New("outcome unknown")
)

// Stored is a block as the store keeps it. A block whose Node is "" is vacant:
// its node is gone, and anybody may take it.
type Stored struct {
	pools.Block
	Version string // changes whenever the object does
}

// Vacant says whether anybody may take b.
func (b Stored) Vacant() bool { return b.Node == "" }

// Request is a node asking the others for addresses. There is one at a time
// for each (node, pool, family, chosen address). Several nodes may answer it,
// until it has what it asks for.
type Request struct {
	Name, UID, Version string

	Node   string
	Pool   string
	Family pools.Family
	Want   netip.Addr // the chosen address; zero for any
	// Count is how many addresses the node lacks, Holders how many nodes it
	// knows to hold blocks of the pool: hints for those who answer.
	Count, Holders int

	// Grants are the answers, in the order in which they were given. None is ever
	// changed or taken away while the request stands.
	Grants []Grant
}

// MostGrants is how many grants a request can have.
const MostGrants = 32

// Lacks is how many addresses are still to be granted.
func (r Request) Lacks() int {
	lacks := max(r.Count, 1)
	for _, g := range r.Grants {
		lacks -= sizeOf(g.Prefix)
	}
	return max(lacks, 0)
}

// Open says whether more may be granted.
func (r Request) Open() bool { return r.Lacks() > 0 && len(r.Grants) < MostGrants }

// whatever is the request at whatever version it is.
func (r Request) whatever() Request {
	r.Version = ""
	return r
}

// Equal says whether two requests are the same at the same version.
func (r Request) Equal(o Request) bool {
	grants := slices.Equal(r.Grants, o.Grants)
	return grants && r.Name == o.Name && r.UID == o.UID && r.Version == o.Version && r.Node == o.Node && r.Pool == o.Pool &&
		r.Family == o.Family && r.Want == o.Want && r.Count == o.Count && r.Holders == o.Holders
}

// Grant is a part of the answer to a request: Lender sets Prefix aside, which lies
// in its own block Outer, in that Tenure of it.
type Grant struct {
	Lender      string
	Prefix      netip.Prefix
	Outer       netip.Prefix
	OuterUID    string
	OuterTenure int
}

// Store keeps blocks and gives each to one node. It is safe for concurrent use.
//
// Reads are not older than the call, but for List. A write is atomic; it acts
// on the object with the UID, and where so said the Version, that it is given,
// or on none (ErrGone, ErrConflict).
type Store interface {
	// List returns blocks of a pool, vacant ones and all nodes' own, perhaps
	// out of date. Of one that is not vacant it may know no more than prefix, pool,
	// node and lender.
	List(ctx context.Context, pool string) ([]Stored, error)
	// Own returns the blocks of this node.
	Own(ctx context.Context) ([]Stored, error)
	// Inside returns the blocks that lie in p, p itself left out.
	Inside(ctx context.Context, p netip.Prefix) ([]Stored, error)
	// Block returns the block p, or ErrGone.
	Block(ctx context.Context, p netip.Prefix) (Stored, error)
	// Create makes b, whose Node is this one, or returns ErrExists.
	Create(ctx context.Context, b pools.Block) (Stored, error)
	// Take makes b, at its Version, this node's, with a Tenure one higher: a
	// vacant one, or one of an earlier machine of this node's name.
	Take(ctx context.Context, b Stored) (Stored, error)
	// Delete removes b, a block of this node, at its Version. A store of one node
	// only has none, and goes by the UID.
	Delete(ctx context.Context, b Stored) error
}

// Exchange is a store that nodes share, in which they can ask each other.
type Exchange interface {
	Store
	// Watch calls seen with all requests of all nodes for addresses of these
	// pools, of every pool if there are none, again after every change, a little late
	// perhaps and some states left out, until ctx ends.
	Watch(ctx context.Context, pools []string, seen func([]Request)) error
	// Requests returns all requests.
	Requests(ctx context.Context) ([]Request, error)
	// Request returns the request of that name, or ErrGone.
	Request(ctx context.Context, name string) (Request, error)
	// Ask makes r, whose Node is this one, or returns ErrExists.
	Ask(ctx context.Context, r Request) (Request, error)
	// Grant gives r, at its Version, r.Grants: those that it has, and after them
	// some of this node. All of these count, or none.
	Grant(ctx context.Context, r Request) (Request, error)
	// Retract removes the request with r's UID, at its Version unless that is "".
	Retract(ctx context.Context, r Request) error
}

// Presence is how it is with a node and its blocks.
type Presence uint8

const (
	// Present: the node is there, or another machine has its name, which has not
	// had time yet to take its blocks over.
	Present Presence = iota + 1
	// Absent: there is no node of that name now. One may be made again under an
	// agent that runs.
	Absent
	// Departed: its operator says that it is out of service, or its name has long
	// been another machine's.
	Departed
)

// String is the presence in a word.
func (p Presence) String() string {
	switch p {
	case Present:
		return "present"
	case Absent:
		return "absent"
	case Departed:
		return "departed"
	}
	return "unknown"
}

// Custodian is the store as the controller sees it, which frees what the nodes
// that are gone have left.
type Custodian interface {
	Exchange
	Warden
	// Presence reads how it is with the node of that name and that machine. An
	// empty machine stands for any.
	Presence(ctx context.Context, node, machine string) (Presence, error)
	// Vacate makes b, at its Version, vacant.
	Vacate(ctx context.Context, b Stored) (Stored, error)
	// Discard removes b, at its Version.
	Discard(ctx context.Context, b Stored) error
}
