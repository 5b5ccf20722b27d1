package exchange

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// Why a node takes no block, beside pools.ErrExhausted.
var (
	// ErrCordoned: the node is to take no new work.
	ErrCordoned = errors.New("the node is cordoned")
	// ErrDraining: the pool leases nothing new.
	ErrDraining = errors.New("the pool is draining")
	// ErrUnasked: what other nodes have to spare is not known.
	ErrUnasked = errors.New("no node can be asked")
)

// Config is what a Node is made with.
type Config struct {
	Name string
	// Machine tells this node from an earlier one of its name.
	Machine string
	// Began is a time after which no earlier life of this node has begun a
	// call; zero is when it is first told the time.
	Began time.Time
	// Shared says that other nodes use the store, and can be asked.
	Shared bool
	// Keep writes a record to the journal, or changes nothing.
	Keep func(pools.Record) error
	// Lost is told of each lease that ended, or lost the addresses named, since
	// its block is not this node's any more. nil: nobody is told.
	Lost func(block pools.Block, lease pools.Record)
	Log  *slog.Logger
}

// Rule is what holds for one pool beside its addresses.
type Rule struct {
	// IdleAfter is how long an empty block is kept.
	IdleAfter time.Duration
	// Draining pools lease nothing new.
	Draining bool
}

// Node is one node's side of the exchange. All its blocks are in its ledger,
// of which it alone calls Hold, Close, Reopen, Drop, SetAside and TakeBack;
// leases are made and ended by who owns the Node. It is not safe for
// concurrent use. Whatever it is told, call Advance next.
type Node struct {
	Config
	ledger   *pools.Ledger
	rules    map[string]Rule
	cordoned bool
	quitting bool
	renewals int // so often everything was to be taken anew
	outdated int // so often what was made or taken before was to be taken anew to be held
	forfeits int // so many blocks were lost
	changes  int
	held     map[netip.Prefix]*holding
	wants    map[Lack]*want
	helpers  []*want // beside those of wants, the oldest first
	loans    map[netip.Prefix]*loan
	answers  []*answer // of which nobody knows yet that they are drawn, the oldest first
	strays   map[netip.Prefix]*stray
	unfit    map[netip.Prefix]bool         // blocks of which Restore has told its caller
	asleep   map[netip.Prefix]pools.Record // what the journal says is lent of blocks that are not held
	orphans  map[string]*orphan            // requests that nobody waits for, by name
	views    map[string]*view
	seen     map[string]Request
	heard    map[string]time.Time // when each request's UID was first seen
	asked    []asked
	refused  map[string]string // at which version a request was when this node's answer came too late, by UID
	late     time.Time         // when an answer of this node came too late last
	tardy    int               // how often answers came too late lately, less those that did not; at most mostTardy
	expected map[Lack]expected
	gave     time.Time          // when a chosen address was given away last that its own pods might have used
	lapse    time.Time          // when those expected last are not any more
	ripe     time.Time          // when a block can be returned that was too fresh for it
	look     time.Time          // when what is lent is to be looked at for somebody who asks
	regained bool               // something that was set aside is free again, and was offered to nobody yet
	rushes   map[Lack]rush      // what was claimed just now; without Want
	poor     map[Lack]time.Time // until when no claim ahead of need is tried, since there was no cell
	failed   map[Lack]error     // why the want of somebody who waits was given up
	audit    audit
	wondered time.Time // when an unknown block of this node's name made for an audit last
	duty     duty
	born     time.Time // Began, or as if
	now      time.Time
	out      []*Op
}

// NewNode is a node without blocks. The ledger must be one of its name.
func NewNode(c Config, l *pools.Ledger) *Node {
	return &Node{
		Config: c, ledger: l, rules: map[string]Rule{}, held: map[netip.Prefix]*holding{}, wants: map[Lack]*want{},
		loans: map[netip.Prefix]*loan{}, strays: map[netip.Prefix]*stray{}, unfit: map[netip.Prefix]bool{}, asleep: map[netip.Prefix]pools.Record{}, orphans: map[string]*orphan{}, views: map[string]*view{},
		seen: map[string]Request{}, heard: map[string]time.Time{}, refused: map[string]string{}, expected: map[Lack]expected{}, rushes: map[Lack]rush{}, poor: map[Lack]time.Time{}, failed: map[Lack]error{},
	}
}

// SetRules replaces the rules. A pool without one keeps its blocks for ever.
func (n *Node) SetRules(rules map[string]Rule) { n.rules = maps.Clone(rules) }

// SetCordoned says whether the node is to take no new blocks.
func (n *Node) SetCordoned(cordoned bool) { n.cordoned = cordoned }

// Advance goes on with all that can be gone on with at now. It returns the
// calls to be made, each once, side by side, and when to call it again at the
// latest; zero is at no certain time.
func (n *Node) Advance(now time.Time) (ops []*Op, next time.Time) {
	n.at(now)
	n.closeUnused()
	n.claimAhead()
	n.regained = false
	n.serve()
	n.disownUnwanted()
	for _, e := range n.errands() {
		if e.at().busy == 0 && !now.Before(e.at().due) {
			e.step(n)
		}
	}
	n.spread()
	n.heed()
	for _, e := range n.errands() {
		if p := e.at(); p.busy == 0 && p.due.Before(now) {
			next = now // it was let go on meanwhile
		} else if p.busy == 0 {
			next = earlier(next, p.due)
		}
	}
	next = earlier(next, earlier(n.nextAnswer(), n.nextFree()))
	next = earlier(next, earlier(n.nextOrders(), n.nextCalm()))
	if n.regained && len(n.asked) > 0 {
		next = now // another one may wait for it
	}
	ops, n.out = n.out, nil
	return ops, next
}

// at notes the time.
func (n *Node) at(now time.Time) {
	if n.born.IsZero() {
		n.born = now
		if !n.Began.IsZero() && n.Began.Before(now) {
			n.born = n.Began
		}
	}
	n.now = now
}

// Done tells the result of an op.
func (n *Node) Done(o *Op, r Result, now time.Time) {
	n.now = now
	o.done(r)
}

// errand is something that takes several calls of the store.
type errand interface {
	at() *pace
	step(n *Node)
}

// pace is when an errand goes on.
type pace struct {
	busy  int       // calls under way
	due   time.Time // when to go on if none is
	tries int       // failures in a row
}

func (p *pace) at() *pace { return p }

const (
	firstWait = 50 * time.Millisecond
	lastWait  = 10 * time.Second
)

// again makes an errand wait, longer each time.
func (n *Node) again(p *pace) {
	wait := min(firstWait<<min(p.tries, 10), lastWait)
	p.tries++
	p.due = n.now.Add(wait)
}

// goOn lets an errand go on at once.
func (p *pace) goOn() { p.due, p.tries = time.Time{}, 0 }

// errands in an order that depends on nothing but what they are.
func (n *Node) errands() (all []errand) {
	for _, k := range slices.SortedFunc(maps.Keys(n.wants), compareLacks) {
		all = append(all, n.wants[k])
		for _, d := range n.wants[k].draws {
			if d.progress == making {
				all = append(all, d)
			}
		}
	}
	for _, w := range n.helpers {
		all = append(all, w)
	}
	for _, a := range n.answers {
		all = append(all, a)
	}
	for _, k := range slices.SortedFunc(maps.Keys(n.loans), netipx.ComparePrefix) {
		if l := n.loans[k]; l.answer == nil {
			all = append(all, l)
		}
	}
	for _, h := range n.leaving() {
		all = append(all, h)
	}
	for _, k := range slices.SortedFunc(maps.Keys(n.strays), netipx.ComparePrefix) {
		all = append(all, n.strays[k])
	}
	for _, k := range slices.Sorted(maps.Keys(n.orphans)) {
		all = append(all, n.orphans[k])
	}
	if n.audit.wanted() {
		all = append(all, &n.audit)
	}
	return all
}

// call has an op made for an errand; done gets its result.
func (n *Node) call(p *pace, o Op, done func(Result)) {
	p.busy++
	o.done = func(r Result) {
		p.busy--
		p.due = time.Time{}
		done(r)
	}
	n.out = append(n.out, &o)
}

// Lack is what a node needs: an address of a family of a pool, a certain one
// if Want is valid.
type Lack struct {
	Pool   string
	Family pools.Family
	Want   netip.Addr
}

func compareLacks(a, b Lack) int {
	return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Family, b.Family), a.Want.Compare(b.Want))
}

// fits says whether a block has what l lacks.
func (l Lack) fits(b pools.Block) bool {
	return b.Pool == l.Pool && pools.FamilyOf(b.Prefix.Addr()) == l.Family && (!l.Want.IsValid() || b.Prefix.Contains(l.Want))
}

func (l Lack) String() string {
	if l.Want.IsValid() {
		return fmt.Sprintf("%s of pool %q", l.Want, l.Pool)
	}
	return fmt.Sprintf("an %v address of pool %q", l.Family, l.Pool)
}
