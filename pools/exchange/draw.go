package exchange

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// gather is for how long after a grant a request that is not filled yet stays
// open for another one, at least; where the first one took longer as long as that, up
// to mostGather.
const (
	gather     = 4 * spread
	mostGather = 10 * spread
)

// progress of a lent block.
type progress uint8

const (
	making progress = iota // the block
	made                   // and not to be used before it is confirmed
	void                   // nothing of it was made, or will be
)

// draw is one grant on its way to a block. It is not used before all of its
// request are made, and what they rest on was read: see want.confirm.
type draw struct {
	pace
	Grant
	want     *want
	progress progress
	block    Stored
	outdated int       // the node's, when this was begun
	unsure   bool      // an earlier try may have worked
	doubt    time.Time // until a call to make the block may come to count
}

// around is what of the grant tells the block that it was lent out of.
func (g Grant) around() Grant {
	g.Prefix = netip.Prefix{}
	return g
}

// drawNews begins to draw the grants that have come.
func (w *want) drawNews(n *Node) {
	for _, g := range w.request.Grants[len(w.draws):] {
		d := &draw{Grant: g, want: w, progress: void, outdated: n.outdated}
		switch {
		case !w.sound(g) || n.has(g.Prefix) || n.drawing(g.Prefix):
		case n.takesForOwn(w.Pool, g.Prefix):
			n.Audit()
		default:
			d.progress = making
			d.block = Stored{Block: pools.Block{Prefix: g.Prefix, Pool: w.Pool, Node: n.Name, Machine: n.Machine, Lender: g.Lender, Created: n.now}}
		}
		w.draws = append(w.draws, d)
		if d.progress == making {
			d.step(n)
		}
		w.gathering = n.now.Add(min(max(n.now.Sub(w.asked), gather), mostGather))
		w.dry = time.Time{}
	}
}

// takesForOwn says whether p, which another node lends, lies in a block held and is lent
// to nobody: that block is this node's no more. Its pods may not keep by a loan what
// others have had meanwhile.
func (n *Node) takesForOwn(pool string, p netip.Prefix) bool {
	h := n.held[n.ledger.BlockAround(pool, p)]
	return h != nil && !h.final && !n.lentOut(p.Addr())
}

// sound says whether a grant is one that can be drawn.
func (w *want) sound(g Grant) bool {
	return g.Prefix.IsValid() && g.Prefix == g.Prefix.Masked() && pools.FamilyOf(g.Prefix.Addr()) == w.Family && g.Lender != "" && g.Lender != w.request.Node &&
		g.Outer.Bits() < g.Prefix.Bits() && g.Outer.Contains(g.Prefix.Addr()) && (!w.Want.IsValid() || g.Prefix.Contains(w.Want))
}

// step makes the lent block.
func (d *draw) step(n *Node) {
	n.call(&d.pace, Op{Kind: Create, Block: d.block}, func(r Result) {
		switch {
		case r.Err == nil:
			d.settle(made, r.Block)
		case errors.Is(r.Err, ErrExists):
			d.look(n)
		case errors.Is(r.Err, ErrUnknown):
			d.unsure, d.want.err = true, r.Err
			d.doubt = n.now.Add(Settle)
			n.again(&d.pace)
		case d.unsure && n.settled(d.doubt):
			d.want.err = r.Err
			d.look(n)
		case d.unsure:
			d.want.err = r.Err
			n.again(&d.pace)
		default:
			d.want.err = fmt.Errorf("make lent block %s: %w", d.Prefix, r.Err)
			d.settle(void, Stored{})
		}
	})
}

// look sees whose the block is that an earlier call may have made. If there is none when
// all is settled, there will be none.
func (d *draw) look(n *Node) {
	settled := n.settled(d.doubt)
	n.call(&d.pace, Op{Kind: Look, Block: d.block}, func(r Result) {
		switch {
		case r.Err == nil && r.Block.Node == n.Name && r.Block.Lender == d.Lender:
			d.settle(made, r.Block)
		case r.Err == nil, d.unsure && settled && errors.Is(r.Err, ErrGone):
			n.auditAt(d.doubt)
			d.settle(void, Stored{}) // what was granted is another's, or nobody's
		default:
			n.again(&d.pace)
		}
	})
}

// settle has the want go on.
func (d *draw) settle(p progress, st Stored) {
	d.progress, d.block = p, st
	d.want.goOn()
}

// drawsOn says whether lent blocks are being made.
func (w *want) drawsOn() bool {
	return slices.ContainsFunc(w.draws, func(d *draw) bool { return d.progress == making })
}

// close ends the request once nothing is being made any more. It does so with the
// blocks already there, and at the version that it knows: if the request stood until
// this node removed it, then whoever looks for what was lent, having found it gone,
// finds all of it. What the blocks were lent out of is read at the same time.
func (w *want) close(n *Node) {
	w.phase = closing
	if w.drawsOn() {
		w.due = n.now.Add(lookForLoan) // or when the last one is made
		return
	}
	failed := false
	answered := func(err error) {
		failed = failed || err != nil && !errors.Is(err, ErrGone) && !errors.Is(err, ErrConflict)
		switch {
		case w.busy > 0:
		case failed:
			w.again(n)
		case w.ended == unknown: // there are more grants
			clear(w.stands)
			w.phase, w.behind = waiting, true
			w.due = n.now.Add(firstWait)
		default:
			w.confirm(n)
		}
	}
	if w.ended == unknown {
		n.call(&w.pace, Op{Kind: Retract, Request: w.known(n)}, func(r Result) {
			switch {
			case r.Err == nil:
				w.ended = byUs
			case errors.Is(r.Err, ErrGone):
				w.ended = bySomebody // or by a call of ours that nobody answered
			}
			answered(r.Err)
		})
	}
	for _, g := range w.unread() {
		n.call(&w.pace, Op{Kind: Look, Block: Stored{Block: pools.Block{Prefix: g.Outer, Pool: w.Pool}}}, func(r Result) {
			if r.Err == nil || errors.Is(r.Err, ErrGone) {
				w.stands[g] = r.Err == nil && r.Block.UID == g.OuterUID && r.Block.Node == g.Lender && r.Block.Tenure == g.OuterTenure
			}
			answered(r.Err)
		})
	}
	if w.busy == 0 { // there was nothing to ask
		w.confirm(n)
	}
}

// known is the request as it is to be removed: as it was read last, or, if nothing
// that may have come since is wanted, whatever it is.
func (w *want) known(n *Node) Request {
	if len(w.draws) == 0 || w.count == 0 || w.barred(n) != nil {
		return w.request.whatever()
	}
	return w.request
}

// unread are the blocks, which the ones made were lent out of, that were not read
// since.
func (w *want) unread() (out []Grant) {
	for _, d := range w.draws {
		g := d.around()
		if _, read := w.stands[g]; d.progress == made && !read && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

// confirm uses the lent blocks whose loans stand, and returns the others.
func (w *want) confirm(n *Node) {
	held := false
	for _, d := range w.draws {
		switch {
		case d.progress != made:
		case w.ended == byUs && w.stands[d.around()] && d.outdated == n.outdated && n.holdLent(d):
			held = true
		default:
			n.undraw(d)
		}
	}
	drawn := len(w.draws) > 0
	w.request, w.draws, w.asks, w.ended = Request{}, nil, 0, unknown
	clear(w.stands)
	w.block = Stored{}
	w.to(choosing)
	switch {
	case w.count == 0 && !w.ahead, w.satisfied(n):
		n.end(w)
	case held:
		w.failures = 0
	case drawn:
		w.again(n)
	}
}

// holdLent says whether a lent block is this node's to use.
func (n *Node) holdLent(d *draw) bool {
	if err := n.take(d.block, nil); err != nil {
		d.want.err = err
		n.Log.Error("a block that was lent can't be held", "block", d.Prefix, "err", err)
		return false
	}
	n.Log.Info("was lent a block", "pool", d.want.Pool, "block", d.Prefix, "lender", d.Lender)
	n.held[d.Prefix].stays = d.doubt
	if v := n.views[d.want.Pool]; v != nil {
		v.claimed(d.block)
	}
	return true
}

// undraw returns a lent block of which nothing was used.
func (n *Node) undraw(d *draw) {
	n.addStray(d.block, true)
	n.auditAt(d.doubt)
}
