package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Fences returns those that stand. It lists all NodeSpeakers.
func (c *Custodian) Fences(ctx context.Context) (out []exchange.Fence, err error) {
	err = c.eachSpeaker(ctx, func(s *v1alpha1.NodeSpeaker) {
		if s.Spec.Fence != nil {
			out = append(out, fenceOf(s))
		}
	})
	return out, err
}

// Fence reads the NodeSpeaker of a node, past all caches.
func (c *Custodian) Fence(ctx context.Context, node string) (exchange.Fence, error) {
	var o v1alpha1.NodeSpeaker
	if err := read(ctx, "read NodeSpeaker "+node, c.own.Get().Resource(v1alpha1.NodeSpeakers).Name(node), &o); err != nil {
		return exchange.Fence{}, err
	}
	if o.Name != node || o.ResourceVersion == "" {
		return exchange.Fence{}, fmt.Errorf("read NodeSpeaker %s: the answer is not that NodeSpeaker", node)
	}
	return fenceOf(&o), nil
}

func fenceOf(s *v1alpha1.NodeSpeaker) exchange.Fence {
	f := exchange.Fence{Node: s.Name, Version: s.ResourceVersion, Generation: s.Generation, Heeded: s.Status.ObservedGeneration}
	if s.Spec.Fence != nil {
		f.Stands, f.Lifting, f.Machine = true, s.Spec.Fence.Lifting, string(s.Spec.Fence.NodeUID)
	}
	return f
}

// SetFence tells the agent of a node that it counts as gone, and why that is so, in
// its NodeSpeaker, which it makes if there is none. It is exchange.ErrConflict if the
// node is there; that one which is not has been absent for long enough, the caller
// knows.
func (c *Custodian) SetFence(ctx context.Context, f exchange.Fence) error {
	p, why, err := c.presence(ctx, f.Node, f.Machine)
	if err != nil {
		return err
	}
	if p == exchange.Present {
		return fmt.Errorf("%w: node %s is there", exchange.ErrConflict, f.Node)
	}
	fence := v1alpha1.Fence{NodeUID: types.UID(f.Machine), Since: metav1.NewTime(c.now()), Reason: why}
	err = c.writeFence(ctx, f.Node, map[string]any{"spec": map[string]any{"fence": map[string]any{
		"nodeUID": fence.NodeUID, "since": fence.Since, "reason": fence.Reason, "lifting": nil,
	}}})
	if errors.Is(err, exchange.ErrGone) {
		speaker := &v1alpha1.NodeSpeaker{ObjectMeta: metav1.ObjectMeta{Name: f.Node}, Spec: v1alpha1.NodeSpeakerSpec{Fence: &fence}}
		// With exchange.ErrExists its agent was quicker: the caller tries again.
		err = write(ctx, "fence node "+f.Node, c.own.Post().Resource(v1alpha1.NodeSpeakers).Body(speaker), &v1alpha1.NodeSpeaker{})
	}
	if err == nil {
		c.log.Info("node counts as gone: its blocks are freed", "node", f.Node, "machine", f.Machine, "reason", why)
	}
	return err
}

// LiftFence says that f, at its Version, comes off once the agent has taken its blocks
// anew.
func (c *Custodian) LiftFence(ctx context.Context, f exchange.Fence) error {
	return c.changeFence(ctx, f, map[string]any{"lifting": true})
}

// RemoveFence takes f off, at its Version.
func (c *Custodian) RemoveFence(ctx context.Context, f exchange.Fence) error {
	err := c.changeFence(ctx, f, nil)
	if err == nil {
		c.log.Info("node is back: its fence is taken off", "node", f.Node)
	}
	return err
}

// changeFence changes f at its Version. A nil change takes it off.
func (c *Custodian) changeFence(ctx context.Context, f exchange.Fence, change any) error {
	if f.Version == "" {
		return fmt.Errorf("fence node %s: the version of its NodeSpeaker is missing", f.Node)
	}
	return c.writeFence(ctx, f.Node, map[string]any{
		"metadata": map[string]any{"resourceVersion": f.Version}, "spec": map[string]any{"fence": change},
	})
}

// writeFence changes a NodeSpeaker. The error is exchange.ErrGone if there is none
// of that name.
func (c *Custodian) writeFence(ctx context.Context, node string, change map[string]any) error {
	patch, err := json.Marshal(change)
	if err != nil {
		return err
	}
	r := c.own.Patch(types.MergePatchType).Resource(v1alpha1.NodeSpeakers).Name(node).Body(patch)
	return write(ctx, "fence node "+node, r, &v1alpha1.NodeSpeaker{})
}
