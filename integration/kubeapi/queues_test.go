package kubeapi

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/integration/kube"
	flowcontrol "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// queues notes which flow schema each answer names.
type queues struct {
	next http.RoundTripper
	mu   sync.Mutex
	last string
}

func (q *queues) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := q.next.RoundTrip(r)
	if err == nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.last = answer.Header.Get(flowcontrol.ResponseHeaderMatchedFlowSchemaUID)
	}
	return answer, err
}

// claimsHaveAQueueOfTheirOwn: what pods wait for does not stand in one queue with
// what agents do besides.
func claimsHaveAQueueOfTheirOwn(t *testing.T, s *stage) {
	admin, err := kubernetes.NewForConfig(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	uid := func(name string) string {
		t.Helper()
		f, err := admin.FlowcontrolV1().FlowSchemas().Get(t.Context(), name, meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return string(f.UID)
	}
	claims, lists, watches := uid("fairway-claims"), uid("fairway-lists"), uid("fairway-watches")
	config, err := s.NodeAgentConfig(t.Context(), kube.AgentAccount(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	q := &queues{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		q.next = next
		return q
	})
	agent, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	own := agent.RESTClient().(*rest.RESTClient)
	root := "/apis/" + v1alpha1.GroupVersion().String() + "/"
	for _, call := range []struct{ verb, path, want string }{
		{http.MethodPost, root + "addressblocks", claims},
		{http.MethodPut, root + "addressblocks/10-0-0-0-28", claims},
		{http.MethodGet, root + "addressblocks/10-0-0-0-28", claims},
		{http.MethodGet, root + "addressblocks?labelSelector=fairway.network%2Fnode%3Dn1", lists},
		{http.MethodGet, root + "addressblocks?resourceVersion=0", lists},
		{http.MethodPost, root + "addressrequests", claims},
		{http.MethodGet, root + "addressrequests", lists},
		{http.MethodPut, root + "nodespeakers/n1/status", claims},
		{http.MethodGet, root + "nodespeakers?fieldSelector=metadata.name%3Dn1", claims},
		{http.MethodGet, root + "nodespeakers?fieldSelector=metadata.name%3Dn1&watch=true&timeoutSeconds=1", claims},
		{http.MethodPatch, root + "nodespeakers/n1/status", watches},
		{http.MethodGet, root + "addresspools?fieldSelector=metadata.name%3Dweb", claims},
		{http.MethodGet, root + "addresspools?watch=true&timeoutSeconds=1", watches},
		{http.MethodGet, root + "addressrequests?watch=true&timeoutSeconds=1", watches},
		{http.MethodGet, "/api/v1/nodes/n1", watches},
		{http.MethodGet, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", watches},
	} {
		what := fmt.Sprintf("%s %s", call.verb, call.path)
		// The API server takes new schemas up a moment after they were made.
		for deadline := time.Now().Add(30 * time.Second); ; {
			// It says nothing that the API server could take, but it may say it.
			err := own.Verb(call.verb).RequestURI(call.path).Do(t.Context()).Error()
			if q.last == call.want && !apierrors.IsForbidden(err) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: flow schema %q, want %q (fairway-claims %q, fairway-lists %q, fairway-watches %q): %v", what, q.last, call.want, claims, lists, watches, err)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
}
