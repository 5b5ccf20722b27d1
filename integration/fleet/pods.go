package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/fairway-network/fairway/integration/kube"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// MakePod makes the object of a pod on the node and returns when the node's
// agent sees it. Sandbox and Pool are left to the caller.
func (n *Node) MakePod(ctx context.Context, c *kube.Cluster, namespace, name string) (Pod, error) {
	admin, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		return Pod{}, err
	}
	_, err = admin.CoreV1().Namespaces().Create(ctx, &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: namespace}}, meta.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return Pod{}, err
	}
	pod := &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec:       core.PodSpec{NodeName: n.Name, Containers: []core.Container{{Name: "web", Image: "web"}}},
	}
	if pod, err = admin.CoreV1().Pods(namespace).Create(ctx, pod, meta.CreateOptions{}); err != nil {
		return Pod{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !n.sees(string(pod.UID)) {
		select {
		case <-look.C:
		case <-ctx.Done():
			return Pod{}, fmt.Errorf("%s does not see pod %s/%s: %w", n.Name, namespace, name, ctx.Err())
		}
	}
	return Pod{Namespace: namespace, Name: name, UID: string(pod.UID)}, nil
}

// sees says whether the watch of the node's pods has shown the one of that UID.
func (n *Node) sees(uid string) bool {
	for _, p := range n.watcher.Pods() {
		if p.UID == uid {
			return true
		}
	}
	return false
}
