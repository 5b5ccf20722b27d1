package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrUp: a lab of that name runs already.
var ErrUp = errors.New("lab is up already")

// Options say how a lab is brought up. The zero value is a lab that ends with
// this process.
type Options struct {
	// Dir holds the lab's state and its nodes' disks; it is made, and taken
	// away by Down. Empty is DefaultDir of the lab's name.
	Dir string
	// Log gets one line for each event; nil is none.
	Log *slog.Logger
	// Env is added to every node's environment.
	Env map[string]string
	// Persist lets the lab outlive this process: Down ends it, here or
	// through Open.
	Persist bool
}

// DefaultDir is where a lab lives that was given no other place.
func DefaultDir(name string) string { return filepath.Join("/run/fairway-lab", name) }

// Lab is a topology that is up.
type Lab struct {
	topology *Topology
	dir      string
	log      *slog.Logger
	env      map[string]string
	persist  bool
	nodes    map[string]*Node

	saving sync.Mutex
}

// Up brings a lab up and returns when the last Exec command of its last node
// is done. On failure nothing of it is left. The error wraps ErrUp when a lab
// stands in that directory.
func Up(ctx context.Context, t *Topology, o Options) (*Lab, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("lab %s: namespaces need root: run it with sudo", t.Name)
	}
	l := newLab(t, o)
	if strings.ContainsAny(l.dir, ":,\\ \t\n") || !filepath.IsAbs(l.dir) {
		return nil, fmt.Errorf("lab %s: directory %q: give an absolute path without colons, commas, backslashes and blanks", t.Name, l.dir)
	}
	if err := l.claimDir(); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := l.rise(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("lab %s: %w", t.Name, err), l.Down())
	}
	l.log.Info("lab is up", "lab", t.Name, "dir", l.dir, "took", time.Since(start).Round(time.Millisecond))
	return l, nil
}

func newLab(t *Topology, o Options) *Lab {
	l := &Lab{topology: t, dir: o.Dir, log: o.Log, env: o.Env, persist: o.Persist, nodes: map[string]*Node{}}
	if l.dir == "" {
		l.dir = DefaultDir(t.Name)
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for i := range t.Nodes {
		spec := &t.Nodes[i]
		l.nodes[spec.Name] = &Node{lab: l, spec: spec}
	}
	return l
}

// rise takes all nodes through their stages side by side.
func (l *Lab) rise(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reached := map[milestone]chan struct{}{}
	for name := range l.nodes {
		for _, s := range stages() {
			reached[milestone{name, s}] = make(chan struct{})
		}
	}
	var nodes sync.WaitGroup
	for _, n := range l.nodes {
		nodes.Go(func() {
			if err := n.rise(ctx, reached); err != nil {
				cancel(err)
			}
		})
	}
	nodes.Wait()
	return context.Cause(ctx)
}

// Name of the lab.
func (l *Lab) Name() string { return l.topology.Name }

// Dir is the lab's directory on the host.
func (l *Lab) Dir() string { return l.dir }

// Node returns a node by its name.
func (l *Lab) Node(name string) (*Node, error) {
	if n := l.nodes[name]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("lab %s: no node %q", l.Name(), name)
}

// Nodes returns the nodes in the topology's order.
func (l *Lab) Nodes() []*Node {
	var out []*Node
	for _, spec := range l.topology.Nodes {
		out = append(out, l.nodes[spec.Name])
	}
	return out
}

// Down kills every node and takes the lab's directory away. It may be called
// again, and on a lab that was never wholly up.
func (l *Lab) Down() error {
	var errs []error
	var nodes sync.WaitGroup
	results := make(chan error, len(l.nodes))
	for _, n := range l.nodes {
		nodes.Go(func() { results <- n.Kill() })
	}
	nodes.Wait()
	close(results)
	for err := range results {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab %s: left in %s: %w", l.Name(), l.dir, err)
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("lab %s: %w", l.Name(), err)
	}
	l.log.Info("lab is down", "lab", l.Name())
	return nil
}
