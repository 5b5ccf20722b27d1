package pools

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"go4.org/netipx"
)

func TestNewRefuses(t *testing.T) {
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	some := ranges(t, "10.0.0.0/24")
	for _, c := range []struct {
		name string
		d    Definition
		want []string // parts of the error
	}{
		{"nothing", Definition{}, []string{`name ""`, "has no address"}},
		{"no name", Definition{Ranges: some}, []string{`name ""`, "1 to 63"}},
		{"capitals", Definition{Name: "Web", Ranges: some}, []string{`name "Web"`}},
		{"outer hyphen", Definition{Name: "web-", Ranges: some}, []string{`name "web-"`}},
		{"dot", Definition{Name: "a.b", Ranges: some}, []string{`name "a.b"`}},
		{"not ASCII", Definition{Name: "wéb", Ranges: some}, []string{`name "wéb"`}},
		{"long", Definition{Name: strings.Repeat("a", 64), Ranges: some}, []string{"1 to 63"}},
		{"block size 3", Definition{Name: "web", Ranges: some, BlockSize: 3}, []string{"blockSize 3", "power of two"}},
		{"negative block size", Definition{Name: "web", Ranges: some, BlockSize: -64}, []string{"blockSize -64"}},
		{"huge block size", Definition{Name: "web", Ranges: some, BlockSize: 1 << 17}, []string{"blockSize 131072", "65536"}},
		{"zero range", Definition{Name: "web", Ranges: []netipx.IPRange{{}}}, []string{"invalid range"}},
		{"backwards", Definition{Name: "web", Ranges: []netipx.IPRange{netipx.IPRangeFrom(some[0].To(), some[0].From())}}, []string{"invalid range"}},
		{"exclude elsewhere", Definition{Name: "web", Ranges: some, Exclude: ranges(t, "10.0.1.0/24")}, []string{"exclude: 10.0.1.0/24"}},
		{"exclude of another family", Definition{Name: "web", Ranges: some, Exclude: ranges(t, "fd00::/64")}, []string{"exclude: fd00::"}},
		{"all excluded", Definition{Name: "web", Ranges: some, Exclude: ranges(t, "10.0.0.0/16")}, []string{"has no address"}},
		{"one address is its own gateway", Definition{Name: "web", Ranges: ranges(t, "10.0.0.7")}, []string{"10.0.0.7 is the pods' gateway", "set gateways"}},
		{"two gateways of a family", Definition{Name: "web", Ranges: some, Gateways: prefixes("10.0.0.1/24", "10.0.0.2/24")}, []string{"10.0.0.2/24", "second one of IPv4"}},
		{"gateway too long", Definition{Name: "web", Ranges: some, Gateways: prefixes("10.0.0.1/25")}, []string{"10.0.0.1/25 does not hold 10.0.0.0-10.0.0.255"}},
		{"gateway elsewhere", Definition{Name: "web", Ranges: some, Gateways: prefixes("10.1.0.1/24")}, []string{"does not hold"}},
		{"IPv6 gateway elsewhere", Definition{Name: "web", Ranges: ranges(t, "fd00::/64"), Gateways: prefixes("fd01::1/64")}, []string{"fd01::1/64 does not hold fd00::", "fe80::1/128"}},
		{"zero gateway", Definition{Name: "web", Ranges: some, Gateways: []netip.Prefix{{}}}, []string{"gateways", "invalid"}},
		{"gateway of no family", Definition{Name: "web", Ranges: some, Gateways: prefixes("fd00::1/64")}, []string{"fd00::1/64", "has no IPv6 address"}},
		{"all at once", Definition{Name: "-", BlockSize: 5, Ranges: some, Exclude: ranges(t, "fd00::1")}, []string{`name "-"`, "blockSize 5", "exclude"}},
	} {
		_, err := New(c.d)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %q does not say %q", c.name, err, part)
			}
		}
	}
}

func TestGateway(t *testing.T) {
	for _, c := range []struct {
		ranges []string
		want   string
		size   uint64
	}{
		{[]string{"10.0.0.0/24"}, "10.0.0.1/23", 255},
		{[]string{"10.0.0.10-10.0.0.20"}, "10.0.0.10/27", 10},
		{[]string{"10.244.120.10-10.244.120.20"}, "10.244.120.10/27", 10},
		{[]string{"10.0.0.0-10.0.0.1"}, "10.0.0.1/30", 1},
		{[]string{"10.0.0.0", "10.0.0.9"}, "10.0.0.0/28", 1},
		{[]string{"10.0.0.128/25"}, "10.0.0.128/23", 127},
		{[]string{"10.0.1.0/24"}, "10.0.1.1/22", 255},
		{[]string{"10.0.0.0/16"}, "10.0.0.1/15", 65535},
		{[]string{"10.0.0.0/24", "10.9.0.0/24"}, "10.0.0.1/12", 511},
		{[]string{"10.0.0.0/24", "192.168.0.0/24"}, "10.0.0.1/0", 511},
		{[]string{"10.0.0.0/24", "fd00::/64"}, "10.0.0.1/23", 255},
	} {
		p := mustNew(t, Definition{Name: "web", Ranges: ranges(t, c.ranges...)})
		got := p.Gateway(IPv4)
		if got != netip.MustParsePrefix(c.want) || p.Size(IPv4) != c.size || !p.Reserved(got.Addr()) {
			t.Errorf("%v: gateway %v of %d, want %s of %d", c.ranges, got, p.Size(IPv4), c.want, c.size)
		}
	}
	v6 := mustNew(t, Definition{Name: "web", Ranges: ranges(t, "fd00::7")})
	if got := v6.Gateway(IPv6); got.String() != "fe80::1/128" || v6.Size(IPv6) != 1 || v6.Gateway(IPv4).IsValid() {
		t.Errorf("gateway of a single IPv6 address: %v, size %d", got, v6.Size(IPv6))
	}
}

func TestCheckGateways(t *testing.T) {
	far := []string{"10.111.0.0/28", "192.168.111.0/28"}
	for _, c := range []struct {
		ranges   []string
		gateways string
		want     string // part of the error
	}{
		{[]string{"10.0.0.0/24", "fd00::/64"}, "", ""},
		{[]string{"10.0.0.0/24", "fd00::/64"}, "fe80::1/128", ""},
		{[]string{"fd00::/64"}, "fe80::1/64", ""},
		{[]string{"fd00::/64", "2001:db8::/64"}, "fe80::2/10", ""},
		{[]string{"fd00::/64"}, "fe80::1/0", "gateways: fe80::1/0 has prefix length 0, with which ptp can't start a pod: write fe80::1/128"},
		{[]string{"fd00::/64"}, "fd00::1/0", "fd00::1/0 has prefix length 0"},
		{[]string{"fd00::/64"}, "::1/0", "::1/0: no gateway can have the unspecified or the loopback address"},
		{[]string{"fd00::/64"}, "ff02::1/0", "multicast"},
		{[]string{"10.0.0.0/24"}, "10.0.0.1/0", "10.0.0.1/0 has prefix length 0"},
		{[]string{"10.0.0.0/24"}, "127.0.0.1/0", "127.0.0.1/0: no gateway can have loopback addresses"},
		{[]string{"10.0.0.0/24"}, "224.0.0.1/0", "multicast"},
		{[]string{"10.0.0.0/24"}, "0.0.0.0/0", "this network"},
		{[]string{"169.253.0.0/24"}, "169.254.0.1/8", "link-local"},
		{[]string{"10.93.0.0/24"}, "10.93.0.255/24", "10.93.0.255/24 is the broadcast address of its own prefix: write another address of it, such as 10.93.0.1/24"},
		{[]string{"10.93.0.0/24"}, "10.93.0.0/24", "10.93.0.0/24 is the network address of its own prefix: write another address of it, such as 10.93.0.1/24"},
		{[]string{"10.93.0.0/24"}, "10.93.0.255/23", ""},
		{[]string{"10.93.0.1"}, "10.93.0.0/31", ""},
		{[]string{"10.93.0.0"}, "10.93.0.1/31", ""},
		{[]string{"10.93.0.0/24", "10.9.0.0", "100.64.0.1"}, "", ""},
		{far, "", "addresses: 10.111.0.0/28 and 192.168.111.0/28 have no prefix in common"},
		{far, "10.111.0.1/0", "make a pool of the IPv4 addresses below 128.0.0.0"},
		{append(far, "fd00::/64"), "fe80::1/128", "have no prefix in common"},
	} {
		d := Definition{Name: "web", Ranges: ranges(t, c.ranges...)}
		if c.gateways != "" {
			d.Gateways = []netip.Prefix{netip.MustParsePrefix(c.gateways)}
		}
		// New takes all of them, so that pools stay in use that were accepted.
		err := mustNew(t, d).CheckGateways()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("gateway %s of %v: %v, want %q", c.gateways, c.ranges, err, c.want)
		}
	}
}

// TestGatewayHoldsThePool looks at what pods need: their prefix holds the
// gateway and every address of the pool, none of which is its broadcast address,
// and no longer one does.
func TestGatewayHoldsThePool(t *testing.T) {
	rnd := seeded(t)
	for range 200 {
		p := randomPool(t, rnd)
		gw := p.Gateway(IPv4)
		rs := p.ranges(IPv4)
		if given := len(p.def.Gateways) > 0 && p.def.Gateways[0].Addr().Is4(); given || len(rs) == 0 {
			continue
		}
		fits := func(n int) bool {
			around := netip.PrefixFrom(gw.Addr(), n).Masked()
			return around.Contains(rs[0].From()) && around.Contains(rs[len(rs)-1].To()) && netipx.PrefixLastIP(around) != rs[len(rs)-1].To()
		}
		if !fits(gw.Bits()) || gw.Bits() < 30 && fits(gw.Bits()+1) || !p.Contains(gw.Addr()) {
			t.Fatalf("gateway %v for %v", gw, rs)
		}
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		r    string
		want uint64
	}{
		{"fd00::/64", math.MaxUint64},
		{"fd00::/65", 1 << 63},
		{"fd00::-fd00::ffff:ffff:ffff:fffe", math.MaxUint64},
		{"fd00::1-fd00::ffff:ffff:ffff:fffe", math.MaxUint64 - 1},
		{"fd00::/63", math.MaxUint64},
		{"2000::/3", math.MaxUint64},
		{"fd00::5", 1},
		{"fd00::ffff:ffff:ffff:ffff-fd00:0:0:1::", 2},
	} {
		p := mustNew(t, Definition{Name: "web", Ranges: ranges(t, c.r)})
		if got := p.Size(IPv6); got != c.want {
			t.Errorf("size of %s = %d, want %d", c.r, got, c.want)
		}
	}
	halves := mustNew(t, Definition{Name: "web", Ranges: ranges(t, "fd00::/65", "fd01::/65", "fd02::7")})
	if got := halves.Size(IPv6); got != math.MaxUint64 {
		t.Errorf("size of more than 2^64 addresses in several ranges = %d", got)
	}
	if got := halves.Size(IPv4); got != 0 {
		t.Errorf("size of a family without addresses = %d", got)
	}
	all := mustNew(t, Definition{Name: "web", Ranges: ranges(t, "1.0.0.0-126.255.255.255", "240.0.0.0-255.255.255.254")})
	if got := all.Size(IPv4); got != 126<<24+1<<28-2 {
		t.Errorf("size of IPv4 = %d", got)
	}
}

func TestCellsAndDefaults(t *testing.T) {
	p := mustNew(t, Definition{Name: "web", Ranges: ranges(t, "10.0.0.0/24", "fd00::/64")})
	if p.BlockSize() != 64 || p.BlockBits(IPv4) != 26 || p.BlockBits(IPv6) != 122 {
		t.Errorf("default block: %d addresses, /%d, /%d", p.BlockSize(), p.BlockBits(IPv4), p.BlockBits(IPv6))
	}
	for a, want := range map[string]string{"10.0.0.77": "10.0.0.64/26", "192.0.2.255": "192.0.2.192/26", "fd00::ff": "fd00::c0/122"} {
		if got := p.Cell(netip.MustParseAddr(a)); got.String() != want {
			t.Errorf("cell of %s = %v, want %s", a, got, want)
		}
	}
	if got := fmt.Sprint(p.Families()); got != "[IPv4 IPv6]" {
		t.Errorf("families %s", got)
	}
}

func TestOverlap(t *testing.T) {
	pool := func(texts ...string) *Pool {
		return mustNew(t, Definition{Name: "web", Ranges: ranges(t, texts...)})
	}
	for _, c := range []struct {
		a, b *Pool
		want string
	}{
		{pool("10.0.0.0/24"), pool("10.0.1.0/24"), ""},
		{pool("10.0.0.0/24"), pool("fd00::/64"), ""},
		{pool("10.0.0.0/24"), pool("10.0.0.128-10.0.1.0"), "10.0.0.128-10.0.0.255"},
		{pool("10.0.0.0/24", "fd00::/64"), pool("10.1.0.0/24", "fd00::7"), "fd00::7-fd00::7"},
	} {
		got, ok := c.a.Overlap(c.b)
		back, _ := c.b.Overlap(c.a)
		if ok != (c.want != "") || ok && got.String() != c.want || got != back {
			t.Errorf("overlap of %v and %v = %v, %v, want %q", c.a.Addresses().Ranges(), c.b.Addresses().Ranges(), got, ok, c.want)
		}
	}
}

func TestSpecialAddressesAreRefused(t *testing.T) {
	for r, want := range map[string]string{
		"0.0.0.0/0": "this network", "126.0.0.0-128.0.0.0": "loopback", "169.254.1.1": "link-local", "224.0.0.1": "multicast",
		"255.255.255.0/24": "broadcast", "::/0": "unspecified", "::1": "loopback", "fe80::1": "link-local", "ff02::/16": "multicast",
	} {
		_, err := New(Definition{Name: "web", Ranges: ranges(t, r)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to name %q", r, err, want)
		}
	}
}

func TestClashes(t *testing.T) {
	pool := func(size int, texts ...string) *Pool {
		return mustNew(t, Definition{Name: "web", BlockSize: size, Ranges: ranges(t, texts...)})
	}
	for _, c := range []struct {
		name string
		ps   []*Pool
		want string
	}{
		{"none", nil, "[]"},
		{"adjacent", []*Pool{pool(64, "10.0.0.0/26"), pool(64, "10.0.0.64/26")}, "[]"},
		{"one inside another", []*Pool{pool(64, "10.0.0.0/16"), pool(64, "10.1.0.0/16"), pool(64, "10.0.7.0/24")}, "[{0 2 10.0.7.0-10.0.7.255 false 0}]"},
		{"other addresses of one cell", []*Pool{pool(64, "10.0.0.10-10.0.0.20"), pool(64, "10.0.0.30-10.0.0.40")}, "[{0 1 10.0.0.0-10.0.0.63 true 8}]"},
		{"cells of different sizes", []*Pool{pool(256, "10.0.0.0-10.0.0.127"), pool(8, "10.0.0.128-10.0.0.255")}, "[{0 1 10.0.0.128-10.0.0.255 true 8}]"},
		{"IPv6", []*Pool{pool(64, "10.0.0.0/24", "fd00::-fd00::f"), pool(64, "10.0.1.0/24", "fd00::10-fd00::1f")}, "[{0 1 fd00::-fd00::3f true 16}]"},
		{"three of one", []*Pool{pool(4, "10.0.0.0/30", "10.0.9.0/30"), pool(4, "10.0.0.0/30"), pool(4, "10.0.0.2-10.0.0.3")},
			"[{0 1 10.0.0.0-10.0.0.3 false 0} {0 2 10.0.0.2-10.0.0.3 false 0} {1 2 10.0.0.2-10.0.0.3 false 0}]"},
	} {
		if got := fmt.Sprint(Clashes(c.ps)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestFittingBlockSize(t *testing.T) {
	for addresses, want := range map[string]int{
		"10.0.0.1": 1, "10.0.0.0/27": 1, "10.0.0.0/24": 8, "10.0.0.0-10.0.3.231": 32, "10.0.0.0-10.0.2.255": 32, "10.0.0.0-10.0.2.254": 16, "10.0.0.0-10.0.5.255": 64, "10.0.0.0/20": 64, "10.0.0.0/8": 64, "fd00::/64": 64, "fd00::/122": 2,
	} {
		r, err := ParseRange(addresses)
		if err != nil {
			t.Fatal(err)
		}
		if got := FittingBlockSize(setOf(t, r)); got != want {
			t.Errorf("%s: %d, want %d", addresses, got, want)
		}
	}
}

func setOf(t *testing.T, r netipx.IPRange) *netipx.IPSet {
	t.Helper()
	var b netipx.IPSetBuilder
	b.AddRange(r)
	s, err := b.IPSet()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An error has a range as a person writes it.
func TestErrorsOfRangesAsTheyAreWritten(t *testing.T) {
	_, err := New(Definition{
		Name: "web", BlockSize: 4,
		Ranges:  ranges(t, "10.1.0.0-10.1.0.255", "127.0.0.7-127.0.0.7", "127.1.0.0-127.1.0.255"),
		Exclude: ranges(t, "10.2.0.9-10.2.0.9", "10.3.0.0-10.3.0.255"),
	})
	for _, want := range []string{"addresses: 127.0.0.7 has", "addresses: 127.1.0.0/24 has", "exclude: 10.2.0.9 has no", "exclude: 10.3.0.0/24 has no"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
