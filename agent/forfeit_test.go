package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// Blocks of both families are not taken in one moment: the last event names all that a pod
// has lost lately, and another pod's is of that pod alone.
func TestAPodIsToldOfAllThatItHasLost(t *testing.T) {
	now, said := time.Unix(1, 0), make(chan string, 1)
	d := &desk{
		log: slog.New(slog.DiscardHandler), calling: t.Context(), now: func() time.Time { return now },
		node: exchange.NewNode(exchange.Config{Name: "n1"}, nil),
		warn: func(_ context.Context, o pools.Owner, _, message string) error {
			said <- o.Pod + ": " + message
			return nil
		},
	}
	for _, step := range []struct {
		after      time.Duration
		pod, block string
		want       string
	}{
		{0, "a", "10.0.0.0/30", `a: this pod has lost 10.0.0.0 of pool "p": node n1 counted as gone, and 10.0.0.0/30 was taken`},
		{0, "b", "10.0.0.4/30", "b: this pod has lost 10.0.0.4 of"},
		{time.Second, "a", "fd00::/126", "a: this pod has lost 10.0.0.0 and fd00:: of"},
		{0, "c", "fd00::4/126", "c: this pod has lost fd00::4 of"},
		{0, "c", "10.0.0.16/30", "c: this pod has lost 10.0.0.16 and fd00::4 of"}, // in whichever order
		{2 * lostTogether, "a", "10.0.0.8/30", "a: this pod has lost 10.0.0.8 of"},
	} {
		now = now.Add(step.after)
		d.tellForfeits() // of nothing new
		block := netip.MustParsePrefix(step.block)
		owner := pools.Owner{Namespace: "shop", Pod: step.pod}
		d.forfeit(pools.Block{Prefix: block, Pool: "p"}, pools.Record{Owner: owner, Addrs: []netip.Addr{block.Addr()}})
		d.tellForfeits()
		if got := <-said; !strings.HasPrefix(got, step.want) {
			t.Errorf("%q, want %q", got, step.want)
		}
	}
	d.calls.Wait()
}
