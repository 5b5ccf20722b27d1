package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/kube"
)

// standing is how much a pool has to say against another one with the same
// addresses. The lower one wins.
type standing uint8

const (
	// inForce: accepted as it is now written.
	inForce standing = iota
	// changed: accepted once, refused or written anew since. Its nodes may hold
	// blocks, so it keeps others off its addresses whether it is accepted or not.
	changed
	// applying: never accepted.
	applying
)

func standingOf(o *v1alpha1.AddressPool) standing {
	switch {
	case o.Status.BlockSize == nil:
		return applying
	case kube.InForce(o):
		return inForce
	}
	return changed
}

// verdict is what is decided of a pool.
type verdict struct {
	standing standing // before the verdict
	pool     *pools.Pool
	accepted bool
	// reason and message are those of the condition Accepted.
	reason, message string
}

// remains says which blocks keep each of some pools from being accepted, in a
// sentence, "" for none. The pools have no cell in common.
type remains func([]*pools.Pool) []string

// judge decides which pools are accepted, by their UID. It is a function of the
// pools alone, and of blocks that were left behind: of two that can't stand side
// by side, the one that is in force wins, then the one that was accepted
// before, then the older one, then the one whose name is first.
func judge(objects []*v1alpha1.AddressPool, left remains) map[string]verdict {
	verdicts := make(map[string]verdict, len(objects))
	var sound []*v1alpha1.AddressPool
	var defined []*pools.Pool
	for _, o := range slices.SortedFunc(slices.Values(objects), precedes) {
		p, err := poolOf(o)
		if err != nil {
			verdicts[string(o.UID)] = verdict{standing: standingOf(o), reason: v1alpha1.ReasonInvalid, message: err.Error()}
			continue
		}
		sound, defined = append(sound, o), append(defined, p)
	}
	against := objections(sound, defined)
	leftBehind(sound, defined, against, left)
	for i, o := range sound {
		v := verdict{standing: standingOf(o), pool: defined[i], reason: v1alpha1.ReasonOverlaps, message: against[i]}
		if v.message == "" {
			v.accepted, v.reason, v.message = true, v1alpha1.ReasonAccepted, "nodes take blocks of the pool"
		}
		verdicts[string(o.UID)] = v
	}
	return verdicts
}

func precedes(a, b *v1alpha1.AddressPool) int {
	return cmp.Or(
		cmp.Compare(standingOf(a), standingOf(b)),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

// objections is what speaks against each pool, in their order: a pool before
// it, which is accepted or keeps its place.
func objections(sound []*v1alpha1.AddressPool, defined []*pools.Pool) map[int]string {
	const most = 3
	against := map[int]string{}
	count := map[int]int{}
	// They come by their second pool, so what stands before it is decided.
	for _, c := range pools.Clashes(defined) {
		if against[c.A] != "" && standingOf(sound[c.A]) == applying {
			continue
		}
		if count[c.B]++; count[c.B] <= most {
			against[c.B] = join(against[c.B], c.Describe(sound[c.A].Name, sound[c.B].Name))
		}
	}
	for i, n := range count {
		if n > most {
			against[i] = join(against[i], fmt.Sprintf("and so for %d more pools", n-most))
		}
		if standingOf(sound[i]) != applying {
			against[i] = join(against[i], "nodes take no new blocks of it and keep those they hold")
		}
	}
	return against
}

// leftBehind adds what blocks of pools that are no more say against the pools
// that nodes hold no blocks of yet, or not of all that is written now.
func leftBehind(sound []*v1alpha1.AddressPool, defined []*pools.Pool, against map[int]string, left remains) {
	var at []int
	var asked []*pools.Pool
	for i, o := range sound {
		if standingOf(o) != inForce && against[i] == "" {
			at, asked = append(at, i), append(asked, defined[i])
		}
	}
	if len(asked) == 0 {
		return
	}
	for i, said := range left(asked) {
		if said != "" {
			against[at[i]] = said
		}
	}
}

func poolOf(o *v1alpha1.AddressPool) (*pools.Pool, error) {
	d, err := kube.Definition(o)
	if err != nil {
		return nil, err
	}
	return pools.New(d)
}

func join(sentences ...string) string {
	return strings.Join(slices.DeleteFunc(sentences, func(s string) bool { return s == "" }), "; ")
}
