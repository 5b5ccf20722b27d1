package config

import (
	"fmt"
	"slices"
)

// checkAnnouncements checks the rules by which peers are told of pools.
func (c *Config) checkAnnouncements(s *source) {
	whole := -1 // the first entry after which nothing is left
	for i := range c.Announcements {
		a := &c.Announcements[i]
		key := fmt.Sprintf("announcements[%d].", i)
		c.checkNames(s, key+"peers", a.Peers, c.peerNames())
		if c.Store == Embedded {
			c.checkNames(s, key+"pools", a.Pools, c.poolNames())
		} else {
			c.checkNames(s, key+"pools", a.Pools, nil)
		}
		a.check(s, key)
		a.checkNextHops(s, key+"nextHop")
		c.checkPreference(s, key, a)
		if whole >= 0 {
			s.warn(fmt.Sprintf("announcements[%d]", i), "nothing is left for it: the entry in line %d is about all pools and all peers: put it before that one", s.line(fmt.Sprintf("announcements[%d]", whole)))
		} else if len(a.Pools) == 0 && len(a.Peers) == 0 && !s.bad[key+"pools"] && !s.bad[key+"peers"] {
			whole = i
		}
	}
}

func (c *Config) peerNames() (out []string) {
	for _, p := range c.Peers {
		out = append(out, p.Name)
	}
	if c.BGP.Mesh.Enabled {
		out = append(out, meshPeers)
	}
	return out
}

func (c *Config) poolNames() (out []string) {
	for _, p := range c.Pools {
		out = append(out, p.Name)
	}
	return out
}

// checkNames holds names at key against those that there are; nil is not known.
func (c *Config) checkNames(s *source, key string, names, known []string) {
	list := key[len(around(key))+1:]
	if len(names) == 0 && s.lines[key] > 0 && !s.bad[key] {
		s.fail(key, "the list is empty: write names, or remove the line for all %s", list)
	}
	for i, n := range names {
		switch {
		case slices.Contains(names[:i], n):
			s.fail(s.item(key, i), "%q is there twice: remove one", shown(n))
		case n == "":
			s.fail(s.item(key, i), "the name is empty: write one, or remove it")
		case (known != nil || list == "peers") && !slices.Contains(known, n):
			s.fail(s.item(key, i), "%q is none of the %s%s", shown(n), list, suggestion(n, known, list))
		}
	}
}

func (a *Announcement) check(s *source, key string) {
	if a.Announce || s.bad[key+"announce"] {
		return
	}
	for _, k := range []string{"communities", "largeCommunities", "localPreference", "med", "prepend", "nextHop", "aggregate"} {
		if s.lines[key+k] > 0 {
			s.fail(key+k, "the peers are told nothing (announce: false), so nothing goes with it: remove one of the two")
		}
	}
}

// checkNextHops holds a list of next hops to one of each family.
func (a *Announcement) checkNextHops(s *source, key string) {
	if s.bad[key] {
		return
	}
	if len(a.NextHop) == 0 {
		s.fail(key, "the list is empty: write an address of each family, or remove the line")
	}
	for i, n := range a.NextHop {
		hop := n.Address()
		switch {
		case !hop.IsValid() && len(a.NextHop) > 1:
			s.fail(s.item(key, i), "%s is all that can be said of the next hop: write it alone, or an address of each family", n)
		case slices.ContainsFunc(a.NextHop[:i], func(o NextHop) bool { return o.Address().BitLen() == hop.BitLen() }):
			s.fail(s.item(key, i), "%s is a second one of its family, and a prefix has one next hop: remove one", n)
		}
	}
}

// checkPreference warns of a local preference that nobody is told.
func (c *Config) checkPreference(s *source, key string, a *Announcement) {
	if a.LocalPreference == nil || len(c.Peers) == 0 {
		return
	}
	if c.BGP.Mesh.Enabled && (len(a.Peers) == 0 || slices.Contains(a.Peers, meshPeers)) {
		return
	}
	for _, p := range c.Peers {
		about := len(a.Peers) == 0 || slices.Contains(a.Peers, p.Name)
		if about && p.mayBeInternal(c.BGP.ASN) {
			return
		}
	}
	s.warn(key+"localPreference", "%d: only iBGP peers are told of it (RFC 4271, section 5.1.5), and none of these is one: use med or prepend", *a.LocalPreference)
}

// mayBeInternal says whether the session is iBGP, or is not known not to be.
func (p *Peer) mayBeInternal(local ASN) bool {
	own := p.LocalASN
	if own == 0 {
		own = local
	}
	if p.ASN == 0 && p.ASNFrom == (NodeValue{}) { // an unnumbered router's: any but own
		return false
	}
	return p.ASN == 0 || own == 0 || p.ASN == own
}
