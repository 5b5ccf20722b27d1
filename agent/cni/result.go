package cni

import (
	"strconv"

	"github.com/fairway-network/fairway/pools"
)

// appendResult appends the abbreviated success object of an IPAM plugin (CNI
// specification 1.1, section 5). 0.4.0 differs by the version of each address.
//
// Routes of a family that the grant has no address of are left out, so that
// one network configuration serves pools of one family and of both.
func appendResult(b []byte, version string, g Grant, s *settings) []byte {
	b = append(append(append(b, `{"cniVersion":"`...), version...), `","ips":[`...)
	for i, a := range g.Addresses {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if version == "0.4.0" {
			b = append(append(append(b, `"version":"`...), familyDigit(a)), `",`...)
		}
		b = a.Addr.AppendTo(append(b, `"address":"`...))
		b = strconv.AppendInt(append(b, '/'), int64(a.Bits), 10)
		if a.Gateway.IsValid() {
			b = a.Gateway.AppendTo(append(b, `","gateway":"`...))
		}
		b = append(b, `"}`...)
	}
	b = append(b, `],"routes":[`...)
	from := len(b)
	if s.routes == nil {
		b = appendDefaultRoutes(b, g)
	}
	for _, r := range s.routes {
		if g.has(r.family) {
			b = append(append(b, r.json...), ',')
		}
	}
	if len(b) > from {
		b = b[:len(b)-1]
	}
	return append(b, "]}\n"...)
}

// appendDefaultRoutes leaves the next hop to be the address's own gateway.
func appendDefaultRoutes(b []byte, g Grant) []byte {
	for _, a := range g.Addresses {
		switch {
		case !a.Gateway.IsValid():
		case a.Addr.Is4():
			b = append(b, `{"dst":"0.0.0.0/0"},`...)
		default:
			b = append(b, `{"dst":"::/0"},`...)
		}
	}
	return b
}

func (g Grant) has(f pools.Family) bool {
	for _, a := range g.Addresses {
		if pools.FamilyOf(a.Addr) == f {
			return true
		}
	}
	return false
}

func familyDigit(a Address) byte {
	if a.Addr.Is4() {
		return '4'
	}
	return '6'
}
