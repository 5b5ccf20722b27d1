package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Custodian is the exchange as the controller sees it. It makes no block and
// asks for none; it frees those of nodes that are gone.
type Custodian struct {
	*Store
	now func() time.Time
}

// TakeOverTime is how long a node of a name that another machine had before has
// to take that one's blocks over.
const TakeOverTime = 10 * time.Minute

// Custodian returns the exchange of the controller.
func (c *Client) Custodian() *Custodian {
	return &Custodian{Store: c.Store(""), now: time.Now}
}

// Presence asks for the Node, past all caches.
func (c *Custodian) Presence(ctx context.Context, node, machine string) (exchange.Presence, error) {
	p, _, err := c.presence(ctx, node, machine)
	return p, err
}

// presence has a sentence, too, if the node is not there.
func (c *Custodian) presence(ctx context.Context, node, machine string) (p exchange.Presence, why string, err error) {
	if node == "" {
		return 0, "", errors.New("a node without a name is neither there nor gone")
	}
	var o core.Node
	err = read(ctx, "read node "+node, c.core.Get().Resource("nodes").Name(node), &o)
	switch {
	case errors.Is(err, exchange.ErrGone):
		return exchange.Absent, fmt.Sprintf("there is no Node %s any more", node), nil
	case err != nil:
		return 0, "", err
	case o.Name != node || o.UID == "":
		return 0, "", fmt.Errorf("read node %s: the answer is not that node", node)
	case machine != "" && machine != string(o.UID) && c.now().Sub(o.CreationTimestamp.Time) < TakeOverTime:
		return exchange.Present, "", nil // it may be the same one, with a new Node object
	case machine != "" && machine != string(o.UID):
		return exchange.Departed, fmt.Sprintf("the Node %s of that UID is no more; another one has its name", node), nil
	case slices.ContainsFunc(o.Spec.Taints, func(t core.Taint) bool { return t.Key == core.TaintNodeOutOfService }):
		return exchange.Departed, fmt.Sprintf("the Node %s has the taint %s", node, core.TaintNodeOutOfService), nil
	}
	return exchange.Present, "", nil
}

// Vacate makes b, at its Version, vacant.
func (c *Custodian) Vacate(ctx context.Context, b exchange.Stored) (exchange.Stored, error) {
	what := "make block " + b.Prefix.String() + " vacant"
	if b.Vacant() {
		return exchange.Stored{}, fmt.Errorf("%s: it is", what)
	}
	b.Node, b.Machine = "", ""
	return c.replace(ctx, what, b)
}

// Discard removes b, at its Version.
func (c *Custodian) Discard(ctx context.Context, b exchange.Stored) error {
	if b.Version == "" {
		return fmt.Errorf("remove block %s: its version is missing", b.Prefix)
	}
	return c.remove(ctx, "remove block "+b.Prefix.String(), blockOf(b), v1alpha1.AddressBlocks, metav1.Preconditions{ResourceVersion: &b.Version})
}

var _ exchange.Custodian = (*Custodian)(nil)

// WritePoolStatus writes the status of the pool with o's UID, at o's version,
// and returns what became of the pool.
func (c *Custodian) WritePoolStatus(ctx context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
	what := "write the status of pool " + o.Name
	if o.UID == "" || o.ResourceVersion == "" {
		return nil, fmt.Errorf("%s: its UID %q or version %q is missing", what, o.UID, o.ResourceVersion)
	}
	out := new(v1alpha1.AddressPool)
	r := c.own.Put().Resource(v1alpha1.AddressPools).Name(o.Name).SubResource("status").Body(o)
	if err := write(ctx, what, r, out); err != nil {
		return nil, err
	}
	if out.UID != o.UID {
		return nil, fmt.Errorf("%s: %w: the answer is not that pool", what, exchange.ErrUnknown)
	}
	return out, nil
}

// Pool asks for the pool of that name, past all caches.
func (c *Custodian) Pool(ctx context.Context, name string) (*v1alpha1.AddressPool, error) {
	o := new(v1alpha1.AddressPool)
	err := read(ctx, "read pool "+name, c.own.Get().Resource(v1alpha1.AddressPools).Name(name), o)
	if err == nil && o.UID == "" {
		err = fmt.Errorf("read pool %s: the answer is not a pool", name)
	}
	return o, err
}
