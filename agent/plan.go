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
	d.closeUnused(s)
	p := plan{settings: s}
	blocks := d.ledger.Blocks()
	for _, h := range blocks {
		p.sort(h, d.doors[h.Prefix], d.quiet[h.Pool])
	}
	for _, name := range poolsOf(blocks) {
		if !d.quiet[name] {
			d.cover(&p, name)
		}
	}
	d.planUnfit(&p)
	return p
}

// sort says what is to be done about one block.
func (p *plan) sort(h pools.Held, dr *door, quiet bool) {
	w := waiting{h.Prefix, dr, quiet}
	if dr != nil && dr.known {
		p.known = append(p.known, h.Prefix)
	}
	switch {
	case dr == nil:
		p.gone = append(p.gone, h.Block)
	case h.Closed && quiet:
		p.silent = append(p.silent, h.Block)
	case h.Closed:
		p.closing = append(p.closing, h.Block)
	case dr.isOpen():
	case dr.known || quiet || !p.settings.waits(pools.FamilyOf(h.Prefix.Addr())):
		p.ready = append(p.ready, w)
	default:
		p.doors = append(p.doors, w)
	}
}

// cover adds the prefixes of one pool. The desk's lock is held.
func (d *desk) cover(p *plan, pool string) {
	held := d.ledger.Effective(pool, func(h pools.Held) bool { return d.doors[h.Prefix] != nil }).Prefixes()
	p.deliver = append(p.deliver, held...)
	if len(p.closing) > 0 {
		held = d.ledger.Effective(pool, func(h pools.Held) bool { return d.doors[h.Prefix] != nil && !h.Closed }).Prefixes()
	}
	p.announce = append(p.announce, held...)
}

// closeUnused closes the blocks that are to be returned. One with a closed
// door was claimed for somebody who is about to lease in it. The lock is held.
func (d *desk) closeUnused(s *Settings) {
	now := d.now()
	unused := slices.DeleteFunc(d.ledger.Idle(now, s.idleAfter), func(b pools.Block) bool {
		return !d.doors[b.Prefix].isOpen()
	})
	for _, b := range append(unused, d.ledger.Orphans(now)...) {
		if err := d.ledger.Close(b.Prefix, now); err != nil {
			d.log.Error("an empty block can't be closed", "err", err)
		}
	}
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
