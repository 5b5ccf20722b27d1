package config

import (
	"fmt"
	"slices"
	"strings"
)

// checkMesh completes the mesh and sees to it that there can be one.
func (c *Config) checkMesh(s *source) {
	m := &c.BGP.Mesh
	if !m.Enabled {
		return
	}
	if c.Store == Embedded && !s.bad["store"] {
		s.fail("bgp.mesh.enabled", "store is %s%s, which knows no other nodes: write store: %s, or list the other hosts in peers", c.Store, s.origin("store"), Kubernetes)
	}
	if len(c.BGP.Listen.Addresses) == 0 && !s.bad["bgp.listen.addresses"] {
		s.fail("bgp.mesh.enabled", "other nodes connect to this one, and it does not listen: write bgp.listen.addresses")
	}
	for i, p := range c.Peers {
		if p.Name == meshPeers || strings.HasPrefix(p.Name, meshPeers+"/") {
			s.fail(fmt.Sprintf("peers[%d].name", i), "%q is a name of the mesh's: choose another", shown(p.Name))
		}
	}
	learned := c.Routes.Kernel.Enabled
	if e := c.Routes.Learned.Enabled; e != nil {
		learned = *e
	}
	if m.Learn && !learned {
		s.warn("bgp.mesh.learn", "the routes go nowhere: write routes.learned.enabled: true, or bgp.mesh.learn: false")
	}
	m.Session, m.Password = Options{}, ""
	c.checkMeshTemplate(s)
	m.checkFamilies(s)
	if m.PasswordFile != "" || s.lines["bgp.mesh.passwordFile"] > 0 && !s.bad["bgp.mesh.passwordFile"] {
		m.Password = readPassword(s, "bgp.mesh.passwordFile", m.PasswordFile)
	}
}

// checkMeshTemplate takes over the template.
func (c *Config) checkMeshTemplate(s *source) {
	m := &c.BGP.Mesh
	if m.Template == "" || s.bad["bgp.mesh.template"] {
		return
	}
	i := slices.IndexFunc(c.Templates, func(t Template) bool { return t.Name == m.Template })
	if i < 0 {
		var names []string
		for _, t := range c.Templates {
			names = append(names, t.Name)
		}
		s.fail("bgp.mesh.template", "there is no template %q%s", shown(m.Template), suggestion(m.Template, names, "templates"))
		return
	}
	at := fmt.Sprintf("templates[%d].", i)
	for _, key := range []string{
		"nodeSelector", "asn", "asnFrom", "most", "port", "localAddress", "localASN", "passive", "ebgpMultihop", "routeReflectorClient",
		"addPaths", "shutdown", "shutdownMessage", "accept.prefixes",
	} {
		if s.lines[at+key] > 0 {
			s.fail("bgp.mesh.template", "%q says %s (line %d), which the nodes of a mesh decide among themselves: name a template without it", shown(m.Template), key, s.line(at+key))
		}
	}
	p := Peer{Name: meshPeers, Options: c.Templates[i].Options}
	c.checkSession(s, at, &p)
	m.Session = p.Options
	if p.PasswordFile != "" && m.PasswordFile == "" && !s.bad[at+"passwordFile"] {
		m.Password = readPassword(s, at+"passwordFile", p.PasswordFile)
	}
}

func (m *Mesh) checkFamilies(s *source) {
	const key = "bgp.mesh.families"
	for i, f := range m.Families {
		if i > 0 && f == m.Families[0] {
			s.fail(s.item(key, i), "%s is there twice: remove one", f)
		}
	}
	switch {
	case len(m.Families) > 0:
		m.Session.Families = m.Families
	case s.lines[key] > 0 && !s.bad[key]:
		s.fail(key, "the list is empty: write ipv4, ipv6 or both, or remove the line")
	}
}
