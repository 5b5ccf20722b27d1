package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// batch is doors of one family and what must leave before they open.
type batch struct {
	doors    []waiting
	prefixes []netip.Prefix
}

// flusher opens doors when the announcements behind them have left. It runs
// beside the loop, since a first peer may be long in coming, and once for each
// family, since the peers of one may be away while those of the other are not.
type flusher struct{ batches chan batch }

func newFlushers() map[pools.Family]flusher {
	return map[pools.Family]flusher{pools.IPv4: {make(chan batch, 1)}, pools.IPv6: {make(chan batch, 1)}}
}

// offer hands over the doors of the newest pass, in place of older ones: the
// newest pass has all that are still closed. Only the loop calls it.
func (a *Agent) offer(ws []waiting) {
	for f, flusher := range a.flushes {
		b := batch{doors: slices.DeleteFunc(slices.Clone(ws), func(w waiting) bool { return pools.FamilyOf(w.block.Addr()) != f })}
		for _, p := range a.announced {
			if slices.ContainsFunc(b.doors, func(w waiting) bool { return w.block.Overlaps(p) }) {
				b.prefixes = append(b.prefixes, p)
			}
		}
		select {
		case <-flusher.batches:
		default:
		}
		flusher.batches <- b
	}
}

// flush serves the batches of one family until ctx ends.
func (a *Agent) flush(ctx context.Context, f pools.Family) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-a.flushes[f].batches:
			a.flushBatch(ctx, f, b)
		}
	}
}

func (a *Agent) flushBatch(ctx context.Context, f pools.Family, b batch) {
	begun := time.Now()
	flushing, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	var err error
	if len(b.doors) > 0 {
		err = a.Speaker.Flush(flushing, b.prefixes)
	}
	if ctx.Err() != nil {
		return
	}
	a.desk.noteTrouble(func(t *trouble) { t.flush[f] = err })
	if err != nil {
		// The next pass offers what is still closed, but not in a hurry.
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(begun.Add(retry))):
			a.call()
		}
		return
	}
	var blocks []netip.Prefix
	for _, w := range b.doors {
		blocks = append(blocks, w.block)
	}
	if err := a.told.add(blocks); err != nil {
		a.Log.Warn("after a restart these blocks will wait for a peer again", "blocks", blocks, "err", err)
	}
	a.desk.open(b.doors)
}
