package choice_test

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairway-network/fairway/agent/choice"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the expected sentences anew")
	flag.Parse()
	os.Exit(m.Run())
}

type set = map[string]string

func selector(t testing.TB, text string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pools are those of all cases.
func pools(t testing.TB) []choice.Pool {
	sel := func(text string) labels.Selector { return selector(t, text) }
	active := func(p choice.Pool) choice.Pool {
		p.State = choice.Active
		return p
	}
	return []choice.Pool{
		active(choice.Pool{Name: "default"}),
		active(choice.Pool{Name: "open"}),
		active(choice.Pool{Name: "payments", NamespaceSelector: sel("team=payments")}),
		active(choice.Pool{Name: "ledger", NamespaceSelector: sel("team=payments"), PodSelector: sel("app=ledger")}),
		active(choice.Pool{Name: "rack1", PodSelector: sel("app in (cache,queue),!canary"), NodeSelector: sel("rack=r1")}),
		active(choice.Pool{Name: "rack2", PodSelector: sel("app in (cache,queue),!canary"), NodeSelector: sel("rack=r2")}),
		active(choice.Pool{Name: "blue", PodSelector: sel("colour=blue")}),
		active(choice.Pool{Name: "sky", PodSelector: sel("colour")}),
		active(choice.Pool{Name: "nobody", PodSelector: labels.Nothing()}),
		{Name: "new", PodSelector: sel("app=new")},
		active(choice.Pool{Name: "old-new", PodSelector: sel("")}),
		{Name: "clash", State: choice.Refused, Why: `pools "web" and "clash" both have 10.1.0.0/24: an address belongs to one pool, take it out of one of them`},
		{Name: "broken", State: choice.Refused, NodeSelector: sel("rack=r9,zone=z9")},
		{Name: "old", State: choice.Draining, NamespaceSelector: sel("team=old,tier=web")},
		{Name: "older", State: choice.Draining, NamespaceSelector: sel("team=old")},
	}
}

// less are the pools without those named.
func less(t testing.TB, names ...string) []choice.Pool {
	return slices.DeleteFunc(pools(t), func(p choice.Pool) bool { return slices.Contains(names, p.Name) })
}

// asked is a pod with the labels and annotations of itself, its namespace and
// its node.
type asked struct {
	pod, podNotes, ns, nsNotes, node set
	network                          string
}

func (a asked) choose(ps []choice.Pool) (choice.Decision, error) {
	return choice.Choose(
		choice.Pod{Namespace: "shop", Name: "cart-7", Labels: a.pod, Annotations: a.podNotes, NetworkPool: a.network},
		choice.Namespace{Name: "shop", Labels: a.ns, Annotations: a.nsNotes},
		choice.Node{Name: "n1", Labels: a.node}, ps)
}

func pool(name string) set { return set{choice.PoolAnnotation: name} }

func addresses(text string) set { return set{choice.AddressesAnnotation: text} }

func TestChosen(t *testing.T) {
	all, quiet := pools(t), less(t, "old-new")
	for _, c := range []struct {
		name  string
		asked asked
		pools []choice.Pool
		pool  string
		rule  choice.Rule
	}{
		{"pod before namespace", asked{podNotes: pool("open"), nsNotes: pool("default")}, all, "open", choice.ByPod},
		{"pod before selectors", asked{podNotes: pool("open"), ns: set{"team": "payments"}}, all, "open", choice.ByPod},
		{"pod names a selective pool that serves it", asked{podNotes: pool("payments"), ns: set{"team": "payments"}, pod: set{"app": "ledger"}}, all, "payments", choice.ByPod},
		{"namespace before selectors", asked{nsNotes: pool("open"), ns: set{"team": "payments"}}, all, "open", choice.ByNamespace},
		{"selectors before network and default", asked{ns: set{"team": "payments"}, network: "open"}, all, "payments", choice.BySelectors},
		{"most terms", asked{ns: set{"team": "payments"}, pod: set{"app": "ledger"}}, all, "ledger", choice.BySelectors},
		{"by node", asked{pod: set{"app": "cache"}, node: set{"rack": "r2"}}, all, "rack2", choice.BySelectors},
		{"an empty selector matches everything", asked{}, all, "old-new", choice.BySelectors},
		{"refused pools stand back", asked{node: set{"rack": "r9", "zone": "z9"}}, all, "old-new", choice.BySelectors},
		{"draining pools stand back", asked{ns: set{"team": "old", "tier": "web"}}, all, "old-new", choice.BySelectors},
		{"network before default", asked{network: "open"}, quiet, "open", choice.ByNetwork},
		{"default", asked{}, quiet, "default", choice.ByDefault},
		{"a selector that matches nothing chooses nothing", asked{pod: set{"app": "x"}}, quiet, "default", choice.ByDefault},
	} {
		d, err := c.asked.choose(c.pools)
		if err != nil || d.Pool != c.pool || d.Rule != c.rule || d.Addresses != nil {
			t.Errorf("%s: %+v, %v; want pool %s by rule %d", c.name, d, err, c.pool, c.rule)
		}
		slices.Reverse(c.pools)
		if again, err := c.asked.choose(c.pools); err != nil || again.Pool != d.Pool {
			t.Errorf("%s: with the pools the other way round %+v, %v", c.name, again, err)
		}
	}
}

func TestChosenAddresses(t *testing.T) {
	for text, want := range map[string][]netip.Addr{
		"10.1.0.5":             {netip.MustParseAddr("10.1.0.5")},
		"fd00::5":              {netip.MustParseAddr("fd00::5")},
		"10.1.0.5,fd00::5":     {netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")},
		" fd00::5 , 10.1.0.5 ": {netip.MustParseAddr("fd00::5"), netip.MustParseAddr("10.1.0.5")},
	} {
		d, err := asked{podNotes: addresses(text)}.choose(pools(t))
		if err != nil || !slices.Equal(d.Addresses, want) {
			t.Errorf("%q: %v, %v; want %v", text, d.Addresses, err, want)
		}
	}
	d, err := asked{nsNotes: addresses("10.1.0.5")}.choose(pools(t))
	if err != nil || d.Addresses != nil {
		t.Errorf("a namespace's addresses: %v, %v; want none, they are a pod's", d.Addresses, err)
	}
}

// refused are pods that get nothing.
func refused(t testing.TB) []struct {
	name  string
	asked asked
	pools []choice.Pool
	want  error
} {
	all, quiet := pools(t), less(t, "old-new")
	few := less(t, "open", "default", "old-new")
	none := []choice.Pool{{Name: "only", PodSelector: selector(t, "app=only,tier!=x"), State: choice.Active}}
	wide := []choice.Pool{}
	for i := range 7 {
		wide = append(wide, choice.Pool{Name: fmt.Sprintf("p%d", i), State: choice.Active, PodSelector: selector(t, "")})
	}
	return []struct {
		name  string
		asked asked
		pools []choice.Pool
		want  error
	}{
		{"unknown by pod", asked{podNotes: pool("wbe")}, all, choice.ErrUnknown},
		{"unknown by namespace", asked{nsNotes: pool("wbe")}, all, choice.ErrUnknown},
		{"unknown by network", asked{network: "lan"}, quiet, choice.ErrUnknown},
		{"unknown, and nothing else to have", asked{podNotes: pool("wbe")}, none, choice.ErrUnknown},
		{"no default", asked{}, few, choice.ErrUnknown},
		{"no pools", asked{}, nil, choice.ErrUnknown},
		{"a list", asked{podNotes: pool("open,default")}, quiet, choice.ErrUnknown},
		{"a novel", asked{podNotes: pool(strings.Repeat("\x1b[31m", 100_000))}, quiet, choice.ErrUnknown},
		{"empty pod annotation", asked{podNotes: pool("")}, all, choice.ErrUnreadable},
		{"empty namespace annotation", asked{nsNotes: pool("")}, all, choice.ErrUnreadable},
		{"namespace without the label", asked{podNotes: pool("payments")}, all, choice.ErrNotServed},
		{"namespace with another label", asked{nsNotes: pool("payments"), ns: set{"team": "shop"}}, all, choice.ErrNotServed},
		{"namespace and pod", asked{podNotes: pool("ledger")}, few, choice.ErrNotServed},
		{"another node", asked{podNotes: pool("rack1"), pod: set{"app": "cache", "canary": "yes"}, node: set{"rack": "r2"}}, quiet, choice.ErrNotServed},
		{"a pool for any label", asked{podNotes: pool("sky")}, quiet, choice.ErrNotServed},
		{"a pool for nobody", asked{podNotes: pool("nobody")}, quiet, choice.ErrNotServed},
		{"nothing else to have", asked{podNotes: pool("only"), pod: set{"tier": "x"}}, none, choice.ErrNotServed},
		{"default does not serve", asked{}, []choice.Pool{{Name: "default", State: choice.Active, NamespaceSelector: selector(t, "team=a,tier=b,zone=c,rack=d,row=e,room=f")}}, choice.ErrNotServed},
		{"not served comes before draining", asked{podNotes: pool("old")}, quiet, choice.ErrNotServed},
		{"pending by pod", asked{podNotes: pool("new"), pod: set{"app": "new"}}, all, choice.ErrPending},
		{"pending by selectors", asked{pod: set{"app": "new"}}, all, choice.ErrPending},
		{"refused pool", asked{podNotes: pool("clash")}, quiet, choice.ErrNotAccepted},
		{"refused pool that would not serve the pod", asked{podNotes: pool("broken")}, quiet, choice.ErrNotAccepted},
		{"refused pool by selectors", asked{node: set{"rack": "r9", "zone": "z9"}}, quiet, choice.ErrNotAccepted},
		{"draining", asked{nsNotes: pool("older"), ns: set{"team": "old"}}, quiet, choice.ErrDraining},
		{"draining by selectors", asked{ns: set{"team": "old", "tier": "web"}}, quiet, choice.ErrDraining},
		{"draining by selectors, nothing else", asked{ns: set{"team": "old"}}, few, choice.ErrDraining},
		{"deleted", asked{podNotes: pool("gone")}, append([]choice.Pool{{Name: "gone", State: choice.Draining, Why: "it was deleted"}}, quiet...), choice.ErrDraining},
		{"two pools", asked{pod: set{"colour": "blue"}}, all, choice.ErrAmbiguous},
		{"seven pools", asked{}, wide, choice.ErrAmbiguous},
		{"empty addresses", asked{podNotes: addresses(" ")}, all, choice.ErrUnreadable},
		{"no address", asked{podNotes: addresses("first")}, all, choice.ErrUnreadable},
		{"prefix", asked{podNotes: addresses("10.1.0.5/24")}, all, choice.ErrUnreadable},
		{"comma", asked{podNotes: addresses("10.1.0.5,")}, all, choice.ErrUnreadable},
		{"two of a family", asked{podNotes: addresses("10.1.0.5,10.1.0.6")}, all, choice.ErrUnreadable},
		{"three", asked{podNotes: addresses("10.1.0.5,fd00::5,fd00::6")}, all, choice.ErrUnreadable},
		{"twice", asked{podNotes: addresses("fd00::5,fd00:0::5")}, all, choice.ErrUnreadable},
		{"zone", asked{podNotes: addresses("fe80::5%eth0")}, all, choice.ErrUnreadable},
		{"mapped", asked{podNotes: addresses("::ffff:10.1.0.5")}, all, choice.ErrUnreadable},
		{"long list", asked{podNotes: addresses(strings.Repeat("10.1.0.5,", 1000))}, all, choice.ErrUnreadable},
	}
}

// TestRefused compares the sentences with those of testdata/refused.txt, which
// "go test -update" writes anew.
func TestRefused(t *testing.T) {
	const golden = "testdata/refused.txt"
	var got strings.Builder
	for _, c := range refused(t) {
		d, err := c.asked.choose(c.pools)
		if !errors.Is(err, c.want) || d.Pool != "" || d.Addresses != nil {
			t.Errorf("%s: %+v, %v; want %v", c.name, d, err, c.want)
			continue
		}
		if sentence := err.Error(); len(sentence) > 1024 || strings.ContainsAny(sentence, "\n\x1b") {
			t.Errorf("%s: no sentence for an event, %d bytes: %q", c.name, len(sentence), sentence)
		}
		fmt.Fprintf(&got, "# %s\n%v\n\n", c.name, err)
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got.String(), golden, want)
	}
}

// The manual repeats sentences word for word, one for each reason at least.
func TestManualTellsTheTruth(t *testing.T) {
	manual, err := os.ReadFile("../../docs/pools.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]error{}
	for _, c := range refused(t) {
		_, err := c.asked.choose(c.pools)
		said[fmt.Sprint(err)] = c.want
	}
	told := map[error]bool{}
	for line := range strings.Lines(string(manual)) {
		if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, "pod shop/cart-7: ") {
			continue
		}
		if said[line] == nil {
			t.Errorf("nothing says this any more: %s", line)
		}
		told[said[line]] = true
	}
	for _, reason := range append(reasons(), choice.ErrUnreadable) {
		if !told[reason] {
			t.Errorf("the manual has no example of: %v", reason)
		}
	}
}
