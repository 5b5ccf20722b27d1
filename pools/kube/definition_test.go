package kube

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// took is a pool as the controller leaves it when it has accepted it.
func took(t *testing.T, o *v1alpha1.AddressPool) *pools.Pool {
	t.Helper()
	d, err := Definition(o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pools.New(d)
	if err != nil {
		t.Fatal(err)
	}
	Accept(o, &o.Status, p)
	return p
}

func poolNamed(addresses ...v1alpha1.AddressRange) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "web", Generation: 1}, Spec: v1alpha1.AddressPoolSpec{Addresses: addresses}}
}

// What was chosen when a pool was accepted stays when addresses are added: pods
// use that gateway, and nodes hold blocks of that size.
func TestWhatWasChosenStays(t *testing.T) {
	o := poolNamed("10.0.5.0/28", "fd00::/124")
	before := took(t, o)
	if before.BlockSize() != 1 || before.Gateway(pools.IPv4).String() != "10.0.5.1/27" {
		t.Fatalf("blocks of %d, gateway %s", before.BlockSize(), before.Gateway(pools.IPv4))
	}
	o.Spec.Addresses = append(o.Spec.Addresses, "10.0.0.0/22", "fd00:1::/64")
	after := took(t, o)
	if after.BlockSize() != 1 {
		t.Errorf("blocks of %d", after.BlockSize())
	}
	if g := after.Gateway(pools.IPv4); g.Addr() != before.Gateway(pools.IPv4).Addr() || g.Bits() > 21 {
		t.Errorf("the gateway is %s", g)
	}
	if g := after.Gateway(pools.IPv6); g.String() != "fe80::1/128" {
		t.Errorf("the gateway is %s", g)
	}
	if again := took(t, o); again.Gateway(pools.IPv4) != after.Gateway(pools.IPv4) {
		t.Errorf("read again, the gateway is %s", again.Gateway(pools.IPv4))
	}
	// A family that is new may get one of its own.
	o.Spec.Gateways = []v1alpha1.Gateway{"10.0.4.9/21"}
	if g := took(t, o).Gateway(pools.IPv4).String(); g != "10.0.4.9/21" {
		t.Errorf("of the spec, the gateway is %s", g)
	}
}

// What nodes read in the status is what the controller accepted, whatever the
// spec says since.
func TestTheAcceptedPoolIsTheOneThatWasTaken(t *testing.T) {
	for name, o := range map[string]*v1alpha1.AddressPool{
		"both families":        poolNamed("10.0.5.0/28", "fd00::/124"),
		"a gateway outside":    poolNamed("10.0.5.7"),
		"gateways of its own":  poolNamed("10.0.5.0/28", "fd00::/124"),
		"link-local ones":      poolNamed("10.0.5.0/28", "fd00::/124"),
		"some are left out":    poolNamed("10.0.5.0/24", "fd00::/64"),
		"of one IPv6 address":  poolNamed("fd00::7"),
		"in several entries":   poolNamed("10.0.5.0-10.0.5.9", "10.0.7.1", "10.0.6.0/25"),
		"of a chosen block":    poolNamed("10.0.0.0/16"),
		"with a common prefix": poolNamed("10.0.5.255", "10.0.6.0"),
	} {
		switch name {
		case "a gateway outside":
			o.Spec.Gateways = []v1alpha1.Gateway{"10.0.5.1/24"}
		case "gateways of its own":
			o.Spec.Gateways = []v1alpha1.Gateway{"10.0.5.3/24", "fd00::1/64"}
		case "link-local ones":
			o.Spec.Gateways = []v1alpha1.Gateway{"fe80::2/128"}
		case "some are left out":
			o.Spec.Exclude = []v1alpha1.AddressRange{"10.0.5.1", "fd00::/80"}
		case "of a chosen block":
			size := int32(256)
			o.Spec.BlockSize = &size
		}
		if _, ok := Accepted(o); ok {
			t.Errorf("%s: accepted before anybody looked", name)
		}
		want := took(t, o)
		o.Spec.Addresses, o.Spec.Exclude = append(o.Spec.Addresses, "10.9.0.0/24"), nil
		o.Generation++
		a, ok := Accepted(o)
		d, err := AcceptedDefinition(o, a)
		if !ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
			continue
		}
		got, err := pools.New(d)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Addresses().Equal(want.Addresses()) || got.BlockSize() != want.BlockSize() {
			t.Errorf("%s: %v in blocks of %d, want %v in blocks of %d", name, got.Addresses().Ranges(), got.BlockSize(), want.Addresses().Ranges(), want.BlockSize())
		}
		for _, f := range want.Families() {
			if got.Gateway(f) != want.Gateway(f) {
				t.Errorf("%s: gateway %s, want %s", name, got.Gateway(f), want.Gateway(f))
			}
		}
	}
}

func TestAWrongDefinitionNamesItsField(t *testing.T) {
	for says, change := range map[string]func(*v1alpha1.AddressPool){
		"spec.addresses[1]": func(o *v1alpha1.AddressPool) { o.Spec.Addresses = append(o.Spec.Addresses, "10.0.0.9-10.0.0.1") },
		"spec.exclude[0]":   func(o *v1alpha1.AddressPool) { o.Spec.Exclude = []v1alpha1.AddressRange{"10.0.0.1/24"} },
		"spec.gateways[0]":  func(o *v1alpha1.AddressPool) { o.Spec.Gateways = []v1alpha1.Gateway{"10.0.0.1"} },
		"exclude: ":         func(o *v1alpha1.AddressPool) { o.Spec.Exclude = []v1alpha1.AddressRange{"10.9.0.1"} },
	} {
		o := poolNamed("10.0.0.0/24")
		change(o)
		if _, err := Definition(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %q in it", err, says)
		}
	}
}

func TestInForceIsAcceptedAsItIsWritten(t *testing.T) {
	o := poolNamed("10.0.0.0/24")
	accept := func(status metav1.ConditionStatus, generation int64) {
		o.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: status, ObservedGeneration: generation}}
	}
	var got []bool
	for _, step := range []func(){
		func() {}, func() { accept(metav1.ConditionTrue, 1) }, func() { took(t, o) }, func() { o.Generation++ },
		func() { accept(metav1.ConditionFalse, 2) }, func() { accept(metav1.ConditionTrue, 2) },
	} {
		step()
		got = append(got, InForce(o))
	}
	if want := []bool{false, false, true, false, false, true}; !slices.Equal(got, want) {
		t.Errorf("in force: %v, want %v", got, want)
	}
}
