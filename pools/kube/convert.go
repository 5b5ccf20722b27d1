package kube

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// blockOf is b as the API server keeps it, at its version.
func blockOf(b exchange.Stored) *v1alpha1.AddressBlock {
	return &v1alpha1.AddressBlock{
		ObjectMeta: metav1.ObjectMeta{
			Name: v1alpha1.BlockName(b.Prefix), UID: types.UID(b.UID), ResourceVersion: b.Version,
			Labels: map[string]string{
				v1alpha1.LabelPool:   b.Pool,
				v1alpha1.LabelNode:   v1alpha1.NodeLabel(b.Node),
				v1alpha1.LabelAround: v1alpha1.BlockAround(b.Prefix),
			},
		},
		Spec: v1alpha1.AddressBlockSpec{
			Prefix: v1alpha1.Prefix(b.Prefix.String()), Pool: b.Pool,
			Node: b.Node, NodeUID: types.UID(b.Machine), Lender: b.Lender, Tenure: int32(b.Tenure),
		},
	}
}

// storedOf is the block that o keeps.
func storedOf(o *v1alpha1.AddressBlock) (exchange.Stored, error) {
	p, err := parsePrefix(o.Spec.Prefix)
	if err != nil {
		return exchange.Stored{}, fmt.Errorf("block %s: %w; it can only be deleted", o.Name, err)
	}
	return exchange.Stored{
		Block: pools.Block{
			Prefix: p, Pool: o.Spec.Pool, Node: o.Spec.Node, Lender: o.Spec.Lender,
			Created: o.CreationTimestamp.Time, UID: string(o.UID),
			Machine: string(o.Spec.NodeUID), Tenure: int(o.Spec.Tenure),
		},
		Version: o.ResourceVersion,
	}, nil
}

// requestOf is r as the API server keeps it, at its version.
func requestOf(r exchange.Request) *v1alpha1.AddressRequest {
	o := &v1alpha1.AddressRequest{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.Name, UID: types.UID(r.UID), ResourceVersion: r.Version,
			Labels: map[string]string{v1alpha1.LabelPool: r.Pool},
		},
		Spec: v1alpha1.AddressRequestSpec{
			Node: r.Node, Pool: r.Pool, Family: v1alpha1.Family(r.Family.String()),
			Count: int32(r.Count), Holders: int32(r.Holders),
		},
	}
	if r.Want.IsValid() {
		o.Spec.Want = r.Want.String()
	}
	for i, g := range r.Grants {
		granted := v1alpha1.AddressGrant{
			Lender: g.Lender, Prefix: v1alpha1.Prefix(g.Prefix.String()),
			Outer: v1alpha1.Prefix(g.Outer.String()), OuterUID: types.UID(g.OuterUID), OuterTenure: int32(g.OuterTenure),
		}
		if i == 0 {
			o.Status.Grant = &granted
		} else {
			o.Status.Further = append(o.Status.Further, granted)
		}
	}
	return o
}

// askedOf is the request that o keeps.
func askedOf(o *v1alpha1.AddressRequest) (exchange.Request, error) {
	r := exchange.Request{
		Name: o.Name, UID: string(o.UID), Version: o.ResourceVersion,
		Node: o.Spec.Node, Pool: o.Spec.Pool, Family: familyOf(o.Spec.Family),
		Count: int(o.Spec.Count), Holders: int(o.Spec.Holders),
	}
	var errs []error
	if o.UID == "" {
		errs = append(errs, errors.New("it has no UID"))
	}
	if o.Spec.Want != "" {
		var err error
		r.Want, err = netip.ParseAddr(o.Spec.Want)
		if err == nil && (r.Want.Is4In6() || r.Want.Zone() != "") {
			err = fmt.Errorf("%s has an IPv4 address in it, or a zone", r.Want)
		}
		errs = append(errs, err)
	}
	if o.Status.Grant != nil {
		for _, g := range append([]v1alpha1.AddressGrant{*o.Status.Grant}, o.Status.Further...) {
			granted, err := grantOf(g)
			errs = append(errs, err)
			r.Grants = append(r.Grants, granted)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return exchange.Request{}, fmt.Errorf("request %s: %w; it can only be deleted", o.Name, err)
	}
	return r, nil
}

func grantOf(g v1alpha1.AddressGrant) (exchange.Grant, error) {
	prefix, errP := parsePrefix(g.Prefix)
	outer, errO := parsePrefix(g.Outer)
	return exchange.Grant{Lender: g.Lender, Prefix: prefix, Outer: outer, OuterUID: string(g.OuterUID), OuterTenure: int(g.OuterTenure)}, errors.Join(errP, errO)
}

func familyOf(f v1alpha1.Family) pools.Family {
	if f == v1alpha1.Family(pools.IPv6.String()) {
		return pools.IPv6
	}
	return pools.IPv4
}

// parsePrefix refuses what the schema refuses.
func parsePrefix(s v1alpha1.Prefix) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(string(s))
	if err != nil {
		return netip.Prefix{}, err
	}
	if p != p.Masked() || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("prefix %s has host bits, or an IPv4 address in it", s)
	}
	return p, nil
}

// allOf turns the objects of a list into what they keep, and says which of them
// can't be read.
func allOf[O, T any](objects []O, turn func(*O) (T, error)) ([]T, error) {
	out := make([]T, 0, len(objects))
	var errs []error
	for i := range objects {
		t, err := turn(&objects[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, t)
	}
	return out, errors.Join(errs...)
}
