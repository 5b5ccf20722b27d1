package controller

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"unique"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// block is an AddressBlock as it is kept. There may be a hundred thousand, so
// names stand in it once for all, and numbers as numbers.
type block struct {
	pool, node, machine, lender unique.Handle[string]

	// version and uid are zero where only a list has shown the block.
	version uint64
	uid     uid
	tenure  int32
}

func (b block) vacant() bool { return b.node == unique.Make("") }

// stored is the block in the exchange's words.
func (b block) stored(p netip.Prefix) exchange.Stored {
	return exchange.Stored{
		Block: pools.Block{
			Prefix: p, Pool: b.pool.Value(), Node: b.node.Value(), Lender: b.lender.Value(),
			UID: b.uid.String(), Machine: b.machine.Value(), Tenure: int(b.tenure),
		},
		Version: strconv.FormatUint(b.version, 10),
	}
}

// uid is the metadata.uid of an object, a UUID (RFC 9562).
type uid [16]byte

// parseUID refuses what would not come back the same from String.
func parseUID(s string) (u uid, err error) {
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		_, err = hex.Decode(u[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:]))
	}
	if err != nil || u.String() != s {
		return uid{}, fmt.Errorf("metadata.uid %q is not a UUID", s)
	}
	return u, nil
}

func (u uid) String() string {
	s := hex.EncodeToString(u[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// blocks are all blocks there are, by their pool and prefix.
type blocks map[unique.Handle[string]]map[netip.Prefix]block

// placed is a block with its place.
type placed struct {
	netip.Prefix
	block
}

func (t blocks) put(p placed) (news bool) {
	of := t[p.pool]
	if of == nil {
		of = map[netip.Prefix]block{}
		t[p.pool] = of
	}
	old := of[p.Prefix]
	of[p.Prefix] = p.block
	return old != p.block
}

func (t blocks) drop(p placed) (news bool) {
	_, news = t[p.pool][p.Prefix]
	delete(t[p.pool], p.Prefix)
	if len(t[p.pool]) == 0 {
		delete(t, p.pool)
	}
	return news
}

// of returns the blocks of a pool, each before those inside it.
func (t blocks) of(pool string) []placed {
	of := t[unique.Make(pool)]
	out := make([]placed, 0, len(of))
	for p, b := range of {
		out = append(out, placed{p, b})
	}
	slices.SortFunc(out, func(a, b placed) int { return a.Compare(b.Prefix) })
	return out
}

// suspects returns the vacant blocks and those of nodes that seem to be gone,
// and those of others that lie in them: all that a Reaper has to see. unknown
// are those of which UID and version have to be read first.
func (t blocks) suspects(gone func(node, machine string) bool) (found []exchange.Stored, unknown []netip.Prefix) {
	suspect, longest := t.left(gone)
	if len(suspect) == 0 {
		return nil, nil
	}
	for _, of := range t {
		for p, b := range of {
			switch _, is := suspect[p]; {
			case is && b.version == 0:
				unknown = append(unknown, p)
			case is || within(p, suspect, longest):
				found = append(found, b.stored(p))
			}
		}
	}
	return found, unknown
}

// left are the blocks that nobody has, and the most bits that one of them has.
func (t blocks) left(gone func(node, machine string) bool) (suspect map[netip.Prefix]struct{}, longest int) {
	type holder struct{ node, machine unique.Handle[string] }
	known := map[holder]bool{}
	suspect = map[netip.Prefix]struct{}{}
	for _, of := range t {
		for p, b := range of {
			h := holder{b.node, b.machine}
			is, asked := known[h]
			if !asked {
				is = b.vacant() || gone(b.node.Value(), b.machine.Value())
				known[h] = is
			}
			if is {
				suspect[p] = struct{}{}
				longest = max(longest, p.Bits())
			}
		}
	}
	return suspect, longest
}

// know fills in what a list has not shown of a block.
func (t blocks) know(s exchange.Stored) error {
	of := t[unique.Make(s.Pool)]
	b, is := of[s.Prefix]
	if !is || b.version != 0 {
		return nil // a change has shown it
	}
	id, err := parseUID(s.UID)
	if err != nil {
		return err
	}
	version, err := strconv.ParseUint(s.Version, 10, 64)
	if err != nil {
		return fmt.Errorf("block %v: metadata.resourceVersion: %w", s.Prefix, err)
	}
	of[s.Prefix] = block{
		pool: b.pool, node: unique.Make(s.Node), machine: unique.Make(s.Machine), lender: unique.Make(s.Lender),
		version: version, uid: id, tenure: int32(s.Tenure),
	}
	return nil
}

// largestBlockBits are the host bits of the largest block there can be.
const largestBlockBits = 16

// within says whether p lies in one of some prefixes, of which the longest has
// that many bits.
func within(p netip.Prefix, in map[netip.Prefix]struct{}, longest int) bool {
	for n := min(p.Bits()-1, longest); n >= max(0, p.Addr().BitLen()-largestBlockBits); n-- {
		around, err := p.Addr().Prefix(n)
		if err != nil {
			return false
		}
		if _, is := in[around]; is {
			return true
		}
	}
	return false
}
