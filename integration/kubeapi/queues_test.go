package kubeapi

import (
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

// queues is the agent of a node, and the flow schema that its last call was put under.
type queues struct {
	agent *rest.RESTClient
	names map[string]string // of flow schemas, by their UIDs
	next  http.RoundTripper
	mu    sync.Mutex
	last  string // its name
}

func newQueues(t *testing.T, s *stage, node string) *queues {
	t.Helper()
	admin, err := kubernetes.NewForConfig(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	all, err := admin.FlowcontrolV1().FlowSchemas().List(t.Context(), meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q := &queues{names: map[string]string{}}
	for _, f := range all.Items {
		q.names[string(f.UID)] = f.Name
	}
	config, err := s.NodeAgentConfig(t.Context(), kube.AgentAccount(), node)
	if err != nil {
		t.Fatal(err)
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		q.next = next
		return q
	})
	agent, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	q.agent = agent.RESTClient().(*rest.RESTClient)
	return q
}

// RoundTrip notes which flow schema an answer names.
func (q *queues) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := q.next.RoundTrip(r)
	if err == nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.last = q.names[answer.Header.Get(flowcontrol.ResponseHeaderMatchedFlowSchemaUID)]
	}
	return answer, err
}

// call makes a call that says nothing the API server could take, and returns the flow
// schema that it was put under, and whether the agent may make it at all.
func (q *queues) call(t *testing.T, verb, path string) (schema string, may bool) {
	err := q.agent.Verb(verb).RequestURI(path).Do(t.Context()).Error()
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last, !apierrors.IsForbidden(err)
}

// claimsHaveAQueueOfTheirOwn: what pods wait for does not stand in one queue with
// what agents do besides.
func claimsHaveAQueueOfTheirOwn(t *testing.T, s *stage) {
	const claims, lists, watches = "fairway-claims", "fairway-lists", "fairway-watches"
	q := newQueues(t, s, "n1")
	root := "/apis/" + v1alpha1.GroupVersion().String() + "/"
	for _, c := range []struct{ verb, path, want string }{
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
		// The API server takes new schemas up a moment after they were made.
		deadline := time.Now().Add(30 * time.Second)
		for schema, may := q.call(t, c.verb, c.path); schema != c.want || !may; schema, may = q.call(t, c.verb, c.path) {
			if time.Now().After(deadline) {
				t.Fatalf("%s %s: flow schema %q, want %q; the agent may do it: %t", c.verb, c.path, schema, c.want, may)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
}
