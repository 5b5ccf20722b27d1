package exchange

import (
	"time"

	"github.com/fairway-network/fairway/pools"
)

// A rush is that many pods come to many nodes at once. Each of these claims cells, and
// nobody knows what the others need: where there are hardly enough, who is quick would
// take a last one for a few pods, and who is not would have to borrow of many others.
// So a node that claimed cells just now claims none ahead of need, and if it lacks little
// yet leaves those that lack more some time to claim what is left.

const (
	// fewestRushing and mostRushing are how many nodes at least, and at most, are taken to be
	// in a rush together; between them it is those that hold blocks of the pool.
	fewestRushing = 16
	mostRushing   = 64
	// rushTime after its first claim a node is in a rush no more.
	rushTime = 250 * time.Millisecond
	// backClaims is how many claims a node holds back for that lacks next to nothing, and
	// mostBack how long at most.
	backClaims = 3
	mostBack   = 100 * time.Millisecond
)

// rush is what this node claims of a pool in one.
type rush struct {
	cells  int
	took   time.Duration // the last claim
	until  time.Time
	scarce bool // too few cells are free for as many nodes to claim one more than this one did
}

// rushed notes that w has claimed a cell for pods that wait.
func (n *Node) rushed(w *want) {
	pool, err := n.ledger.Pool(w.Pool)
	if err != nil || !n.Shared || w.ahead || pool.BlockSize() <= 2 {
		return
	}
	lack := Lack{Pool: w.Pool, Family: w.Family}
	r := n.rushes[lack]
	if !n.now.Before(r.until) {
		r = rush{until: n.now.Add(rushTime)}
	}
	r.cells++
	r.took = n.now.Sub(w.began)
	if v := n.views[w.Pool]; v != nil { // else it is as it was
		r.scarce = v.few(w.Family, r.cells+1)
	}
	n.rushes[lack] = r
}

// few says whether v has too few free cells for all who may be in a rush to claim so many
// each.
func (v *view) few(f pools.Family, each int) bool {
	switch free := v.free[f]; {
	case free < fewestRushing*each:
		return true
	case free >= mostRushing*each:
		return false
	default:
		return free < v.holders(f)*each
	}
}

// inRush says whether this node claimed cells just now of which there are hardly enough.
func (n *Node) inRush(lack Lack) bool {
	r := n.rushes[lack]
	return r.scarce && n.now.Before(r.until)
}

// nextCalm is when the next such rush is over.
func (n *Node) nextCalm() (next time.Time) {
	for lack, r := range n.rushes {
		if n.inRush(lack) {
			next = earlier(next, r.until)
		}
	}
	return next
}

// holdsBack leaves what is free to others for now, if w lacks little in a rush: once, and
// the longer the less it lacks. Then it looks what they have left. It says whether it does.
func (w *want) holdsBack(n *Node) bool {
	size := n.cellSize(w.Pool)
	lacking := max(n.short(w.Lack, w, false), 0)
	if w.ahead || w.Want.IsValid() || w.request.UID != "" || lacking > size/2 {
		return false
	}
	if w.back.IsZero() && n.inRush(w.Lack) {
		most := min(backClaims*n.rushes[w.Lack].took, mostBack)
		w.back = n.now.Add(most * time.Duration(size-lacking) / time.Duration(size))
		w.listed, w.anew, w.since = false, true, n.now
	}
	if !n.now.Before(w.back) {
		return false
	}
	w.due = w.back
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
// whom no more than mostRushing are a rush, lack as much as w's node does.
func (w *want) scarce(n *Node, v *view) bool {
	pool, err := n.ledger.Pool(w.Pool)
	if err != nil || pool.BlockSize() <= 2 || !n.lacksMany(w) {
		return false
	}
	lacking := (n.short(w.Lack, w, false) + pool.BlockSize() - 1) / pool.BlockSize()
	return v.free[w.Family] < min(v.holders(w.Family), mostRushing)*lacking
}

// cells is about how many a pool has of a family: the last ones may be less than full.
func cells(pool *pools.Pool, f pools.Family) int {
	size := uint64(pool.BlockSize())
	n := pool.Size(f) / size
	if pool.Size(f)%size > 0 {
		n++
	}
	return int(min(n, 1<<30))
}
