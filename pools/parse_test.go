package pools

import (
	"strings"
	"testing"

	"go4.org/netipx"
)

func TestParseRange(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"10.0.0.0/24", "10.0.0.0-10.0.0.255"},
		{"10.0.0.7/32", "10.0.0.7-10.0.0.7"},
		{"0.0.0.0/0", "0.0.0.0-255.255.255.255"},
		{"10.244.120.10-10.244.120.20", "10.244.120.10-10.244.120.20"},
		{"10.0.0.1 - 10.0.0.2", "10.0.0.1-10.0.0.2"},
		{"10.0.0.7", "10.0.0.7-10.0.0.7"},
		{"fd00::/127", "fd00::-fd00::1"},
		{"fd00::1-fd00::FF", "fd00::1-fd00::ff"},
	} {
		got, err := ParseRange(c.in)
		if err != nil || got.String() != c.want {
			t.Errorf("ParseRange(%q) = %v, %v, want %s", c.in, got, err, c.want)
		}
	}
	for _, c := range []struct{ in, says string }{
		{"", "is not an address range"},
		{" 10.0.0.0/24", "is not an address range"},
		{"10.0.0.1/24", "host bits set: write 10.0.0.0/24"},
		{"fd00::1/64", "host bits set: write fd00::/64"},
		{"10.0.0.0/33", "is not a CIDR"},
		{"10.0.0.0/-1", "is not a CIDR"},
		{"10.0.0.0/024", "is not a CIDR"},
		{"10.0.0.0/24/8", "is not a CIDR"},
		{"10.0.0.0/24-10.0.1.0/24", "is not a CIDR"},
		{"::ffff:10.0.0.0/120", "IPv4-mapped"},
		{"::ffff:10.0.0.1", "write 10.0.0.1"},
		{"fe80::1%eth0", "write fe80::1"},
		{"fe80::1%a-b", "has a zone"},
		{"fe80::%eth0/64", "is not a CIDR"},
		{"10.0.0.20-10.0.0.10", "backwards: write 10.0.0.10-10.0.0.20"},
		{"10.0.0.1-fd00::1", "mixes IPv4 and IPv6"},
		{"10.0.0.1-", `"" is not an IP address`},
		{"-10.0.0.1", `"" is not an IP address`},
		{"-", `"" is not an IP address`},
		{"10.0.0.1-10.0.0.2-10.0.0.3", "is not an IP address"},
		{"10.0.0.256", "is not an IP address"},
		{"010.0.0.1", "is not an IP address"},
		{"10.0.0", "is not an IP address"},
		{"10", "is not an IP address"},
		{"web.example", "is not an IP address"},
	} {
		got, err := ParseRange(c.in)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("ParseRange(%q) = %v, %v, want an error with %q", c.in, got, err, c.says)
		}
	}
}

// FuzzParseRange wants no panic, and of what is accepted that it is a valid
// range of plain addresses which reads back the same from what it prints.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{
		"10.0.0.0/24", "10.0.0.10-10.0.0.20", "10.0.0.7", "fd00::/64", "fd00::1-fd00::ff", "::/0", "0.0.0.0/0",
		"10.0.0.1 - 10.0.0.2", "::ffff:10.0.0.1", "fe80::1%eth-0", "10.0.0.20-10.0.0.10", "10.0.0.1-fd00::1", "", "-", "/", "%", "1-2-3",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err != nil {
			if r != (netipx.IPRange{}) {
				t.Errorf("ParseRange(%q) = %v beside the error %v", s, r, err)
			}
			return
		}
		if !r.IsValid() || r.From().Is4In6() || r.From().Zone() != "" || r.To().Zone() != "" {
			t.Errorf("ParseRange(%q) = %v, which is no plain range", s, r)
		}
		if back, err := ParseRange(r.String()); err != nil || back != r {
			t.Errorf("ParseRange(%q) = %v, which reads back as %v, %v", s, r, back, err)
		}
		if p, ok := r.Prefix(); ok {
			if back, err := ParseRange(p.String()); err != nil || back != r {
				t.Errorf("%v as the CIDR %v reads back as %v, %v", r, p, back, err)
			}
		}
	})
}
