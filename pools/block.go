package pools

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// Block is one CIDR of a pool, held by one node. A block inside another one
// was lent out of it.
type Block struct {
	Prefix netip.Prefix
	Pool   string
	Node   string
	// Lender is the node that lent the block; "" for a whole cell.
	Lender  string
	Created time.Time
	// UID tells this very block from others that had its prefix before or
	// will have it; "" in a store that has only one node.
	UID string
	// Machine tells the node from others of the same name; "" if nobody does.
	Machine string
	// Tenure counts how often the block was taken over since it was made: what
	// the nodes before have promised of it is void.
	Tenure int
}

// Effective returns the addresses of addrs whose smallest block in blocks is
// one of node. Blocks of several pools may be mixed; two blocks of the same
// prefix must not occur. It is the ownership rule itself: whatever leases,
// announces or delivers does so within its result.
func Effective(node string, blocks []Block, addrs *netipx.IPSet) *netipx.IPSet {
	inward := make([]*Block, len(blocks))
	for i := range blocks {
		inward[i] = &blocks[i]
	}
	slices.SortFunc(inward, func(a, b *Block) int {
		// Node's own first among equally long ones, which are disjoint: the
		// builder starts anew at each addition that follows a removal.
		return cmp.Or(cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), -compareBool(a.Node == node, b.Node == node))
	})
	var held netipx.IPSetBuilder
	for _, b := range inward {
		if b.Node == node {
			held.AddPrefix(b.Prefix)
		} else {
			held.RemovePrefix(b.Prefix)
		}
	}
	held.Intersect(addrs)
	return mustSet(&held)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// mustSet finishes a builder that was only given valid prefixes and ranges,
// for which netipx documents no error.
func mustSet(b *netipx.IPSetBuilder) *netipx.IPSet {
	set, err := b.IPSet()
	if err != nil {
		panic("pools: invalid prefix in an address set: " + err.Error())
	}
	return set
}
