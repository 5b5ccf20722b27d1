package kube

import (
	"context"
	"fmt"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Requests asks for all requests, past all caches.
func (s *Store) Requests(ctx context.Context) ([]exchange.Request, error) {
	const what = "list the requests"
	var list v1alpha1.AddressRequestList
	if err := read(ctx, what, s.own.Get().Resource(v1alpha1.AddressRequests), &list); err != nil {
		return nil, err
	}
	if list.ResourceVersion == "" {
		return nil, fmt.Errorf("%s: the answer is not a list of them", what)
	}
	return allOf(list.Items, askedOf)
}

// Request asks for the request, past all caches.
func (s *Store) Request(ctx context.Context, name string) (exchange.Request, error) {
	var o v1alpha1.AddressRequest
	r := s.own.Get().Resource(v1alpha1.AddressRequests).Name(name)
	if err := read(ctx, "read request "+name, r, &o); err != nil {
		return exchange.Request{}, err
	}
	return askedOf(&o)
}

// Ask makes r, without grants.
func (s *Store) Ask(ctx context.Context, r exchange.Request) (exchange.Request, error) {
	what := "make request " + r.Name
	if s.node == "" || r.Node != s.node {
		return exchange.Request{}, fmt.Errorf("%s: node %q can't ask for node %q", what, s.node, r.Node)
	}
	r.UID, r.Version, r.Grants = "", "", nil
	return s.writeRequest(ctx, what, s.own.Post().Resource(v1alpha1.AddressRequests), requestOf(r))
}

// Grant writes the status of the request, in which the answers are kept. The last
// one is this node's. An API server whose definition of requests is of the version
// before keeps the first one alone.
func (s *Store) Grant(ctx context.Context, r exchange.Request) (exchange.Request, error) {
	if len(r.Grants) == 0 || r.UID == "" || r.Version == "" {
		return exchange.Request{}, fmt.Errorf("answer request %s: the grant, UID %q or version %q is missing", r.Name, r.UID, r.Version)
	}
	last := r.Grants[len(r.Grants)-1]
	what := fmt.Sprintf("grant %s to request %s", last.Prefix, r.Name)
	if s.node == "" || last.Lender != s.node {
		return exchange.Request{}, fmt.Errorf("%s: node %q can't lend for node %q", what, s.node, last.Lender)
	}
	o := requestOf(r)
	return s.writeRequest(ctx, what, s.own.Put().Resource(v1alpha1.AddressRequests).Name(o.Name).SubResource("status"), o)
}

// writeRequest writes a request and returns what became of it.
func (s *Store) writeRequest(ctx context.Context, what string, r *rest.Request, sent *v1alpha1.AddressRequest) (exchange.Request, error) {
	var o v1alpha1.AddressRequest
	if err := write(ctx, what, unsearched(r).Body(sent), &o); err != nil {
		return exchange.Request{}, err
	}
	asked, err := askedOf(&o)
	if err != nil { // an answer to something else
		return exchange.Request{}, fmt.Errorf("%s: %w: %w", what, exchange.ErrUnknown, err)
	}
	return asked, nil
}

// Retract removes the request of that UID.
func (s *Store) Retract(ctx context.Context, r exchange.Request) error {
	var only metav1.Preconditions
	if r.Version != "" {
		only.ResourceVersion = &r.Version
	}
	return s.remove(ctx, "remove request "+r.Name, requestOf(r), v1alpha1.AddressRequests, only)
}

// Watch returns the context's error. The API server leaves out the requests of other
// pools by their label, without which those of agents are that did not know it.
func (s *Store) Watch(ctx context.Context, pools []string, seen func([]exchange.Request)) error {
	requests := newMirror("requests", s.log, func(o any) (exchange.Request, error) {
		return askedOf(o.(*v1alpha1.AddressRequest))
	})
	return requests.follow(ctx, labelled(s.own, v1alpha1.AddressRequests, v1alpha1.LabelPool, pools), &v1alpha1.AddressRequest{}, func() { seen(requests.all()) })
}
