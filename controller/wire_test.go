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
				FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{"f:labels":{".":{},"f:fairway.network/cell":{},"f:fairway.network/node":{},"f:fairway.network/pool":{}}},"f:spec":{".":{},"f:lender":{},"f:node":{},"f:nodeUID":{},"f:pool":{},"f:prefix":{},"f:tenure":{}}}`)},
			}},
		},
		Spec: v1alpha1.AddressBlockSpec{
			Prefix: v1alpha1.Prefix(p.String()), Pool: pool, Node: node, NodeUID: aUID(1 << 20), Lender: lender, Tenure: int32(n % 3),
		},
	}
}

// aPage is one page of a list of blocks.
func aPage(t testing.TB, from, to int, next string) []byte {
	t.Helper()
	list := v1alpha1.AddressBlockList{
		TypeMeta: metav1.TypeMeta{APIVersion: "fairway.network/v1alpha1", Kind: "AddressBlockList"},
		ListMeta: metav1.ListMeta{ResourceVersion: "77", Continue: next},
	}
	for n := from; n < to; n++ {
		list.Items = append(list.Items, aBlock(n, fmt.Sprint("pool-", n%50), fmt.Sprint("node-", n%5000), ""))
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAPageOfBlocks(t *testing.T) {
	var got []placed
	r := newBlockReader()
	version, next, err := r.list(aPage(t, 0, 20, "more"), func(b placed) { got = append(got, b) }, func(err error) { t.Error(err) })
	if err != nil || version != "77" || next != "more" || len(got) != 20 {
		t.Fatalf("%d blocks, version %q, next %q, %v", len(got), version, next, err)
	}
	for n, b := range got {
		want := aBlock(n, fmt.Sprint("pool-", n), fmt.Sprint("node-", n), "")
		s := b.stored(b.Prefix)
		if s.UID != string(want.UID) || s.Version != want.ResourceVersion || s.Prefix.String() != string(want.Spec.Prefix) || s.Pool != want.Spec.Pool ||
			s.Node != want.Spec.Node || s.Machine != string(want.Spec.NodeUID) || s.Tenure != int(want.Spec.Tenure) {
			t.Fatalf("block %d is read as %+v", n, s)
		}
	}
}

func TestWhatIsNoListOfBlocksIsRefused(t *testing.T) {
	page := string(aPage(t, 0, 2, ""))
	for _, text := range []string{
		"", "null", "[]", `{"kind":"Status","metadata":{}}`, page[:len(page)/2], page[:len(page)-1],
		strings.Replace(page, "AddressBlockList", "AddressPoolList", 1), strings.Replace(page, `"resourceVersion":"77"`, `"resourceVersion":""`, 1),
	} {
		if _, _, err := newBlockReader().list([]byte(text), func(placed) {}, func(error) {}); err == nil {
			t.Errorf("%.60q is taken for a list of blocks", text)
		}
	}
}

func TestABadBlockIsLeftOut(t *testing.T) {
	for _, c := range []struct{ from, to, says string }{
		{`"prefix":"10.0.0.0/26"`, `"prefix":"10.0.0.0/20000"`, "10-0-0-0-26"},
		{`"prefix":"10.0.0.0/26"`, `"prefix":"10.0.0.1/26"`, "host bits"},
		{`"prefix":"10.0.0.0/26"`, `"prefix":null`, "no '/'"},
		{`"resourceVersion":"1000"`, `"resourceVersion":"abc"`, "resourceVersion"},
		{string(aUID(0)), "someone", "UUID"},
	} {
		text := strings.Replace(string(aPage(t, 0, 3, "")), c.from, c.to, 1)
		n, said := 0, ""
		_, _, err := newBlockReader().list([]byte(text), func(placed) { n++ }, func(err error) { said = err.Error() })
		if err != nil || n != 2 || !strings.Contains(said, c.says) {
			t.Errorf("%s: %d blocks are read, %q, %v; want 2 and %q", c.to, n, said, err, c.says)
		}
	}
}

// FuzzBlock holds the reader against encoding/json: what that reads as an
// AddressBlock with all that the reader wants, the reader reads in the same way.
func FuzzBlock(f *testing.F) {
	f.Add(aPage(f, 0, 1, ""))
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
