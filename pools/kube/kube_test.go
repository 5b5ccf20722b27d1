package kube

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	controlplane "github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/pools/storetest"
	"k8s.io/client-go/rest"
)

// patience bounds how long something may take that comes late.
const patience = 30 * time.Second

// real is a Kubernetes control plane that knows our kinds.
type real struct {
	*controlplane.Cluster
	admin *Client
}

// TestOnARealAPIServer has one control plane for all: a start takes seconds.
func TestOnARealAPIServer(t *testing.T) {
	c := real{Cluster: controlplane.Start(t, controlplane.Options{})}
	if err := c.InstallDefinitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.admin = client(t, c.Config())
	t.Run("conformance", func(t *testing.T) {
		storetest.RunExchange(t, func(t *testing.T) storetest.Shared { return c.empty(t) })
	})
	t.Run("one request a call", func(t *testing.T) { c.countCalls(t) })
	t.Run("what the API server refuses", func(t *testing.T) { c.refusals(t) })
	t.Run("the cluster as a node sees it", func(t *testing.T) { c.watcher(t) })
	t.Run("a block with finalizers", func(t *testing.T) { c.finalizers(t) })
	t.Run("a fence and its lifting", func(t *testing.T) { c.fences(t) })
	t.Run("a node that is fenced anew", func(t *testing.T) { c.fencesAnew(t) })
	t.Run("a pool deleted behind a node's back", func(t *testing.T) { c.deletedUnseen(t) })
	t.Run("API server away", func(t *testing.T) { c.away(t) })
}

func client(t *testing.T, config *rest.Config) *Client {
	t.Helper()
	c, err := NewClient(config, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// empty removes all blocks and requests.
func (c real) empty(t *testing.T) real {
	t.Helper()
	for _, resource := range []string{v1alpha1.AddressBlocks, v1alpha1.AddressRequests} {
		if err := c.admin.own.Delete().Resource(resource).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Node is for the conformance suite.
func (c real) Node(name string) exchange.Exchange { return c.admin.Store(name) }

// Vacate is for the conformance suite.
func (c real) Vacate(ctx context.Context, b exchange.Stored) (exchange.Stored, error) {
	b.Node, b.Machine = "", ""
	return c.admin.Store("").replace(ctx, "vacate", b)
}

// counter counts the requests of a client.
type counter struct {
	mu   sync.Mutex
	made []string // method, path and query
	next http.RoundTripper
}

func (n *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	n.made = append(n.made, r.Method+" "+r.URL.RequestURI())
	n.mu.Unlock()
	return n.next.RoundTrip(r)
}

// take returns the requests since it was called last.
func (n *counter) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	made := n.made
	n.made = nil
	return made
}

// counted is a client whose requests are counted.
func counted(t *testing.T, config *rest.Config) (*Client, *counter) {
	t.Helper()
	n := &counter{}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		n.next = next
		return n
	})
	return client(t, config), n
}

func webBlock(node, p string) pools.Block {
	return pools.Block{Prefix: netip.MustParsePrefix(p), Pool: "web", Node: node, Machine: node + "-machine"}
}

func webRequest(node string) exchange.Request {
	lack := exchange.Lack{Pool: "web", Family: pools.IPv4}
	return exchange.Request{Name: exchange.RequestName(node, lack), Node: node, Pool: lack.Pool, Family: lack.Family, Count: 1, Holders: 1}
}

// countCalls holds the number of requests of each call against what its comment
// says. What fails may not be tried again behind the caller's back either.
func (c real) countCalls(t *testing.T) {
	c.empty(t)
	counting, n := counted(t, c.Config())
	n1, n2 := counting.Store("n1"), counting.Store("n2")
	ctx := t.Context()
	var b, vacant exchange.Stored
	var q exchange.Request
	steps := []struct {
		what string
		want []string
		call func() error
	}{
		{"Create", []string{"POST"}, func() (err error) { b, err = n1.Create(ctx, webBlock("n1", "10.1.0.0/26")); return err }},
		{"Create again", []string{"POST"}, func() error {
			_, err := n2.Create(ctx, webBlock("n2", "10.1.0.0/26"))
			return unless(err, exchange.ErrExists)
		}},
		{"Block", []string{"GET"}, func() error { _, err := n2.Block(ctx, b.Prefix); return err }},
		{"List", []string{"GET"}, func() error { _, err := n2.List(ctx, "web"); return err }},
		{"Inside", []string{"GET"}, func() error { _, err := n2.Inside(ctx, b.Prefix); return err }},
		{"Own of none", []string{"GET"}, func() error { _, err := n2.Own(ctx); return err }},
		{"Own", []string{"GET"}, func() error { _, err := n1.Own(ctx); return err }},
		{"vacate", []string{"PUT"}, func() (err error) { vacant, err = real{admin: counting}.Vacate(ctx, b); return err }},
		{"Take late", []string{"PUT"}, func() error { _, err := n1.Take(ctx, b); return unless(err, exchange.ErrConflict) }},
		{"Take", []string{"PUT"}, func() (err error) { b, err = n2.Take(ctx, vacant); return err }},
		{"Delete", []string{"DELETE"}, func() error { return n2.Delete(ctx, b) }},
		{"Delete again", []string{"DELETE"}, func() error { return unless(n2.Delete(ctx, b), exchange.ErrGone) }},
		{"Ask", []string{"POST"}, func() (err error) { q, err = n1.Ask(ctx, webRequest("n1")); return err }},
		{"Request", []string{"GET"}, func() error { _, err := n2.Request(ctx, q.Name); return err }},
		{"Requests", []string{"GET"}, func() error { _, err := n2.Requests(ctx); return err }},
		{"Grant, Retract late", []string{"PUT", "DELETE"}, func() error {
			q.Grants = []exchange.Grant{{Lender: "n2", Prefix: netip.MustParsePrefix("10.1.0.1/32"), Outer: b.Prefix, OuterUID: b.UID}}
			granted, err := n2.Grant(ctx, q)
			late := q
			q = granted
			return errors.Join(err, unless(n1.Retract(ctx, late), exchange.ErrConflict))
		}},
		{"Retract", []string{"DELETE"}, func() error { return n1.Retract(ctx, q) }},
	}
	for _, s := range steps {
		if err := s.call(); err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
		var verbs []string
		made := n.take()
		for _, m := range made {
			verb, _, _ := strings.Cut(m, " ")
			verbs = append(verbs, verb)
		}
		if !slices.Equal(verbs, s.want) {
			t.Errorf("%s makes %v, want %v", s.what, made, s.want)
		}
	}
}

// unless is nil if err is want.
func unless(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return errors.Join(errors.New("not the error that was expected"), err)
}
