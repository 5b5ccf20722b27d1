package exchange

import (
	"cmp"
	"errors"
	"hash/fnv"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairway-network/fairway/pools"
)

const (
	// spread is about how long it takes until a node has seen that another one has
	// answered.
	spread = 10 * time.Millisecond
	// mostTardy bounds how often the spread is doubled.
	mostTardy = 3
	// lookForLoan and lookForOldLoan are how often a lender looks whether what
	// it lent has come back.
	lookForLoan    = time.Second
	lookForOldLoan = 30 * time.Second
	// turns are so many that hardly two nodes have the same.
	turns = 1 << 20
)

// loan is a part of a block of this node that it has set aside. Once nobody can draw
// it any more the lent block stands, or may.
type loan struct {
	pace
	Prefix  netip.Prefix
	Pool    string
	answer  *answer   // that it is a part of, nil once the request is gone
	parted  bool      // the network leads here no more, in this life
	since   time.Time // the request is gone
	looked  time.Time
	hurries int // looks ahead of time, in a row
}

// Seen tells the node all requests there are, as a watch of them shows them.
func (n *Node) Seen(requests []Request, now time.Time) {
	n.now = now
	seen := make(map[string]Request, len(requests))
	heard := make(map[string]time.Time, len(requests))
	for _, r := range requests {
		seen[r.Name] = r
		heard[r.UID] = now
		if t, ok := n.heard[r.UID]; ok {
			heard[r.UID] = t
		}
		if w := n.wantOf(r); w != nil && w.request.UID == r.UID && len(r.Grants) > len(w.request.Grants) && w.phase == waiting && w.busy == 0 {
			w.goOn()
		}
	}
	for _, a := range n.answers {
		a.seen(n, n.seen[a.request.Name], seen[a.request.Name])
	}
	n.seen, n.heard = seen, heard
	maps.DeleteFunc(n.refused, func(uid, _ string) bool { return heard[uid].IsZero() })
	n.lineUp()
}

// asked is an open request of another node.
type asked struct {
	Request
	turn time.Time // this node's to answer
}

// lineUp puts the requests of others in the order of this node's turns.
func (n *Node) lineUp() {
	n.asked = n.asked[:0]
	rooms := map[Lack]int{}
	for _, r := range n.seen {
		if r.Node == n.Name || !r.Open() || n.refused[r.UID] == r.Version {
			continue
		}
		lack := Lack{Pool: r.Pool, Family: r.Family}
		room, known := rooms[lack]
		if !known {
			room = n.room(r)
			rooms[lack] = room
		}
		n.asked = append(n.asked, asked{r, n.answerAt(r, room)})
	}
	if len(n.asked) == 0 && n.now.Sub(n.late) >= forgive {
		n.tardy = 0
	}
	slices.SortFunc(n.asked, func(a, b asked) int { return cmp.Or(a.turn.Compare(b.turn), cmp.Compare(a.Name, b.Name)) })
}

// Awaited says whether it is time to Advance, since an address of a pool has come
// free: somebody waits for one. It is cheap enough for every release.
func (n *Node) Awaited(pool string) bool {
	return slices.ContainsFunc(n.asked, func(r asked) bool { return r.Pool == pool }) || n.waits(pool)
}

// serve answers the open requests of others that this node has something for,
// the oldest ones first. What there is not for one, there is for no other that
// lacks the same.
func (n *Node) serve() {
	if n.quitting || len(n.asked) == 0 || n.now.Before(n.asked[0].turn) {
		return
	}
	n.ripe, n.look = time.Time{}, time.Time{}
	idle := n.ledger.Idle(n.now, func(string) time.Duration { return 0 })
	nothing, later := map[Lack]bool{}, false
	for _, r := range n.asked {
		if n.now.Before(r.turn) {
			break
		}
		lack := lackOf(r.Request)
		if nothing[lack] || n.answering(r.UID) {
			continue
		}
		switch n.lend(r.Request, idle) {
		case lendsNothing:
			if again := n.recheck(lack); n.now.Sub(r.turn) < lookSeldom { // later the pool is just full
				n.look = earlier(n.look, again)
			}
			nothing[lack] = true
		case lendsLater:
			n.heard[r.UID] = n.now.Add(lookForLoan)
			later = true
		}
	}
	if later {
		n.lineUp()
	}
}

// answering says whether an answer to the request is under way.
func (n *Node) answering(uid string) bool {
	return slices.ContainsFunc(n.answers, func(a *answer) bool { return a.phase < granted && a.request.UID == uid })
}

// offered says whether an answer of what r lacks is under way. What is left beside
// it is not worth much: where several answer one request some have theirs back.
func (n *Node) offered(r Request) bool {
	return slices.ContainsFunc(n.answers, func(a *answer) bool {
		return a.phase < granted && a.request.Pool == r.Pool && a.request.Family == r.Family
	})
}

// answerAt is this node's turn to answer r, of which it could lend room. Those
// who hold blocks of the pool, of whom nobody knows how many have something to
// spare, take turns so that about as many come within the first spread whether
// these are a few or thousands: the time grows with the logarithm of their number.
// Of those who have as much to spare as this one there are no more than fit into the
// pool: who has much comes soon.
// Who has less than r lacks leaves the others one spread: a grant of one node is
// better than of several. Where one is enough each answer of this node that came too
// late doubles the spread, and each that did not halves it: where events take long the
// turns are further apart.
func (n *Node) answerAt(r Request, room int) time.Time {
	peers := min(r.Holders, 10_000, n.poolSize(r)/max(room, 1))
	wait := math.Log(max(n.place(r.UID)*float64(peers), 1))
	if room < r.Lacks() {
		return n.heard[r.UID].Add(time.Duration((wait + 1) * float64(spread)))
	}
	return n.heard[r.UID].Add(time.Duration(wait * float64(spread<<n.tardy)))
}

// poolSize counts the addresses that r may be given, up to more than any node has.
func (n *Node) poolSize(r Request) int {
	p, err := n.ledger.Pool(r.Pool)
	if err != nil {
		return 0
	}
	return int(min(p.Size(r.Family), 1<<30))
}

// pause is for how long this node leaves the request to the others that were
// overtaken, too.
func (n *Node) pause(a *answer) time.Duration {
	return time.Duration(n.place(a.request.UID+a.request.Version) * float64(spread/4))
}

// place is a number above 0 and up to 1 that differs from node to node.
func (n *Node) place(of string) float64 {
	h := fnv.New64a()
	h.Write([]byte(of + n.Name))
	sum := h.Sum64()
	sum ^= sum >> 29
	return float64(sum%turns+1) / turns
}

// nextAnswer is when the next answer is due that is not due yet.
func (n *Node) nextAnswer() (next time.Time) {
	if n.quitting || len(n.asked) == 0 {
		return next
	}
	for _, t := range []time.Time{n.lapse, n.ripe, n.look} {
		if n.now.Before(t) {
			next = earlier(next, t)
		}
	}
	i, _ := slices.BinarySearchFunc(n.asked, n.now, func(r asked, now time.Time) int {
		if r.turn.After(now) {
			return 1
		}
		return -1
	})
	for _, r := range n.asked[i:] {
		if !n.answering(r.UID) {
			next = earlier(next, r.turn)
			break
		}
	}
	return next
}

// nextFree is when the next address has rested that somebody waits for: another
// node that was not answered, or pods of this one.
func (n *Node) nextFree() (next time.Time) {
	looked := map[Lack]bool{}
	look := func(lack Lack) {
		if lack.Want = (netip.Addr{}); !looked[lack] {
			looked[lack] = true
			next = earlier(next, n.ledger.NextFree(lack.Pool, lack.Family, n.now))
		}
	}
	for _, r := range n.asked {
		if n.now.Before(r.turn) || n.quitting {
			break
		}
		look(lackOf(r.Request))
	}
	for lack, w := range n.wants {
		if w.count > 0 {
			look(lack)
		}
	}
	return next
}

// earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// lends is what becomes of a request.
type lends uint8

const (
	lendsPart    lends = iota // something is set aside for it
	lendsLater                // perhaps, or it is served otherwise until then
	lendsNext                 // once it is known what becomes of other answers
	lendsNothing              // nor anybody who lacks the same
)

// lend returns what is empty, for the asker to claim, and otherwise sets
// something aside for it. What this node's own pods wait for stays.
func (n *Node) lend(r Request, idle []pools.Block) lends {
	if _, err := n.ledger.Pool(r.Pool); err != nil {
		return lendsNothing
	}
	both := n.needsBoth(r)
	if n.keepsChosen(r) || both && !n.mayGive(r) {
		return lendsLater
	}
	done := n.give(r, idle)
	if both && (done == lendsLater || done == lendsPart) {
		n.gave = n.now
	}
	return done
}

// give is lend of what this node's own pods do not wait for.
func (n *Node) give(r Request, idle []pools.Block) lends {
	room := n.room(r)
	if n.returnIdle(r, idle, room) {
		return lendsLater // time enough to claim it
	}
	if room <= 0 {
		return lendsNothing
	}
	if room < r.Lacks() && n.offered(r) {
		return lendsNext
	}
	if n.prepare(r, room) == nil {
		return lendsNothing
	}
	return lendsPart
}

// room is how many addresses this node has to spare of what r asks for.
func (n *Node) room(r Request) int {
	return n.ledger.Free(r.Pool, r.Family, n.now) - n.kept(r.Pool, r.Family)
}

// leaseSoon is how long after it has waited a pod is expected to lease what came.
const leaseSoon = 100 * time.Millisecond

// expected are the pods of this node that wait, and those that did until a moment
// ago and have no lease yet, for the same.
type expected struct {
	waiting, left int
	leases        int       // that there were then
	until         time.Time // those who left count
}

// expect notes how many wait for what lack says. Who does no more has a lease, or will
// have one soon: all leases since are taken for theirs.
func (n *Node) expect(lack Lack, count int) {
	e, leases := n.expected[lack], n.ledger.Leases(lack.Pool, lack.Family)
	if !n.now.Before(e.until) {
		e.left = 0
	}
	gone := max(e.waiting-count, 0)
	e.left = max(e.left+gone-max(leases-e.leases, 0), 0)
	if gone > 0 {
		e.until = n.now.Add(leaseSoon)
		n.lapse = e.until
	}
	e.waiting, e.leases = count, leases
	n.expected[lack] = e
	maps.DeleteFunc(n.expected, func(_ Lack, e expected) bool { return e.waiting == 0 && !n.now.Before(e.until) })
}

// kept is how many addresses stay for this node's own pods. While they lack the
// other family it is needsBoth that decides.
func (n *Node) kept(pool string, f pools.Family) (count int) {
	for lack, e := range n.expected {
		switch {
		case lack.Pool != pool || lack.Want.IsValid():
		case lack.Family != f:
			if e.waiting > 0 && n.wants[lack] != nil {
				return 0
			}
		default:
			count += e.waiting
			if n.now.Before(e.until) {
				count += e.left
			}
		}
	}
	return count
}

// needsBoth says whether this node keeps what r asks for, since its own pods wait
// for the other family of the pool. Of two nodes that each have what the other
// one lacks, one has to keep it: the first by name.
func (n *Node) needsBoth(r Request) bool {
	waiting := 0
	for lack, w := range n.wants {
		if lack.Pool == r.Pool && lack.Family != r.Family {
			waiting += w.count
		}
	}
	return n.Name < r.Node && waiting > 0 && n.ledger.Free(r.Pool, r.Family, n.now) <= waiting
}

// mayGive says whether r may have the address that it wants all the same: no other one
// will do there, and here most likely. Two nodes whose pods wait on would give it to and
// fro, so it is only now and then.
func (n *Node) mayGive(r Request) bool {
	return r.Want.IsValid() && n.ledger.Offers(n.ledger.BlockOf(r.Pool, r.Want), r.Want) && n.now.Sub(n.gave) >= forgive
}

// keepsChosen says whether a pod here waits for a chosen address, or did until a moment
// ago, that has come and that r could be given: what was claimed for it is not lent
// before it is leased.
func (n *Node) keepsChosen(r Request) bool {
	for lack, e := range n.expected {
		switch {
		case !lack.Want.IsValid() || lack.Pool != r.Pool || lack.Family != r.Family || r.Want.IsValid() && r.Want != lack.Want:
		case e.waiting > 0 || n.now.Before(e.until):
			if n.ledger.Offers(n.ledger.BlockOf(lack.Pool, lack.Want), lack.Want) {
				return true
			}
		}
	}
	return false
}

// returnIdle begins the return of empty blocks that have what r asks for, as many
// as it takes out of room. It says whether some are on their way.
func (n *Node) returnIdle(r Request, idle []pools.Block, room int) bool {
	lack, coming := lackOf(r), 0
	for _, h := range n.held {
		if h.closed && h.yielded == r.UID {
			coming += sizeOf(h.Prefix)
		}
	}
	for _, b := range idle {
		h, size := n.held[b.Prefix], sizeOf(b.Prefix)
		if coming >= max(r.Lacks(), 1) || h == nil || !lack.fits(b) || room < size && n.kept(r.Pool, r.Family) > 0 || !n.close(b.Prefix) {
			continue
		}
		h.yielded = r.UID
		coming += size
		room -= size
	}
	return coming > 0
}

// sizeOf counts the addresses of p, up to more than any block has.
func sizeOf(p netip.Prefix) int { return 1 << min(p.Addr().BitLen()-p.Bits(), 30) }

// recheck looks at once whether something that was lent has come back, where
// it would be of use; less and less often while it is not. It says when to look again.
func (n *Node) recheck(lack Lack) (again time.Time) {
	for _, a := range n.answers {
		if n.seen[a.request.Name].UID == a.request.UID || a.phase != granted || a.busy > 0 || a.request.Pool != lack.Pool || a.request.Family != lack.Family {
			continue
		}
		if soon := a.since.Add(lookAgain); n.now.Before(soon) {
			again = earlier(again, soon)
		} else {
			a.due = time.Time{} // it may be gone: read it
		}
	}
	for _, l := range n.loans {
		if l.answer == nil && l.busy == 0 && l.Pool == lack.Pool && pools.FamilyOf(l.Prefix.Addr()) == lack.Family {
			again = earlier(again, l.hurry(n))
		}
	}
	return again
}

// hurry says when to call it again, zero if l is looked at by then anyway.
func (l *loan) hurry(n *Node) (again time.Time) {
	if n.now.Sub(l.looked) > 2*lookSeldom {
		l.hurries = 0
	}
	soon := l.looked.Add(min(lookAgain<<min(l.hurries, 10), lookSeldom))
	switch {
	case !soon.Before(l.due):
		return time.Time{}
	case n.now.Before(soon):
		return soon
	}
	l.hurries++
	l.due = time.Time{}
	return time.Time{}
}

// lentOut says whether a is set aside in the smallest block held that has it: what
// was borrowed back of something lent is not.
func (n *Node) lentOut(a netip.Addr) bool {
	for p, l := range n.loans {
		if p.Contains(a) && n.ledger.BlockOf(l.Pool, a).Bits() < p.Bits() {
			return true
		}
	}
	return false
}

// tooLate notes that others have answered r, or that it is gone. The watch will show
// it: until then r is not answered again.
func (n *Node) tooLate(r Request) {
	n.refused[r.UID] = r.Version
	n.wasLate()
	n.lineUp()
}

// wasLate notes that an answer of this node came too late.
func (n *Node) wasLate() { n.tardy, n.late = min(n.tardy+1, mostTardy), n.now }

// step sees whether the lent block is still there.
func (l *loan) step(n *Node) {
	l.looked = n.now
	n.call(&l.pace, Op{Kind: Look, Block: Stored{Block: pools.Block{Prefix: l.Prefix, Pool: l.Pool}}}, func(r Result) {
		switch {
		case errors.Is(r.Err, ErrGone) && l.Prefix.IsSingleIP():
			n.regain(l)
		case errors.Is(r.Err, ErrGone):
			l.lookInside(n)
		case r.Err != nil:
			n.again(&l.pace)
		default:
			l.tries = 0
			l.due = n.now.Add(min(max(n.now.Sub(l.since)/4, lookForLoan), lookForOldLoan))
		}
	})
}

// lookInside finds what its node had lent on before it went.
func (l *loan) lookInside(n *Node) {
	n.call(&l.pace, Op{Kind: Inside, Block: Stored{Block: pools.Block{Prefix: l.Prefix, Pool: l.Pool}}}, func(r Result) {
		if r.Err != nil {
			n.again(&l.pace)
			return
		}
		for _, b := range outermost(r.Blocks) {
			if n.held[b.Prefix] != nil {
				continue
			}
			if err := n.lendOut(b); err != nil {
				n.again(&l.pace)
				return
			}
		}
		n.regain(l)
	})
}

// regain has the addresses back.
func (n *Node) regain(l *loan) {
	if err := n.Keep(pools.Record{Op: pools.Regained, Pool: l.Pool, At: n.now, Block: &pools.Block{Prefix: l.Prefix, Pool: l.Pool}}); err != nil {
		n.again(&l.pace)
		return
	}
	n.ledger.TakeBack(l.Prefix)
	n.leave(l)
	delete(n.loans, l.Prefix)
	n.changes++
	n.regained = true
}

// refOf takes apart what a record of a loan says of its request.
func refOf(ref string) (name, uid string) {
	name, uid, _ = strings.Cut(ref, " ")
	return name, uid
}
