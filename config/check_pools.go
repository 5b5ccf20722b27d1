package config

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"go4.org/netipx"

	"github.com/fairway-network/fairway/pools"
)

// mistakenForBits explains a block size that is no power of two, most of all
// one that was meant as a prefix length.
func mistakenForBits(text string) error {
	n, err := strconv.Atoi(text)
	switch {
	case strings.HasPrefix(text, "/"):
		return fmt.Errorf("%q: blockSize counts addresses, not bits: 64 is a /26 or a /122", text)
	case err != nil || n < 1 || n > pools.MaxBlockSize || bits.OnesCount(uint(n)) == 1:
		return nil
	case n > 16 && n < 32:
		return fmt.Errorf("%d: blockSize counts addresses: a /%d is %d, write that", n, n, 1<<(32-n))
	case n > 112 && n < 128:
		return fmt.Errorf("%d: blockSize counts addresses: a /%d of IPv6 is %d, write that", n, n, 1<<(128-n))
	}
	low := 1 << (bits.Len(uint(n)) - 1)
	return fmt.Errorf("%d is not a power of two: write %d or %d", n, low, low*2)
}

func (c *Config) checkPools(s *source) {
	names := map[string]int{}
	for i := range c.Pools {
		p := &c.Pools[i]
		key := fmt.Sprintf("pools[%d]", i)
		if j, twice := names[p.Name]; twice {
			s.fail(key+".name", "%q is the name of the pool in line %d already: choose another, or join their addresses", shown(p.Name), s.line(fmt.Sprintf("pools[%d].name", j)))
		} else if p.Name != "" {
			names[p.Name] = i
		}
		p.check(s, key)
	}
	c.checkOverlaps(s)
}

// check builds the pool that p defines, out of what of it is right, so that
// one problem hides no other.
func (p *Pool) check(s *source, key string) {
	if len(p.Addresses) == 0 {
		if !s.bad[key+".addresses"] && !s.bad[key] {
			s.fail(key+".addresses", "the list is empty: write CIDRs, ranges or single addresses")
		}
		return
	}
	d := p.Definition()
	if !s.bad[key+".addresses"] {
		d.Exclude = p.checkExclude(s, key)
	} else {
		d.Exclude = nil
	}
	if s.bad[key+".blockSize"] {
		d.BlockSize = pools.DefaultBlockSize
	}
	if s.bad[key+".name"] {
		d.Name = "pool"
	}
	checked, err := pools.New(d)
	if err == nil {
		err = checked.CheckGateways()
	}
	for _, err := range parts(err) {
		word, text := inPool(err)
		if s.bad[key+".addresses"] && word != "name" {
			continue // it may come from the address that is missing
		}
		s.fail(strings.TrimSuffix(join(key, word), "."), "%s", text)
	}
	p.checked = checked
}

// checkExclude notes the excluded ranges that the pool does not have, and
// returns the others.
func (p *Pool) checkExclude(s *source, key string) []netipx.IPRange {
	var b netipx.IPSetBuilder
	for _, r := range p.Addresses {
		b.AddRange(r)
	}
	whole, err := b.IPSet()
	if err != nil {
		s.fail(key+".addresses", "%v", err)
		return nil
	}
	var good []netipx.IPRange
	for i, r := range p.Exclude {
		if whole.OverlapsRange(r) {
			good = append(good, r)
			continue
		}
		s.fail(s.item(key+".exclude", i), "%s has no address of the pool: remove it", words(r))
	}
	return good
}

// parts takes apart what pools.New joined, without its "pool NAME: ".
func parts(err error) []error {
	if err == nil {
		return nil
	}
	inner := errors.Unwrap(err)
	if inner == nil {
		return []error{err}
	}
	if joined, ok := inner.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{inner}
}

// inPool parts an error of package pools from the key that it begins with, if
// it does.
func inPool(err error) (key, text string) {
	key, text, _ = strings.Cut(err.Error(), " ")
	switch key = strings.TrimSuffix(key, ":"); key {
	case "name", "addresses", "exclude", "blockSize", "gateways":
		return key, text
	}
	return "", err.Error()
}

// checkOverlaps notes pairs of pools that can't stand side by side.
func (c *Config) checkOverlaps(s *source) {
	var good []*pools.Pool
	var places []int
	for i, p := range c.Pools {
		if p.checked != nil {
			good, places = append(good, p.checked), append(places, i)
		}
	}
	for _, clash := range pools.Clashes(good) {
		a, b := places[clash.A], places[clash.B]
		s.fail(fmt.Sprintf("pools[%d].addresses", b), "%s (pool %q is in line %d)",
			clash.Describe(c.Pools[a].Name, c.Pools[b].Name), c.Pools[a].Name, s.line(fmt.Sprintf("pools[%d].addresses", a)))
	}
}

// checkReach warns of announced addresses that no peer is told of.
func (c *Config) checkReach(s *source) {
	if len(c.Peers) == 0 {
		return // nothing leaves this node, which may well be meant
	}
	carried := map[Family]bool{}
	for _, p := range c.Peers {
		for _, f := range p.mayCarry() {
			carried[f] = true
		}
	}
	for i, p := range c.Pools {
		if !p.Announce || p.checked == nil {
			continue
		}
		for _, f := range p.checked.Families() {
			if name := familyName(f); !carried[name] {
				s.warn(fmt.Sprintf("pools[%d].addresses", i), "pool %q has %s addresses, and no peer is told of them: add %s",
					p.Name, name, map[Family]string{
						IPv4: "a peer with families: [ipv4], or write announce: false",
						IPv6: "a peer with an IPv6 address and families: [ipv6], or write announce: false",
					}[name])
			}
		}
	}
}

func familyName(f pools.Family) Family {
	if f == pools.IPv6 {
		return IPv6
	}
	return IPv4
}

// words writes a range as a person would.
func words(r netipx.IPRange) string {
	if r.From() == r.To() {
		return r.From().String()
	}
	if p, ok := r.Prefix(); ok {
		return p.String()
	}
	return r.String()
}
