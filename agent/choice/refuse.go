package choice

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Why a pod gets no pool. The agent can only wait for another answer, or for
// another question. Nobody has to do anything about ErrPending as a rule.
var (
	// ErrUnreadable: an annotation is not what it should be.
	ErrUnreadable = errors.New("unreadable annotation")
	// ErrUnknown: no pool has the name. It may be about to come.
	ErrUnknown = errors.New("no such pool")
	// ErrNotServed: a selector of the pool does not match.
	ErrNotServed = errors.New("the pool does not serve the pod")
	// ErrPending: the controller has not looked at the pool yet.
	ErrPending = errors.New("the pool is not accepted yet")
	// ErrNotAccepted: the controller has refused the pool.
	ErrNotAccepted = errors.New("the pool is refused")
	// ErrDraining: the pool leases nothing new.
	ErrDraining = errors.New("the pool is draining")
	// ErrAmbiguous: the selectors of several pools choose the pod.
	ErrAmbiguous = errors.New("several pools choose the pod")
)

// refusal is one of the reasons above in a sentence.
type refusal struct {
	reason   error
	sentence string
}

func (r *refusal) Error() string { return r.sentence }
func (r *refusal) Unwrap() error { return r.reason }

// refuse makes the sentence "pod NS/NAME: ...".
func (q *question) refuse(reason error, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf("pod %s/%s: ", q.pod.Namespace, q.pod.Name) + fmt.Sprintf(format, args...)}
}

func (q *question) unreadable(format string, args ...any) error {
	return q.refuse(ErrUnreadable, format, args...)
}

func (q *question) nameless(by Rule) error {
	return q.unreadable("%s is empty: name a pool, or remove it", q.annotation(by))
}

// annotation is the one of a rule, in words.
func (q *question) annotation(by Rule) string {
	if by == ByNamespace {
		return "annotation " + PoolAnnotation + " of namespace " + q.ns.Name
	}
	return "annotation " + PoolAnnotation
}

// cause says how the rule led to the pool.
func (q *question) cause(name string, by Rule) string {
	const silence = "no annotation names a pool and no pool's selectors choose it, so it is to have "
	name = fmt.Sprintf("pool %q", shown(name, maxWord))
	switch by {
	case BySelectors:
		return "the selectors of " + name + " choose it"
	case ByNetwork:
		return silence + name + ", which the network configuration names"
	case ByDefault:
		return silence + name
	}
	return q.annotation(by) + " names " + name
}

func (q *question) unknown(name string, by Rule) error {
	return q.refuse(ErrUnknown, "%s, but there is no such pool: %s", q.cause(name, by), either(q.instead(), "create it"))
}

func (q *question) notReady(p *Pool, by Rule) error {
	cause := q.cause(p.Name, by)
	switch p.State {
	case Draining:
		if p.Why != "" {
			return q.refuse(ErrDraining, "%s, but the pool serves no new pods (%s): %s", cause, shown(p.Why, maxWhy), either(q.instead(), "make it anew when it is gone"))
		}
		return q.refuse(ErrDraining, "%s, but the pool is Draining and serves no new pods: %s", cause, either(q.instead(), "set the pool's state to Active"))
	case Refused:
		why := p.Why
		if why == "" {
			why = "kubectl describe addresspool " + p.Name + " says why"
		}
		return q.refuse(ErrNotAccepted, "%s, but the pool is refused (%s): %s", cause, shown(why, maxWhy), either(q.instead(), "mend the pool"))
	}
	return q.refuse(ErrPending, "%s, but the pool is not accepted yet: wait, or see whether the controller runs", cause)
}

// What a sentence says at most, so that it fits into an event: how many of a
// kind, and how many bytes of each.
const (
	maxTold = 4
	maxWord = 64
	maxTerm = 100
	maxWhy  = 300
)

func (q *question) notServed(p *Pool, by Rule) error {
	var gaps []string
	node := false
	for _, c := range q.conditions(p) {
		if !matches(c.selector, c.labels) {
			gaps = append(gaps, c.gaps()...)
			node = node || c.field == "nodeSelector"
		}
	}
	elsewhere := ""
	if node {
		elsewhere = "run it on a node that the pool serves"
	}
	return q.refuse(ErrNotServed, "%s, but the pool does not serve it: %s: %s",
		q.cause(p.Name, by), some(gaps, "; "), either(q.instead(), elsewhere, "change the labels or the pool's selectors"))
}

// gaps are the terms that do not match, and what stands there instead.
func (c condition) gaps() (out []string) {
	terms, some := c.selector.Requirements()
	if !some {
		return []string{c.field + " matches nothing"}
	}
	for _, term := range terms {
		if !term.Matches(c.labels) {
			out = append(out, fmt.Sprintf("%s wants %s, and %s has %s", c.field, shown(inWords(term), maxTerm), c.object, shown(c.label(term.Key()), maxTerm)))
		}
	}
	return out
}

// inWords is the term as labels.Parse reads it, but for the one that wants no
// label of a key.
func inWords(term labels.Requirement) string {
	text := term.String()
	if key, not := strings.CutPrefix(text, "!"); not {
		return "no label " + key
	}
	if text == term.Key() {
		return "a label " + text
	}
	return text
}

func (c condition) label(key string) string {
	if value, ok := c.labels[key]; ok {
		return key + "=" + value
	}
	return "no label " + key
}

func (q *question) ambiguous(ps []*Pool) error {
	var names []string
	for _, p := range ps {
		names = append(names, fmt.Sprintf("%q", p.Name))
	}
	return q.refuse(ErrAmbiguous, "the selectors of pools %s choose it, each with %s: name one of them in annotation %s of the pod or its namespace, or add a term to the selectors of the one that is meant",
		some(names, ", "), termCount(ps[0].terms()), PoolAnnotation)
}

func termCount(n int) string {
	switch n {
	case 0:
		return "no term"
	case 1:
		return "one term"
	}
	return fmt.Sprintf("%d terms", n)
}

// instead says which pools the pod could have, "" for none.
func (q *question) instead() string {
	var names []string
	for i := range q.pools {
		if p := &q.pools[i]; p.State == Active && q.serves(p) {
			names = append(names, fmt.Sprintf("%q", p.Name))
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return fmt.Sprintf("name one that serves it (%s) in annotation %s", some(names, ", "), PoolAnnotation)
}

// some joins the first few.
func some(words []string, separator string) string {
	if more := len(words) - maxTold; more > 0 {
		words = append(slices.Clone(words[:maxTold]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(words, separator)
}

// either joins ways out; empty ones are none.
func either(ways ...string) string {
	ways = slices.DeleteFunc(ways, func(w string) bool { return w == "" })
	last := len(ways) - 1
	if last == 0 {
		return ways[0]
	}
	return strings.Join(ways[:last], ", ") + ", or " + ways[last]
}

// shown bounds, in bytes, what a sentence repeats.
func shown(text string, most int) string {
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
