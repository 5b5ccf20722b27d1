package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// A vacant cell that a block stands in waits, and is not looked into time and
// again, whatever other blocks there are.
func TestAVacantBlockWaitsForWhatStandsInIt(t *testing.T) {
	at := func(prefix, node, lender string) Stored {
		return Stored{Block: pools.Block{Prefix: netip.MustParsePrefix(prefix), Pool: "web", Node: node, Lender: lender, UID: prefix}, Version: "1"}
	}
	vacant, inner := at("10.0.0.0/28", "", ""), at("10.0.0.4/30", "n1", "gone")
	others := []Stored{at("10.0.0.16/28", "n1", ""), at("10.0.0.32/28", "n2", "")}
	nobodyGone := func(string, string) bool { return false }
	now := time.Unix(0, 0)
	r := NewReaper()
	r.See(append(others, inner, vacant), nil, nobodyGone)
	if ops, next := r.Advance(now); len(ops) != 0 || !next.IsZero() {
		t.Errorf("with a block inside it does %v, next at %v", ops, next)
	}
	r.See(append(others, vacant), nil, nobodyGone)
	if ops, _ := r.Advance(now); len(ops) != 1 || ops[0].Kind != Inside {
		t.Errorf("with none inside it does %v", ops)
	}
}
