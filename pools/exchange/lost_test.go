package exchange_test

import (
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// A pod that has lost the block of its IPv4 address keeps its IPv6 one.
func TestLostBlockOfOneFamily(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 2, "10.0.0.0/30", "fd00::/127")
	both := func() {
		g.node.Need(anyOf(pools.IPv4), 1, l.now)
		g.node.Need(anyOf(pools.IPv6), 1, l.now)
		l.pass(time.Second)
		g.node.Need(anyOf(pools.IPv4), 0, l.now)
		g.node.Need(anyOf(pools.IPv6), 0, l.now)
	}
	both()
	first, err := g.lease("first")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(l.store.blocks, func(b Stored) bool { return b.Prefix.Contains(first[0]) })
	l.store.blocks = slices.Delete(l.store.blocks, i, i+1)
	g.node.Audit()
	l.pass(2 * time.Minute)
	if have, _ := g.ledger.Grant(ownerNamed("first").Attachment); !slices.Equal(have.Addrs, first[1:]) {
		t.Errorf("of %v the pod still has %v", first, have.Addrs)
	}
	both()
	if second, err := g.lease("second"); err != nil || second[1] == first[1] {
		t.Errorf("the next one has %v, %v", second, err)
	}
	both()
	if third, err := g.lease("third"); err == nil {
		t.Errorf("of two IPv6 addresses the third one has %v", third)
	}
	g.release("first")
	l.pass(2 * time.Minute)
	both()
	if third, err := g.lease("third"); err != nil || third[1] != first[1] {
		t.Errorf("after the end of the first one the third one has %v, %v", third, err)
	}
}
