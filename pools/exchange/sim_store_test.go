package exchange_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

// errRefused stands for every definite refusal: throttled, not allowed, away.
var errRefused = errors.New("refused")

// model is the store: linearizable, since it does one thing at a time. Whoever
// is late, lost or answered by nobody is the simulation's affair.
type model struct {
	blocks   []Stored // by prefix
	requests []Request
	nodes    []nodeObject
	speakers []speakerObject
	past     []snapshot // the last ones, the current one at the end
	names    int        // UIDs and versions given out
	writes   int
	revision int
	clock    func() time.Time
	removed  func(b Stored) // a block goes
}

// nodeObject is a Node of the cluster.
type nodeObject struct {
	name, machine string
	outOfService  bool
}

// snapshot is what a reader who is late sees.
type snapshot struct {
	blocks   []Stored
	requests []Request
	nodes    []nodeObject
	speakers []speakerObject
}

const rememberedPast = 40

// changed keeps the present for those who are late.
func (m *model) changed() {
	m.revision++
	m.writes++
	m.past = append(m.past, snapshot{slices.Clone(m.blocks), slices.Clone(m.requests), slices.Clone(m.nodes), slices.Clone(m.speakers)})
	if len(m.past) > rememberedPast {
		m.past = slices.Delete(m.past, 0, 1)
	}
}

func (m *model) name() string {
	m.names++
	return strconv.Itoa(m.names)
}

func (m *model) find(p netip.Prefix) (int, bool) {
	return slices.BinarySearchFunc(m.blocks, p, func(b Stored, p netip.Prefix) int { return netipx.ComparePrefix(b.Prefix, p) })
}

func (m *model) findRequest(name string) (int, bool) {
	return slices.BinarySearchFunc(m.requests, name, func(r Request, name string) int {
		switch {
		case r.Name < name:
			return -1
		case r.Name > name:
			return 1
		}
		return 0
	})
}

// do carries an op out at once, as node, or as the controller if that is "".
func (m *model) do(node string, o *Op) (r Result) {
	switch o.Kind {
	case List:
		r.Blocks = m.ofPool(m.blocks, o.Pool)
	case Own:
		r.Blocks = m.own(node)
	case Inside:
		r.Blocks = m.inside(o.Block.Prefix)
	case Look:
		if i, ok := m.find(o.Block.Prefix); ok {
			r.Block = m.blocks[i]
		} else {
			r.Err = ErrGone
		}
	case Requests:
		r.Requests = slices.Clone(m.requests)
	case LookRequest:
		if i, ok := m.findRequest(o.Request.Name); ok {
			r.Request = m.requests[i]
		} else {
			r.Err = ErrGone
		}
	case LookNode:
		r.Presence = presence(m.nodes, o.Block.Node, o.Block.Machine)
	case Fences, LookFence, SetFence, LiftFence, RemoveFence, report:
		return m.fence(o, m.clock())
	default:
		return m.write(node, o)
	}
	return r
}

func (m *model) write(node string, o *Op) (r Result) {
	switch o.Kind {
	case Create:
		r.Block, r.Err = m.create(node, o.Block.Block)
	case Take:
		r.Block, r.Err = m.take(node, o.Block)
	case Vacate:
		r.Block, r.Err = m.vacate(o.Block)
	case Delete:
		r.Err = m.delete(node, o.Block)
	case Discard:
		r.Err = m.delete("", o.Block)
	case Ask:
		r.Request, r.Err = m.ask(node, o.Request)
	case Answer:
		r.Request, r.Err = m.grant(node, o.Request)
	case Retract:
		r.Err = m.retract(node, o.Request)
	default:
		r.Err = fmt.Errorf("no store can %v", o.Kind)
	}
	return r
}

// ofPool says no more of blocks that are not vacant than a List has to.
func (m *model) ofPool(blocks []Stored, pool string) (out []Stored) {
	for _, b := range blocks {
		switch {
		case b.Pool != pool:
		case b.Vacant():
			out = append(out, b)
		default:
			out = append(out, Stored{Block: pools.Block{Prefix: b.Prefix, Pool: b.Pool, Node: b.Node, Lender: b.Lender}})
		}
	}
	return out
}

func (m *model) own(node string) (out []Stored) {
	for _, b := range m.blocks {
		if b.Node == node {
			out = append(out, b)
		}
	}
	return out
}

func (m *model) inside(p netip.Prefix) (out []Stored) {
	for _, b := range m.blocks {
		if b.Prefix.Bits() > p.Bits() && p.Contains(b.Prefix.Addr()) {
			out = append(out, b)
		}
	}
	return out
}

func (m *model) create(node string, b pools.Block) (Stored, error) {
	i, there := m.find(b.Prefix)
	switch {
	case b.Node != node:
		return Stored{}, fmt.Errorf("%w: node %q creates a block of %q", errRefused, node, b.Node)
	case there:
		return Stored{}, ErrExists
	}
	b.UID, b.Tenure = m.name(), 0
	st := Stored{Block: b, Version: m.name()}
	m.blocks = slices.Insert(m.blocks, i, st)
	m.changed()
	return st, nil
}

// at is the place of a block, if it is the one that is meant.
func (m *model) at(b Stored, version string) (int, error) {
	i, there := m.find(b.Prefix)
	switch {
	case !there || m.blocks[i].UID != b.UID:
		return 0, ErrGone
	case version != "" && m.blocks[i].Version != version:
		return 0, ErrConflict
	}
	return i, nil
}

func (m *model) take(node string, b Stored) (Stored, error) {
	if b.UID == "" || b.Version == "" {
		return Stored{}, fmt.Errorf("%w: a take needs UID and version", errRefused)
	}
	i, err := m.at(b, b.Version)
	if err != nil {
		return Stored{}, err
	}
	st := &m.blocks[i]
	if st.Node != "" && st.Node != node || b.Node != node {
		return Stored{}, fmt.Errorf("%w: node %q takes a block of %q", errRefused, node, st.Node)
	}
	st.Node, st.Machine, st.Version = node, b.Machine, m.name()
	st.Tenure++
	out := *st
	m.changed()
	return out, nil
}

func (m *model) vacate(b Stored) (Stored, error) {
	i, err := m.at(b, b.Version)
	if err != nil {
		return Stored{}, err
	}
	st := &m.blocks[i]
	st.Node, st.Machine, st.Version = "", "", m.name()
	out := *st
	m.changed()
	return out, nil
}

// delete holds what the admission policy does: a node removes its own blocks, the
// controller any.
func (m *model) delete(node string, b Stored) error {
	if b.UID == "" || b.Version == "" {
		return fmt.Errorf("%w: a removal needs UID and version", errRefused)
	}
	i, err := m.at(b, b.Version)
	if err != nil {
		return err
	}
	old := m.blocks[i]
	if node != "" && old.Node != node {
		return fmt.Errorf("%w: node %q removes a block of %q", errRefused, node, old.Node)
	}
	m.removed(old)
	m.blocks = slices.Delete(m.blocks, i, i+1)
	m.changed()
	return nil
}

func (m *model) ask(node string, r Request) (Request, error) {
	i, there := m.findRequest(r.Name)
	switch {
	case r.Node != node:
		return Request{}, errRefused
	case there:
		return Request{}, ErrExists
	}
	r.UID, r.Version = m.name(), m.name()
	m.requests = slices.Insert(m.requests, i, r)
	m.changed()
	return r, nil
}

func (m *model) grant(node string, r Request) (Request, error) {
	i, there := m.findRequest(r.Name)
	switch {
	case !there || m.requests[i].UID != r.UID:
		return Request{}, ErrGone
	case m.requests[i].Version != r.Version:
		return Request{}, ErrConflict
	case !answers(m.requests[i].Grants, r.Grants, node):
		return Request{}, errRefused
	}
	m.requests[i].Grants, m.requests[i].Version = slices.Clone(r.Grants), m.name()
	out := m.requests[i]
	m.changed()
	return out, nil
}

// answers says whether after are the grants before and some of this node.
func answers(before, after []Grant, node string) bool {
	n := len(before)
	return len(after) > n && len(after) <= MostGrants && slices.Equal(before, after[:n]) &&
		!slices.ContainsFunc(after[n:], func(g Grant) bool { return g.Lender != node })
}

func (m *model) retract(node string, r Request) error {
	i, there := m.findRequest(r.Name)
	switch {
	case !there || m.requests[i].UID != r.UID:
		return ErrGone
	case node != "" && m.requests[i].Node != node:
		return errRefused
	case r.Version != "" && m.requests[i].Version != r.Version:
		return ErrConflict
	}
	m.requests = slices.Delete(m.requests, i, i+1)
	m.changed()
	return nil
}

// presence of the node with that machine, which is another one's at once when that
// has its name.
func presence(nodes []nodeObject, name, machine string) Presence {
	for _, n := range nodes {
		if n.name == name && (n.outOfService || machine != "" && machine != n.machine) {
			return Departed
		}
		if n.name == name {
			return Present
		}
	}
	return Absent
}

func (m *model) node(name string) *nodeObject {
	for i := range m.nodes {
		if m.nodes[i].name == name {
			return &m.nodes[i]
		}
	}
	return nil
}
