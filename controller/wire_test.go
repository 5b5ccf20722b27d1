package controller

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/api/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func aUID(n int) types.UID { return types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", n, n)) }

// aBlock is an AddressBlock as the API server has it, with all that nobody
// needs.
func aBlock(n int, pool, node, lender string) v1alpha1.AddressBlock {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 10), byte(n >> 2), byte(n << 6)}), 26)
	return v1alpha1.AddressBlock{
		TypeMeta: metav1.TypeMeta{APIVersion: "fairway.network/v1alpha1", Kind: "AddressBlock"},
		ObjectMeta: metav1.ObjectMeta{
			Name: v1alpha1.BlockName(p), UID: aUID(n), ResourceVersion: fmt.Sprint(1000 + n), Generation: 1,
			CreationTimestamp: metav1.NewTime(day()),
			Labels: map[string]string{
				v1alpha1.LabelPool: pool, v1alpha1.LabelNode: node, v1alpha1.LabelAround: v1alpha1.BlockName(p),
			},
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "fairway-agent", Operation: "Update", APIVersion: "fairway.network/v1alpha1", FieldsType: "FieldsV1",
				FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{".":{},"f:fairway.network/cell":{},"f:fairway.network/node":{},"f:fairway.network/pool":{}}},"f:spec":{".":{},"f:lender":{},"f:node":{},"f:nodeUID":{},"f:pool":{},"f:prefix":{},"f:tenure":{}}}`),
			}},
		},
		Spec: v1alpha1.AddressBlockSpec{
			Prefix: v1alpha1.Prefix(p.String()), Pool: pool, Node: node, NodeUID: aUID(1 << 20), Lender: lender, Tenure: int32(n % 3),
		},
	}
}

// aPage is one page of a list of blocks, as a Table.
func aPage(t testing.TB, from, to int, next string) []byte {
	t.Helper()
	table := metav1.Table{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "Table"},
		ListMeta: metav1.ListMeta{ResourceVersion: "77", Continue: next},
	}
	for _, name := range []string{"Name", "Pool", "Prefix", "Node", "Lender", "Tenure", "Node-UID", "Age"} {
		table.ColumnDefinitions = append(table.ColumnDefinitions, metav1.TableColumnDefinition{Name: name, Type: "string", Description: "of a [block]"})
	}
	for n := from; n < to; n++ {
		o := aBlock(n, fmt.Sprint("pool-", n%50), fmt.Sprint("node-", n%5000), "")
		var lender any
		if n%2 == 0 {
			lender = ""
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{o.Name, o.Spec.Pool, o.Spec.Prefix, o.Spec.Node, lender, o.Spec.Tenure, o.Spec.NodeUID, "3d"}})
	}
	text, err := json.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAPageOfBlocks(t *testing.T) {
	var got []placed
	r := newBlockReader()
	version, next, err := r.table(aPage(t, 0, 20, "more"), func(b placed) { got = append(got, b) }, func(err error) { t.Error(err) })
	if err != nil || version != "77" || next != "more" || len(got) != 20 {
		t.Fatalf("%d blocks, version %q, next %q, %v", len(got), version, next, err)
	}
	for n, b := range got {
		same(t, b, aBlock(n, fmt.Sprint("pool-", n), fmt.Sprint("node-", n), ""))
	}
}

func same(t *testing.T, got placed, want v1alpha1.AddressBlock) {
	t.Helper()
	s := got.stored(got.Prefix)
	if s.Prefix.String() != string(want.Spec.Prefix) || s.Pool != want.Spec.Pool || s.Node != want.Spec.Node || s.Lender != want.Spec.Lender ||
		s.Machine != string(want.Spec.NodeUID) || s.Tenure != int(want.Spec.Tenure) {
		t.Fatalf("block %s is read as %+v", want.Name, s)
	}
}

func TestAChangedBlock(t *testing.T) {
	want := aBlock(7, `we"b\`, "nödé", "x")
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := newBlockReader().one(text)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, want)
	if s := got.stored(got.Prefix); s.UID != string(want.UID) || s.Version != want.ResourceVersion {
		t.Errorf("UID %s and version %s, want %s and %s", s.UID, s.Version, want.UID, want.ResourceVersion)
	}
	for _, c := range []struct{ from, to, says string }{
		{`"10.0.1.192/26"`, `"10.0.1.192/20000"`, "7-192-26"},
		{`"10.0.1.192/26"`, `"10.0.1.193/26"`, "host bits"},
		{`"prefix":"10.0.1.192/26"`, `"prefix":null`, "no '/'"},
		{`"resourceVersion":"1007"`, `"resourceVersion":"abc"`, "resourceVersion"},
		{`"resourceVersion":"1007"`, `"resourceVersion":""`, "resourceVersion"},
		{string(aUID(7)), "someone", "UUID"},
	} {
		bad := strings.Replace(string(text), c.from, c.to, 1)
		if _, err := newBlockReader().one([]byte(bad)); err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(c.says, "7-")) {
			t.Errorf("%s: %v, want %q", c.to, err, c.says)
		}
	}
}

func TestWhatIsNoTableOfBlocksIsRefused(t *testing.T) {
	page := string(aPage(t, 0, 2, ""))
	for _, text := range []string{
		"", "null", "[]", `{"kind":"Status","metadata":{}}`, page[:len(page)/2], page[:len(page)-1],
		strings.Replace(page, `"Table"`, `"AddressBlockList"`, 1), strings.Replace(page, `"resourceVersion":"77"`, `"resourceVersion":""`, 1),
		strings.Replace(page, `"Lender"`, `"Lent-By"`, 1), strings.Replace(page, `"10.0.0.64/26"`, "null", 1)[:len(page)-30],
	} {
		if _, _, err := newBlockReader().table([]byte(text), func(placed) {}, func(error) {}); err == nil {
			t.Errorf("%.60q is taken for a table of blocks", text)
		}
	}
}

func TestABadBlockIsLeftOut(t *testing.T) {
	for _, bad := range []string{`"10.0.0.64/20000"`, `"10.0.0.65/26"`, "null", `""`} {
		text := strings.Replace(string(aPage(t, 0, 3, "")), `"10.0.0.64/26"`, bad, 1)
		n, said := 0, ""
		_, _, err := newBlockReader().table([]byte(text), func(placed) { n++ }, func(err error) { said = err.Error() })
		if err != nil || n != 2 || said == "" {
			t.Errorf("%s: %d blocks are read, %q, %v; want 2 and why", bad, n, said, err)
		}
	}
}

// FuzzBlock holds the reader against encoding/json: what that reads as an
// AddressBlock with all that the reader wants, the reader reads in the same way.
func FuzzBlock(f *testing.F) {
	for n := range 3 {
		text, err := json.Marshal(aBlock(n, `we"b\`, "nödé", "x"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(text[:len(text)-1-n])
	}
	f.Add([]byte(`{"spec":{"prefix":"10.0.0.0/8","pool":"a","tenure":1e1},"metadata":{"resourceVersion":"1"}}`))
	f.Add([]byte(`{"metadata":null,"spec":{"pool":null}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := newBlockReader().one(text)
		if err != nil {
			return
		}
		var o struct {
			Metadata struct {
				UID             string `json:"uid"`
				ResourceVersion string `json:"resourceVersion"`
			} `json:"metadata"`
			Spec struct {
				Prefix string `json:"prefix"`
			} `json:"spec"`
		}
		if json.Unmarshal(text, &o) != nil {
			return // what it steps over it does not check
		}
		// encoding/json also takes keys of other case, and the last of two.
		if strings.Count(strings.ToLower(string(text)), "prefix") == 1 && b.Prefix.String() != o.Spec.Prefix && !strings.Contains(string(text), `\`) {
			if p, err := netip.ParsePrefix(o.Spec.Prefix); err != nil || p != b.Prefix {
				t.Errorf("prefix %v, encoding/json reads %q", b.Prefix, o.Spec.Prefix)
			}
		}
	})
}

// FuzzTable: a table that can't be read is an error, not a block that is none.
func FuzzTable(f *testing.F) {
	page := aPage(f, 0, 2, "x")
	f.Add(page)
	f.Add(page[:len(page)-7])
	f.Add([]byte(strings.Replace(string(page), `"pool-1"`, `"\u0070ool-1"`, 1)))
	f.Add([]byte(`{"kind":"Table","metadata":{"resourceVersion":"1"},"rows":[{"cells":["a"]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _, _ = newBlockReader().table(text, func(b placed) {
			if !b.IsValid() || b.Prefix != b.Masked() {
				t.Errorf("a block of %v", b.Prefix)
			}
		}, func(error) {})
	})
}

// FuzzSkip: stepping over a value that encoding/json takes ends where that does.
func FuzzSkip(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":"}\""}],"c":null}`, `[]`, `"x\\"`, `-1.5e3`, ` true `, `{"a":"\\\""}`, `[[],{}]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			s := scanner{text: text}
			s.skip() // it ends, and that is all
			return
		}
		s := scanner{text: append(append([]byte("["), text...), ']')}
		n := 0
		s.array(func() { n++; s.skip() })
		if s.err != nil || s.at != len(s.text) || n != 1 {
			t.Errorf("%q: %d values up to %d of %d, %v", text, n, s.at, len(s.text), s.err)
		}
	})
}
