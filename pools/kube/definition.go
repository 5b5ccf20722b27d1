package kube

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// defaultReuseAfter is what the schema fills in.
const defaultReuseAfter = 60 * time.Second

// InForce says whether the pool is accepted as it is now written. Nodes take
// blocks of such pools alone: what was changed since it was accepted is not
// looked at yet, or refused.
func InForce(o *v1alpha1.AddressPool) bool {
	c := apimeta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionAccepted)
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == o.Generation && o.Status.BlockSize != nil
}

// definitionOf is what the spec of a pool says, and status.blockSize. Without a
// block size of either kind, BlockSize is 0. The error names the field.
func definitionOf(o *v1alpha1.AddressPool) (pools.Definition, error) {
	d := pools.Definition{Name: o.Name, ReuseAfter: defaultReuseAfter}
	var err error
	if d.Ranges, err = rangesOf("addresses", o.Spec.Addresses); err != nil {
		return d, err
	}
	if d.Exclude, err = rangesOf("exclude", o.Spec.Exclude); err != nil {
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
	if o.Spec.ReuseAfter != nil {
		d.ReuseAfter = o.Spec.ReuseAfter.Duration
	}
	return d, nil
}

func rangesOf(field string, written []v1alpha1.AddressRange) ([]netipx.IPRange, error) {
	out := make([]netipx.IPRange, len(written))
	for i, s := range written {
		var err error
		if out[i], err = pools.ParseRange(string(s)); err != nil {
			return nil, fmt.Errorf("spec.%s[%d]: %w", field, i, err)
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

// Definition is the pool of an object, with what its spec leaves open chosen.
// What was chosen when it was accepted (status.blockSize, status.gateways)
// stays: pods use that gateway, and nodes hold blocks of that size. The
// controller and all nodes come to the same one. It is right: pools.New takes it.
// The error names the field.
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
