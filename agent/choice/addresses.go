package choice

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/fairway-network/fairway/pools"
)

// maxAddresses is more than any two addresses take, in bytes.
const maxAddresses = 128

const wanted = "write one address such as 10.1.0.5, or one of each family: 10.1.0.5,fd00::5"

// parseAddresses reads AddressesAnnotation: one address, or one of each family
// with a comma between them. Blanks around them are nothing.
func parseAddresses(text string) ([]netip.Addr, error) {
	switch {
	case strings.TrimSpace(text) == "":
		return nil, fmt.Errorf("it is empty: remove it, or %s", wanted)
	case len(text) > maxAddresses:
		return nil, fmt.Errorf("%q has %d bytes: %s", shown(text, maxWord), len(text), wanted)
	}
	var out []netip.Addr
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			return nil, fmt.Errorf("%q has a comma too many: remove it", text)
		}
		a, err := parseAddress(word)
		if err != nil {
			return nil, err
		}
		for _, other := range out {
			switch {
			case other == a:
				return nil, fmt.Errorf("%s is there twice: remove one", a)
			case other.Is4() == a.Is4():
				return nil, fmt.Errorf("%s and %s are both %s: a pod gets one address of each family, remove one", other, a, pools.FamilyOf(a))
			}
		}
		out = append(out, a)
	}
	return out, nil
}

func parseAddress(word string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(word); err == nil {
		return netip.Addr{}, fmt.Errorf("%q has a prefix length: write %s", word, p.Addr())
	}
	if _, err := netip.ParseAddr(word); err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address: %s", word, wanted)
	}
	return pools.ParseAddr(word)
}
