package cluster

import (
	"context"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/kube"
)

// WatchMesh implements agent.Cluster.
func (c *Cluster) WatchMesh(ctx context.Context, changed func([]agent.MeshNode)) error {
	return c.Client.WatchMesh(ctx, func(nodes []kube.MeshNode) { changed(meshOf(nodes)) })
}

// meshOf leaves out fenced nodes: their blocks are being given to others.
func meshOf(nodes []kube.MeshNode) (out []agent.MeshNode) {
	for _, n := range nodes {
		if !n.Fenced {
			out = append(out, agent.MeshNode{Name: n.Node, Since: n.Made, ASN: n.ASN, Port: n.Port, Addresses: n.Addresses})
		}
	}
	return out
}

// endpointOf is what a node's own NodeSpeaker says of it for the mesh.
func endpointOf(n *agent.MeshNode) *v1alpha1.MeshEndpoint {
	if n == nil {
		return nil
	}
	out := &v1alpha1.MeshEndpoint{ASN: int64(n.ASN), Port: int32(n.Port)}
	for _, a := range n.Addresses {
		out.Addresses = append(out.Addresses, v1alpha1.NodeAddress(a.String()))
	}
	return out
}
