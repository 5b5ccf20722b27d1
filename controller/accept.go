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
	// changed: accepted once, refused or written anew since. What was accepted
	// then stays in force, and keeps others off its addresses.
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
	// pool is what is in force with the verdict: what the spec asks for, or, if
	// that is refused, what was accepted before. Without either it is what a
	// refused spec asks for; nil if nobody can say.
	pool *pools.Pool
	// serves says whether nodes lease out of pool, were it not for its state.
	serves   bool
	accepted bool
	// reason and message are those of the condition Accepted.
	reason, message string
}

// remains says which blocks keep each of some pools from being accepted, in a
// sentence, "" for none. The pools have no cell in common.
type remains func([]*pools.Pool) []string

// judge decides which pools are accepted, by their UID. It is a function of the
// pools alone, and of blocks that were left behind. What was accepted stays so.
// Of two specs that ask for more and can't stand side by side, that of the pool
// that was accepted before wins, then the older pool's, then the one whose name
// is first.
func judge(objects []*v1alpha1.AddressPool, left remains) map[string]verdict {
	verdicts := make(map[string]verdict, len(objects))
	var stand, ask []claim
	for _, o := range slices.SortedFunc(slices.Values(objects), precedes) {
		before, wanted, v := examine(o)
		verdicts[string(o.UID)] = v
		if before != nil {
			stand = append(stand, claim{o, before})
		}
		if wanted != nil {
			ask = append(ask, claim{o, wanted})
		}
	}
	against := objections(stand, ask)
	leftBehind(ask, against, left)
	for i, c := range ask {
		v := verdicts[string(c.object.UID)]
		if against[i] == "" {
			verdicts[string(c.object.UID)] = v.accept(c.pool)
			continue
		}
		if v.pool == nil {
			v.pool = c.pool
		}
		verdicts[string(c.object.UID)] = v.refuse(v1alpha1.ReasonOverlaps, against[i])
	}
	return verdicts
}

// claim is addresses that a pool has or asks for.
type claim struct {
	object *v1alpha1.AddressPool
	pool   *pools.Pool
}

// examine looks at a pool by itself. before is what was accepted of it, wanted
// what its spec asks for if others have a say in that; each is nil if there is
// no such thing. The verdict is final without wanted.
func examine(o *v1alpha1.AddressPool) (before, wanted *pools.Pool, v verdict) {
	v.standing = standingOf(o)
	before, errBefore := acceptedPool(o)
	v.pool, v.serves = before, before != nil
	wanted, err := poolOf(o)
	_, errSelectors := kube.SelectorsOf(o)
	switch {
	case err != nil || errBefore != nil:
		return before, nil, v.refuse(v1alpha1.ReasonInvalid, cmp.Or(err, errBefore).Error())
	case errSelectors != nil:
		v.serves = false
		return before, nil, v.refuse(v1alpha1.ReasonInvalid, errSelectors.Error()+"; until that is mended the pool serves no new pods: nobody can tell which")
	case before != nil && sameLeases(before, wanted):
		return before, nil, v.accept(before)
	case before == nil && o.DeletionTimestamp != nil:
		return nil, nil, v.refuse(v1alpha1.ReasonTerminating, "the pool was deleted before it was accepted")
	}
	return before, wanted, v
}

// sameLeases says whether nodes that lease of a may as well lease of b.
func sameLeases(a, b *pools.Pool) bool {
	is := a.BlockSize() == b.BlockSize() && a.Addresses().Equal(b.Addresses())
	for _, f := range b.Families() {
		is = is && a.Gateway(f) == b.Gateway(f)
	}
	return is
}

func (v verdict) accept(p *pools.Pool) verdict {
	v.pool, v.serves, v.accepted = p, true, true
	v.reason, v.message = v1alpha1.ReasonAccepted, "the pool is accepted as its spec says"
	return v
}

// refuse says what goes on all the same, and the way out.
func (v verdict) refuse(reason, why string) verdict {
	v.reason, v.message = reason, why
	if v.serves {
		v.message += "; the pool goes on with the addresses that were accepted before (status.addresses), and what was changed since can be taken back"
	}
	return v
}

func precedes(a, b *v1alpha1.AddressPool) int {
	return cmp.Or(
		cmp.Compare(standingOf(a), standingOf(b)),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

// objections is what speaks against each of those who ask, in their order: what
// stands, or one of them before it that is accepted.
func objections(stand, ask []claim) map[int]string {
	const most = 3
	all := slices.Concat(stand, ask)
	defined := make([]*pools.Pool, len(all))
	for i, c := range all {
		defined[i] = c.pool
	}
	against := map[int]string{}
	clashes := map[int]map[*v1alpha1.AddressPool]bool{}
	// They come by their second pool, so what is before it is decided.
	for _, c := range pools.Clashes(defined) {
		at, other := c.B-len(stand), all[c.A].object
		switch {
		case at < 0 || other == all[c.B].object || clashes[at][other]:
			continue // it was accepted, is its own, or is told already
		case c.A >= len(stand) && against[c.A-len(stand)] != "":
			continue // refused itself
		}
		if clashes[at] == nil {
			clashes[at] = map[*v1alpha1.AddressPool]bool{}
		}
		if clashes[at][other] = true; len(clashes[at]) <= most {
			against[at] = join(against[at], c.Describe(other.Name, all[c.B].object.Name))
		}
	}
	for at, others := range clashes {
		if len(others) > most {
			against[at] = join(against[at], fmt.Sprintf("and so for %d more pools", len(others)-most))
		}
	}
	return against
}

// leftBehind adds what blocks of pools that are no more say against those who
// ask.
func leftBehind(ask []claim, against map[int]string, left remains) {
	var at []int
	var asked []*pools.Pool
	for i, c := range ask {
		if against[i] == "" {
			at, asked = append(at, i), append(asked, c.pool)
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

// acceptedPool is what was accepted of a pool, nil if nothing was.
func acceptedPool(o *v1alpha1.AddressPool) (*pools.Pool, error) {
	a, ok := kube.Accepted(o)
	if !ok {
		return nil, nil
	}
	d, err := kube.AcceptedDefinition(o, a)
	if err != nil {
		return nil, err
	}
	return pools.New(d)
}

// poolOf is what the spec of a pool asks for.
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
