package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// Store is the exchange of one node on the API server. It keeps nothing itself:
// each call but List, Own, Inside, Watch and Create is one request, made once.
type Store struct {
	*Client
	node  string
	pools *standing // nil for those that nobody watches
}

// Store returns the exchange of node; that of "" can look but make nothing.
func (c *Client) Store(node string) *Store { return &Store{Client: c, node: node} }

// List asks the API server's cache, which may lag behind its store. It makes one
// request, or two where a block is vacant. Only vacant blocks are sure to have their
// UID, version, tenure, machine and time. A block that can't be read is left out, and
// logged.
func (s *Store) List(ctx context.Context, pool string) ([]exchange.Stored, error) {
	what := "list the blocks of pool " + pool
	o := metav1.ListOptions{LabelSelector: equals(v1alpha1.LabelPool, pool), ResourceVersion: "0"}
	stored, err := s.tableOfBlocks(ctx, what, o)
	switch {
	case errors.Is(err, errNoTable):
		stored, err = s.wholeBlocks(ctx, what, o)
	case slices.ContainsFunc(stored, exchange.Stored.Vacant):
		o.LabelSelector += "," + equals(v1alpha1.LabelNode, v1alpha1.NodeLabel(""))
		var vacant []exchange.Stored
		if vacant, err = s.wholeBlocks(ctx, what, o); err == nil {
			stored = withVacant(stored, vacant)
		}
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(stored, func(b exchange.Stored) bool { return b.Pool != pool }), nil
}

// withVacant has what whole says of the blocks that are vacant. Of one that it does not
// have a node has taken it meanwhile.
func withVacant(stored, whole []exchange.Stored) []exchange.Stored {
	known := make(map[netip.Prefix]exchange.Stored, len(whole))
	for _, b := range whole {
		known[b.Prefix] = b
	}
	for i, b := range stored {
		if !b.Vacant() {
			continue
		}
		stored[i].Node = somebody
		if b, is := known[b.Prefix]; is {
			stored[i] = b
		}
	}
	return stored
}

// somebody holds a block of which it is not known who. It is no name of a node.
const somebody = "?"

// wholeBlocks lists blocks with all that there is to know. It leaves out those that
// can't be read.
func (s *Store) wholeBlocks(ctx context.Context, what string, o metav1.ListOptions) ([]exchange.Stored, error) {
	blocks, err := s.listBlocks(ctx, what, o)
	if err != nil {
		return nil, err
	}
	stored, unread := allOf(blocks, storedOf)
	s.leaveOut(what, unread)
	return stored, nil
}

// leaveOut says which blocks a list lacks, if any.
func (s *Store) leaveOut(what string, unread error) {
	if unread != nil {
		s.log.Warn("blocks that can't be read", "request", what, "err", unread)
	}
}

// Own makes one request.
func (s *Store) Own(ctx context.Context) ([]exchange.Stored, error) {
	blocks, err := s.listBlocks(ctx, "list the blocks of node "+s.node, metav1.ListOptions{
		LabelSelector: equals(v1alpha1.LabelNode, v1alpha1.NodeLabel(s.node)),
	})
	if err != nil {
		return nil, err
	}
	own, err := allOf(blocks, storedOf)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(own, func(b exchange.Stored) bool { return b.Node != s.node }), nil
}

// Inside makes one request, or two for more than half of the largest cell there
// can be.
func (s *Store) Inside(ctx context.Context, p netip.Prefix) (all []exchange.Stored, err error) {
	for _, places := range selections(p) {
		blocks, err := s.listBlocks(ctx, "list the blocks inside "+p.String(), metav1.ListOptions{LabelSelector: places})
		if err != nil {
			return nil, err
		}
		stored, err := allOf(blocks, storedOf)
		if err != nil {
			return nil, err
		}
		all = append(all, stored...)
	}
	return slices.DeleteFunc(all, func(b exchange.Stored) bool {
		return b.Prefix.Bits() <= p.Bits() || !p.Contains(b.Prefix.Addr())
	}), nil
}

func (s *Store) listBlocks(ctx context.Context, what string, o metav1.ListOptions) ([]v1alpha1.AddressBlock, error) {
	var list v1alpha1.AddressBlockList
	r := s.own.Get().Resource(v1alpha1.AddressBlocks).VersionedParams(&o, metav1.ParameterCodec)
	if err := read(ctx, what, r, &list); err != nil {
		return nil, err
	}
	if list.ResourceVersion == "" {
		return nil, fmt.Errorf("%s: the answer is not a list of them", what)
	}
	return list.Items, nil
}

// Block asks for the block, past all caches.
func (s *Store) Block(ctx context.Context, p netip.Prefix) (exchange.Stored, error) {
	var o v1alpha1.AddressBlock
	r := s.own.Get().Resource(v1alpha1.AddressBlocks).Name(v1alpha1.BlockName(p))
	if err := read(ctx, "read block "+p.String(), r, &o); err != nil {
		return exchange.Stored{}, err
	}
	return storedOf(&o)
}

// Create makes b with tenure 0. Its UID and time are the API server's. It makes one
// request, or two for a Watcher's Store.
func (s *Store) Create(ctx context.Context, b pools.Block) (exchange.Stored, error) {
	what := "make block " + b.Prefix.String()
	if err := s.mine(b); err != nil {
		return exchange.Stored{}, fmt.Errorf("%s: %w", what, err)
	}
	if s.pools != nil {
		if err := s.pools.check(ctx, b.Pool); err != nil {
			return exchange.Stored{}, fmt.Errorf("%s: %w", what, err)
		}
	}
	b.UID, b.Tenure = "", 0
	return s.writeBlock(ctx, what, s.own.Post().Resource(v1alpha1.AddressBlocks), blockOf(exchange.Stored{Block: b}))
}

// Take makes b the block of this node's machine b.Machine.
func (s *Store) Take(ctx context.Context, b exchange.Stored) (exchange.Stored, error) {
	what := "take block " + b.Prefix.String()
	if b.Vacant() {
		b.Node = s.node
	}
	if err := s.mine(b.Block); err != nil {
		return exchange.Stored{}, fmt.Errorf("%s: %w", what, err)
	}
	b.Tenure++
	return s.replace(ctx, what, b)
}

// mine refuses a block of which another node's name is to be written.
func (s *Store) mine(b pools.Block) error {
	if s.node == "" || b.Node != s.node {
		return fmt.Errorf("node %q can't write the name of node %q on it", s.node, b.Node)
	}
	return nil
}

// replace has the block with b's UID, at b's Version, be as b.
func (s *Store) replace(ctx context.Context, what string, b exchange.Stored) (exchange.Stored, error) {
	if b.UID == "" || b.Version == "" {
		return exchange.Stored{}, fmt.Errorf("%s: its UID %q or version %q is missing", what, b.UID, b.Version)
	}
	o := blockOf(b)
	return s.writeBlock(ctx, what, s.own.Put().Resource(v1alpha1.AddressBlocks).Name(o.Name), o)
}

// writeBlock writes a block and returns what became of it.
func (s *Store) writeBlock(ctx context.Context, what string, r *rest.Request, sent *v1alpha1.AddressBlock) (exchange.Stored, error) {
	var o v1alpha1.AddressBlock
	if err := write(ctx, what, unsearched(r).Body(sent), &o); err != nil {
		return exchange.Stored{}, err
	}
	b, err := storedOf(&o)
	if err != nil { // an answer to something else
		return exchange.Stored{}, fmt.Errorf("%s: %w: %w", what, exchange.ErrUnknown, err)
	}
	return b, nil
}

// unsearched spares the API server to search what r sends for fields that are not in the
// definition, or there twice (fieldValidation, in the reference of its API). That is an
// eighth of what a claim costs it, and what is sent is of the definition's own types.
func unsearched(r *rest.Request) *rest.Request {
	return r.Param("fieldValidation", metav1.FieldValidationIgnore)
}

// Delete removes b, at its Version.
func (s *Store) Delete(ctx context.Context, b exchange.Stored) error {
	if b.Version == "" {
		return fmt.Errorf("remove block %s: its version is missing", b.Prefix)
	}
	return s.remove(ctx, "remove block "+b.Prefix.String(), blockOf(b), v1alpha1.AddressBlocks, metav1.Preconditions{ResourceVersion: &b.Version})
}

// object is one of the API server's.
type object interface {
	runtime.Object
	metav1.Object
}

// remove removes o, which it overwrites: the object of that name and UID, if
// what else only says holds, too.
func (s *Store) remove(ctx context.Context, what string, o object, resource string, only metav1.Preconditions) error {
	uid := o.GetUID()
	if uid == "" {
		return fmt.Errorf("%s: its UID is missing", what)
	}
	only.UID = &uid
	r := s.own.Delete().Resource(resource).Name(o.GetName()).Body(&metav1.DeleteOptions{Preconditions: &only})
	// The answer is a status, or the object if it is still there.
	o.SetUID("")
	if err := write(ctx, what, r, o); err != nil {
		return err
	}
	if o.GetUID() != "" {
		return fmt.Errorf("%s: %w: it stays until its finalizers %v are taken off", what, exchange.ErrUnknown, o.GetFinalizers())
	}
	return nil
}

func equals(label, value string) string { return label + "=" + value }
