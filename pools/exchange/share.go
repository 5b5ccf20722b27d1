package exchange

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// One want after the other would take long where many pods wait at once. The first
// want of a lack is helped by others, each of which gets one free cell more. Where
// none is free the first one asks the other nodes for all that is lacking, and
// several of them answer.

// sideBySide bounds the wants of one lack.
const sideBySide = 8

func (n *Node) newWant(lack Lack, nth int) *want {
	w := &want{Lack: lack, nth: nth, since: n.now, missed: map[netip.Prefix]time.Time{}, stands: map[Grant]bool{}}
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
	if w := n.wants[lackOf(r)]; w != nil && r.Node == n.Name && RequestName(n.Name, w.Lack) == r.Name {
		return w
	}
	return nil
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
	if first := n.wants[w.Lack]; first != nil && first.phase == choosing && first.busy == 0 && first.failed.Before(first.since) {
		first.due = time.Time{} // it may have relied on this one
	}
}

// gain is how many addresses w is about to bring, as far as one can tell.
func (w *want) gain() int {
	switch w.phase {
	case creating, taking, reading:
		return sizeOf(w.block.Prefix)
	case asking, waiting:
		return w.asks
	case closing:
		gain := 0
		for _, d := range w.draws {
			if d.progress != void {
				gain += sizeOf(d.Prefix)
			}
		}
		return gain
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
			count -= other.gain()
		}
	}
	return count
}

// cellSize is how many addresses a cell of a pool has.
func (n *Node) cellSize(pool string) int {
	p, err := n.ledger.Pool(pool)
	if err != nil {
		return 1
	}
	return p.BlockSize()
}

// needsHelp says whether those who wait lack more than the others are about to
// bring without w.
func (n *Node) needsHelp(w *want) bool {
	return !n.quitting && n.short(w.Lack, w, true) > 0
}

// helped says whether the helpers of w are getting all that is lacking.
func (n *Node) helped(w *want) bool {
	count, some := w.count-n.ledger.Free(w.Pool, w.Family, n.now), false
	for _, h := range n.helpers {
		if h.Lack == w.Lack && h.gain() > 0 {
			count -= h.gain()
			some = true
		}
	}
	return some && w.count > 0 && count <= 0
}

// needsMany says whether w is about to get several blocks, for which it is worth
// to look where others have theirs, unless v shows that as it was a moment ago.
func (n *Node) needsMany(w *want, v *view) bool {
	return n.lacksMany(w) && !n.alone(w) && n.now.Sub(v.at) > listFresh
}

// alone says whether w's claim goes alone: where the node has no block yet there may
// be others at that place. Once they were, all go for what is left.
func (n *Node) alone(w *want) bool { return w.misses == 0 && !n.holds(w.Lack) }

// lacksMany says whether several blocks are lacking.
func (n *Node) lacksMany(w *want) bool {
	return w.nth == 0 && !w.Want.IsValid() && n.short(w.Lack, w, false) > n.cellSize(w.Pool)
}

// spread has wants helped that lack more than they are about to bring.
func (n *Node) spread() {
	for _, lack := range slices.SortedFunc(maps.Keys(n.wants), compareLacks) {
		w := n.wants[lack]
		if w.phase == choosing || w.ahead || w.count < 2 || lack.Want.IsValid() || n.quitting || w.phase == creating && n.alone(w) {
			continue
		}
		for nth := 1; nth < sideBySide && n.short(lack, nil, false) > n.bearable(lack); nth++ {
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

// help goes for what is free; the first want sees to the view, and asks.
func (w *want) help(n *Node, pool *pools.Pool, v *view) {
	if v == nil || !w.target(n, pool, v) {
		n.end(w)
	}
}
