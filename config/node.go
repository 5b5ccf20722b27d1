package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"

	"github.com/fairway-network/fairway/pools"
)

// hostnameLabel is the one that every node has.
const hostnameLabel = "kubernetes.io/hostname"

// Node is what a configuration may ask of the node that it is in force on.
type Node struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string
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
// out is left out: a peer or, without this node's ASN, all of them. The error then
// says what, why and where, for each; the Config is to be used all the same.
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
		if !p.NodeSelector.In(n.Labels) || err != nil {
			continue
		}
		resolved, wrong := p.on(n, asn)
		if clash := resolved.clash(out.Peers); clash != nil {
			wrong = append(wrong, clash)
		}
		for _, err := range wrong {
			errs = append(errs, fmt.Errorf("peer %s: %w", p.Name, err))
		}
		if len(wrong) == 0 {
			out.Peers = append(out.Peers, resolved)
		}
	}
	return &out, errors.Join(errs...)
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
	text, err := n.value(from)
	if err != nil {
		return 0, err
	}
	v, err := asnShape().parse(text)
	if err != nil {
		return 0, fmt.Errorf("%s of node %s: %w", from, n.Name, err)
	}
	return ASN(number(v)), nil
}

// asnShape has the bounds of an ASN from where it stands in a file.
func asnShape() *shape { return schemaOf(reflect.TypeFor[Options]()).field("asn").shape }

func (n Node) address(from NodeValue) (netip.Addr, error) {
	text, err := n.value(from)
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := pools.ParseAddr(text)
	switch {
	case err != nil:
		return a, fmt.Errorf("%s of node %s: %w", from, n.Name, err)
	case noRouter(a) || a.IsLinkLocalUnicast() && a.Is6():
		return a, fmt.Errorf("%s of node %s: %s is no router's address: write the one that the router has towards this node", from, n.Name, a)
	}
	return a, nil
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
