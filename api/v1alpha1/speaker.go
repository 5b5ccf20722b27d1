package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// NodeSpeaker is what one node's agent does, for people to read: its BGP
// sessions and what it announces. It is named after its node. Its spec is the
// place where the controller reaches that node's agent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=nspeaker,categories=fairway
// +kubebuilder:printcolumn:name="ASN",type=integer,JSONPath=`.status.asn`,description="The node's autonomous system number"
// +kubebuilder:printcolumn:name="Peers",type=integer,JSONPath=`.status.peerCount`,description="Routers that the node is to have a session with"
// +kubebuilder:printcolumn:name="Up",type=integer,JSONPath=`.status.establishedCount`,description="Routers that it has one with"
// +kubebuilder:printcolumn:name="Blocks",type=integer,JSONPath=`.status.blocks`,description="Blocks that the node holds"
// +kubebuilder:printcolumn:name="Routes",type=integer,JSONPath=`.status.routes`,description="Prefixes that it announces"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether pods on the node are reachable"
// +kubebuilder:printcolumn:name="Router-ID",type=string,JSONPath=`.status.routerID`,priority=1
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`,description="The agent's version",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeSpeaker struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What the controller tells the node's agent.
	// +optional
	Spec NodeSpeakerSpec `json:"spec,omitempty"`
	// What the agent does. It writes this itself.
	// +optional
	Status NodeSpeakerStatus `json:"status,omitempty"`
}

// NodeSpeakerList is a list of speakers.
//
// +kubebuilder:object:root=true
type NodeSpeakerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodeSpeaker `json:"items"`
}

// NodeSpeakerSpec is what the controller tells a node's agent.
type NodeSpeakerSpec struct {
	// The node counts as gone, and its blocks are being freed. Should its agent
	// live after all, it reads its blocks, and leases nothing new until this is
	// taken off.
	//
	// +optional
	Fence *Fence `json:"fence,omitempty"`
}

// Fence says that a node counts as gone.
type Fence struct {
	// The metadata.uid of the Node that is gone; another machine of that name
	// is not.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	NodeUID types.UID `json:"nodeUID,omitempty"`

	// Since when.
	// +required
	Since metav1.Time `json:"since"`

	// Why, in a sentence.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// The node is back: once its agent has taken its blocks anew, so that what was
	// begun to free them is void, and has reported that, the fence is taken off.
	//
	// +optional
	Lifting bool `json:"lifting,omitempty"`
}

// ConditionReady of a NodeSpeaker says whether pods on the node are reachable:
// the agent serves, and all that it should announce is announced.
const ConditionReady = "Ready"

// ConditionPeersUp of a NodeSpeaker says whether the node has a session with every
// router that it is to have one with.
const ConditionPeersUp = "PeersUp"

// NodeSpeakerStatus is what a node's agent does.
type NodeSpeakerStatus struct {
	// The metadata.generation of the spec that the agent has acted on.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// The agent's version.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`

	// The node's autonomous system number.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	ASN int64 `json:"asn,omitempty"`

	// The node's BGP identifier.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=15
	RouterID string `json:"routerID,omitempty"`

	// Where the other nodes of a mesh find the node's speaker. Absent on a node
	// that is in no mesh.
	//
	// +optional
	Mesh *MeshEndpoint `json:"mesh,omitempty"`

	// How many routers the node is to have a session with.
	// +optional
	PeerCount int32 `json:"peerCount"`

	// How many it has one with.
	// +optional
	EstablishedCount int32 `json:"establishedCount"`

	// How many blocks the node holds.
	// +optional
	Blocks int32 `json:"blocks"`

	// How many prefixes it announces.
	// +optional
	Routes int32 `json:"routes"`

	// The routers that the node is to have a session with.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Peers []PeerStatus `json:"peers,omitempty"`

	// Ready: the agent serves pods, and all that it should announce is
	// announced. PeersUp: all its sessions are established.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// MeshEndpoint is where the speaker of a node is for the other nodes of its mesh.
type MeshEndpoint struct {
	// Its autonomous system number.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	ASN int64 `json:"asn"`

	// The TCP port that it listens on.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`

	// Its addresses, at most one of each family. What the node announces is
	// reached by them.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Addresses []NodeAddress `json:"addresses"`
}

// NodeAddress is an address by which nodes reach each other.
//
// +kubebuilder:validation:MaxLength=39
// +kubebuilder:validation:XValidation:rule="isIP(self) && ip(self).isGlobalUnicast()",message="is no address by which a node can be reached: loopback, link-local and multicast ones are not"
type NodeAddress string

// PeerStatus is one BGP session.
type PeerStatus struct {
	// The peer's name in the agent's configuration; in a mesh mesh/NODE/FAMILY.
	//
	// +required
	// +kubebuilder:validation:MaxLength=270
	Name string `json:"name"`

	// Its address.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Address string `json:"address,omitempty"`

	// Its autonomous system number.
	// +optional
	ASN int64 `json:"asn,omitempty"`

	// The session's state (RFC 4271, section 8.2.2): Idle, Connect, Active,
	// OpenSent, OpenConfirm or Established.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	State string `json:"state,omitempty"`

	// Since when it is in that state.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`

	// How many prefixes the peer has sent.
	// +optional
	Received int32 `json:"received"`

	// How many prefixes the node has sent.
	// +optional
	Advertised int32 `json:"advertised"`

	// How many prefixes of those that the peer has sent are not filtered.
	// +optional
	Accepted int32 `json:"accepted,omitempty"`

	// How many sessions with it were lost.
	// +optional
	Flaps int32 `json:"flaps,omitempty"`

	// The BFD session (RFC 5880) that watches the path to it: AdminDown, Down, Init
	// or Up, and what keeps it from coming up. Absent where none is configured.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	BFD string `json:"bfd,omitempty"`

	// Why the session is not up, or ended last.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	LastError string `json:"lastError,omitempty"`
}
