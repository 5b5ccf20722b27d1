package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
)

// maxPassword is what the kernel takes for TCP MD5 (TCP_MD5SIG_MAXKEYLEN).
const maxPassword = 80

func (c *Config) checkPeers(s *source) {
	if len(c.Peers) > 0 && c.BGP.ASN == 0 && !s.bad["bgp.asn"] && !s.bad["bgp"] {
		s.fail("bgp.asn", "it is missing: with peers, write this node's ASN; 64512 to 65534 are for private use")
	}
	names, addresses := map[string]int{}, map[netip.Addr]int{}
	for i := range c.Peers {
		p := &c.Peers[i]
		key := fmt.Sprintf("peers[%d].", i)
		if j, twice := names[p.Name]; twice {
			s.fail(key+"name", "%q is the name of the peer in line %d already: choose another", shown(p.Name), s.line(fmt.Sprintf("peers[%d].name", j)))
		} else if p.Name != "" {
			names[p.Name] = i
		}
		if j, twice := addresses[p.Address]; twice {
			s.fail(key+"address", "%s is the address of peer %q in line %d already: remove one", p.Address, shown(c.Peers[j].Name), s.line(fmt.Sprintf("peers[%d].address", j)))
		} else if p.Address.IsValid() {
			addresses[p.Address] = i
		}
		c.checkPeer(s, key, p)
	}
}

func (c *Config) checkPeer(s *source, key string, p *Peer) {
	if !s.bad[key+"name"] && (p.Name == "" || len(p.Name) > 63 || strings.ContainsFunc(p.Name, func(r rune) bool { return r <= ' ' || r > '~' })) {
		s.fail(key+"name", "%q can't name a peer: write 1 to 63 letters, digits and signs, no spaces", shown(p.Name))
	}
	if p.EBGPMultihop > 0 && p.ASN != 0 && p.ASN == c.BGP.ASN {
		s.fail(key+"ebgpMultihop", "%d: the session is iBGP (asn is %d on both sides), which has no such limit: remove the line", p.EBGPMultihop, p.ASN)
	}
	if p.Address.IsValid() {
		c.checkPeerAddress(s, key, p)
		p.checkFamilies(s, key)
	}
	if p.PasswordFile != "" || s.lines[key+"passwordFile"] > 0 && !s.bad[key+"passwordFile"] {
		p.Password = readPassword(s, key+"passwordFile", p.PasswordFile)
	}
}

func (c *Config) checkPeerAddress(s *source, key string, p *Peer) {
	a := p.Address
	switch {
	case a.IsUnspecified() || a.IsMulticast() || a == broadcast():
		s.fail(key+"address", "%s is no router's address: write the one that the router has towards this node", a)
	case a.IsLinkLocalUnicast() && a.Is6():
		s.fail(key+"address", "%s is a link-local address, sessions over one are not in this version: write the router's global or unique local address", a)
	case a == c.BGP.RouterID:
		s.fail(key+"address", "%s is this node itself (bgp.routerID): write the router's address", a)
	case p.Port == c.BGP.Listen.Port && c.listensOn(a):
		s.fail(key+"address", "%s is this node itself (bgp.listen): write the router's address", a)
	}
}

// listensOn says whether a is surely one of this node's own. Which others it
// has depends on the host.
func (c *Config) listensOn(a netip.Addr) bool {
	for _, l := range c.BGP.Listen.Addresses {
		if l == a || l.IsUnspecified() && a.IsLoopback() && l.Is4() == a.Is4() {
			return true
		}
	}
	return false
}

func (p *Peer) checkFamilies(s *source, key string) {
	if len(p.Families) == 0 && !s.bad[key+"families"] {
		if s.lines[key+"families"] > 0 {
			s.fail(key+"families", "the list is empty: write ipv4, ipv6 or both, or remove the line")
		}
		p.Families = []Family{IPv6}
		if p.Address.Is4() {
			p.Families = []Family{IPv4}
		}
	}
	for i, f := range p.Families {
		at := s.item(key+"families", i)
		if i > 0 && f == p.Families[0] {
			s.fail(at, "%s is there twice: remove one", f)
		}
		if f == IPv6 && p.Address.Is4() {
			s.fail(at, "IPv6 prefixes over the IPv4 session with %s would have an IPv4-mapped next hop, which routers drop: add a peer with the router's IPv6 address for them", p.Address)
		}
	}
}

// readPassword reads a password file. Its errors hold nothing of what is in
// it, nor the path if that may be a password put in the wrong place.
func readPassword(s *source, key, path string) Secret {
	if !strings.HasPrefix(path, "/") {
		s.fail(key, "it is not an absolute path: write the password to a file and name that here, beginning with /")
		return ""
	}
	data, mode, err := readFile(path, 1<<12)
	if err != nil {
		s.fail(key, "%s", passwordAdvice(path, err))
		return ""
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case password == "":
		s.fail(key, "%s is empty: write the password into it, or remove the line", path)
	case len(password) > maxPassword:
		s.fail(key, "%s holds %d bytes: TCP MD5 takes at most %d, agree on a shorter password with the router", path, len(password), maxPassword)
	case strings.ContainsAny(password, "\n\x00"):
		s.fail(key, "%s has more than one line: leave the password alone in it", path)
	}
	if mode&0o007 != 0 {
		s.warn(key, "%s is open to everybody on this host (mode %04o): chmod 600 it, or give the mounted Secret defaultMode 0400", path, mode.Perm())
	}
	return Secret(password)
}

func passwordAdvice(path string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path + " does not exist: create it with the password in it, or remove the line"
	case errors.Is(err, fs.ErrPermission):
		return path + " can't be read: give the agent's user permission"
	}
	return err.Error()
}
