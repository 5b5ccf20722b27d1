package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
)

const (
	// nodeAge is how old what is known of the Node gets, about: half as old again at
	// most, and well below TakeOverTime. The reads of thousands of agents are most of what
	// they cost the API server while nothing happens.
	nodeAge = 4 * time.Minute
	// lookAgain is about when a first read that failed is tried again.
	lookAgain = 2 * time.Second
)

// surroundings are what decides about a node's pods beside themselves: their
// namespaces and the Node. They are read when a pod comes, and not watched: of
// thousands of agents each would have a watch of all namespaces. What was read
// before the pod came does not count for it, so that the pod gets what its
// namespace said when it was made. Of a pod that is still asked for later, they are
// read when they are doubted.
type surroundings struct {
	*Client
	node    string
	self    *reading[Node]
	version string        // of the Node as read last, below which nothing counts
	stirred chan struct{} // of size one

	ofNode, ofSpaces *voice

	mu     sync.Mutex
	spaces map[string]*reading[Namespace] // by name
}

func newSurroundings(c *Client, node string) *surroundings {
	s := &surroundings{
		Client: c, node: node, version: "0", stirred: make(chan struct{}, 1), spaces: map[string]*reading[Namespace]{},
		ofNode: &voice{what: "this node", log: c.log}, ofSpaces: &voice{what: "namespaces of pods", log: c.log},
	}
	s.self = &reading[Node]{read: s.readNode}
	return s
}

// pod says that a pod has come that was made in the namespace.
func (s *surroundings) pod(namespace string) {
	s.space(namespace).outdate()
	s.stir()
}

// doubt has what is known of the namespace and of the Node read anew, soon, where
// it is older than age.
func (s *surroundings) doubt(namespace string, age time.Duration) {
	space, self := s.space(namespace).doubt(age), s.self.doubt(age)
	if space || self {
		s.wake()
	}
}

// stir has the Node read anew, and whatever else is outdated.
func (s *surroundings) stir() {
	s.self.outdate()
	s.wake()
}

// wake has follow make a round.
func (s *surroundings) wake() {
	select {
	case s.stirred <- struct{}{}:
	default:
	}
}

func (s *surroundings) space(name string) *reading[Namespace] {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.spaces[name]
	if r == nil {
		r = &reading[Namespace]{read: func(ctx context.Context) (Namespace, error) {
			ns, err := s.readNamespace(ctx, name)
			s.ofSpaces.tell(ctx, unlessGone(err))
			return ns, err
		}}
		s.spaces[name] = r
	}
	return r
}

// follow reads what is outdated, soon, until ctx ends, whose error it returns. It
// tells seen after each round. used are the names of the namespaces that count.
func (s *surroundings) follow(ctx context.Context, used func() []string, seen func(error)) error {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-s.stirred:
		case <-due.C:
			s.self.outdate()
		case <-ctx.Done():
			return ctx.Err()
		}
		err := s.readAll(ctx, used())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		seen(err)
		wait := nodeAge
		if err != nil {
			wait = lookAgain
		}
		due.Reset(wait/2 + rand.N(wait))
	}
}

// readAll forgets the other namespaces. The error says that something is not
// known at all.
func (s *surroundings) readAll(ctx context.Context, namespaces []string) error {
	_, err := s.self.get(ctx)
	for _, name := range namespaces {
		_, errNamespace := s.space(name).get(ctx)
		err = errors.Join(err, unlessGone(errNamespace))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.spaces {
		if !slices.Contains(namespaces, name) {
			delete(s.spaces, name)
		}
	}
	return err
}

// readNode reads the Node from the API server's cache, never an older one than
// before. The zero Node is none.
func (s *surroundings) readNode(ctx context.Context) (Node, error) {
	var o core.Node
	what := "read node " + s.node
	err := read(ctx, what, s.core.Get().Resource("nodes").Name(s.node).Param("resourceVersion", s.version), &o)
	s.ofNode.tell(ctx, unlessGone(err))
	if isGone(err) {
		return Node{}, nil
	}
	if apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		s.version = "0" // the API server was set back
	}
	if err != nil {
		return Node{}, err
	}
	s.version = o.ResourceVersion
	return nodeOf(&o)
}

func (s *surroundings) readNamespace(ctx context.Context, name string) (Namespace, error) {
	o, err := outlined(ctx, "namespace "+name, s.meta.Resource(core.SchemeGroupVersion.WithResource("namespaces")), name)
	if err != nil {
		return Namespace{}, err
	}
	return Namespace{Name: o.Name, Labels: o.Labels, Annotations: ours(o.Annotations)}, nil
}

func unlessGone(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}

// outlined reads the metadata of one object.
func outlined(ctx context.Context, what string, from metadata.ResourceInterface, name string) (*metav1.PartialObjectMetadata, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	o, err := from.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return o, nil
}

// voice logs what fails, once, again after a minute, and when it is over.
type voice struct {
	what string // objects
	log  *slog.Logger

	mu   sync.Mutex
	last string
	at   time.Time
}

// tell takes the outcome of a try that lasted at most as long as ctx.
func (v *voice) tell(ctx context.Context, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch why := reasonOf(err); {
	case err == nil && v.last != "":
		v.log.Info("the API server shows objects again", "objects", v.what)
		v.last = ""
	case err != nil && !errors.Is(ctx.Err(), context.Canceled) && (why != v.last || time.Since(v.at) >= time.Minute):
		v.log.Warn("the API server does not show objects; retrying", "objects", v.what, "err", why)
		v.last, v.at = why, time.Now()
	}
}
