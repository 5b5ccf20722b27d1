package agent

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/routes"
	"go4.org/netipx"
)

// plan is what one pass of the loop wants, worked out under the desk's lock.
type plan struct {
	settings *Settings
	deliver  []netip.Prefix // what is held of the pools that this node routes, or peers may still send
	announce []netip.Prefix // of that, what is not about to be returned
	ready    []waiting      // doors that open as soon as the kernel delivers
	doors    []waiting      // doors that wait for the announcement as well
	closing  []pools.Block  // closed blocks, and those that no pool has, to be withdrawn
	silent   []pools.Block  // closed blocks of which nobody was told
	gone     []pools.Block  // withdrawn blocks, to be returned
	known    []netip.Prefix // blocks that the network knows from before a restart
	// missing are those of deliver that the kernel does not hold; blind says
	// that it could not be read.
	missing []netip.Prefix
	blind   bool
}

// waiting is a closed door and the block behind it.
type waiting struct {
	block netip.Prefix
	door  *door
	quiet bool // nobody routes or announces the block
}

// delivered are those of ws whose blocks the kernel delivers, as far as it
// should.
func (p *plan) delivered(ws []waiting) []waiting {
	return slices.DeleteFunc(slices.Clone(ws), func(w waiting) bool {
		return !w.quiet && (p.blind || slices.ContainsFunc(p.missing, w.block.Overlaps))
	})
}

func (d *desk) plan(s *Settings) plan {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.advance()
	p := plan{settings: s}
	blocks := d.ledger.Blocks()
	parting := d.parting()
	for _, h := range blocks {
		d.sort(&p, h, parting[h.Prefix])
	}
	for _, b := range d.ledger.Asides() {
		if parting[b.Prefix] {
			d.part(&p, b)
		}
	}
	for _, name := range poolsOf(blocks) {
		if !d.quiet[name] {
			d.cover(&p, name, parting)
		}
	}
	d.forgetOld(blocks, parting)
	d.planUnfit(&p)
	return p
}

// parting are the prefixes that the network is to lead here no more. The lock
// is held.
func (d *desk) parting() map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for _, p := range d.node.Parting() {
		out[p] = true
	}
	return out
}

// sort says what is to be done about one block. The lock is held.
func (d *desk) sort(p *plan, h pools.Held, parting bool) {
	if h.Closed {
		// Should it be opened again, peers have to be told anew.
		delete(d.doors, h.Prefix)
		if parting {
			d.part(p, h.Block)
		}
		return
	}
	quiet := d.quiet[h.Pool]
	dr := d.door(h.Prefix)
	w := waiting{h.Prefix, dr, quiet}
	if dr.known {
		p.known = append(p.known, h.Prefix)
	}
	switch {
	case dr.isOpen():
	case dr.known || quiet || !p.settings.waits(pools.FamilyOf(h.Prefix.Addr())):
		p.ready = append(p.ready, w)
	default:
		p.doors = append(p.doors, w)
	}
}

// part says how far the parting with a block, or with a part of one, is. The
// lock is held.
func (d *desk) part(p *plan, b pools.Block) {
	switch {
	case d.withdrawn[b.Prefix]:
		p.gone = append(p.gone, b)
	case d.quiet[b.Pool]:
		p.silent = append(p.silent, b)
	default:
		p.closing = append(p.closing, b)
	}
}

// cover adds the prefixes of one pool. What peers have not been told to leave
// stays in the kernel. The lock is held.
func (d *desk) cover(p *plan, pool string, parting map[netip.Prefix]bool) {
	open := d.ledger.Effective(pool, func(h pools.Held) bool { return !h.Closed })
	p.announce = append(p.announce, open.Prefixes()...)
	if len(parting) == 0 {
		p.deliver = append(p.deliver, open.Prefixes()...)
		return
	}
	var held netipx.IPSetBuilder
	held.AddSet(d.ledger.Effective(pool, func(h pools.Held) bool {
		return !h.Closed || parting[h.Prefix] && !d.withdrawn[h.Prefix]
	}))
	for _, b := range d.ledger.Asides() {
		if core, err := d.ledger.Pool(pool); err == nil && b.Pool == pool && parting[b.Prefix] && !d.withdrawn[b.Prefix] {
			held.AddSet(pools.Effective(b.Node, []pools.Block{b}, core.Addresses()))
		}
	}
	set, err := held.IPSet()
	if err != nil {
		panic("agent: invalid prefix: " + err.Error())
	}
	p.deliver = append(p.deliver, set.Prefixes()...)
}

// forgetOld forgets the doors of blocks that are not held any more, and the
// withdrawals of what is not parted with. The lock is held.
func (d *desk) forgetOld(blocks []pools.Held, parting map[netip.Prefix]bool) {
	held := make(map[netip.Prefix]bool, len(blocks))
	for _, h := range blocks {
		held[h.Prefix] = true
	}
	maps.DeleteFunc(d.doors, func(p netip.Prefix, _ *door) bool { return !held[p] })
	maps.DeleteFunc(d.withdrawn, func(p netip.Prefix, _ bool) bool { return !parting[p] })
}

// poolsOf names the pools of some blocks, each once, in order.
func poolsOf(blocks []pools.Held) []string {
	seen := map[string]bool{}
	for _, h := range blocks {
		seen[h.Pool] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func blackholes(prefixes []netip.Prefix) []routes.Route {
	out := make([]routes.Route, len(prefixes))
	for i, p := range prefixes {
		out[i].Prefix = p
	}
	return out
}

// setOf the addresses of some prefixes.
func setOf(prefixes ...[]netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, ps := range prefixes {
		for _, p := range ps {
			b.AddPrefix(p)
		}
	}
	s, err := b.IPSet()
	if err != nil {
		// Only prefixes of a ledger come here, which are valid.
		panic("agent: invalid prefix: " + err.Error())
	}
	return s
}

// within is what of prefixes lies in set, as the fewest prefixes.
func within(prefixes []netip.Prefix, set *netipx.IPSet) []netip.Prefix {
	var b netipx.IPSetBuilder
	b.AddSet(setOf(prefixes))
	b.Intersect(set)
	s, err := b.IPSet()
	if err != nil {
		panic("agent: invalid prefix: " + err.Error())
	}
	return s.Prefixes()
}
