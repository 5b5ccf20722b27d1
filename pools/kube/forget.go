package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FenceKept is how long a fenced NodeSpeaker outlives its Node: a machine that
// was cut off all the time, and comes back, finds out that it was declared gone.
const FenceKept = 24 * time.Hour

// Forget removes the NodeSpeakers of nodes of which nothing is left, as left
// says, and of which the API server has no Node. What the garbage collector does
// with owner references is the same; but not every cluster's NodeSpeakers have
// them. The error says what could not be removed; the rest was.
func (c *Custodian) Forget(ctx context.Context, left func(node string) bool) error {
	var found []v1alpha1.NodeSpeaker
	err := c.eachSpeaker(ctx, func(s *v1alpha1.NodeSpeaker) {
		fresh := s.Spec.Fence != nil && c.now().Sub(s.Spec.Fence.Since.Time) < FenceKept
		if !fresh && s.DeletionTimestamp == nil && left(s.Name) {
			found = append(found, *s)
		}
	})
	errs := []error{err}
	for _, s := range found {
		p, _, err := c.presence(ctx, s.Name, "")
		if err == nil && p == exchange.Absent {
			err = c.removeSpeaker(ctx, &s)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeSpeaker removes a NodeSpeaker as it was read: an agent or a fence that
// has written it since keeps it.
func (c *Custodian) removeSpeaker(ctx context.Context, s *v1alpha1.NodeSpeaker) error {
	what := "remove NodeSpeaker " + s.Name
	if s.UID == "" || s.ResourceVersion == "" {
		return fmt.Errorf("%s: its UID %q or version %q is missing", what, s.UID, s.ResourceVersion)
	}
	err := c.remove(ctx, what, s, v1alpha1.NodeSpeakers, metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion})
	switch {
	case err == nil:
		c.log.Info("NodeSpeaker of a node that is gone removed", "node", s.Name)
	case errors.Is(err, exchange.ErrGone) || errors.Is(err, exchange.ErrConflict):
		return nil // somebody was quicker, and it is looked at again
	}
	return err
}

// eachSpeaker calls each for every NodeSpeaker there is.
func (c *Custodian) eachSpeaker(ctx context.Context, each func(*v1alpha1.NodeSpeaker)) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	for token := ""; ; {
		var list v1alpha1.NodeSpeakerList
		const limit = 500
		o := metav1.ListOptions{Limit: limit, Continue: token}
		r := c.own.Get().Resource(v1alpha1.NodeSpeakers).VersionedParams(&o, metav1.ParameterCodec)
		if err := read(ctx, "list the NodeSpeakers", r, &list); err != nil {
			return err
		}
		for i := range list.Items {
			each(&list.Items[i])
		}
		if token = list.Continue; token == "" {
			return nil
		}
	}
}
