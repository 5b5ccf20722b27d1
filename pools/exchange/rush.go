package exchange

import "time"

// A rush is that many pods come to many nodes at once. Each of these claims cells, and
// nobody knows what the others need: where there are hardly enough, who is quick would
// take a last one for a few pods, and who is not would have to borrow of many others.
// So a node that got cells just now claims none ahead, and if it lacks little yet leaves
// those that lack more some time to claim what is left.

const (
	// rushing is how many nodes may be in a rush together.
	rushing = 64
	// rushTime is how long a list is good enough to choose several cells from.
	rushTime = 100 * time.Millisecond
	// calmAfter a node's last claim the rush is over.
	calmAfter = 250 * time.Millisecond
	// yieldClaims is how many claims of others a node waits for that lacks next to
	// nothing, and mostYield how long at most.
	yieldClaims = 3
	mostYield   = 100 * time.Millisecond
)

// rush is what this node claims of a pool, one cell right after the other.
type rush struct {
	cells int
	few   bool          // are free, should others need as many and one more
	took  time.Duration // the last claim
	until time.Time
}

// rushed notes that w has claimed a cell.
func (n *Node) rushed(w *want) {
	pool, err := n.ledger.Pool(w.Pool)
	v := n.views[w.Pool]
	if err != nil || v == nil {
		return
	}
	lack := Lack{Pool: w.Pool, Family: w.Family}
	r := rush{cells: 1, took: n.now.Sub(w.began), until: n.now.Add(calmAfter)}
	if before := n.rushes[lack]; n.now.Before(before.until) {
		r.cells += before.cells
	}
	r.few = pool.BlockSize() > 2 && v.free(pool, w.Family) < rushing*(r.cells+1)
	n.rushes[lack] = r
}

// inRush says whether this node got cells just now of which there are few.
func (n *Node) inRush(lack Lack) bool {
	r := n.rushes[lack]
	return r.few && n.now.Before(r.until)
}

// nextCalm is when the next rush is over.
func (n *Node) nextCalm() (next time.Time) {
	for _, r := range n.rushes {
		if n.now.Before(r.until) {
			next = earlier(next, r.until)
		}
	}
	return next
}

// yields says whether w leaves what is free to others for now, since it lacks little in a
// rush: the longer the less that is. Then it looks what they have left.
func (w *want) yields(n *Node) bool {
	size := n.cellSize(w.Pool)
	lacking := max(n.short(w.Lack, w, false), 0)
	if w.ahead || w.Want.IsValid() || w.request.UID != "" || lacking > size/2 {
		return false
	}
	if w.yield.IsZero() && n.inRush(w.Lack) {
		wait := min(yieldClaims*n.rushes[w.Lack].took, mostYield) * time.Duration(size-lacking) / time.Duration(size)
		w.yield = n.now.Add(wait)
		w.listed, w.anew, w.since = false, true, w.yield
	}
	if !n.now.Before(w.yield) {
		return false
	}
	w.due = w.yield
	return true
}

// bearable is how many addresses may be lacking still after a round of claims. Where
// cells are scarce, and each node would take a last one for a few addresses, one of
// them would get none: their number is rounded to the nearest, and what is lacking then
// is claimed or borrowed when it is known what the others have.
func (n *Node) bearable(lack Lack) int {
	if v := n.views[lack.Pool]; v != nil && v.scarce[lack.Family] || n.inRush(lack) {
		return (n.cellSize(lack.Pool) - 1) / 2
	}
	return 0
}

// scarce says whether v has fewer free cells than it takes if those who hold some, of
// whom rushing are a rush, lack as much as w's node does.
func (w *want) scarce(n *Node, v *view) bool {
	pool, err := n.ledger.Pool(w.Pool)
	if err != nil || pool.BlockSize() <= 2 || !n.lacksMany(w) {
		return false
	}
	lacking := cellsFor(n.short(w.Lack, w, false), pool.BlockSize())
	return v.free(pool, w.Family) < min(v.holders(w.Family), rushing)*lacking
}

// cellsFor so many addresses.
func cellsFor(addresses, blockSize int) int { return (addresses + blockSize - 1) / blockSize }
