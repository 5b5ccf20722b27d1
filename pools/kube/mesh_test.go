package kube

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/api/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMeshNodeOf(t *testing.T) {
	endpoint := func(asn int64, port int32, addresses ...v1alpha1.NodeAddress) *v1alpha1.MeshEndpoint {
		return &v1alpha1.MeshEndpoint{ASN: asn, Port: port, Addresses: addresses}
	}
	for _, test := range []struct {
		mesh *v1alpha1.MeshEndpoint
		want string // as an error, after "NodeSpeaker n1: "
	}{
		{nil, "AS0 0 []"},
		{endpoint(64512, 179, "192.0.2.1"), "AS64512 179 [192.0.2.1]"},
		{endpoint(1<<32-1, 65535, "2001:db8::1", "192.0.2.1"), "AS4294967295 65535 [2001:db8::1 192.0.2.1]"},
		{endpoint(64512, 179), "AS64512 179 []"},
		{endpoint(0, 179, "192.0.2.1"), "ASN 0 and port 179"},
		{endpoint(1<<32, 179, "192.0.2.1"), "ASN 4294967296 and port 179"},
		{endpoint(64512, -1, "192.0.2.1"), "ASN 64512 and port -1"},
		{endpoint(64512, 1<<16, "192.0.2.1"), "ASN 64512 and port 65536"},
		{endpoint(64512, 179, "192.0.2.1", "node-1"), "an address of its mesh: ParseAddr"},
		{endpoint(64512, 179, "192.0.2.0/24"), "an address of its mesh: ParseAddr"},
		{endpoint(64512, 179, "127.0.0.1"), "127.0.0.1 is no address by which"},
		{endpoint(64512, 179, "fe80::1%eth0"), "fe80::1%eth0 is no address by which"},
		{endpoint(64512, 179, "2001:db8::1%eth0"), "2001:db8::1%eth0 is no address by which"},
		{endpoint(64512, 179, "::ffff:192.0.2.1"), "::ffff:192.0.2.1 is no address by which"},
		{endpoint(64512, 179, "0.0.0.0"), "0.0.0.0 is no address by which"},
		{endpoint(64512, 179, "ff02::1"), "ff02::1 is no address by which"},
	} {
		n, err := meshNodeOf(&v1alpha1.NodeSpeaker{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: v1alpha1.NodeSpeakerStatus{Mesh: test.mesh}})
		got := fmt.Sprintf("AS%d %d %v", n.ASN, n.Port, n.Addresses)
		if err != nil {
			got = strings.TrimPrefix(err.Error(), "NodeSpeaker n1: ")
		}
		if !strings.HasPrefix(got, test.want) || err == nil && got != test.want {
			t.Errorf("%+v: %s, want %s", test.mesh, got, test.want)
		}
	}
	if _, err := meshNodeOf("a word"); err == nil {
		t.Error("a word is a node")
	}
}
