package kube

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// FuzzRequest: a request is refused, or comes out as it came in.
func FuzzRequest(f *testing.F) {
	f.Add("", "10.1.0.1/32", "10.1.0.0/26", "IPv4")
	f.Add("10.1.0.1", "", "", "IPv4")
	f.Add("fd00::1", "fd00::1/128", "fd00::/122", "IPv6")
	f.Add("fe80::1%eth0", "10.1.0.1/26", "::ffff:10.1.0.0/122", "")
	f.Fuzz(func(t *testing.T, want, prefix, outer, family string) {
		granted := v1alpha1.AddressGrant{Lender: "n2", Prefix: v1alpha1.Prefix(prefix), Outer: v1alpha1.Prefix(outer), OuterUID: "v"}
		o := &v1alpha1.AddressRequest{
			ObjectMeta: metav1.ObjectMeta{Name: "web-1", UID: "u", ResourceVersion: "7"},
			Spec:       v1alpha1.AddressRequestSpec{Node: "n1", Pool: "web", Want: want, Family: v1alpha1.Family(family)},
		}
		if prefix != "" {
			o.Status.Grant, o.Status.Further = &granted, []v1alpha1.AddressGrant{granted}
		}
		r, err := askedOf(o)
		if err != nil {
			if r.UID != "" || !strings.Contains(err.Error(), "web-1") {
				t.Errorf("refused with %+v, %v", r, err)
			}
			return
		}
		if again, err := askedOf(requestOf(r)); err != nil || !again.Equal(r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
		if (len(r.Grants) == 0) != (prefix == "") || prefix != "" && r.Open() {
			t.Errorf("taken: %+v", r)
		}
		for _, g := range r.Grants {
			if g.Prefix != g.Prefix.Masked() || g.Outer != g.Outer.Masked() {
				t.Errorf("taken: %+v", r)
			}
		}
	})
}

// FuzzBlock: a block is refused, or comes out as it came in.
func FuzzBlock(f *testing.F) {
	for _, p := range []string{"10.1.0.0/26", "fd00::40/122", "10.1.0.1/26", "::ffff:10.1.0.0/122", "10.1.0.0", "0.0.0.0/0", ""} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, prefix string) {
		o := &v1alpha1.AddressBlock{
			ObjectMeta: metav1.ObjectMeta{Name: "a-block", UID: "u", ResourceVersion: "7"},
			Spec:       v1alpha1.AddressBlockSpec{Prefix: v1alpha1.Prefix(prefix), Pool: "web", Node: "n1", NodeUID: "m", Lender: "n2", Tenure: 3},
		}
		b, err := storedOf(o)
		if err != nil {
			if b.UID != "" || !strings.Contains(err.Error(), "a-block") {
				t.Errorf("refused with %+v, %v", b, err)
			}
			return
		}
		if again, err := storedOf(blockOf(b)); err != nil || again != b {
			t.Errorf("%+v became %+v, %v", b, again, err)
		}
	})
}

const tableColumns = `{"kind":"Table","columnDefinitions":[{"name":"Name"},{"name":"Pool"},{"name":"Prefix"},{"name":"Node"},{"name":"Lender"}],"rows":[{"cells":%s}]}`

// A table says of a block what a node has to know. A row that can't be read is left out.
// Where there is no table whole blocks are listed; what is no list is an error.
func TestTable(t *testing.T) {
	for cells, want := range map[string]pools.Block{
		`["10-1-0-0-32","web","10.1.0.0/32","n1","n2"]`: {Prefix: netip.MustParsePrefix("10.1.0.0/32"), Pool: "web", Node: "n1", Lender: "n2"},
		`["10-1-0-0-26","web","10.1.0.0/26","",null]`:   {Prefix: netip.MustParsePrefix("10.1.0.0/26"), Pool: "web"},
		`["10-1-0-0-26","web","10.1.0.1/26","n1",""]`:   {},
		`["10-1-0-0-26","web","10.1.0.0/26"]`:           {},
	} {
		blocks, unread, err := blocksOf(fmt.Appendf(nil, tableColumns, cells))
		if good := want.Prefix.IsValid(); err != nil || (unread == nil) != good || (len(blocks) == 1) != good || good && blocks[0].Block != want {
			t.Errorf("%s: %+v, %v, %v", cells, blocks, unread, err)
		}
	}
	if blocks, unread, err := blocksOf([]byte(`{"kind":"Table","rows":[]}`)); err != nil || unread != nil || len(blocks) > 0 {
		t.Errorf("no blocks: %+v, %v, %v", blocks, unread, err)
	}
	for text, whole := range map[string]bool{
		`{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["a"]}]}`: true,
		`{"kind":"AddressBlockList","items":[]}`:                                          true,
		`{"kind":"Status"}`:                                                               false,
		`{}`:                                                                              false,
		`hello`:                                                                           false,
	} {
		if blocks, _, err := blocksOf([]byte(text)); err == nil || errors.Is(err, errNoTable) != whole || blocks != nil {
			t.Errorf("%s: %+v, %v", text, blocks, err)
		}
	}
}

// Of a block that was vacant when the rows were read, and is not any more, it is known
// that somebody has it.
func TestVacantRows(t *testing.T) {
	row := func(p, node string) exchange.Stored {
		return exchange.Stored{Block: pools.Block{Prefix: netip.MustParsePrefix(p), Pool: "web", Node: node}}
	}
	whole := row("10.1.0.64/26", "")
	whole.UID, whole.Version = "u", "7"
	got := withVacant([]exchange.Stored{row("10.1.0.0/26", "n1"), row("10.1.0.64/26", ""), row("10.1.0.128/26", "")}, []exchange.Stored{whole})
	if got[0].Node != "n1" || got[1] != whole || got[2].Vacant() || got[2].Node == "n1" {
		t.Errorf("rows and vacant blocks together: %+v", got)
	}
}

// FuzzTable: what is read off a table are blocks, or nothing.
func FuzzTable(f *testing.F) {
	f.Add(fmt.Appendf(nil, tableColumns, `["10-1-0-0-26","web","10.1.0.0/26","n1",""]`))
	f.Add(fmt.Appendf(nil, tableColumns, `[1,2,3,4,null]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		blocks, unread, err := blocksOf(text)
		if err != nil && (blocks != nil || unread != nil) {
			t.Errorf("refused with %+v, %v, %v", blocks, unread, err)
		}
		for _, b := range blocks {
			if !b.Prefix.IsValid() || b.Prefix != b.Prefix.Masked() || b.Version != "" || b.UID != "" {
				t.Errorf("read: %+v", b)
			}
		}
	})
}

// Whatever lies in some prefixes is selected, and what does not lie near is not.
func TestSelections(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(longest int) netip.Prefix {
		bytes := netip.MustParseAddr("fd00::").AsSlice()
		if r.IntN(2) == 0 {
			bytes = []byte{10, 1, 0, 0}
		}
		bytes[len(bytes)-1], bytes[len(bytes)-2] = byte(r.Uint32()), byte(r.Uint32())
		a, _ := netip.AddrFromSlice(bytes)
		p, err := a.Prefix(a.BitLen() - r.IntN(longest+1))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for range 2000 {
		outer := random([]int{largeBits, 8, 4}[r.IntN(3)])
		inner := random(12)
		chosen, times := 0, 0
		for _, s := range selections(outer) {
			selector, err := labels.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			if chosen++; selector.Matches(labels.Set{v1alpha1.LabelAround: v1alpha1.BlockAround(inner)}) {
				times++
			}
		}
		near := outer.Overlaps(around(inner.Addr()))
		inside := outer.Bits() <= inner.Bits() && outer.Overlaps(inner)
		if inside && times != 1 || !near && times != 0 || chosen > 2 {
			t.Fatalf("%v is selected %d times by the %d selectors of %v", inner, times, chosen, outer)
		}
	}
}

func TestSelectionsAtTheEdges(t *testing.T) {
	for _, c := range []struct {
		prefix string
		want   string
	}{
		{"255.255.255.0/24", v1alpha1.LabelAround + " in (255-255-255-0-24)"},
		{"255.255.254.0/23", v1alpha1.LabelAround + " in (255-255-254-0-24,255-255-255-0-24)"},
		{"0.0.0.0/32", v1alpha1.LabelAround + " in (0-0-0-0-24)"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120", v1alpha1.LabelAround + " in (ffff-ffff-ffff-ffff-ffff-ffff-ffff-ff00-120)"},
		{"10.0.0.0/8", ""},
		{"::/0", ""},
	} {
		got := selections(netip.MustParsePrefix(c.prefix))
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%s is selected by %q, want %q", c.prefix, got, c.want)
		}
	}
}

// A name that is too long for a label still selects its node's blocks.
func TestNodesWithLongNames(t *testing.T) {
	b := stored()
	b.Node = strings.Repeat("rack-7.", 30) + "n1"
	label := blockOf(b).Labels[v1alpha1.LabelNode]
	if _, err := labels.Parse(equals(v1alpha1.LabelNode, label)); err != nil || label != v1alpha1.NodeLabel(b.Node) {
		t.Errorf("label %q: %v", label, err)
	}
	b.Node = ""
	if label, ok := blockOf(b).Labels[v1alpha1.LabelNode]; !ok || label != "" {
		t.Errorf("a vacant block has the label %q, %v", label, ok)
	}
}
