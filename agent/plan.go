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
	deliver  []netip.Prefix            // what is held of the pools that this node routes, or peers may still send
	announce []netip.Prefix            // of that, what is not about to be returned
	portions []portion                 // of deliver, by pools, where the pool counts for how it is told
	blocks   map[string][]netip.Prefix // held, of each pool
	number   int                       // of the plan
	shrunk   int                       // of the last plan that wanted less announced than the one before
	ready    *netipx.IPSet             // what is not reached yet, and is as soon as the kernel delivers
	news     *netipx.IPSet             // what waits for the announcement as well
	closing  []pools.Block             // closed blocks, and those that no pool has, to be withdrawn
	silent   []pools.Block             // closed blocks of which nobody was told
	gone     []pools.Block             // withdrawn blocks, to be returned
	known    []netip.Prefix            // what the network knows from before a restart
	// missing are those of deliver that the kernel does not hold; blind says
	// that it could not be read.
	missing []netip.Prefix
	blind   bool
}

// delivered is what of s the kernel delivers, as far as it should.
func (p *plan) delivered(s *netipx.IPSet) *netipx.IPSet {
	if p.blind {
		return &netipx.IPSet{}
	}
	return without(common(s, setOf(p.announce)), setOf(p.missing))
}

func (d *desk) plan(s *Settings) plan {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.advance()
	if d.outdated() {
		// What peers were told to leave lay in what is lost, perhaps, and goes with it.
		d.lost = d.node.Forfeits()
		clear(d.withdrawn)
	}
	p := plan{settings: s, blocks: make(map[string][]netip.Prefix)}
	blocks := d.ledger.Blocks()
	parting := d.parting()
	for _, h := range blocks {
		p.blocks[h.Pool] = append(p.blocks[h.Pool], h.Prefix)
		if h.Closed && parting[h.Prefix] {
			d.part(&p, h.Block)
		}
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
	maps.DeleteFunc(d.withdrawn, func(p netip.Prefix, _ bool) bool { return !parting[p] })
	d.planReach(&p)
	d.planUnfit(&p)
	return p
}

// outdated says whether a block was lost since the last plan. The lock is held.
func (d *desk) outdated() bool { return d.node.Forfeits() != d.lost }

// parting are the prefixes that the network is to lead here no more. The lock
// is held.
func (d *desk) parting() map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for _, p := range d.node.Parting() {
		out[p] = true
	}
	return out
}

// planReach says what of the announcements is new. The lock is held.
func (d *desk) planReach(p *plan) {
	d.reach.narrow(p.announce)
	p.number, p.shrunk, p.known = d.reach.number, d.reach.shrunk, d.reach.known.Prefixes()
	news := without(setOf(p.announce), d.reach.set)
	var ready netipx.IPSetBuilder
	ready.AddSet(common(news, d.reach.known))
	for _, f := range []pools.Family{pools.IPv4, pools.IPv6} {
		if !p.settings.waits(f) {
			ready.AddSet(ofFamily(news, f))
			continue
		}
		for _, one := range p.portions {
			if !p.settings.heard(one.pool, f) { // nobody is ever told of it
				ready.AddSet(ofFamily(common(news, one.set), f))
			}
		}
	}
	p.ready = built(&ready)
	p.news = without(news, p.ready)
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
		d.divide(p, pool, open)
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
	p.deliver = append(p.deliver, built(&held).Prefixes()...)
	d.divide(p, pool, built(&held))
}

// divide notes what of the plan is a pool's. The lock is held.
func (d *desk) divide(p *plan, pool string, set *netipx.IPSet) {
	if !p.settings.ruled() {
		return
	}
	p.portions = append(p.portions, portion{pool: pool, blocks: p.blocks[pool], set: set})
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
