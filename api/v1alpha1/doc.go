// Package v1alpha1 defines Fairway's objects in the Kubernetes API: what a
// person decides (AddressPool) and what the nodes agree upon by it
// (AddressBlock, AddressRequest, NodeSpeaker). All of them are cluster-scoped.
//
// The comments of the types are what "kubectl explain" prints, and their
// markers become the definitions in deploy/crds. The API server needs to be
// of Kubernetes 1.31 or later: earlier ones know no addresses in their rules.
//
// +groupName=fairway.network
// +kubebuilder:object:generate=true
package v1alpha1

//go:generate go tool controller-gen object paths=.
//go:generate go tool controller-gen crd paths=. output:crd:dir=../../deploy/crds
