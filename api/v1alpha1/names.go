package v1alpha1

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Labels of every AddressBlock, by which lists select.
const (
	// LabelPool is the name of the pool that a block or a request is of.
	LabelPool = "fairway.network/pool"
	// LabelNode is NodeLabel of the node that owns the block; "" when it is vacant.
	LabelNode = "fairway.network/node"
	// LabelAround is BlockAround of the block's prefix: what lies in a block is
	// selected by the places that the block covers or lies in.
	LabelAround = "fairway.network/around"
)

// AnnotationForceDelete on an AddressBlock lets others than its node and the
// controller delete it, whatever its value.
const AnnotationForceDelete = "fairway.network/force-delete"

// BlockName is the name of the AddressBlock of p, which must be valid and
// without host bits: the CIDR with hyphens for dots, colons and the slash. An
// IPv6 prefix has all its eight groups, without leading zeros. Two prefixes
// never have one name.
//
//	10.244.120.0/26 -> 10-244-120-0-26
//	fd00::40/122    -> fd00-0-0-0-0-0-0-40-122
func BlockName(p netip.Prefix) string {
	return strings.Join(groups(p.Addr()), "-") + "-" + strconv.Itoa(p.Bits())
}

// BlockAround is the BlockName of the place in which p begins: an IPv4 /24 or
// an IPv6 /120. Unlike the cell of a pool it is known without the pool.
func BlockAround(p netip.Prefix) string {
	const hostBits = 8
	a := p.Addr()
	return BlockName(netip.PrefixFrom(a, a.BitLen()-hostBits).Masked())
}

// groups are the parts of an address that dots or colons separate.
func groups(a netip.Addr) []string {
	if a.Is4() {
		return strings.Split(a.String(), ".")
	}
	bytes := a.As16()
	out := make([]string, 8)
	for i := range out {
		out[i] = strconv.FormatUint(uint64(bytes[2*i])<<8|uint64(bytes[2*i+1]), 16)
	}
	return out
}

// NodeLabel is the value of LabelNode for a node: its name, or, where that is
// too long for a label (63 characters), its beginning and a hash of all of it.
func NodeLabel(node string) string {
	if len(node) <= validation.LabelValueMaxLength {
		return node
	}
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(node)))[:16]
	return node[:validation.LabelValueMaxLength-1-len(hash)] + "-" + hash
}
