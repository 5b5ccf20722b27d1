package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
)

// check holds c's values against each other and completes them.
func (c *Config) check(s *source) {
	c.checkNode(s)
	c.checkPaths(s)
	c.BGP.check(s)
	c.checkOwnASN(s)
	c.checkPeers(s)
	c.checkMesh(s)
	c.checkAnnouncements(s)
	c.checkStore(s)
	c.checkKernel(s)
	c.checkAddresses(s)
}

// checkStore checks what depends on where pools are kept.
func (c *Config) checkStore(s *source) {
	if c.Kubernetes.Kubeconfig != "" {
		checkPath(s, "kubernetes.kubeconfig", c.Kubernetes.Kubeconfig)
	}
	if c.Store == Kubernetes {
		if len(c.Labels) > 0 {
			s.fail("labels", "store is %s%s, and the labels are those of the Node object: use kubectl label node %s, and remove them here", Kubernetes, s.origin("store"), c.Node)
		}
		if len(c.Pools) > 0 {
			s.fail("pools", "store is %s%s, and pools are AddressPool objects there: create them with kubectl, and remove the list", Kubernetes, s.origin("store"))
		}
		return
	}
	c.checkPools(s)
	c.checkReach(s)
	if key := "kubernetes.kubeconfig"; c.Kubernetes.Kubeconfig != "" {
		s.warn(key, "nothing reads it while store is %s%s: write store: %s, or remove it", c.Store, s.origin("store"), Kubernetes)
	}
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func (c *Config) checkNode(s *source) {
	if s.bad["node"] {
		return
	}
	origin := ""
	if _, fromEnv := s.vars["node"]; c.Node == "" && s.lines["node"] == 0 && !fromEnv {
		name, err := hostName()
		if err != nil {
			s.fail("node", "the host has no name (%v): write the node's name", err)
			return
		}
		c.Node, origin = name, ", the host's name,"
	}
	if len(c.Node) > 253 || !dnsName.MatchString(c.Node) {
		s.fail("node", "%q%s can't name a node: write 1 to 253 lower-case letters, digits, inner hyphens and dots", shown(c.Node), origin)
	}
}

// maxSocketPath is the room in the kernel's sockaddr_un less the final zero.
const maxSocketPath = 107

func (c *Config) checkPaths(s *source) {
	checkPath(s, "stateDir", c.StateDir)
	checkPath(s, "runDir", c.RunDir)
	owner := map[string]string{}
	for _, p := range []struct{ key, path string }{{"ipam.socket", c.IPAM.Socket}, {"bgp.api.socket", c.BGP.API.Socket}} {
		if s.bad[p.key] || s.bad["runDir"] || p.path == "" && p.key == "bgp.api.socket" {
			continue
		}
		checkPath(s, p.key, p.path)
		if len(p.path) > maxSocketPath {
			at := p.key
			if _, fromEnv := s.vars[at]; !fromEnv && s.lines[at] == 0 {
				at = "runDir" // the default comes from there
			}
			s.fail(at, "%s %q has %d bytes: a socket's path has at most %d, choose a shorter one", p.key, shown(p.path), len(p.path), maxSocketPath)
		}
		if other := owner[filepath.Clean(p.path)]; other != "" {
			s.fail(p.key, "%q is %s already: choose another path", shown(p.path), other)
		}
		owner[filepath.Clean(p.path)] = p.key
	}
}

func checkPath(s *source, key, path string) {
	switch {
	case s.bad[key]:
	case !filepath.IsAbs(path):
		s.fail(key, "%q is not an absolute path: begin it with /", shown(path))
	case strings.ContainsAny(path, "\n\r"):
		s.fail(key, "%q has a line break: remove it", shown(path))
	}
}

func (b *BGP) check(s *source) {
	if id := b.RouterID; id.IsValid() && (!id.Is4() || id.IsUnspecified() || id.IsMulticast() || id == broadcast()) {
		s.fail("bgp.routerID", "%s can't be a router ID: write an IPv4 address of this node, or any number of its own written like one", id)
	}
	b.Listen.check(s)
	if a := b.API.Address; a.IsValid() && (!a.Addr().IsLoopback() || a.Port() == 0) {
		s.fail("bgp.api.address", "%s: the API has no authentication and is served on loopback only: write 127.0.0.1:50051 or [::1]:50051", a)
	}
}

// checkOwnASN sees to it that this node has one ASN.
func (c *Config) checkOwnASN(s *source) {
	c.checkNodeValue(s, "bgp.asnFrom", c.BGP.ASNFrom)
	if c.BGP.ASN != 0 && c.BGP.ASNFrom != (NodeValue{}) {
		s.fail("bgp.asnFrom", "bgp.asn is %d%s as well: write one of them", c.BGP.ASN, s.origin("bgp.asn"))
	}
}

func (l *Listen) check(s *source) {
	all := map[bool]netip.Addr{} // by family: what takes in all of it
	for _, a := range l.Addresses {
		if a.IsUnspecified() {
			all[a.Is4()] = a
		}
	}
	seen := map[netip.Addr]bool{}
	for i, a := range l.Addresses {
		key := s.item("bgp.listen.addresses", i)
		switch every := all[a.Is4()]; {
		case a.IsMulticast() || a == broadcast():
			s.fail(key, "%s is nobody's own address: write one of this node, or 0.0.0.0 and \"::\" for all", a)
		case seen[a]:
			s.fail(key, "%s is there twice: remove one", a)
		case every.IsValid() && every != a:
			s.fail(key, "%s is included in %s, both can't be listened on: remove one", a, every)
		}
		seen[a] = true
	}
}

func broadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// Numbers that mark routes of the agent where the file names no other.
const (
	ownProtocol     = 117
	learnedProtocol = 118
)

// checkKernel refuses numbers under which routes of others would be taken for
// the agent's, and deleted.
func (c *Config) checkKernel(s *source) {
	k, l := &c.Routes.Kernel, &c.Routes.Learned
	checkMarks(s, "routes.kernel", k.Protocol, k.Table)
	checkMarks(s, "routes.learned", l.Protocol, l.Table)
	if l.Protocol != 0 && l.Protocol == cmp.Or(k.Protocol, ownProtocol) {
		s.fail("routes.learned.protocol", "%d marks the agent's own routes (routes.kernel.protocol), and the ones would be deleted for the others: choose another number", l.Protocol)
	}
	if l.Enabled == nil {
		enabled := k.Enabled
		l.Enabled = &enabled
	}
	l.Table = cmp.Or(l.Table, k.Table)
	if l.Protocol == 0 {
		l.Protocol = learnedProtocol
		if k.Protocol == learnedProtocol {
			l.Protocol = ownProtocol
		}
	}
	for i, p := range c.Peers {
		if len(p.Accept.Prefixes) > 0 && !*l.Enabled {
			s.warn(fmt.Sprintf("peers[%d].accept.prefixes", i), "the routes go nowhere: write routes.learned.enabled: true, or remove the list")
		}
	}
}

// checkMarks checks where routes of the agent are and what marks them.
func checkMarks(s *source, section string, protocol uint8, table uint32) {
	others := map[uint8]string{
		11: "zebra", 12: "BIRD", 16: "DHCP clients", 18: "keepalived", 42: "babeld", 99: "Open/R",
		186: "FRR's BGP", 187: "FRR's IS-IS", 188: "FRR's OSPF", 189: "FRR's RIP", 192: "FRR's EIGRP",
	}
	if who := others[protocol]; who != "" {
		s.fail(section+".protocol", "%d marks the routes of %s, and the agent deletes stale routes under its own number: choose a free one, or remove the line", protocol, who)
	}
	if table == 255 {
		s.fail(section+".table", "255 is the kernel's own table of local addresses: write 254 for the main table, or a table of your own")
	}
}
