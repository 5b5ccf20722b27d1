package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// Group and Version name the API of this package.
	Group   = "fairway.network"
	Version = "v1alpha1"
)

// Names of the resources in the API's paths.
const (
	AddressPools    = "addresspools"
	AddressBlocks   = "addressblocks"
	AddressRequests = "addressrequests"
	NodeSpeakers    = "nodespeakers"
)

// GroupVersion is Group and Version together.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// AddToScheme has s know the objects of this package and their lists.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(),
		&AddressPool{}, &AddressPoolList{},
		&AddressBlock{}, &AddressBlockList{},
		&AddressRequest{}, &AddressRequestList{},
		&NodeSpeaker{}, &NodeSpeakerList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
