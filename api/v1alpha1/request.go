package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// AddressRequest is a node asking the others for addresses of a pool that has
// no free block left, or for one address that a pod must have. Nodes that have
// addresses to spare set some aside and answer with grants, until there are as
// many as were asked for; the asking node makes the blocks that were lent to it,
// and deletes the request. A request that stays for long is that of a pool without
// free addresses. Nodes make and delete requests on their own; nobody has to touch
// them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=areq,categories=fairway
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`,description="The pool of which addresses are asked for"
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`,description="The node that asks"
// +kubebuilder:printcolumn:name="Family",type=string,JSONPath=`.spec.family`
// +kubebuilder:printcolumn:name="Want",type=string,JSONPath=`.spec.want`,description="The one address that is asked for, if it must be that"
// +kubebuilder:printcolumn:name="Count",type=integer,JSONPath=`.spec.count`,description="How many addresses the node lacks"
// +kubebuilder:printcolumn:name="Granted",type=string,JSONPath=`.status.grant.prefix`,description="What was lent first"
// +kubebuilder:printcolumn:name="Lender",type=string,JSONPath=`.status.grant.lender`,description="The node that lent it"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.startsWith(self.spec.pool + '-')",message="the name of a request begins with its spec.pool and a hyphen",fieldPath=.metadata
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.grant) || has(self.status) && has(self.status.grant) && self.status.grant == oldSelf.status.grant",message="what was granted stands until the request is deleted: its node may be using it",fieldPath=.status
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.further) || has(self.status) && has(self.status.further) && self.status.further + oldSelf.status.further == self.status.further",message="what was granted stands until the request is deleted: its node may be using it",fieldPath=.status
// +kubebuilder:validation:XValidation:rule="!has(self.status) || !has(self.status.further) || has(self.status.grant)",message="the first grant is status.grant",fieldPath=.status
// +kubebuilder:validation:XValidation:rule="!has(self.status) || [self.spec.node].all(n, (!has(self.status.grant) || self.status.grant.lender != n) && (!has(self.status.further) || self.status.further.all(g, g.lender != n)))",message="a node can't lend to itself: lender and spec.node are the same",fieldPath=.status
// +kubebuilder:validation:XValidation:rule="!has(self.status) || [self.spec.family == 'IPv6'].all(v6, (!has(self.status.grant) || v6 == self.status.grant.prefix.contains(':')) && (!has(self.status.further) || self.status.further.all(g, v6 == g.prefix.contains(':'))))",message="the grant is not of the family that was asked for",fieldPath=.status
// +kubebuilder:validation:XValidation:rule="!has(self.status) || !has(self.spec.want) || !isIP(self.spec.want) || (!has(self.status.grant) || self.status.grant.prefix == self.spec.want + (self.spec.family == 'IPv6' ? '/128' : '/32')) && (!has(self.status.further) || self.status.further.all(g, g.prefix == self.spec.want + (self.spec.family == 'IPv6' ? '/128' : '/32')))",message="the grant is not the one address that was asked for",fieldPath=.status
type AddressRequest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Who asks, and for what.
	// +required
	Spec AddressRequestSpec `json:"spec"`
	// The answer.
	// +optional
	Status AddressRequestStatus `json:"status,omitempty"`
}

// AddressRequestList is a list of requests.
//
// +kubebuilder:object:root=true
type AddressRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AddressRequest `json:"items"`
}

// AddressRequestSpec says who asks, and for what.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a request can't be changed: delete it and make another"
// +kubebuilder:validation:XValidation:rule="!has(self.want) || !isIP(self.want) || self.want.contains(':') == (self.family == 'IPv6')",message="is not of the family that is asked for",fieldPath=.want
type AddressRequestSpec struct {
	// The node that asks.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`

	// The pool of which it asks for addresses.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Pool string `json:"pool"`

	// The family of the addresses: IPv4 or IPv6.
	// +required
	Family Family `json:"family"`

	// The address that it must be. Without it any one will do.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule="isIP(self) && ip.isCanonical(self)",message="is not an address in its shortest form, such as 10.244.120.7 or fd00::7"
	Want string `json:"want,omitempty"`

	// How many addresses the node lacks. Who answers grants no more than are
	// lacking still; 0 is one.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	Count int32 `json:"count,omitempty"`

	// How many nodes the asking one knows to hold blocks of the pool: a hint
	// for who answers.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Holders int32 `json:"holders,omitempty"`
}

// AddressRequestStatus is the answer to a request.
type AddressRequestStatus struct {
	// The first grant. It is given once and never changed.
	// +optional
	Grant *AddressGrant `json:"grant,omitempty"`

	// The grants after the first one, of the same node or of others. None is
	// changed or taken away.
	//
	// +optional
	// +listType=map
	// +listMapKey=prefix
	// +kubebuilder:validation:MaxItems=31
	Further []AddressGrant `json:"further,omitempty"`
}

// AddressGrant says what was lent and by whom.
//
// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() || !isCIDR(self.outer) || !isCIDR(self.prefix) || cidr(self.outer).containsCIDR(self.prefix)",message="is not inside outer, the lender's block",fieldPath=.prefix,optionalOldSelf=true
type AddressGrant struct {
	// The node that lends.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Lender string `json:"lender"`

	// What it lends.
	// +required
	Prefix Prefix `json:"prefix"`

	// The prefix of the lender's block that it lies in.
	// +required
	Outer Prefix `json:"outer"`

	// The metadata.uid of that block.
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	OuterUID types.UID `json:"outerUID"`

	// The tenure of that block: the grant is void once it has another.
	//
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	OuterTenure int32 `json:"outerTenure"`
}
