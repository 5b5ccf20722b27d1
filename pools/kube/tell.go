package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxMessage bounds the message of an event, in bytes; the API server takes
// no more in the newer of its two kinds.
const maxMessage = 1024

// Warn makes a Warning event about a pod, in the name of this client's program
// on a node. reason is one word in CamelCase. If there is one of that reason
// already, it is counted up and gets the message, not more often than every
// eventPause, but for one message that is another one.
func (c *Client) Warn(ctx context.Context, pod Pod, node, reason, message string) error {
	if len(message) > maxMessage {
		message = message[:maxMessage-3] + "..."
	}
	now := time.Now()
	o := occasion{pod.Namespace, pod.Name, pod.UID, node, reason}
	name, count, due := c.told.again(o, message, now)
	if !due {
		return nil
	}
	e := o.event(message, count, metav1.NewTime(now))
	what := fmt.Sprintf("tell pod %s/%s", pod.Namespace, pod.Name)
	if name != "" {
		patch, err := countUp(e)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		r := c.core.Patch(types.MergePatchType).Namespace(pod.Namespace).Resource("events").Name(name).Body(patch)
		if err := write(ctx, what, r, &core.Event{}); !errors.Is(err, exchange.ErrGone) {
			return err
		}
	}
	var made core.Event
	err := write(ctx, what, c.core.Post().Namespace(pod.Namespace).Resource("events").Body(e), &made)
	if err == nil {
		c.told.keep(o, made.Name)
	}
	return err
}

// Report makes status that of a node's NodeSpeaker of that UID, of any if that is "",
// and makes the NodeSpeaker if there is none. What the agent has heeded it has heeded
// of one object: another one of the name begins anew, and may say something else in a
// generation of the same number.
func (c *Client) Report(ctx context.Context, node string, uid types.UID, status v1alpha1.NodeSpeakerStatus) error {
	err := c.writeStatus(ctx, node, uid, status)
	if !errors.Is(err, exchange.ErrGone) {
		return err
	}
	speaker := &v1alpha1.NodeSpeaker{ObjectMeta: metav1.ObjectMeta{Name: node}}
	err = write(ctx, "report on node "+node, c.own.Post().Resource(v1alpha1.NodeSpeakers).Body(speaker), &v1alpha1.NodeSpeaker{})
	if err != nil && !errors.Is(err, exchange.ErrExists) {
		return err
	}
	status.ObservedGeneration = 0
	return c.writeStatus(ctx, node, "", status)
}

// Confirm writes into the status of s, as it was read, the generation of its spec that
// the node's agent has acted on, and nothing else. The error is exchange.ErrConflict if s
// was changed since. It is an update, and a Report a patch: by that the API server's
// priorities tell what a fence waits for from what nobody does.
func (c *Client) Confirm(ctx context.Context, s v1alpha1.NodeSpeaker, generation int64) error {
	s.Status.ObservedGeneration = generation
	r := c.own.Put().Resource(v1alpha1.NodeSpeakers).Name(s.Name).SubResource("status").Body(&s)
	return write(ctx, "confirm the orders of node "+s.Name, r, &v1alpha1.NodeSpeaker{})
}

// writeStatus replaces the status as a whole. The API server takes no notice of a UID
// in a patch of a status, but for a test of it.
func (c *Client) writeStatus(ctx context.Context, node string, uid types.UID, status v1alpha1.NodeSpeakerStatus) error {
	type step struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	steps := []step{{"add", "/status", status}}
	if uid != "" {
		steps = append([]step{{"test", "/metadata/uid", uid}}, steps...)
	}
	patch, err := json.Marshal(steps)
	if err != nil {
		return err
	}
	r := c.own.Patch(types.JSONPatchType).Resource(v1alpha1.NodeSpeakers).Name(node).SubResource("status").Body(patch)
	return write(ctx, "report on node "+node, r, &v1alpha1.NodeSpeaker{})
}

// Gone says whether a pod is not there any more: the Watcher, which has listed
// all pods, does not know it, and the API server says that it has none of that
// name, or another one. A uid of "" is that of any. It is an error not to know.
func (w *Watcher) Gone(ctx context.Context, namespace, name, uid string) (bool, error) {
	what := fmt.Sprintf("pod %s/%s", namespace, name)
	select {
	case <-w.ready:
	default:
		return false, fmt.Errorf("%s: the pods of this node are not known yet", what)
	}
	if p, ok := w.pods.get(namespace, name); ok && p.Is(uid) {
		return false, nil
	}
	o, err := outlined(ctx, what, w.podsMeta(namespace), name)
	if apierrors.IsNotFound(err) && !apierrors.IsUnexpectedServerError(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	p, err := podOf(o)
	return err == nil && !p.Is(uid), err
}
