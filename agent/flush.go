package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
	"go4.org/netipx"
)

// batch is what of one family is reached once it has left, with the
// announcements that it is part of, and the number of its plan.
type batch struct {
	news     *netipx.IPSet
	prefixes []netip.Prefix
	number   int
	awaits   bool // no peer of the family was in force then
	mesh     bool // peers of the mesh alone were
}

// flusher has leases begin when the announcements of their addresses have left.
// It runs beside the loop, since a first peer may be long in coming, and once for
// each family, since the peers of one may be away while those of the other are not.
type flusher struct{ batches chan batch }

func newFlushers() map[pools.Family]flusher {
	return map[pools.Family]flusher{pools.IPv4: {make(chan batch, 1)}, pools.IPv6: {make(chan batch, 1)}}
}

// offer hands over the news of the newest pass, in place of older ones: the
// newest pass has all that is not reached yet. Only the loop calls it.
func (a *Agent) offer(p *plan) {
	news := p.delivered(p.news)
	for f, flusher := range a.flushes {
		b := batch{news: ofFamily(news, f), number: p.number, awaits: p.settings.awaits(f), mesh: p.settings.meshAlone(f)}
		for _, prefix := range a.announced {
			if b.news.OverlapsPrefix(prefix) {
				b.prefixes = append(b.prefixes, prefix)
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
	if len(b.news.Ranges()) > 0 && b.awaits {
		// The settings that bring a peer bring another pass as well.
		a.desk.noteTrouble(func(t *trouble) {
			t.flush[f] = fmt.Errorf("%w for %s yet: the node's labels or annotations, or its mesh, keep them out", speaker.ErrNoPeer, f)
		})
		return
	}
	if len(b.news.Ranges()) > 0 {
		err = a.Speaker.Flush(flushing, b.prefixes)
	}
	if ctx.Err() != nil {
		return
	}
	if b.mesh && errors.Is(err, speaker.ErrNoPeer) && a.isSettled(begun) {
		a.desk.noteTrouble(func(t *trouble) { t.flush[f] = nil })
		a.desk.grow(b.news, b.number)
		return
	}
	a.desk.noteTrouble(func(t *trouble) { t.flush[f] = err })
	if err != nil {
		// The next pass offers what is not reached yet, but not in a hurry.
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(begun.Add(retry))):
			a.call()
		}
		return
	}
	if err := a.told.add(b.news, b.number); err != nil {
		a.Log.Warn("after a restart these addresses will wait for a peer again", "prefixes", b.news.Prefixes(), "err", err)
	}
	a.desk.grow(b.news, b.number)
}
