package kube

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
)

// MeshNode is where a node is for the others of its mesh, as its NodeSpeaker has it.
type MeshNode struct {
	Node string
	// Made is when the NodeSpeaker was.
	Made      time.Time
	ASN       uint32
	Port      uint16
	Addresses []netip.Addr
	// Fenced nodes count as gone.
	Fenced bool
}

// WatchMesh calls changed with the nodes that take part in a mesh, in the order of
// their names, until ctx ends, whose error it returns: first when they are known, and
// then when something of it has changed. It watches all NodeSpeakers, which costs the
// API server an event for each of their status's changes.
func (c *Client) WatchMesh(ctx context.Context, changed func([]MeshNode)) error {
	speakers := newMirror("node speakers of the mesh", c.log, meshNodeOf)
	var last []MeshNode
	told := false
	return speakers.follow(ctx, every(c.own, v1alpha1.NodeSpeakers), &v1alpha1.NodeSpeaker{}, func() {
		now := slices.DeleteFunc(speakers.all(), func(n MeshNode) bool { return len(n.Addresses) == 0 })
		if told && slices.EqualFunc(now, last, MeshNode.equal) {
			return
		}
		last, told = now, true
		changed(slices.Clone(now))
	})
}

func (n MeshNode) equal(o MeshNode) bool {
	return n.Node == o.Node && n.Made.Equal(o.Made) && n.ASN == o.ASN && n.Port == o.Port && n.Fenced == o.Fenced && slices.Equal(n.Addresses, o.Addresses)
}

// meshNodeOf is what is kept of a NodeSpeaker; it has no addresses if the node is in
// no mesh.
func meshNodeOf(o any) (MeshNode, error) {
	s, ok := o.(*v1alpha1.NodeSpeaker)
	if !ok {
		return MeshNode{}, fmt.Errorf("a node speaker is no %T", o)
	}
	n := MeshNode{Node: s.Name, Made: s.CreationTimestamp.Time, Fenced: s.Spec.Fence != nil}
	m := s.Status.Mesh
	if m == nil {
		return n, nil
	}
	if m.ASN < 1 || m.ASN > math.MaxUint32 || m.Port < 1 || m.Port > math.MaxUint16 {
		return n, fmt.Errorf("NodeSpeaker %s: ASN %d and port %d of its mesh: want both above 0, within 32 and 16 bits", s.Name, m.ASN, m.Port)
	}
	n.ASN, n.Port = uint32(m.ASN), uint16(m.Port)
	for _, text := range m.Addresses {
		a, err := netip.ParseAddr(string(text))
		if err != nil {
			return n, fmt.Errorf("NodeSpeaker %s: an address of its mesh: %w", s.Name, err)
		}
		if !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" {
			return n, fmt.Errorf("NodeSpeaker %s: %s is no address by which a node of a mesh can be reached", s.Name, a)
		}
		n.Addresses = append(n.Addresses, a)
	}
	return n, nil
}
