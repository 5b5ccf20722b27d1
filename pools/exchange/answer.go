package exchange

import (
	"errors"
	"math/bits"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// step of an answer.
type answering uint8

const (
	parting  answering = iota // the network still leads here
	granting                  // the request is to be answered
	doubtful                  // nobody knows whether it was
	granted                   // it was, and stands
)

// answer is what this node lends for one request: parts of its blocks that it
// grants all at once.
type answer struct {
	pace
	phase     answering
	request   Request // at the version that is answered
	loans     []*loan
	since     time.Time // it was granted
	tried     bool      // a grant may be under way of which nobody knows
	overtaken bool      // somebody else has changed the request; the watch will show how
}

// size is how many addresses it grants.
func (a *answer) size() (sum int) {
	for _, l := range a.loans {
		sum += sizeOf(l.Prefix)
	}
	return sum
}

// prepare sets aside what there is for r in up to room addresses. It returns nil
// if there is nothing.
func (n *Node) prepare(r Request, room int) *answer {
	a := &answer{request: r}
	for left := min(room, r.Lacks()); left > 0 && len(r.Grants)+len(a.loans) < MostGrants; {
		size := 1 << (bits.Len(uint(left)) - 1) // parts are powers of two
		p, ok := n.ledger.Spare(r.Pool, r.Family, r.Want, size, n.now)
		if !ok {
			break
		}
		if err := n.ledger.SetAside(r.Pool, p, r.Node); err != nil {
			n.Log.Error("what is to spare can't be set aside", "prefix", p, "err", err)
			break
		}
		ref := r.Name + " " + r.UID
		if err := n.Keep(pools.Record{Op: pools.Lent, Pool: r.Pool, At: n.now, Block: &pools.Block{Prefix: p, Pool: r.Pool, Node: r.Node}, Ref: ref}); err != nil {
			n.ledger.TakeBack(p)
			break
		}
		n.join(a, &loan{Prefix: p, Pool: r.Pool})
		left -= sizeOf(p)
	}
	if len(a.loans) == 0 {
		return nil
	}
	n.answers = append(n.answers, a)
	n.poor[Lack{Pool: r.Pool, Family: r.Family}] = n.now.Add(aheadAgain) // or it would not be asked for
	n.changes++
	return a
}

// join makes l a loan of the node, and a part of a.
func (n *Node) join(a *answer, l *loan) {
	l.answer = a
	a.loans = append(a.loans, l)
	n.loans[l.Prefix] = l
}

// leave ends that l is a part of an answer, which is over with its last one.
func (n *Node) leave(l *loan) {
	a := l.answer
	if a == nil {
		return
	}
	l.answer = nil
	a.loans = slices.DeleteFunc(a.loans, func(o *loan) bool { return o == l })
	if len(a.loans) == 0 {
		n.answers = slices.DeleteFunc(n.answers, func(o *answer) bool { return o == a })
	}
}

func (a *answer) step(n *Node) {
	switch {
	case a.phase == parting:
		a.await(n)
	case a.phase == granting && !a.overtaken:
		a.grant(n)
	default:
		a.read(n)
	}
}

// await leaves the network time, unless the request is answered by then.
func (a *answer) await(n *Node) {
	if !a.tried && a.stale(n) {
		n.regainAll(a)
		return
	}
	a.due = n.now.Add(lookForLoan)
}

// stale says whether the request is known to be gone or filled.
func (a *answer) stale(n *Node) bool {
	r, there := n.seen[a.request.Name]
	return !there || r.UID != a.request.UID || !r.Open()
}

// seen takes note of what became of the request that somebody else has changed.
func (a *answer) seen(n *Node, before, now Request) {
	if !a.overtaken || a.busy > 0 || now.UID == a.request.UID && now.Version == before.Version {
		return
	}
	if a.size() >= a.request.Lacks() && (now.UID != a.request.UID || !now.Open()) {
		n.wasLate() // one was enough
	}
	a.overtaken = false
	if now.UID == a.request.UID {
		a.request = now
	}
	a.due = n.now.Add(n.pause(a))
}

// grant answers the request.
func (a *answer) grant(n *Node) {
	if !a.tried && a.stale(n) {
		n.regainAll(a)
		return
	}
	if !a.tried && !n.trim(a) {
		n.again(&a.pace)
		return
	}
	r, ok := n.with(a)
	if !ok {
		a.phase = doubtful
		n.again(&a.pace)
		return
	}
	if len(a.loans) == 0 {
		return
	}
	n.call(&a.pace, Op{Kind: Answer, Request: r}, func(res Result) {
		switch {
		case res.Err == nil:
			n.refused[r.UID] = r.Version // and what comes after it will be seen
			n.tardy = max(n.tardy-1, 0)
			n.stand(a, res.Request)
			n.lineUp()
		case errors.Is(res.Err, ErrUnknown) || a.tried:
			// An answer that nobody acknowledged may have come to count.
			a.tried, a.phase = true, doubtful
			n.again(&a.pace)
		case errors.Is(res.Err, ErrConflict):
			a.overtaken = true
			a.due = n.now.Add(lookForLoan)
			a.seen(n, r, n.seen[r.Name]) // perhaps it was seen meanwhile
		case errors.Is(res.Err, ErrGone):
			n.tooLate(r)
			n.regainAll(a)
		default:
			n.heard[r.UID] = n.now.Add(lookForLoan)
			n.regainAll(a)
			n.lineUp()
		}
	})
}

// trim has back what the request does not lack any more, and what is in no block
// that is held. It says whether the journal took that: more than is lacking is not to
// be granted.
func (n *Node) trim(a *answer) (whole bool) {
	whole = true
	room, grants := a.request.Lacks(), MostGrants-len(a.request.Grants)
	for _, l := range slices.Clone(a.loans) {
		if size := sizeOf(l.Prefix); size <= room && grants > 0 && n.outer(l) != nil {
			room -= size
			grants--
			continue
		}
		n.regain(l)
		whole = whole && l.answer == nil
	}
	return whole
}

// outer is the block that l is a part of, if it is held.
func (n *Node) outer(l *loan) *holding {
	return n.held[n.ledger.BlockOf(l.Pool, l.Prefix.Addr())]
}

// with is the request with a's grants; ok is false if a block around one is not held.
func (n *Node) with(a *answer) (r Request, ok bool) {
	r = a.request
	r.Grants = slices.Clone(r.Grants)
	for _, l := range a.loans {
		outer := n.outer(l)
		if outer == nil {
			return r, false
		}
		r.Grants = append(r.Grants, Grant{Lender: n.Name, Prefix: l.Prefix, Outer: outer.Prefix, OuterUID: outer.UID, OuterTenure: outer.Tenure})
	}
	return r, true
}

// stand notes that the grants of a stand in r. What is not among them is of another
// answer of an earlier life, for which the journal has the same request: it may come to
// count yet.
func (n *Node) stand(a *answer, r Request) {
	a.request, a.phase, a.since = r, granted, n.now
	a.due = n.now.Add(lookForLoan)
	other := &answer{phase: doubtful, tried: true, request: r}
	for _, l := range slices.Clone(a.loans) {
		if !n.grantedIn(r, l) {
			n.leave(l)
			n.join(other, l)
			continue
		}
		n.Log.Info("lent a part of a block", "pool", l.Pool, "part", l.Prefix, "to", r.Node)
	}
	if len(other.loans) > 0 {
		n.answers = append(n.answers, other)
	}
}

// grantedIn says whether r has this node's grant of l.
func (n *Node) grantedIn(r Request, l *loan) bool {
	return slices.ContainsFunc(r.Grants, func(g Grant) bool { return g.Lender == n.Name && g.Prefix == l.Prefix })
}

// read sees what became of the request: the grants were made or not, stand or are
// over.
func (a *answer) read(n *Node) {
	n.call(&a.pace, Op{Kind: LookRequest, Request: a.request}, func(r Result) {
		switch {
		case errors.Is(r.Err, ErrGone) || r.Err == nil && r.Request.UID != a.request.UID:
			n.over(a)
		case r.Err != nil:
			n.again(&a.pace)
		case slices.ContainsFunc(a.loans, func(l *loan) bool { return n.grantedIn(r.Request, l) }):
			n.stand(a, r.Request)
		case !r.Request.Open() || a.tried && r.Request.Lacks() < a.size():
			// Others were first: it is another version than the one that was answered.
			n.tooLate(n.seen[a.request.Name])
			n.regainAll(a)
		case a.parted():
			// A call without an answer may still come to count. Make one
			// that rules it out.
			a.request, a.phase, a.overtaken = r.Request, granting, false
		default: // of an earlier life, which the network may not know of
			a.request, a.phase = r.Request, parting
			n.changes++
		}
	})
}

// over has each loan go its own way, since the request is gone. If it was granted,
// then it was drawn, most likely.
func (n *Node) over(a *answer) {
	if a.phase != granted && !a.tried {
		n.regainAll(a)
		return
	}
	for _, l := range slices.Clone(a.loans) {
		n.leave(l)
		l.since, l.looked = n.now, n.now
		l.due = n.now.Add(lookForLoan)
	}
}

// parted says whether the network leads nothing of it here any more, in this life.
func (a *answer) parted() bool {
	return !slices.ContainsFunc(a.loans, func(l *loan) bool { return !l.parted })
}

// regainAll has all of it back.
func (n *Node) regainAll(a *answer) {
	for _, l := range slices.Clone(a.loans) {
		n.regain(l)
	}
	if len(a.loans) > 0 { // the journal does not take it
		n.again(&a.pace)
	}
}
