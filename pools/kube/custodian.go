package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Custodian is the exchange as the controller sees it. It makes no block and
// asks for none; it frees those of nodes that are gone.
//
// A fence tells the agent of a node that its blocks are being freed. It stands until
// the node is back, it was said to be lifted, and the agent has taken its blocks anew
// since: until then an agent that was away or is slow may take for its own what is
// not, and a Vacate that was begun before may come to count.
type Custodian struct {
	*Store
	now func() time.Time

	mu       sync.Mutex
	fenced   map[string]*fenced // by node, for as long as they count
	standing map[string]string  // machines of nodes whose fences may stand, by node
	listed   time.Time          // when standing was read last; zero is never
}

// fenced is when a node was fenced last, for which of its machines. It is locked
// while the node is being fenced: many of its blocks are freed at a time.
type fenced struct {
	sync.Mutex
	machine string
	at      time.Time
}

const (
	// fenceAgain is when a fence is set anew if there are still blocks to free: an
	// agent that has acted on it may hold blocks again.
	fenceAgain = 30 * time.Second
	// listAgain is when fences are looked for that this Custodian has not set: those
	// of an earlier one, whose last write may have been late.
	listAgain = 5 * time.Minute
)

// TakeOverTime is how long a node of a name that another machine had before has
// to take that one's blocks over.
const TakeOverTime = 10 * time.Minute

// Custodian returns the exchange of the controller.
func (c *Client) Custodian() *Custodian {
	return &Custodian{Store: c.Store(""), now: time.Now, fenced: map[string]*fenced{}, standing: map[string]string{}}
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

// Vacate fences the node first, so that its agent, should it live after all,
// learns that it has lost the block. It is an error if the node is there; that one
// which is not has been absent for long enough, the caller knows.
func (c *Custodian) Vacate(ctx context.Context, b exchange.Stored) (exchange.Stored, error) {
	what := "make block " + b.Prefix.String() + " vacant"
	if b.Node == "" {
		return exchange.Stored{}, fmt.Errorf("%s: it is", what)
	}
	if err := c.fence(ctx, b.Node, b.Machine); err != nil {
		return exchange.Stored{}, fmt.Errorf("%s: %w", what, err)
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

// fence tells the agent of a node that is gone that it is. Once is enough for all
// blocks of a node, but not across a lifting: what is made vacant after that has to
// be said anew.
func (c *Custodian) fence(ctx context.Context, node, machine string) error {
	c.mu.Lock()
	last := c.fenced[node]
	if last == nil {
		last = new(fenced)
		c.fenced[node] = last
	}
	c.mu.Unlock()
	last.Lock()
	defer last.Unlock()
	if last.machine == machine && c.now().Sub(last.at) < fenceAgain {
		return nil
	}
	p, why, err := c.presence(ctx, node, machine)
	if err != nil {
		return err
	}
	if p == exchange.Present {
		return fmt.Errorf("%w: node %s is there", exchange.ErrConflict, node)
	}
	f := v1alpha1.Fence{NodeUID: types.UID(machine), Since: metav1.NewTime(c.now()), Reason: why}
	if err := c.setFence(ctx, node, f); err != nil {
		return err
	}
	last.machine, last.at = machine, c.now()
	c.stands(node, machine)
	c.log.Info("node counts as gone: its blocks are freed", "node", node, "machine", machine, "why", why)
	return nil
}

// setFence fences a node, whose NodeSpeaker it makes if there is none.
func (c *Custodian) setFence(ctx context.Context, node string, f v1alpha1.Fence) error {
	err := c.writeFence(ctx, node, map[string]any{"spec": map[string]any{"fence": map[string]any{
		"nodeUID": f.NodeUID, "since": f.Since, "reason": f.Reason, "lifting": nil,
	}}})
	if !errors.Is(err, exchange.ErrGone) {
		return err
	}
	speaker := &v1alpha1.NodeSpeaker{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: v1alpha1.NodeSpeakerSpec{Fence: &f}}
	// With exchange.ErrExists its agent was quicker: the caller tries again.
	return write(ctx, "fence node "+node, c.own.Post().Resource(v1alpha1.NodeSpeakers).Body(speaker), &v1alpha1.NodeSpeaker{})
}

// writeFence changes a NodeSpeaker. The error is exchange.ErrGone if there is none
// of that name.
func (c *Custodian) writeFence(ctx context.Context, node string, change map[string]any) error {
	patch, err := json.Marshal(change)
	if err != nil {
		return err
	}
	var o v1alpha1.NodeSpeaker
	r := c.own.Patch(types.MergePatchType).Resource(v1alpha1.NodeSpeakers).Name(node).Body(patch)
	return write(ctx, "fence node "+node, r, &o)
}

// stands remembers a fence.
func (c *Custodian) stands(node, machine string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.standing[node] = machine
}

// Unfence has the fences of the nodes lifted that are there, as back says: it says so
// to their agents, and takes those off in a later call whose agents have taken their
// blocks anew since. It knows those that were set before this Custodian was made,
// too. It may be called often: it lists them seldom, and reads those alone whose
// nodes are back.
func (c *Custodian) Unfence(ctx context.Context, back func(node, machine string) bool) error {
	c.forgetFenced()
	standing, err := c.fences(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for node, machine := range standing {
		if !back(node, machine) {
			continue
		}
		if err := c.unfence(ctx, node); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// forgetFenced forgets what is so long ago that it does not count.
func (c *Custodian) forgetFenced() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, f := range c.fenced {
		if !f.TryLock() {
			continue // it is being fenced
		}
		if c.now().Sub(f.at) >= fenceAgain {
			delete(c.fenced, node)
		}
		f.Unlock()
	}
}

// unfence goes on with the lifting of a node's fence.
func (c *Custodian) unfence(ctx context.Context, node string) error {
	var o v1alpha1.NodeSpeaker
	err := read(ctx, "read NodeSpeaker "+node, c.own.Get().Resource(v1alpha1.NodeSpeakers).Name(node), &o)
	switch f := o.Spec.Fence; {
	case errors.Is(err, exchange.ErrGone):
	case err != nil:
		return err
	case f == nil:
	case !f.Lifting:
		return orAgain(c.lift(ctx, &o))
	case o.Status.ObservedGeneration < o.Generation:
		return nil
	default:
		if err := c.changeFence(ctx, &o, nil); err != nil && !errors.Is(err, exchange.ErrGone) {
			return orAgain(err)
		}
		c.log.Info("node is back: its fence is taken off", "node", node)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.standing, node)
	return nil
}

// lift says that the fence of o comes off once the agent has taken its blocks anew.
// No Vacate of this node's blocks begins after that, but behind another fence: so all
// that are under way are of versions from before.
func (c *Custodian) lift(ctx context.Context, o *v1alpha1.NodeSpeaker) error {
	c.mu.Lock()
	last := c.fenced[o.Name]
	c.mu.Unlock()
	if last != nil {
		last.Lock()
		defer last.Unlock()
		last.at = time.Time{}
	}
	return c.changeFence(ctx, o, map[string]any{"lifting": true})
}

// changeFence changes that of o, at its version. A nil fence takes it off.
func (c *Custodian) changeFence(ctx context.Context, o *v1alpha1.NodeSpeaker, fence any) error {
	return c.writeFence(ctx, o.Name, map[string]any{
		"metadata": map[string]any{"resourceVersion": o.ResourceVersion}, "spec": map[string]any{"fence": fence},
	})
}

// orAgain is err, but for what another change is the reason of: it is looked at again.
func orAgain(err error) error {
	if errors.Is(err, exchange.ErrConflict) || errors.Is(err, exchange.ErrGone) {
		return nil
	}
	return err
}

// fences are the machines for which nodes are fenced, as far as known.
func (c *Custodian) fences(ctx context.Context) (map[string]string, error) {
	c.mu.Lock()
	known, fresh := maps.Clone(c.standing), !c.listed.IsZero() && c.now().Sub(c.listed) < listAgain
	c.mu.Unlock()
	if fresh {
		return known, nil
	}
	began := c.now()
	all, err := c.listFences(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, machine := range c.standing {
		if _, before := known[node]; !before {
			all[node] = machine // set while the others were listed
		}
	}
	c.standing, c.listed = all, began
	return maps.Clone(all), nil
}

func (c *Custodian) listFences(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	err := c.eachSpeaker(ctx, func(s *v1alpha1.NodeSpeaker) {
		if s.Spec.Fence != nil {
			out[s.Name] = string(s.Spec.Fence.NodeUID)
		}
	})
	return out, err
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
