package kube

import (
	"reflect"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAnnotationsOfANode(t *testing.T) {
	n, err := nodeOf(&core.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
		"example.com/tor": "2001:db8::1", "kubectl.kubernetes.io/last-applied-configuration": strings.Repeat("{}", 100),
	}}})
	if want := map[string]string{"example.com/tor": "2001:db8::1"}; err != nil || !reflect.DeepEqual(n.Annotations, want) {
		t.Errorf("%v, %v; want %v", n.Annotations, err, want)
	}
}

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
