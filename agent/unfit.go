package agent

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

// unknownRest is the least that addresses rest whose pool is gone, and with it
// its reuseAfter: the default of the configuration.
const unknownRest = time.Minute

// unfit is a block that the store has for this node and that no pool has any
// more: its pool was taken away, or cut into smaller blocks, while no agent
// ran. Nothing is leased in it, and it is never announced again. It goes the
// way of a closed block: peers are told of the withdrawal, then its routes
// leave the kernel, then it is returned; that is final, and waits until its
// addresses have rested. It is remembered by the store, what rests in it by
// the journal, so that an agent which crashes on the way begins anew.
type unfit struct {
	exchange.Stored
	routes    []netip.Prefix // of the kernel, which peers may rely on until they are told
	rests     []pools.Record // when addresses of it were given back
	until     time.Time      // when the last of them has rested
	withdrawn bool           // the peers were told
}

func (u *unfit) rested(now time.Time) bool { return !now.Before(u.until) }

// keepUnfit takes in the blocks that no pool has, with what history, which is
// folded, and told know of them. The lock is held, or nobody else is there.
func (d *desk) keepUnfit(blocks []exchange.Stored, history []pools.Record, told *told, s *Settings) {
	rest := s.longestRest()
	for _, b := range blocks {
		u := &unfit{Stored: b, routes: within(told.relied(), setOf([]netip.Prefix{b.Prefix}))}
		for _, rec := range history {
			if rec.Op != pools.Rested || rec.Pool != b.Pool || !b.Prefix.Contains(rec.Addrs[0]) {
				continue
			}
			if now := d.now(); rec.At.After(now) {
				rec.At = now // the clock was set back: see pools.Ledger.Restore
			}
			u.rests = append(u.rests, rec)
			if end := rec.At.Add(rest); end.After(u.until) {
				u.until = end
			}
		}
		d.unfit[b.Prefix] = u
		d.log.Info("no pool has this block any more; it will be withdrawn and returned", "pool", b.Pool, "block", b.Prefix, "notBefore", u.until)
	}
}

// longestRest is how long addresses rest of which nobody knows how long they
// should: the longest reuseAfter that there is, and unknownRest at least.
func (s *Settings) longestRest() time.Duration {
	longest := unknownRest
	for _, p := range s.Pools {
		longest = max(longest, p.ReuseAfter())
	}
	return longest
}

// planUnfit adds what is to be done about the blocks that no pool has. The
// lock is held.
func (d *desk) planUnfit(p *plan) {
	now := d.now()
	for _, u := range d.unfits() {
		switch {
		case !u.withdrawn:
			p.closing = append(p.closing, u.Block)
			p.deliver = append(p.deliver, u.routes...)
		case u.rested(now):
			p.gone = append(p.gone, u.Block)
		}
	}
}

// unfits are the blocks that no pool has, by prefix. The lock is held.
func (d *desk) unfits() []*unfit {
	return slices.SortedFunc(maps.Values(d.unfit), func(a, b *unfit) int { return netipx.ComparePrefix(a.Prefix, b.Prefix) })
}

// readmit holds the blocks again whose pool has come back before their return
// was final. Peers were told, or are about to be, that they are gone: they are
// new to them. The lock is held.
func (d *desk) readmit() {
	for _, u := range d.unfits() {
		err := d.node.Adopt(u.Stored, nil, d.now())
		if errors.Is(err, pools.ErrUnknownPool) || errors.Is(err, pools.ErrOutside) {
			continue
		}
		if err == nil {
			delete(d.unfit, u.Prefix)
			_, err = d.ledger.Restore(u.rests, d.now())
		}
		if err != nil {
			d.log.Error("a block whose pool came back is not as it was", "pool", u.Pool, "block", u.Prefix, "err", err)
			continue
		}
		d.log.Info("the pool of a block came back", "pool", u.Pool, "block", u.Prefix)
	}
}

// discard hands a block over for its return, which is final. The lock is held.
func (d *desk) discard(u *unfit) {
	if err := d.node.Discard(u.Stored, d.now()); err != nil {
		return // it is tried again
	}
	delete(d.unfit, u.Prefix)
}

// history is what the journal has to know: the ledger's, and what rests in
// blocks that no pool has. The lock is held.
func (d *desk) history() []pools.Record {
	now := d.now()
	var out []pools.Record
	for _, u := range d.unfits() {
		if !u.rested(now) {
			out = append(out, u.rests...)
		}
	}
	if d.node.Shared {
		for _, u := range d.unfits() {
			b := u.Block
			out = append(out, pools.Record{Op: pools.Claimed, Pool: u.Pool, At: u.Created, Block: &b})
		}
		out = append(out, d.node.History()...)
	}
	if len(out) == 0 {
		return d.ledger.History(now) // which may be long
	}
	return append(out, d.ledger.History(now)...)
}
