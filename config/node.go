package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/fairway-network/fairway/pools"
)

// hostnameLabel is the one that every node has.
const hostnameLabel = "kubernetes.io/hostname"

// Node is what a configuration may ask of the node that it is in force on.
type Node struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	// Before is the node as it was: what can't be worked out any more stays as it was
	// then. It is nil for a node that was nothing before.
	Before *Node
	// Unseen nodes have labels that nobody knows yet.
	Unseen bool
}

// Self is the node as c itself has it, for one that is in no cluster.
func (c *Config) Self() Node {
	n := Node{Name: c.Node, Labels: map[string]string{hostnameLabel: c.Node}}
	maps.Copy(n.Labels, c.Labels)
	return n
}

// Depends says whether what is in force differs from node to node.
func (c *Config) Depends() bool {
	if c.BGP.ASNFrom != (NodeValue{}) {
		return true
	}
	for _, p := range c.Peers {
		if len(p.NodeSelector) > 0 || p.ASNFrom != (NodeValue{}) || p.AddressFrom != (NodeValue{}) {
			return true
		}
	}
	return false
}

// For is c as it is in force on a node: with the peers that the node has alone, and
// with nothing in it that is still to be asked of the node. What can't be worked
// out, and could not before, is left out: a peer or, without this node's ASN, all of
// them. The error says what, why and where, for each; the Config is to be used all
// the same.
func (c *Config) For(n Node) (*Config, error) {
	out := *c
	out.Peers = nil
	var errs []error
	asn, err := c.BGP.ASN.or(c.BGP.ASNFrom, n)
	if err != nil {
		errs = append(errs, fmt.Errorf("bgp.asnFrom: %w", err))
	}
	out.BGP.ASN, out.BGP.ASNFrom = asn, NodeValue{}
	for _, p := range c.Peers {
		selected, lost := n.selected(p.NodeSelector)
		if !selected || asn == 0 {
			continue
		}
		resolved, wrong := p.on(n, asn)
		wrong = append(wrong, lost...)
		if clash := resolved.clash(out.Peers); clash != nil {
			wrong = append(wrong, clash)
		}
		if err := c.itself(resolved.Address, resolved.Port); err != nil && resolved.Address.IsValid() {
			wrong = append(wrong, fmt.Errorf("addressFrom %s: %w", p.AddressFrom, err))
		}
		usable := true
		for _, err := range wrong {
			errs = append(errs, fmt.Errorf("peer %s: %w", p.Name, err))
			usable = usable && errors.As(err, &kept{})
		}
		if usable {
			out.Peers = append(out.Peers, resolved)
		}
	}
	return &out, errors.Join(errs...)
}

// Awaited are the peers that c has on n and that here, which is what For made of c,
// leaves out: each with the families that it may carry. Of
// an unseen node those of all selectors are.
func (c *Config) Awaited(n Node, here *Config) []Peer {
	var out []Peer
	for _, p := range c.Peers {
		mine, _ := n.selected(p.NodeSelector)
		inForce := slices.ContainsFunc(here.Peers, func(q Peer) bool { return q.Name == p.Name })
		if inForce || !n.Unseen && !mine {
			continue
		}
		p.Families = p.mayCarry()
		out = append(out, p)
	}
	return out
}

// clash says which of peers is in the place of p.
func (p Peer) clash(peers []Peer) error {
	for _, q := range peers {
		if _, same := p.meets(q); same {
			return fmt.Errorf("%s is that of peer %s already: change one of them", p.place(), q.Name)
		}
	}
	return nil
}

// on is p on node n, whose ASN is local, and what is wrong with it there.
func (p Peer) on(n Node, local ASN) (_ Peer, wrong []error) {
	var err error
	if p.ASN, err = p.ASN.or(p.ASNFrom, n); err != nil {
		wrong = append(wrong, fmt.Errorf("asnFrom %w", err))
	}
	if p.AddressFrom != (NodeValue{}) {
		if p.Address, err = n.address(p.AddressFrom); err != nil {
			wrong = append(wrong, fmt.Errorf("addressFrom %w", err))
		}
	}
	p.ASNFrom, p.AddressFrom, p.NodeSelector = NodeValue{}, NodeValue{}, nil
	p.defaultFamilies()
	p.atOdds(local, func(key, format string, args ...any) {
		wrong = append(wrong, fmt.Errorf(key+": "+format, args...))
	})
	return p, wrong
}

// or is a, or what the node says in place of it.
func (a ASN) or(from NodeValue, n Node) (ASN, error) {
	if from == (NodeValue{}) {
		return a, nil
	}
	return ask(n, from, func(text string) (ASN, error) {
		v, err := asnShape().parse(text)
		return ASN(number(v)), err
	})
}

// kept is the error of a value that stays as it was.
type kept struct{ error }

func (k kept) Error() string { return k.error.Error() + "; it stays as it was" }

func (k kept) Unwrap() error { return k.error }

// ask gives what n has under v, as parse reads it. What n had before is better than
// nothing: the error is then a kept one.
func ask[T any](n Node, v NodeValue, parse func(string) (T, error)) (T, error) {
	var out T
	text, err := n.value(v)
	if err == nil {
		if out, err = parse(text); err != nil {
			err = fmt.Errorf("%s of node %s: %w", v, n.Name, err)
		}
	}
	if err == nil || n.Before == nil {
		return out, err
	}
	if before, lost := ask(*n.Before, v, parse); lost == nil {
		return before, kept{err}
	}
	return out, err
}

// selected says whether l is of n. A label that n has lost counts with the value that
// it had; lost says which ones those are.
func (n Node) selected(l Labels) (selected bool, lost []error) {
	if l.In(n.Labels) {
		return true, nil
	}
	if n.Before == nil {
		return false, nil
	}
	for _, key := range slices.Sorted(maps.Keys(l)) {
		value, ok := n.Labels[key]
		if !ok {
			value, ok = n.Before.Labels[key]
			_, err := n.value(NodeValue{Label: key})
			lost = append(lost, kept{fmt.Errorf("nodeSelector %w", err)})
		}
		if !ok || value != l[key] {
			return false, nil
		}
	}
	return true, lost
}

// Follow is n with what now has of the labels that nodeSelectors of c ask for. There any
// value is a good one, so that what n was does not go back behind it.
func (n Node) Follow(now Node, c *Config) Node {
	n.Labels = maps.Clone(n.Labels)
	for _, p := range c.Peers {
		for key := range p.NodeSelector {
			value, ok := now.Labels[key]
			if !ok {
				continue
			}
			if n.Labels == nil {
				n.Labels = map[string]string{}
			}
			n.Labels[key] = value
		}
	}
	return n
}

// asnShape has the bounds of an ASN from where it stands in a file.
func asnShape() *shape { return schemaOf(reflect.TypeFor[Options]()).field("asn").shape }

func (n Node) address(from NodeValue) (netip.Addr, error) {
	return ask(n, from, func(text string) (netip.Addr, error) {
		a, err := pools.ParseAddr(text)
		if err == nil && (noRouter(a) || a.IsLinkLocalUnicast() && a.Is6()) {
			return netip.Addr{}, fmt.Errorf("%s is no router's address: write the one that the router has towards this node", a)
		}
		return a, err
	})
}

// String names the label or the annotation.
func (v NodeValue) String() string {
	if v.Annotation != "" {
		return "annotation " + v.Annotation
	}
	return "label " + v.Label
}

// value is what the node has under v.
func (n Node) value(v NodeValue) (string, error) {
	kind, key, values := "label", v.Label, n.Labels
	if v.Annotation != "" {
		kind, key, values = "annotation", v.Annotation, n.Annotations
	}
	text, ok := values[key]
	if !ok {
		return "", fmt.Errorf("%s: node %s has no such %s", v, n.Name, kind)
	}
	return text, nil
}
