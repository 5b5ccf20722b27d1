package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// AddressBlock is one CIDR of a pool that one node holds: the node gives its
// addresses to pods and announces it to the network. Nodes make and delete
// blocks on their own; nobody has to touch them. To see who has which:
// kubectl get addressblocks.
//
// An address is the node's whose block is its longest match, as in the routers'
// tables. A block inside another one was lent: its lender set it aside, and has
// it back when the block is deleted.
//
// The name is the CIDR with hyphens, IPv6 with all eight groups:
// 10-244-120-0-26 or fd00-0-0-0-0-0-0-40-122. That makes creation the lock: of
// two nodes that try to take a CIDR, the API server lets one win.
//
// Deleting a block that is in use lets another node give its addresses to other
// pods. It is therefore refused to all but its node and the controller, unless
// the block has the annotation fairway.network/force-delete.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=ablock,categories=fairway
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`,description="The pool that the block is of"
// +kubebuilder:printcolumn:name="Prefix",type=string,JSONPath=`.spec.prefix`,description="The block's addresses"
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`,description="The node that holds it; none if it is vacant"
// +kubebuilder:printcolumn:name="Lender",type=string,JSONPath=`.spec.lender`,description="The node that lent it, out of a block of its own"
// +kubebuilder:printcolumn:name="Tenure",type=integer,JSONPath=`.spec.tenure`,description="How often it was taken over",priority=1
// +kubebuilder:printcolumn:name="Node-UID",type=string,JSONPath=`.spec.nodeUID`,description="Which machine of the node's name",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:selectablefield:JSONPath=`.spec.pool`
// +kubebuilder:selectablefield:JSONPath=`.spec.node`
// +kubebuilder:validation:XValidation:rule=`!isCIDR(self.spec.prefix) || (self.spec.prefix.contains('::') ? self.metadata.name == (self.spec.prefix.split('::')[0] == "" ? "" : self.spec.prefix.split('::')[0].replace(':', '-') + '-') + ['0-0-0-0-0-0-0-0-', '0-0-0-0-0-0-0-', '0-0-0-0-0-0-', '0-0-0-0-0-', '0-0-0-0-', '0-0-0-', '0-0-', '0-'][(self.spec.prefix.split('::')[0] == "" ? 0 : self.spec.prefix.split('::')[0].split(':').size()) + (self.spec.prefix.split('::')[1].startsWith('/') ? 0 : self.spec.prefix.split('::')[1].split(':').size())] + (self.spec.prefix.split('::')[1].startsWith('/') ? "" : self.spec.prefix.split('::')[1].split('/')[0].replace(':', '-') + '-') + self.spec.prefix.split('::')[1].split('/')[1] : self.metadata.name == self.spec.prefix.replace('.', '-').replace(':', '-').replace('/', '-'))`,message="the name is not that of the prefix: write it with hyphens for dots, colons and the slash, and all eight groups of an IPv6 address without leading zeros (10-244-120-0-26, fd00-0-0-0-0-0-0-40-122)",fieldPath=.spec.prefix
type AddressBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What the block is and whose.
	// +required
	Spec AddressBlockSpec `json:"spec"`
}

// AddressBlockList is a list of blocks.
//
// +kubebuilder:object:root=true
type AddressBlockList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AddressBlock `json:"items"`
}

// Prefix is a CIDR without host bits, in its shortest form.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && oldSelf.value() == self || isCIDR(self) && string(cidr(self).masked()) == self",message="is not a CIDR in its shortest form without host bits, such as 10.244.120.0/26 or fd00::40/122",optionalOldSelf=true
type Prefix string

// AddressBlockSpec is what a block is and whose. Its node changes only by way
// of being vacant.
//
// +kubebuilder:validation:XValidation:rule="self.prefix == oldSelf.prefix && self.pool == oldSelf.pool && self.lender == oldSelf.lender",message="prefix, pool and lender of a block can't be changed: delete it and make another"
// +kubebuilder:validation:XValidation:rule=`self.node == oldSelf.node || self.node == "" || oldSelf.node == ""`,message="a block does not go from one node to another: the controller makes it vacant (node is empty) when its node is gone, then another can take it",fieldPath=.node
// +kubebuilder:validation:XValidation:rule=`self.tenure == oldSelf.tenure + 1 ? self.node != "" : self.tenure == oldSelf.tenure && (self.node == "" || oldSelf.node != "" && self.nodeUID == oldSelf.nodeUID)`,message="tenure goes up by one when a node takes the block, and never else",fieldPath=.tenure
// +kubebuilder:validation:XValidation:rule=`self.node != "" || self.nodeUID == ""`,message="a vacant block has no nodeUID: remove it together with node",fieldPath=.nodeUID
// +kubebuilder:validation:XValidation:rule=`oldSelf.hasValue() || self.node != "" && self.node != self.lender && self.tenure == 0`,message="a new block has a node, which is not its lender, and tenure 0",optionalOldSelf=true
type AddressBlockSpec struct {
	// The block's addresses.
	// +required
	Prefix Prefix `json:"prefix"`

	// The pool that they are of.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Pool string `json:"pool"`

	// The node that holds the block. "" if it is vacant: its node is gone, and
	// any other may take it.
	//
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`

	// The metadata.uid of that Node: it tells the machine from others of its
	// name, earlier or later.
	//
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	NodeUID types.UID `json:"nodeUID"`

	// The node that lent the block, out of one of its own. "" for a whole cell
	// of the pool.
	//
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=253
	Lender string `json:"lender"`

	// How often a node has taken the block over since it was made. What the
	// nodes before have promised of it is void.
	//
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	Tenure int32 `json:"tenure"`
}
