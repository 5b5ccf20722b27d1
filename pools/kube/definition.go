package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// defaultReuseAfter is what the schema fills in.
const defaultReuseAfter = 60 * time.Second

// InForce says whether the pool is accepted as it is now written. What was
// changed since it was accepted is not looked at yet, or refused: see Accepted.
func InForce(o *v1alpha1.AddressPool) bool {
	c := apimeta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionAccepted)
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == o.Generation && o.Status.BlockSize != nil
}

// Acceptance is what the controller has accepted of a pool last. It stays in
// force while a later spec is not looked at yet, or is refused. It is shared with
// the object: change nothing in it.
type Acceptance struct {
	Addresses, Exclude []string
	Gateways           []v1alpha1.Gateway
	BlockSize          int32
}

// Equal says whether a and b are the same, as they are written.
func (a Acceptance) Equal(b Acceptance) bool {
	return a.BlockSize == b.BlockSize && slices.Equal(a.Gateways, b.Gateways) &&
		slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Exclude, b.Exclude)
}

// Accepted is what was accepted of a pool; false if nothing ever was. A pool
// whose status does not say what, but that it is accepted as it is now written,
// is by a controller from before status.addresses, and accepted as a whole.
func Accepted(o *v1alpha1.AddressPool) (Acceptance, bool) {
	s := &o.Status
	switch {
	case s.BlockSize == nil:
		return Acceptance{}, false
	case len(s.Addresses) > 0:
		return Acceptance{s.Addresses, s.Exclude, s.Gateways, *s.BlockSize}, true
	case InForce(o):
		a := Acceptance{written(o.Spec.Addresses), written(o.Spec.Exclude), s.Gateways, *s.BlockSize}
		if len(a.Gateways) == 0 {
			a.Gateways = o.Spec.Gateways
		}
		return a, true
	}
	return Acceptance{}, false
}

// Accept writes into the status of o that its spec is accepted as p, which was
// made of o's Definition.
func Accept(o *v1alpha1.AddressPool, s *v1alpha1.AddressPoolStatus, p *pools.Pool) {
	size := int32(p.BlockSize())
	s.BlockSize, s.Gateways = &size, nil
	for _, f := range p.Families() {
		s.Gateways = append(s.Gateways, v1alpha1.Gateway(p.Gateway(f).String()))
	}
	s.Addresses, s.Exclude = written(o.Spec.Addresses), written(o.Spec.Exclude)
}

func written(ranges []v1alpha1.AddressRange) []string {
	var out []string
	for _, r := range ranges {
		out = append(out, string(r))
	}
	return out
}

// AcceptedDefinition is the pool that was accepted of an object, with all that
// was chosen then, and with what of its spec counts at once. It is right:
// pools.New takes it. The error names the field.
func AcceptedDefinition(o *v1alpha1.AddressPool, a Acceptance) (pools.Definition, error) {
	d := pools.Definition{Name: o.Name, BlockSize: int(a.BlockSize), ReuseAfter: reuseAfter(o)}
	var err error
	if d.Ranges, err = rangesOf("status.addresses", a.Addresses); err != nil {
		return d, err
	}
	if d.Exclude, err = rangesOf("status.exclude", a.Exclude); err != nil {
		return d, err
	}
	given, err := gatewaysOf("status.gateways", a.Gateways)
	if err != nil {
		return d, err
	}
	for _, g := range given {
		// pools.New chooses this one itself, and earlier versions refuse it in
		// what an agent remembers.
		if g.String() != "fe80::1/128" {
			d.Gateways = append(d.Gateways, g)
		}
	}
	_, err = pools.New(d)
	return d, err
}

// definitionOf is what the spec of a pool says, and status.blockSize. Without a
// block size of either kind, BlockSize is 0. The error names the field.
func definitionOf(o *v1alpha1.AddressPool) (pools.Definition, error) {
	d := pools.Definition{Name: o.Name, ReuseAfter: reuseAfter(o)}
	var err error
	if d.Ranges, err = rangesOf("spec.addresses", written(o.Spec.Addresses)); err != nil {
		return d, err
	}
	if d.Exclude, err = rangesOf("spec.exclude", written(o.Spec.Exclude)); err != nil {
		return d, err
	}
	if d.Gateways, err = gatewaysOf("spec.gateways", o.Spec.Gateways); err != nil {
		return d, err
	}
	switch {
	case o.Status.BlockSize != nil:
		d.BlockSize = int(*o.Status.BlockSize)
	case o.Spec.BlockSize != nil:
		d.BlockSize = int(*o.Spec.BlockSize)
	}
	return d, nil
}

func reuseAfter(o *v1alpha1.AddressPool) time.Duration {
	if o.Spec.ReuseAfter == nil {
		return defaultReuseAfter
	}
	return o.Spec.ReuseAfter.Duration
}

func rangesOf(field string, written []string) ([]netipx.IPRange, error) {
	out := make([]netipx.IPRange, len(written))
	for i, s := range written {
		var err error
		if out[i], err = pools.ParseRange(s); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
	}
	return out, nil
}

func gatewaysOf(field string, written []v1alpha1.Gateway) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, len(written))
	for i, s := range written {
		var err error
		if out[i], err = netip.ParsePrefix(string(s)); err != nil {
			return nil, fmt.Errorf("%s[%d]: %q is not a gateway: write its address and a prefix length, such as 10.244.120.1/24", field, i, s)
		}
	}
	return out, nil
}

// Definition is the pool that the spec of an object asks for, with what it
// leaves open chosen.
// What was chosen when it was accepted (status.blockSize, status.gateways)
// stays: pods use that gateway, and nodes hold blocks of that size. It is right:
// pools.New takes it. The error names the field.
func Definition(o *v1alpha1.AddressPool) (pools.Definition, error) {
	d, err := definitionOf(o)
	if err != nil {
		return d, err
	}
	p, err := pools.New(d)
	if err != nil {
		return d, err
	}
	if d.BlockSize == 0 {
		d.BlockSize = pools.FittingBlockSize(p.Addresses())
	}
	kept, err := gatewaysOf("status.gateways", o.Status.Gateways)
	if err != nil {
		return d, err
	}
	d.Gateways = append(d.Gateways, keptGateways(p, d.Gateways, kept)...)
	_, err = pools.New(d)
	return d, err
}

// keptGateways are those of the kept ones that p has to be given: of a family
// for which none is written, and an address of the pool. They are as long as p
// wants them, which may have grown.
func keptGateways(p *pools.Pool, written, kept []netip.Prefix) (out []netip.Prefix) {
	given := map[pools.Family]bool{}
	for _, g := range written {
		given[pools.FamilyOf(g.Addr())] = true
	}
	for _, g := range kept {
		f := pools.FamilyOf(g.Addr())
		if now := p.Gateway(f); !given[f] && now.IsValid() && p.Contains(g.Addr()) && now.Addr() != g.Addr() {
			out = append(out, netip.PrefixFrom(g.Addr(), now.Bits()))
		}
	}
	return out
}
