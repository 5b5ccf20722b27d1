package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
	"go4.org/netipx"
)

// MeshPeers is how a Rule names all peers of the mesh, and how the name of each of
// them begins, with a slash after it.
const MeshPeers = "mesh"

// Mesh makes peers of all other nodes of the Cluster that have one as well.
type Mesh struct {
	// Families that are exchanged, each over sessions of its own; none are both.
	Families []speaker.Family
	// Session is how to speak with each of the nodes. Where they are, and the family,
	// it need not say.
	Session speaker.Session
	// BFD has the paths to them watched; nil for not.
	BFD *BFD
	// Learn takes from the others the prefixes that are inside of the pools.
	Learn bool
	// MaxPrefixes is Accept.Max of each.
	MaxPrefixes int
	// MaxNodes is how many nodes there may be, this one among them; 0 is no bound.
	MaxNodes int
}

// MeshNode is where a node is for the others of its mesh.
type MeshNode struct {
	Name string `json:"name"`
	// Since is when the node came. Whoever came first stays where there are too many.
	Since     time.Time    `json:"since"`
	ASN       uint32       `json:"asn"`
	Port      uint16       `json:"port"`
	Addresses []netip.Addr `json:"addresses"` // at most one of each family
}

// at is the node's first address of a family that others can reach, the zero one if
// it has none.
func (n MeshNode) at(f speaker.Family) netip.Addr {
	i := slices.IndexFunc(n.Addresses, func(a netip.Addr) bool { return familyOf(a) == f && a.IsGlobalUnicast() })
	if i < 0 {
		return netip.Addr{}
	}
	return n.Addresses[i]
}

func familyOf(a netip.Addr) speaker.Family {
	if a.Is4() {
		return speaker.IPv4
	}
	return speaker.IPv6
}

func (m *Mesh) families() []speaker.Family {
	if len(m.Families) == 0 {
		return []speaker.Family{speaker.IPv4, speaker.IPv6}
	}
	return m.Families
}

// endpoint is node as the others of m are to find it, by addresses, which are all that
// it has; nil if none of them is of use, or it has no ASN.
func (m *Mesh) endpoint(node string, local speaker.Local, addresses []netip.Addr) *MeshNode {
	all := MeshNode{Addresses: addresses}
	n := &MeshNode{Name: node, ASN: local.ASN, Port: cmp.Or(local.Port, bgpPort)}
	for _, f := range m.families() {
		if a := all.at(f); a.IsValid() {
			n.Addresses = append(n.Addresses, a)
		}
	}
	if n.ASN == 0 || len(n.Addresses) == 0 {
		return nil
	}
	return n
}

// bgpPort is where a speaker listens that is told nothing else.
const bgpPort = 179

// peers are those that m makes of nodes, in the order of their names, on the node
// self, which is among them or is about to be. accept are the prefixes to take from
// them. The errors say which nodes are no peers that should be; with errOutside self
// is the one.
func (m *Mesh) peers(self MeshNode, nodes []MeshNode, accept []netip.Prefix) ([]speaker.Peer, error) {
	in, errs := m.within(self, nodes)
	if errors.Is(errs, errOutside) {
		return nil, errs
	}
	taken := map[netip.Addr]string{}
	for _, a := range self.Addresses {
		taken[a] = self.Name
	}
	var out []speaker.Peer
	for _, n := range in {
		for _, f := range m.families() {
			near, far := self.at(f), n.at(f)
			if n.Name == self.Name || !near.IsValid() || !far.IsValid() {
				continue
			}
			if other, is := taken[far]; is {
				errs = errors.Join(errs, fmt.Errorf("mesh: node %s says that its address is %s, which is that of node %s: correct its Node object", n.Name, far, other))
				continue
			}
			taken[far] = n.Name
			out = append(out, m.peer(n, f, near, accept))
		}
	}
	slices.SortFunc(out, func(a, b speaker.Peer) int { return cmp.Compare(a.Name, b.Name) })
	return out, errs
}

// peer is node n as the peer for family f of the node at near. Of the two the one with
// the higher address connects and the other waits: where both of two of GoBGP's speakers
// connect, each refuses the other's connection while it rests, and rests again because
// its own was refused.
func (m *Mesh) peer(n MeshNode, f speaker.Family, near netip.Addr, accept []netip.Prefix) speaker.Peer {
	p := speaker.Peer{
		Name: fmt.Sprintf("%s/%s/%s", MeshPeers, n.Name, f), Address: n.at(f), ASN: n.ASN,
		Session: m.Session, Accept: speaker.Accept{Max: m.MaxPrefixes},
	}
	p.Port, p.LocalAddress, p.Families = n.Port, near, []speaker.Family{f}
	if p.Passive = near.Less(p.Address); p.Passive {
		p.ConnectRetry = 0
	}
	for _, a := range accept {
		if m.Learn && familyOf(a.Addr()) == f {
			p.Accept.Prefixes = append(p.Accept.Prefixes, speaker.PrefixRule{Network: a, AtLeast: a.Bits(), AtMost: a.Addr().BitLen()})
		}
	}
	return p
}

// errOutside: this node has no part in the mesh.
var errOutside = errors.New("this node is not in the mesh")

// maxOutside bounds how many nodes an error names.
const maxOutside = 8

// within are the nodes, self among them, that are not too many: those that came
// first. The error names the others.
func (m *Mesh) within(self MeshNode, nodes []MeshNode) ([]MeshNode, error) {
	all := slices.DeleteFunc(slices.Clone(nodes), func(n MeshNode) bool { return n.Name == self.Name })
	slices.SortFunc(all, byAge)
	place := len(all) // of one that nobody knows of yet
	if i := slices.IndexFunc(nodes, func(n MeshNode) bool { return n.Name == self.Name }); i >= 0 {
		self.Since = nodes[i].Since
		place, _ = slices.BinarySearchFunc(all, self, byAge)
	}
	all = slices.Insert(all, place, self)
	if m.MaxNodes == 0 || len(all) <= m.MaxNodes {
		return all, nil
	}
	var names []string
	for _, n := range all[m.MaxNodes:] {
		names = append(names, n.Name)
	}
	if more := len(names) - maxOutside; more > 0 {
		names = append(names[:maxOutside:maxOutside], fmt.Sprintf("%d more", more))
	}
	const wayOut = "raise maxNodes, which costs the API server, or peer with routers instead"
	err := fmt.Errorf("%d nodes, and bgp.mesh.maxNodes is %d: not in it are those that came last (%s): %s", len(all), m.MaxNodes, strings.Join(names, ", "), wayOut)
	if place >= m.MaxNodes {
		return nil, fmt.Errorf("%w: %w", errOutside, err)
	}
	return all[:m.MaxNodes], fmt.Errorf("mesh: %w", err)
}

func byAge(a, b MeshNode) int {
	return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name))
}

// ranges are all addresses of some pools, as the fewest prefixes. What a node
// announces is inside of one of them, also where it joins blocks of two pools.
func ranges(ps []Pool) []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, p := range ps {
		if !p.Quiet {
			b.AddSet(p.Addresses())
		}
	}
	return built(&b).Prefixes()
}

// ofMesh says whether a peer of that name is of the mesh.
func ofMesh(peer string) bool { return strings.HasPrefix(peer, MeshPeers+"/") }

// meshLast puts the peers of the mesh after the others: where there is no room for all,
// those count that somebody has configured.
func meshLast(peers []PeerStatus) []PeerStatus {
	out := slices.Clone(peers)
	slices.SortStableFunc(out, func(p, q PeerStatus) int {
		switch a, b := ofMesh(p.Name), ofMesh(q.Name); {
		case a == b:
			return 0
		case a:
			return 1
		}
		return -1
	})
	return out
}

// meshAlone says whether peers of the mesh carry family f, and no others.
func (s *Settings) meshAlone(f pools.Family) bool {
	return s.carries(f) && !slices.ContainsFunc(s.Ranges, func(r speaker.Range) bool { return carriesFamily(r.Session, f) }) &&
		!slices.ContainsFunc(s.Peers, func(p speaker.Peer) bool { return !ofMesh(p.Name) && carriesFamily(p.Session, f) })
}
