package v1alpha1

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestBlockName(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.244.120.0/26":           "10-244-120-0-26",
		"0.0.0.0/0":                 "0-0-0-0-0",
		"10.0.0.7/32":               "10-0-0-7-32",
		"fd00::40/122":              "fd00-0-0-0-0-0-0-40-122",
		"::/0":                      "0-0-0-0-0-0-0-0-0",
		"fd00:1:2:3:4:5:6:abcd/128": "fd00-1-2-3-4-5-6-abcd-128",
		"64:ff9b::a00:0/120":        "64-ff9b-0-0-0-0-a00-0-120",
	} {
		if got := BlockName(netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("BlockName(%s) = %s, want %s", prefix, got, want)
		}
		if got, err := named(want); err != nil || got.String() != prefix {
			t.Errorf("%s is the name of %v, %v, want %s", want, got, err, prefix)
		}
	}
}

// named is the prefix of a name: no two prefixes have the same.
func named(block string) (netip.Prefix, error) {
	cut := strings.LastIndexByte(block, '-')
	separator := ":"
	if strings.Count(block, "-") == 4 {
		separator = "."
	}
	return netip.ParsePrefix(strings.ReplaceAll(block[:cut], "-", separator) + "/" + block[cut+1:])
}

func TestBlockAround(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.244.120.64/26":  "10-244-120-0-24",
		"10.244.120.0/24":   "10-244-120-0-24",
		"10.244.0.0/16":     "10-244-0-0-24",
		"fd00::40/122":      "fd00-0-0-0-0-0-0-0-120",
		"fd00::abcd/128":    "fd00-0-0-0-0-0-0-ab00-120",
		"fd00::1:2:100/120": "fd00-0-0-0-0-1-2-100-120",
		"fd00::/64":         "fd00-0-0-0-0-0-0-0-120",
	} {
		if got := BlockAround(netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("BlockAround(%s) = %s, want %s", prefix, got, want)
		}
	}
}

// Whatever has a name is found by it, and the API server takes the name.
func FuzzBlockName(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0}, uint8(8))
	f.Add([]byte{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40}, uint8(122))
	f.Add(make([]byte, 16), uint8(1))
	f.Fuzz(func(t *testing.T, bytes []byte, bits uint8) {
		a, ok := netip.AddrFromSlice(bytes)
		if !ok || a.Is4In6() {
			t.Skip("no address of a pool")
		}
		p, err := a.Prefix(int(bits))
		if err != nil || p.Addr().Is4In6() {
			t.Skip("no prefix")
		}
		name := BlockName(p)
		if back, err := named(name); err != nil || back != p {
			t.Errorf("%v is named %s, which names %v: %v", p, name, back, err)
		}
		if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
			t.Errorf("%v is named %s: %v", p, name, wrong)
		}
	})
}

func TestNodeLabel(t *testing.T) {
	long := strings.Repeat("rack-7.", 30) + "n1"
	for _, node := range []string{"n1", strings.Repeat("a", 63), long, strings.TrimSuffix(long, "1") + "2"} {
		label := NodeLabel(node)
		if wrong := validation.IsValidLabelValue(label); len(wrong) > 0 {
			t.Errorf("the label of %s is %s: %v", node, label, wrong)
		}
		if len(node) <= 63 && label != node {
			t.Errorf("the label of %s is %s", node, label)
		}
	}
	if NodeLabel(long) == NodeLabel(strings.TrimSuffix(long, "1")+"2") {
		t.Error("two nodes have one label")
	}
}
