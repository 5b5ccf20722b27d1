package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// maxPassword is what the kernel takes for TCP MD5 (TCP_MD5SIG_MAXKEYLEN).
const maxPassword = 80

func (c *Config) checkPeers(s *source) {
	if (len(c.Peers) > 0 || c.BGP.Mesh.Enabled) && c.BGP.ASN == 0 && c.BGP.ASNFrom == (NodeValue{}) && !s.bad["bgp.asn"] && !s.bad["bgp.asnFrom"] && !s.bad["bgp"] {
		s.fail("bgp.asn", "it is missing: with peers or a mesh, write this node's ASN; 64512 to 65534 are for private use")
	}
	names := map[string]int{}
	for i := range c.Peers {
		p := &c.Peers[i]
		key := fmt.Sprintf("peers[%d].", i)
		if j, twice := names[p.Name]; twice {
			s.fail(key+"name", "%q is the name of the peer in line %d already: choose another", shown(p.Name), s.line(fmt.Sprintf("peers[%d].name", j)))
		} else if p.Name != "" {
			names[p.Name] = i
		}
		for j, q := range c.Peers[:i] {
			if where, same := p.meets(q); same && !p.NodeSelector.excludes(q.NodeSelector) {
				s.fail(key+where, "%s is that of peer %q in line %d already: remove one, or give them a nodeSelector each by which no node has both", p.place(), shown(q.Name), s.line(fmt.Sprintf("peers[%d].%s", j, where)))
				break
			}
		}
		c.checkPeer(s, key, p)
	}
	for i := range c.Peers {
		c.checkUnsigned(s, fmt.Sprintf("peers[%d].", i), &c.Peers[i])
	}
}

// checkUnsigned sees to it that a router without a password which opens the session is
// in no range that has one: the kernel takes signed connections alone from there.
func (c *Config) checkUnsigned(s *source, key string, p *Peer) {
	far := p.far()
	if p.PasswordFile != "" || s.bad[key+"passwordFile"] || !far.IsValid() || !p.Range.IsValid() && !p.Passive {
		return
	}
	bits := far.BitLen()
	where := "address"
	if p.Range.IsValid() {
		bits, where = p.Range.Bits(), "range"
	}
	for i, q := range c.Peers {
		if q.PasswordFile != "" && q.Range.IsValid() && q.Range.Contains(far) && q.Range.Bits() < bits && !p.NodeSelector.excludes(q.NodeSelector) {
			s.fail(key+where, "%s is inside of %s of peer %q in line %d, which has a password, and without one no router in there can connect: give this one a passwordFile, too, or take networks that do not overlap", p.place(), q.Range, shown(q.Name), s.line(fmt.Sprintf("peers[%d].range", i)))
			return
		}
	}
}

// meets says whether p and q are at the same place, and by which key.
func (p *Peer) meets(q Peer) (key string, same bool) {
	switch {
	case p.Address.IsValid():
		return "address", p.Address == q.Address
	case p.Range.IsValid():
		return "range", p.Range == q.Range
	case p.Interface != "":
		return "interface", p.Interface == q.Interface
	}
	return "", false
}

// place is where the peer is, in words.
func (p *Peer) place() string {
	switch {
	case p.Address.IsValid():
		return p.Address.String()
	case p.Range.IsValid():
		return p.Range.String()
	}
	return p.Interface
}

func (c *Config) checkPeer(s *source, key string, p *Peer) {
	if !s.bad[key+"name"] && (p.Name == "" || len(p.Name) > 63 || strings.ContainsFunc(p.Name, func(r rune) bool { return r <= ' ' || r > '~' })) {
		s.fail(key+"name", "%q can't name a peer: write 1 to 63 letters, digits and signs, no spaces", shown(p.Name))
	}
	c.checkPlace(s, key, p)
	c.checkPeerASN(s, key, p)
	if p.Address.IsValid() {
		c.checkPeerAddress(s, key, p)
	}
	p.checkFamilies(s, key)
	fail := func(at, format string, args ...any) { s.fail(key+at, format, args...) }
	p.atOdds(c.BGP.ASN, fail)
	c.checkSession(s, key, p)
	p.Accept.check(s, key+"accept.", p)
	if p.PasswordFile != "" || s.lines[key+"passwordFile"] > 0 && !s.bad[key+"passwordFile"] {
		p.Password = readPassword(s, key+"passwordFile", p.PasswordFile)
	}
}

// checkPlace sees to it that there is one way to find the router.
func (c *Config) checkPlace(s *source, key string, p *Peer) {
	if s.bad[strings.TrimSuffix(key, ".")] {
		return
	}
	c.checkNodeValue(s, key+"addressFrom", p.AddressFrom)
	var ways []string
	for _, way := range []string{"address", "addressFrom", "interface", "range"} {
		if s.lines[key+way] > 0 || s.bad[key+way] {
			ways = append(ways, way)
		}
	}
	switch {
	case len(ways) > 1:
		s.fail(key+ways[1], "the peer has %s as well: write one of them", ways[0])
	case len(ways) == 0:
		s.fail(key+"address", "it is missing: every peer needs address, addressFrom, interface or range")
	}
	if s.lines[key+"interface"] > 0 && !s.bad[key+"interface"] && !isInterface(p.Interface) {
		s.fail(key+"interface", "%q can't name a network interface: write 1 to 15 signs without spaces, slashes and colons, such as eth0", shown(p.Interface))
	}
	if n := p.Range; n.IsValid() && (n.Addr().IsMulticast() || n.Addr().IsLinkLocalUnicast() && n.Addr().Is6()) {
		s.fail(key+"range", "%s is no network of routers: write the network of their addresses towards this node", n)
	}
	if s.lines[key+"most"] > 0 && s.heritage(key+"most") == "" && len(ways) > 0 && ways[0] != "range" {
		s.fail(key+"most", "%d: only a range has it: remove the line", p.Most)
	}
}

func isInterface(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' })
}

// checkNodeValue checks which label or annotation a value is to come from.
func (c *Config) checkNodeValue(s *source, key string, v NodeValue) {
	switch {
	case s.bad[key] || s.bad[key+".label"] || s.bad[key+".annotation"]:
		s.bad[key] = true
	case v.Label != "" && v.Annotation != "":
		s.fail(key, "it names a label and an annotation: write one of them")
	case v == (NodeValue{}) && s.lines[key] > 0:
		s.fail(key, "it names nothing: write {label: KEY} or {annotation: KEY}")
	case v.Label != "" && !isLabelKey(v.Label):
		s.fail(key+".label", "%q can't be the key of a label: write one such as example.com/asn", shown(v.Label))
	case v.Annotation != "" && !isLabelKey(v.Annotation):
		s.fail(key+".annotation", "%q can't be the key of an annotation: write one such as example.com/asn", shown(v.Annotation))
	case v.Annotation != "" && c.Store == Embedded && !s.bad["store"]:
		s.fail(key+".annotation", "%q: without a Node object there are no annotations (store is %s%s): write {label: KEY}, and the label in labels", shown(v.Annotation), c.Store, s.origin("store"))
	}
}

// checkPeerASN sees to it that there is one ASN.
func (c *Config) checkPeerASN(s *source, key string, p *Peer) {
	c.checkNodeValue(s, key+"asnFrom", p.ASNFrom)
	from := s.lines[key+"asnFrom"] > 0 || s.bad[key+"asnFrom"]
	switch {
	case p.ASN != 0 && from:
		s.fail(key+"asnFrom", "the peer has asn %d as well: write one of them", p.ASN)
	case p.ASN == 0 && !from && !s.bad[key+"asn"] && p.Interface == "" && !s.bad[key+"interface"]:
		s.fail(key+"asn", "it is missing: every peer needs asn or asnFrom, in its own entry or in its template")
	}
}

func (c *Config) checkPeerAddress(s *source, key string, p *Peer) {
	a := p.Address
	switch {
	case noRouter(a):
		s.fail(key+"address", "%s is no router's address: write the one that the router has towards this node", a)
	case a.IsLinkLocalUnicast() && a.Is6():
		s.fail(key+"address", "%s is a link-local address, which every link has: name the link with interface instead", a)
	default:
		if err := c.itself(a, p.Port); err != nil {
			s.fail(key+"address", "%s", err)
		}
	}
}

// itself is an error if the address and the port are surely this node's own.
func (c *Config) itself(a netip.Addr, port uint16) error {
	switch {
	case a == c.BGP.RouterID:
		return fmt.Errorf("%s is this node itself (bgp.routerID): write the router's address", a)
	case port == c.BGP.Listen.Port && c.listensOn(a):
		return fmt.Errorf("%s is this node itself (bgp.listen): write the router's address", a)
	}
	return nil
}

func noRouter(a netip.Addr) bool { return a.IsUnspecified() || a.IsMulticast() || a == broadcast() }

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

// far is an address of the other side; the zero one if it is not known yet.
func (p *Peer) far() netip.Addr {
	if p.Range.IsValid() {
		return p.Range.Addr()
	}
	return p.Address
}

func (p *Peer) checkFamilies(s *source, key string) {
	if len(p.Families) == 0 && !s.bad[key+"families"] {
		if s.lines[key+"families"] > 0 {
			s.fail(key+"families", "the list is empty: write ipv4, ipv6 or both, or remove the line")
		}
		p.defaultFamilies()
	}
	for i, f := range p.Families {
		at := s.item(key+"families", i)
		if i > 0 && f == p.Families[0] {
			s.fail(at, "%s is there twice: remove one", f)
		}
	}
}

// defaultFamilies fills in what the session carries, if that is known.
func (p *Peer) defaultFamilies() {
	switch far := p.far(); {
	case len(p.Families) > 0:
	case p.Interface != "":
		p.Families = []Family{IPv4, IPv6}
	case far.Is4():
		p.Families = []Family{IPv4}
	case far.IsValid():
		p.Families = []Family{IPv6}
	}
}

// mayCarry are the families that the session carries or, before its address is known,
// may: both, but for an address out of a label, which can't hold an IPv6 one.
func (p Peer) mayCarry() []Family {
	p.defaultFamilies()
	switch {
	case len(p.Families) > 0:
		return p.Families
	case p.AddressFrom.Label != "":
		return []Family{IPv4}
	}
	return []Family{IPv4, IPv6}
}

// checkSession checks the options of a session against each other.
func (c *Config) checkSession(s *source, key string, p *Peer) {
	given := func(k string) bool { return s.lines[key+k] > 0 && !s.bad[key+k] }
	fail := func(k, format string, args ...any) { s.fail(key+k, format, args...) }
	if given("ebgpMultihop") && given("ttlSecurity") {
		fail("ttlSecurity", "%d: it keeps out what ebgpMultihop (%d) lets in: write ttlSecurity alone, with as many hops as there are", p.TTLSecurity, p.EBGPMultihop)
	}
	if given("keepaliveTime") && !s.bad[key+"holdTime"] && p.KeepaliveTime >= p.HoldTime {
		fail("keepaliveTime", "%v is not less than the hold time of %v: write a third of it, or remove the line", p.KeepaliveTime, p.HoldTime)
	}
	if n := len(p.ShutdownMessage); n > 255 {
		fail("shutdownMessage", "%d bytes: a router is told 255 at most (RFC 9003): write fewer", n)
	} else if n > 0 && !p.Shutdown {
		s.warn(key+"shutdownMessage", "nobody is told while the session is open: write shutdown: true, or remove it")
	}
	if (p.Passive || p.Range.IsValid()) && len(c.BGP.Listen.Addresses) == 0 && !s.bad["bgp.listen.addresses"] {
		fail(map[bool]string{true: "passive", false: "range"}[p.Passive], "the router is to open the session, and this node does not listen: write bgp.listen.addresses, or let the node connect")
	}
	if given("connectRetryTime") && (p.Passive || p.Range.IsValid()) && s.heritage(key+"connectRetryTime") == "" {
		s.warn(key+"connectRetryTime", "nothing is tried where the router opens the session: remove it")
	}
	if p.Interface != "" {
		for _, k := range []string{"passwordFile", "ebgpMultihop", "localAddress"} {
			if given(k) {
				fail(k, "%s", map[string]string{
					"passwordFile": "TCP MD5 does not work between link-local addresses: name the router by address, or remove the password",
					"ebgpMultihop": "the router is on the link itself: remove the line",
					"localAddress": "the session is between the link-local addresses of both ends: remove the line, or name the router by address",
				}[k])
			}
		}
	}
}

// atOdds calls fail for each option that does not go with who and where the
// router is. What is not known yet, 0 or invalid, is at odds with nothing.
func (p *Peer) atOdds(local ASN, fail func(key, format string, args ...any)) {
	own, far := cmp.Or(p.LocalASN, local), p.far()
	internal, known := p.ASN == own, p.ASN != 0 && own != 0
	if known && internal && p.EBGPMultihop > 0 {
		fail("ebgpMultihop", "%d: the session is iBGP (asn is %d on both sides), which has no such limit: remove the line", p.EBGPMultihop, p.ASN)
	}
	if known && !internal && p.RouteReflectorClient {
		fail("routeReflectorClient", "the session is eBGP (this node's ASN is %d, the router's %d), and only iBGP has reflectors: remove the line", own, p.ASN)
	}
	if !far.IsValid() {
		return
	}
	if far.Is4() && slices.Contains(p.Families, IPv6) {
		fail("families", "IPv6 prefixes over the IPv4 session with %s would have an IPv4-mapped next hop, which routers drop: add a peer with the router's IPv6 address for them", p.place())
	}
	if a := p.LocalAddress; a.IsValid() {
		switch {
		case noRouter(a):
			fail("localAddress", "%s is nobody's own address: write one of this node", a)
		case a == p.Address:
			fail("localAddress", "%s is the router's address: write one of this node", a)
		case a.Is4() != far.Is4():
			fail("localAddress", "%s is of another family than the router's %s: write an address of its family", a, p.place())
		}
	}
}

func (a *Accept) check(s *source, key string, p *Peer) {
	for i := range a.Prefixes {
		r := &a.Prefixes[i]
		at := fmt.Sprintf("%sprefixes[%d].", key, i)
		if !r.Prefix.IsValid() {
			continue
		}
		ge, le := s.lines[at+"ge"] > 0, s.lines[at+"le"] > 0
		if !ge {
			r.GE = r.Prefix.Bits()
		}
		if !le {
			r.LE = r.GE
			if ge {
				r.LE = r.Prefix.Addr().BitLen()
			}
		}
		r.check(s, at)
		if f := IPv6; len(p.Families) > 0 && !s.bad[key+"families"] {
			if r.Prefix.Addr().Is4() {
				f = IPv4
			}
			if !slices.Contains(p.Families, f) {
				s.warn(at+"prefix", "%s: the session carries no %s prefixes (families): nothing will come", r.Prefix, f)
			}
		}
	}
}

func (r *PrefixRule) check(s *source, at string) {
	bits, most := r.Prefix.Bits(), r.Prefix.Addr().BitLen()
	switch {
	case s.bad[at+"ge"] || s.bad[at+"le"]:
	case r.GE < bits:
		s.fail(at+"ge", "%d: routes inside of %s have a length of at least %d: write %d to %d", r.GE, r.Prefix, bits, bits, most)
	case r.GE > most:
		s.fail(at+"ge", "%d: the longest prefix of its family has %d bits: write %d to %d", r.GE, most, bits, most)
	case r.LE > most:
		s.fail(at+"le", "%d: the longest prefix of its family has %d bits: write %d to %d", r.LE, most, r.GE, most)
	case r.LE < r.GE:
		s.fail(at+"le", "%d is less than the shortest length %d: write %d to %d", r.LE, r.GE, r.GE, most)
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
