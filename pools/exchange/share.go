package exchange

import (
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/pools"
)

// One want after the other would take long where many pods wait at once. The first
// want of a lack is helped by others, each of which gets one block more: a cell,
// or, where none is free, a part of what the others have to spare. They make
// requests of their own, so that several nodes answer at the same time.

const (
	// sideBySide bounds the wants of one lack, and askSideBySide those of them that
	// ask the other nodes.
	sideBySide    = 8
	askSideBySide = 4
)

func (n *Node) newWant(lack Lack, nth int) *want {
	w := &want{Lack: lack, nth: nth, since: n.now, missed: map[netip.Prefix]missed{}}
	for other := range n.everyWant() {
		if other.Lack == lack {
			w.missed = other.missed // what one has learned all know
		}
	}
	return w
}

// everyWant yields the first ones and their helpers, in no certain order.
func (n *Node) everyWant() iter.Seq[*want] {
	return func(yield func(*want) bool) {
		for _, w := range n.wants {
			if !yield(w) {
				return
			}
		}
		for _, w := range n.helpers {
			if !yield(w) {
				return
			}
		}
	}
}

// wantOf is the want that makes requests of r's name.
func (n *Node) wantOf(r Request) *want {
	if r.Node != n.Name {
		return nil
	}
	for w := range n.everyWant() {
		if w.Lack == lackOf(r) && w.requestName(n) == r.Name {
			return w
		}
	}
	return nil
}

func (w *want) requestName(n *Node) string {
	if w.nth == 0 {
		return RequestName(n.Name, w.Lack)
	}
	return RequestName(fmt.Sprintf("%s|%d", n.Name, w.nth), w.Lack)
}

// gets says whether a want of this lack is there.
func (n *Node) gets(lack Lack) bool {
	return n.wants[lack] != nil || slices.ContainsFunc(n.helpers, func(w *want) bool { return w.Lack == lack })
}

func (n *Node) end(w *want) {
	if w.nth == 0 {
		delete(n.wants, w.Lack)
		return
	}
	n.helpers = slices.DeleteFunc(n.helpers, func(other *want) bool { return other == w })
}

// gain is how many addresses w is about to bring, as far as one can tell.
func (w *want) gain() int {
	switch w.phase {
	case creating, taking, reading, drawing, checking:
		return sizeOf(w.block.Prefix)
	case asking, waiting:
		return w.asks
	}
	return 0
}

// short is how many addresses those who wait lack that no other want than w is
// about to bring. With lately those count, too, who waited until a moment ago and
// may do so again.
func (n *Node) short(lack Lack, w *want, lately bool) int {
	e := n.expected[lack]
	count := e.waiting - n.ledger.Free(lack.Pool, lack.Family, n.now)
	if lately && n.now.Before(e.until) {
		count += e.left
	}
	for other := range n.everyWant() {
		if other != w && other.Lack == lack {
			count -= min(other.gain(), n.part(lack, other))
		}
	}
	return count
}

// part is the most that one want brings: a cell, or the half of one that is lent.
func (n *Node) part(lack Lack, w *want) int {
	pool, err := n.ledger.Pool(lack.Pool)
	switch {
	case err != nil:
		return 1
	case w.phase == asking || w.phase == waiting:
		return max(pool.BlockSize()/2, 1)
	}
	return pool.BlockSize()
}

// share is how many addresses w asks for: the first want for all that is lacking,
// a helper for no more than one node lends.
func (w *want) share(n *Node) int {
	count := max(n.short(w.Lack, w, false), 1)
	if w.nth == 0 {
		return count
	}
	count = min(count, n.part(w.Lack, w))
	return 1 << (bits.Len(uint(count)) - 1)
}

// needsHelp says whether those who wait lack more than the others are about to
// bring without w.
func (n *Node) needsHelp(w *want) bool {
	return !n.quitting && n.short(w.Lack, w, true) > 0
}

// helped says whether the helpers of w are getting all that is lacking. What they
// only ask for does not count: somebody has to look for what comes free.
func (n *Node) helped(w *want) bool {
	count, some := w.count-n.ledger.Free(w.Pool, w.Family, n.now), false
	for _, h := range n.helpers {
		if h.Lack == w.Lack && h.phase != asking && h.phase != waiting && h.gain() > 0 {
			count -= min(h.gain(), n.part(w.Lack, h))
			some = true
		}
	}
	return some && w.count > 0 && count <= 0
}

// needsMany says whether w is about to get several blocks, for which it is worth
// to look where others have theirs.
func (n *Node) needsMany(w *want) bool {
	return w.nth == 0 && !w.Want.IsValid() && n.holds(w.Lack) && n.short(w.Lack, nil, false) > n.part(w.Lack, w)
}

// spread has wants helped that lack more than they are about to bring. Where the
// node has no block yet its first claim goes alone: there may be others at that
// place.
func (n *Node) spread() {
	for _, lack := range slices.SortedFunc(maps.Keys(n.wants), compareLacks) {
		w := n.wants[lack]
		if w.phase == choosing || w.ahead || w.count < 2 || lack.Want.IsValid() || n.quitting || w.phase == creating && !n.holds(lack) {
			continue
		}
		for nth := 1; nth < sideBySide && n.short(lack, nil, false) > 0; nth++ {
			if !n.hasHelper(lack, nth) && !n.addHelper(w, nth) {
				break
			}
		}
	}
}

// holds says whether this node has a block of what lack says.
func (n *Node) holds(lack Lack) bool {
	for _, h := range n.held {
		if lack.fits(h.Block) && !h.closed {
			return true
		}
	}
	return false
}

func (n *Node) hasHelper(lack Lack, nth int) bool {
	return slices.ContainsFunc(n.helpers, func(w *want) bool { return w.Lack == lack && w.nth == nth })
}

// addHelper says whether another helper found something to do.
func (n *Node) addHelper(w *want, nth int) bool {
	h := n.newWant(w.Lack, nth)
	h.holders = w.holders
	n.helpers = append(n.helpers, h)
	h.step(n)
	return h.phase != choosing
}

// help goes for what is free, or asks; the first want sees to the view.
func (w *want) help(n *Node, pool *pools.Pool, v *view) {
	switch {
	case v != nil && w.target(n, pool, v):
	case w.request.UID != "":
		w.linger(n)
	case v != nil && w.mayAsk(n):
		w.to(asking)
		w.step(n)
	default:
		n.end(w)
	}
}

// mayAsk says whether the first want asks already, and few others do.
func (w *want) mayAsk(n *Node) bool {
	first := n.wants[w.Lack]
	if first == nil || first.request.UID == "" && first.phase != asking {
		return false
	}
	open := 0
	for other := range n.everyWant() {
		if other.Lack == w.Lack && (other.request.UID != "" || other.phase == asking) {
			open++
		}
	}
	return open < askSideBySide
}

// linger waits for an answer. Now and then it reads the request: the watch may
// have missed it.
func (w *want) linger(n *Node) {
	w.phase = waiting
	if n.now.Sub(w.since) >= lookSeldom {
		w.rest(n)
		w.find(n, w.request)
		return
	}
	w.due = n.now.Add(lookAgain)
}
