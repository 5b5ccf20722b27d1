package choice_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairway-network/fairway/agent/choice"
)

// plain is a pool whose selectors are sets of labels, which a loop can match.
// A nil set is no selector.
type plain struct {
	name          string
	ns, pod, node set
	state         choice.State
}

func (p plain) pool() choice.Pool {
	of := func(s set) labels.Selector {
		if s == nil {
			return nil
		}
		return labels.SelectorFromSet(s)
	}
	return choice.Pool{Name: p.name, NamespaceSelector: of(p.ns), PodSelector: of(p.pod), NodeSelector: of(p.node), State: p.state}
}

func within(want, have set) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func (p plain) serves(a asked) bool {
	return within(p.ns, a.ns) && within(p.pod, a.pod) && within(p.node, a.node)
}

// expected is the contract of Choose, said as simply as can be. "" is a
// refusal.
func expected(a asked, all []plain) (string, choice.Rule) {
	name, by := choice.DefaultPool, choice.ByDefault
	if a.network != "" {
		name, by = a.network, choice.ByNetwork
	}
	if n, ok := a.podNotes[choice.PoolAnnotation]; ok {
		name, by = n, choice.ByPod
	} else if n, ok := a.nsNotes[choice.PoolAnnotation]; ok {
		name, by = n, choice.ByNamespace
	} else {
		most, chosen := -1, []plain{}
		for _, p := range all {
			terms := len(p.ns) + len(p.pod) + len(p.node)
			if p.ns == nil && p.pod == nil && p.node == nil || !p.serves(a) {
				continue
			}
			if p.state == choice.Draining || p.state == choice.Refused {
				terms = -1
			}
			if terms > most {
				most, chosen = terms, nil
			}
			if terms == most {
				chosen = append(chosen, p)
			}
		}
		if most >= 0 && len(chosen) > 1 {
			return "", 0
		}
		if len(chosen) > 0 {
			name, by = chosen[0].name, choice.BySelectors
		}
	}
	for _, p := range all {
		if p.name == name && p.state == choice.Active && p.serves(a) {
			return name, by
		}
	}
	return "", 0
}

// Whatever is asked of whichever pools: the decision is what the contract says,
// and no pod is given a pool that does not serve it.
func TestChoiceAgainstItsContract(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(30_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		all, a := randomPools(r), randomPod(r)
		var ps []choice.Pool
		for _, p := range all {
			ps = append(ps, p.pool())
		}
		wantPool, wantRule := expected(a, all)
		d, err := a.choose(ps)
		if d.Pool != wantPool || d.Rule != wantRule || (err == nil) != (wantPool != "") {
			t.Fatalf("seed %d: %+v, %v; want %q by rule %d\npod %+v\npools %+v", seed, d, err, wantPool, wantRule, a, all)
		}
		if err == nil {
			i := slices.IndexFunc(all, func(p plain) bool { return p.name == d.Pool })
			if !all[i].serves(a) || all[i].state != choice.Active {
				t.Fatalf("seed %d: pod %+v was given %+v", seed, a, all[i])
			}
		}
		outcomes[outcome(t, d, err)]++
	}
	for _, want := range outcomeNames() {
		if outcomes[want] < 50 {
			t.Errorf("%q came up %d times: the pods and pools are too tame", want, outcomes[want])
		}
	}
}

func reasons() []error {
	return []error{choice.ErrUnknown, choice.ErrNotServed, choice.ErrPending, choice.ErrNotAccepted, choice.ErrDraining, choice.ErrAmbiguous}
}

func outcomeNames() (out []string) {
	for _, err := range reasons() {
		out = append(out, err.Error())
	}
	for by := choice.ByPod; by <= choice.ByDefault; by++ {
		out = append(out, chosenBy(by))
	}
	return out
}

func chosenBy(r choice.Rule) string { return fmt.Sprint("chosen by rule ", r) }

func outcome(t *testing.T, d choice.Decision, err error) string {
	if err == nil {
		return chosenBy(d.Rule)
	}
	for _, reason := range reasons() {
		if errors.Is(err, reason) {
			return reason.Error()
		}
	}
	t.Fatalf("an error without a reason: %v", err)
	return ""
}

func randomPools(r *rand.Rand) (all []plain) {
	for _, name := range []string{choice.DefaultPool, "a", "b", "c", "d"} {
		if r.IntN(5) == 0 {
			continue
		}
		p := plain{name: name, state: choice.Active}
		if r.IntN(3) == 0 {
			p.state = choice.State(r.IntN(4))
		}
		for _, s := range []*set{&p.ns, &p.pod, &p.node} {
			if r.IntN(3) == 0 {
				*s = randomLabels(r, 3)
			}
		}
		all = append(all, p)
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func randomLabels(r *rand.Rand, tame int) set {
	s := set{}
	for _, key := range []string{"x", "y"} {
		if r.IntN(tame) == 0 {
			s[key] = string(rune('0' + r.IntN(2)))
		}
	}
	return s
}

func randomPod(r *rand.Rand) asked {
	a := asked{pod: randomLabels(r, 1), ns: randomLabels(r, 1), node: randomLabels(r, 1)}
	names := []string{choice.DefaultPool, "a", "b", "c", "d", "none"}
	switch r.IntN(5) {
	case 0:
		a.podNotes, a.nsNotes = pool(names[r.IntN(len(names))]), pool("a")
	case 1:
		a.nsNotes = pool(names[r.IntN(len(names))])
	case 2:
		a.network = names[r.IntN(len(names))]
	}
	return a
}

// FuzzAnnotations: whatever stands in the annotations, there is a sound
// decision or one sentence.
func FuzzAnnotations(f *testing.F) {
	for _, c := range refused(f) {
		f.Add(cmp.Or(c.asked.podNotes[choice.PoolAnnotation], "open"), c.asked.podNotes[choice.AddressesAnnotation])
	}
	for _, text := range []string{"10.1.0.5", "10.1.0.5,fd00::5", " fd00::5 ,10.1.0.5", "1.2.3.4/33", "::ffff:1.2.3.4/120", "::1%\x00", "0x10.1", ",", "10.1.0.5\n,"} {
		f.Add("open", text)
	}
	all := less(f)
	f.Fuzz(func(t *testing.T, name, chosen string) {
		notes := pool(name)
		maps.Copy(notes, addresses(chosen))
		d, err := asked{podNotes: notes}.choose(all)
		if err != nil {
			sentence := err.Error()
			if d.Pool != "" || len(sentence) > 1024 || strings.ContainsFunc(sentence, unprintable) {
				t.Fatalf("%+v with %d bytes of %q", d, len(sentence), sentence)
			}
			return
		}
		if d.Pool != name || len(d.Addresses) == 0 || len(d.Addresses) > 2 {
			t.Fatalf("%q, %q: %+v", name, chosen, d)
		}
		var words []string
		families := map[bool]bool{}
		for _, a := range d.Addresses {
			if !a.IsValid() || a.Zone() != "" || a.Is4In6() || families[a.Is4()] {
				t.Fatalf("%q: %v", chosen, d.Addresses)
			}
			families[a.Is4()] = true
			words = append(words, a.String())
		}
		again, err := asked{podNotes: addresses(strings.Join(words, ","))}.choose(all)
		if err != nil || !slices.Equal(again.Addresses, d.Addresses) {
			t.Fatalf("%v written anew: %v, %v", d.Addresses, again.Addresses, err)
		}
	})
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func BenchmarkChoose(b *testing.B) {
	var ps []choice.Pool
	for i := range 1000 {
		ps = append(ps, plain{name: fmt.Sprint("p", i), ns: set{"team": fmt.Sprint(i)}, state: choice.Active}.pool())
	}
	for name, a := range map[string]asked{
		"annotated": {podNotes: pool("p999"), ns: set{"team": "999"}},
		"selected":  {ns: set{"team": "999"}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := a.choose(ps); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
