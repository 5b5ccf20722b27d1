package kube

import (
	"reflect"
	"testing"

	core "k8s.io/api/core/v1"
)

func TestAddressesOfANode(t *testing.T) {
	n, err := nodeOf(&core.Node{Status: core.NodeStatus{Addresses: []core.NodeAddress{
		{Type: core.NodeHostName, Address: "n1"}, {Type: core.NodeExternalIP, Address: "203.0.113.1"},
		{Type: core.NodeInternalIP, Address: "192.0.2.1"}, {Type: core.NodeInternalIP, Address: "n1.example"}, {Type: core.NodeInternalIP, Address: "2001:db8::1"},
	}}})
	var got []string
	for _, a := range n.Addresses {
		got = append(got, a.String())
	}
	if want := []string{"192.0.2.1", "2001:db8::1"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}
