package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/api/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// maxPeers is how many the schema takes.
	maxPeers = 64
	// maxText bounds what the kernel has said, and all peers, in bytes.
	maxText = 1024
	// maxWords bounds what one peer has said, in bytes: there are as many of these
	// objects as nodes.
	maxWords = 256
)

// Report implements agent.Cluster: it writes the status of this node's
// NodeSpeaker.
func (c *Cluster) Report(ctx context.Context, r agent.Report) error {
	var before v1alpha1.NodeSpeaker
	if s := c.watcher.Speaker(); s != nil {
		before = *s.DeepCopy()
	}
	return c.Client.Report(ctx, c.Node, before.UID, c.statusOf(r, before))
}

// Confirm implements agent.Cluster: it writes nothing of the status but what the agent
// has acted on, while a fence that is to be lifted waits for it.
func (c *Cluster) Confirm(ctx context.Context, orders string) error {
	s := c.watcher.Speaker()
	if s == nil || s.Spec.Fence == nil || !s.Spec.Fence.Lifting {
		return nil
	}
	generation := heeded(orders, *s)
	if generation == s.Status.ObservedGeneration {
		return nil
	}
	return c.Client.Confirm(ctx, *s.DeepCopy(), generation)
}

// heeded is the generation of the spec of s that the agent has acted on, by what
// ordersOf has made of it; as before if they are orders of another object.
func heeded(orders string, s v1alpha1.NodeSpeaker) int64 {
	uid, generation, _ := strings.Cut(orders, "/")
	if n, err := strconv.ParseInt(generation, 10, 64); err == nil && uid == string(s.UID) {
		return n
	}
	return s.Status.ObservedGeneration
}

func (c *Cluster) statusOf(r agent.Report, before v1alpha1.NodeSpeaker) v1alpha1.NodeSpeakerStatus {
	s := v1alpha1.NodeSpeakerStatus{
		ObservedGeneration: heeded(r.Orders, before), Version: c.Version, ASN: int64(r.ASN),
		PeerCount: int32(len(r.Peers)), Blocks: int32(r.Blocks), Routes: int32(r.Routes),
		Mesh: endpointOf(r.Mesh), Conditions: before.Status.Conditions,
	}
	if r.RouterID.IsValid() {
		s.RouterID = r.RouterID.String()
	}
	for _, p := range r.Peers {
		if p.Established() {
			s.EstablishedCount++
		}
		if len(s.Peers) < maxPeers {
			s.Peers = append(s.Peers, peerOf(p))
		}
	}
	ready := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Serving",
		Message: "the agent serves pods", ObservedGeneration: heeded(r.Orders, before),
	}
	if r.Trouble != "" {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, "Trouble", bounded(r.Trouble, maxText)
	}
	meta.SetStatusCondition(&s.Conditions, ready)
	up := peersUp(r.Peers)
	up.Type, up.ObservedGeneration = v1alpha1.ConditionPeersUp, ready.ObservedGeneration
	meta.SetStatusCondition(&s.Conditions, up)
	return s
}

func peerOf(p agent.PeerStatus) v1alpha1.PeerStatus {
	out := v1alpha1.PeerStatus{
		Name: p.Name, ASN: int64(p.ASN), State: p.Session,
		Received: int32(p.Received), Advertised: int32(p.Advertised), Accepted: int32(p.Accepted), Flaps: int32(p.Flaps), LastError: bounded(p.LastError, maxWords),
	}
	if p.Address.IsValid() { // its router was found
		out.Address = p.Address.String()
	}
	if !p.Since.IsZero() {
		since := metav1.NewTime(p.Since)
		out.Since = &since
	}
	if b := p.BFD; b != nil {
		out.BFD = b.State
		if b.Problem != "" {
			out.BFD = bounded(b.State+": "+b.Problem, maxWords)
		}
	}
	return out
}

// peersUp says whether all sessions are established, and names those that are not.
func peersUp(peers []agent.PeerStatus) metav1.Condition {
	var missing []string
	for _, p := range peers {
		if !p.Established() {
			missing = append(missing, p.Name)
		}
	}
	switch len(missing) {
	case 0:
		return metav1.Condition{Status: metav1.ConditionTrue, Reason: "AllEstablished", Message: fmt.Sprintf("%d of %d sessions are established", len(peers), len(peers))}
	case len(peers):
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: "NoneEstablished", Message: "no session is established"}
	}
	return metav1.Condition{
		Status: metav1.ConditionFalse, Reason: "SomeMissing",
		Message: bounded("no session with "+strings.Join(missing, ", "), maxText),
	}
}

// bounded cuts text after so many bytes, between two letters.
func bounded(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
