package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The rules of a pool protect what was accepted of it, and nothing else. They
// look at the status as it was before the change: the API server keeps it while
// the spec is written. Where the status says that the pool was accepted but not
// what, as older controllers left it, that is all of the spec as it was.
//
// What else must hold is asked of a field when it changes, and of that alone
// (validation ratcheting): so a rule can come that accepted pools do not keep.
// That is why the rules of single gateways stand at the field of the spec, not at
// the type, which the status has as well.

// AddressPool is a fixed set of routable addresses, IPv4, IPv6 or both, that
// the pods of one application, namespace or tenant draw from. Nodes take the
// addresses block by block and announce to the network what they hold, so that
// clients outside of the cluster reach a pod at its own address, and a firewall
// knows the application by its pool.
//
// A pod gets the pool that its annotation fairway.network/pool names, else the
// one that its namespace's annotation names, else the one whose selectors
// choose it, else the pool named "default".
//
// A pool counts once the controller has accepted it (condition Accepted): one
// that shares addresses with another pool is not. What was accepted stands in
// its status. It stays in use when a later change of the spec is refused, and
// that change can be taken back.
//
// A pool that is deleted while it is in use stays until no pod has an address
// of it, like a Draining one.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=apool,categories=fairway
// +kubebuilder:printcolumn:name="Total",type=integer,JSONPath=`.status.total`,description="Addresses that pods can have, of the scarcer family"
// +kubebuilder:printcolumn:name="Used",type=integer,JSONPath=`.status.used`,description="Addresses that pods have"
// +kubebuilder:printcolumn:name="Free",type=integer,JSONPath=`.status.free`,description="Addresses that a pod could get"
// +kubebuilder:printcolumn:name="Blocks",type=integer,JSONPath=`.status.blocks`,description="Blocks that nodes hold"
// +kubebuilder:printcolumn:name="Routes",type=integer,JSONPath=`.status.routes`,description="Prefixes that the nodes announce"
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`,description="What the pool does at present"
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.spec.addresses`,description="What the pool is made of",priority=1
// +kubebuilder:printcolumn:name="Block-Size",type=integer,JSONPath=`.status.blockSize`,description="Addresses in a block",priority=1
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`,description="Nodes that hold blocks",priority=1
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,description="Why the pool is accepted or not",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",message="the name stands in labels and annotations: use 1 to 63 lower-case letters, digits and inner hyphens",fieldPath=.metadata
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.blockSize) || has(self.status) && has(self.status.blockSize) && self.status.blockSize == oldSelf.status.blockSize",message="blockSize can't be changed once it is chosen: nodes hold blocks of that size",fieldPath=.status
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.gateways) || has(self.status) && has(self.status.gateways) && oldSelf.status.gateways.all(g, self.status.gateways.exists(h, isCIDR(h) && isCIDR(g) && cidr(h).ip() == cidr(g).ip()))",message="gateways can't be changed once they are chosen, but for their prefix length: pods use them",fieldPath=.status
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.addresses) || has(self.status) && has(self.status.addresses) && oldSelf.status.addresses.all(a, a in self.status.addresses)",message="addresses can't be taken back once they are accepted: pods may have them",fieldPath=.status
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.blockSize) || (has(oldSelf.status.addresses) ? oldSelf.status.addresses.all(a, a in self.spec.addresses) : oldSelf.spec.addresses.all(a, a in self.spec.addresses))",message="what was accepted (status.addresses) can't be removed or changed, pods may have it: keep these entries as they were written. To give a pool's addresses up, set state: Draining and delete it when it is drained",fieldPath=.spec.addresses
// +kubebuilder:validation:XValidation:rule="!has(self.spec.exclude) || !has(oldSelf.status) || !has(oldSelf.status.blockSize) || self.spec.exclude.all(e, has(oldSelf.status.addresses) ? has(oldSelf.status.exclude) && e in oldSelf.status.exclude : has(oldSelf.spec.exclude) && e in oldSelf.spec.exclude)",message="nothing can be excluded once the pool is accepted, pods may have the addresses already: exclude can only lose entries (status.exclude has those that were accepted). Add addresses with a gap as two ranges",fieldPath=.spec.exclude
// +kubebuilder:validation:XValidation:rule="!has(self.spec.blockSize) || !has(oldSelf.status) || !has(oldSelf.status.blockSize) || self.spec.blockSize == oldSelf.status.blockSize",message="blockSize can't be changed once the pool is accepted (status.blockSize): nodes hold blocks of that size. Make another pool, and set this one to state: Draining",fieldPath=.spec.blockSize
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.gateways) || oldSelf.status.gateways.all(h, (!has(self.spec.gateways) || self.spec.gateways.all(g, g.contains(':') != h.contains(':') || !isCIDR(g) || !isCIDR(h) || cidr(g).ip() == cidr(h).ip())) && (!has(oldSelf.spec.gateways) || !oldSelf.spec.gateways.exists(g, g.contains(':') == h.contains(':')) || has(self.spec.gateways) && self.spec.gateways.exists(g, g.contains(':') == h.contains(':'))))",message="gateways can't be changed or removed once they are accepted (status.gateways), but for their prefix length: pods use them. Make another pool, and set this one to state: Draining",fieldPath=.spec.gateways
type AddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What a person decides about the pool.
	// +required
	Spec AddressPoolSpec `json:"spec"`
	// What has become of it. The controller writes it.
	// +optional
	// +kubebuilder:default={}
	Status AddressPoolStatus `json:"status,omitempty"`
}

// AddressPoolList is a list of pools.
//
// +kubebuilder:object:root=true
type AddressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AddressPool `json:"items"`
}

// A range runs backwards if, at the first bit in which its ends differ, the one
// of the first end is set. That reads the same for IPv4 and IPv6.

// AddressRange is a set of adjacent addresses: a CIDR ("10.244.120.0/24",
// "fd00:7::/64"), a range with both ends in it ("10.244.121.10-10.244.121.20")
// or one address ("10.244.122.7").
//
// +kubebuilder:validation:MaxLength=79
// +kubebuilder:validation:XValidation:rule="self.contains('/') ? isCIDR(self) : self.split('-').size() <= 2 && self.split('-').all(a, isIP(a))",message="is not an address range: write a CIDR (10.0.0.0/24, fd00::/64), a range (10.0.0.10-10.0.0.20) or one address (10.0.0.7), without spaces and zones, and IPv4 addresses as IPv4"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self.split('/')[0] + (self.contains(':') ? '/128' : '/32')).containsIP(cidr(self).masked().ip())",message="has host bits set: write the network's first address",messageExpression="'has host bits set: write ' + self.split('/')[0] + ' for the one address, or the first address of the network before /' + self.split('/')[1]"
// +kubebuilder:validation:XValidation:rule="self.split('-').size() != 2 || self.split('-')[0].contains(':') == self.split('-')[1].contains(':')",message="mixes IPv4 and IPv6: write one range for each"
// +kubebuilder:validation:XValidation:rule="self.split('-').size() != 2 || !isIP(self.split('-')[0]) || !isIP(self.split('-')[1]) || self.split('-')[0].contains(':') != self.split('-')[1].contains(':') || ['0,1', '1,2', '2,3', '3,4', '4,5', '5,6', '6,7', '7,8', '8,9', '9,10', '10,11', '11,12', '12,13', '13,14', '14,15', '15,16', '16,17', '17,18', '18,19', '19,20', '20,21', '21,22', '22,23', '23,24', '24,25', '25,26', '26,27', '27,28', '28,29', '29,30', '30,31', '31,32', '32,33,v6', '33,34,v6', '34,35,v6', '35,36,v6', '36,37,v6', '37,38,v6', '38,39,v6', '39,40,v6', '40,41,v6', '41,42,v6', '42,43,v6', '43,44,v6', '44,45,v6', '45,46,v6', '46,47,v6', '47,48,v6', '48,49,v6', '49,50,v6', '50,51,v6', '51,52,v6', '52,53,v6', '53,54,v6', '54,55,v6', '55,56,v6', '56,57,v6', '57,58,v6', '58,59,v6', '59,60,v6', '60,61,v6', '61,62,v6', '62,63,v6', '63,64,v6', '64,65,v6', '65,66,v6', '66,67,v6', '67,68,v6', '68,69,v6', '69,70,v6', '70,71,v6', '71,72,v6', '72,73,v6', '73,74,v6', '74,75,v6', '75,76,v6', '76,77,v6', '77,78,v6', '78,79,v6', '79,80,v6', '80,81,v6', '81,82,v6', '82,83,v6', '83,84,v6', '84,85,v6', '85,86,v6', '86,87,v6', '87,88,v6', '88,89,v6', '89,90,v6', '90,91,v6', '91,92,v6', '92,93,v6', '93,94,v6', '94,95,v6', '95,96,v6', '96,97,v6', '97,98,v6', '98,99,v6', '99,100,v6', '100,101,v6', '101,102,v6', '102,103,v6', '103,104,v6', '104,105,v6', '105,106,v6', '106,107,v6', '107,108,v6', '108,109,v6', '109,110,v6', '110,111,v6', '111,112,v6', '112,113,v6', '113,114,v6', '114,115,v6', '115,116,v6', '116,117,v6', '117,118,v6', '118,119,v6', '119,120,v6', '120,121,v6', '121,122,v6', '122,123,v6', '123,124,v6', '124,125,v6', '125,126,v6', '126,127,v6', '127,128,v6'].all(n, n.endsWith('v6') && !self.contains(':') || !cidr(self.split('-')[0] + '/' + n.split(',')[0]).containsIP(self.split('-')[1]) || cidr(self.split('-')[0] + '/' + n.split(',')[1]).containsIP(self.split('-')[1]) || cidr(self.split('-')[0] + '/' + n.split(',')[1]).containsIP(cidr(self.split('-')[0] + '/' + n.split(',')[0]).masked().ip()))",message="runs backwards: swap its ends",messageExpression="'runs backwards: write ' + self.split('-')[1] + '-' + self.split('-')[0]"
// +kubebuilder:validation:XValidation:rule="['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '255.255.255.255/32', '::/127', 'fe80::/10', 'ff00::/8'].all(s, isCIDR(self) ? !cidr(s).containsIP(cidr(self).ip()) && !cidr(self).containsIP(cidr(s).ip()) : (!isIP(self.split('-')[0]) || !cidr(s).containsIP(self.split('-')[0])) && (self.split('-').size() != 2 || !isIP(self.split('-')[1]) || !cidr(s).containsIP(self.split('-')[1])))",message="has addresses that no pod can have: leave out 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255, ::, ::1, fe80::/10 and ff00::/8"
type AddressRange string

// Gateway is the address of a next hop and the prefix length of the interfaces
// of the pods that use it, such as "10.244.120.1/24".
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="is not a gateway: write its address and the prefix length of the pods' interfaces, such as 10.244.120.1/24"
type Gateway string

// PoolState is what a person wants a pool to do.
//
// +kubebuilder:validation:Enum=Active;Draining
type PoolState string

const (
	// PoolActive pools serve pods.
	PoolActive PoolState = "Active"
	// PoolDraining pools serve no new pods.
	PoolDraining PoolState = "Draining"
)

// AddressPoolSpec is what a person decides about a pool. Addresses can be added
// while the pool is in use; what would take an address from under a pod is
// refused. Of a pool that was never accepted everything can be changed.
//
// +kubebuilder:validation:XValidation:rule="!has(self.exclude) || self.exclude.all(e, self.addresses.exists(a, a.contains(':') == e.contains(':')))",message="has an entry of a family (IPv4, IPv6) that the pool has no addresses of: remove it",fieldPath=.exclude
// +kubebuilder:validation:XValidation:rule="!has(self.gateways) || self.gateways.filter(g, g.contains(':')).size() <= 1 && self.gateways.filter(g, !g.contains(':')).size() <= 1",message="has two gateways of one family (IPv4, IPv6): give at most one for each",fieldPath=.gateways
// +kubebuilder:validation:XValidation:rule="!has(self.gateways) || self.gateways.all(g, self.addresses.exists(a, a.contains(':') == g.contains(':')))",message="has a gateway of a family (IPv4, IPv6) that the pool has no addresses of: remove it",fieldPath=.gateways
// +kubebuilder:validation:XValidation:rule="!has(self.gateways) || self.gateways.all(g, !isCIDR(g) || cidr('fe80::/10').containsIP(cidr(g).ip()) || self.addresses.all(a, a.contains(':') != g.contains(':') || (a.contains('/') ? !isCIDR(a) || cidr(g).containsCIDR(a) : a.split('-').all(e, !isIP(e) || cidr(g).containsIP(e)))))",message="has a gateway whose prefix does not hold all of the pool's addresses of its family: shorten its prefix length, or write fe80::1/128 for IPv6",fieldPath=.gateways
// +kubebuilder:validation:XValidation:rule="!has(self.namespaceSelector) || !has(self.namespaceSelector.matchExpressions) || self.namespaceSelector.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",message="has a wrong entry in matchExpressions: operator is In or NotIn with values, or Exists or DoesNotExist without",fieldPath=.namespaceSelector
// +kubebuilder:validation:XValidation:rule="!has(self.podSelector) || !has(self.podSelector.matchExpressions) || self.podSelector.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",message="has a wrong entry in matchExpressions: operator is In or NotIn with values, or Exists or DoesNotExist without",fieldPath=.podSelector
// +kubebuilder:validation:XValidation:rule="!has(self.nodeSelector) || !has(self.nodeSelector.matchExpressions) || self.nodeSelector.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",message="has a wrong entry in matchExpressions: operator is In or NotIn with values, or Exists or DoesNotExist without",fieldPath=.nodeSelector
type AddressPoolSpec struct {
	// The pool's addresses, of one family or both: CIDRs ("10.244.120.0/24"),
	// ranges with both ends in them ("10.244.121.10-10.244.121.20") and single
	// addresses. Entries can be added at any time. Those that the controller has
	// accepted (status.addresses) can't be removed or changed: drain the pool
	// and delete it instead. No two pools may share an address.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=48
	// +kubebuilder:validation:XValidation:rule="!self.exists(a, isIP(a.split('/')[0].split('-')[0]) && cidr('0.0.0.0/1').containsIP(a.split('/')[0].split('-')[0])) || !self.exists(a, isIP(a.split('/')[0].split('-')[0]) && cidr('128.0.0.0/1').containsIP(a.split('/')[0].split('-')[0]))",message="has IPv4 addresses that have no prefix in common which the pods' interfaces could have: make a pool of those below 128.0.0.0, and one of the others",messageExpression="'has ' + self.filter(a, isIP(a.split('/')[0].split('-')[0]) && cidr('0.0.0.0/1').containsIP(a.split('/')[0].split('-')[0]))[0] + ' and ' + self.filter(a, isIP(a.split('/')[0].split('-')[0]) && cidr('128.0.0.0/1').containsIP(a.split('/')[0].split('-')[0]))[0] + ', which have no prefix in common that the pods\\' interfaces could have: make a pool of the IPv4 addresses below 128.0.0.0, and one of the others'"
	Addresses []AddressRange `json:"addresses"`

	// Addresses that no pod gets, written in the same ways. Entries can be
	// removed later, which adds their addresses to the pool. Once the pool is
	// accepted none can be added, but one that was removed and is still in
	// status.exclude.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=48
	Exclude []AddressRange `json:"exclude,omitempty"`

	// How many addresses a node takes at a time: a power of two from 1 to
	// 65536. It counts addresses, not bits: 64 is a /26 or a /122. Without it
	// the controller chooses what lets about 32 nodes have a block each: 64
	// for pools of 1536 addresses and more, and less for smaller ones; what it
	// chose stands in status.blockSize. It can't be changed once the pool is
	// accepted.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="self in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]",message="is no block size: it counts addresses, a power of two from 1 to 65536 (64 is a /26 or a /122)"
	BlockSize *int32 `json:"blockSize,omitempty"`

	// The next hops that pods are given, at most one for each family, each
	// with the prefix length of the pods' interfaces: "10.244.120.1/24". The
	// prefix must hold all addresses of the family, but that of a link-local
	// IPv6 gateway ("fe80::1/128") need not. A gateway that is an address of
	// the pool is given to no pod. Without one, IPv4 pods use an
	// address of the pool, which stands in status.gateways, and IPv6 pods use
	// fe80::1. Once a family's addresses are accepted, its gateway can't be
	// changed but for the prefix length, which may have to hold more addresses.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '255.255.255.255/32', '::/127', 'ff00::/8'].all(s, !cidr(s).containsIP(cidr(self).ip()))",message="has an address that no gateway can have: write the one of the pods' next hop, outside of 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255, ::, ::1 and ff00::/8"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).prefixLength() > 0",message="has prefix length 0, with which ptp can't start a pod: write the longest one that holds the pool's addresses, or 128 for an address of fe80::/10"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || self.contains(':') || cidr(self).prefixLength() == 0 || cidr(self).prefixLength() > 30 || [self.split('/')[0].split('.')].all(o, (int(o[0]) * 16777216 + int(o[1]) * 65536 + int(o[2]) * 256 + int(o[3]) + 1) % [2147483648, 1073741824, 536870912, 268435456, 134217728, 67108864, 33554432, 16777216, 8388608, 4194304, 2097152, 1048576, 524288, 262144, 131072, 65536, 32768, 16384, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4][cidr(self).prefixLength() - 1] > 1)",message="is the network or the broadcast address of its own prefix: write another address of it, such as its second one"
	Gateways []Gateway `json:"gateways,omitempty"`

	// How long an address rests between two pods, such as "90s" or "10m"; at
	// most a week, and 60s where nothing is said. Caches and connections of the
	// address's former life end in that time.
	//
	// +optional
	// +kubebuilder:default="60s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(ms|s|m|h)){1,4}$') && duration(self) <= duration('168h') || self == '0'",message="is no rest: write a time from 0s to 168h with its unit, such as 90s, 10m or 1h30m"
	ReuseAfter *metav1.Duration `json:"reuseAfter,omitempty"`

	// How long a node keeps a block in which it has no pods, such as "90s"; from
	// a second to a week, and 5m where nothing is said. When other nodes lack
	// addresses, it is not kept.
	//
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(ms|s|m|h)){1,4}$') && duration(self) <= duration('168h') && duration(self) >= duration('1s')",message="is no idle time: write a time from 1s to 168h with its unit, such as 90s, 10m or 1h30m"
	IdleAfter *metav1.Duration `json:"idleAfter,omitempty"`

	// Active, as it is where nothing is said, the pool serves pods. A Draining
	// pool serves no new ones: the pods that have its addresses keep them, and
	// are announced, until they end. status.drain shows how far that is, and the
	// pool can be deleted when condition Drained is true. Active takes it back
	// into use.
	//
	// +optional
	// +kubebuilder:default=Active
	State PoolState `json:"state,omitempty"`

	// The namespaces whose pods the pool serves. A pool with any of the three
	// selectors is given to the pods that all of its selectors match, without
	// an annotation, and it refuses all others, whatever they are annotated
	// with. A pool without selectors serves every pod that names it by
	// annotation or whose namespace does.
	//
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// The pods that the pool serves, by their labels: see namespaceSelector.
	//
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`

	// The nodes on which the pool serves pods, by their labels: see
	// namespaceSelector. Nodes that it does not match take no blocks of it.
	//
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
}

// Conditions of a pool.
const (
	// ConditionAccepted says whether nodes may take blocks of the pool.
	ConditionAccepted = "Accepted"
	// ConditionExhausted says whether a pod would get no address of the pool.
	ConditionExhausted = "Exhausted"
	// ConditionDrained says whether the last address of a Draining pool came
	// back.
	ConditionDrained = "Drained"
)

// Reasons of a pool's conditions.
const (
	// ReasonAccepted: the pool is in use.
	ReasonAccepted = "Accepted"
	// ReasonOverlaps: another pool has some of the addresses.
	ReasonOverlaps = "Overlaps"
	// ReasonInvalid: the spec has a mistake that the schema can't see.
	ReasonInvalid = "Invalid"
	// ReasonTerminating: the pool was deleted before it was accepted.
	ReasonTerminating = "Terminating"
	// ReasonNoFreeAddress: all addresses are used or rest.
	ReasonNoFreeAddress = "NoFreeAddress"
	// ReasonFreeAddresses: there are addresses for new pods.
	ReasonFreeAddresses = "FreeAddresses"
	// ReasonInUse: pods have addresses of the pool, or nodes have blocks.
	ReasonInUse = "InUse"
	// ReasonEmpty: no pod has an address of the pool, and no node a block.
	ReasonEmpty = "Empty"
)

// Words for status.state of a pool.
const (
	PoolIsPending       = "Pending"       // not yet looked at
	PoolIsRefused       = "Refused"       // never accepted, and serves nobody
	PoolIsActive        = "Active"        // serves pods
	PoolIsChangeRefused = "ChangeRefused" // serves pods as it was accepted before
	PoolIsExhausted     = "Exhausted"     // serves pods, but has no address left
	PoolIsDraining      = "Draining"      // serves no new pods
	PoolIsDrained       = "Drained"       // can be deleted
	PoolIsTerminating   = "Terminating"   // was deleted, and goes with its last block
)

// PoolFinalizer keeps a pool that nodes may hold blocks of until they hold none.
// The controller sets it before it accepts the pool.
const PoolFinalizer = "fairway.network/pool-in-use"

// ManyAddresses stands in a status for any larger number of addresses: 2^53-1,
// the largest number that every reader of JSON understands.
const ManyAddresses = 1<<53 - 1

// AddressPoolStatus is what has become of a pool. Numbers of addresses count
// those that pods can have: gateways and excluded ones are left out.
type AddressPoolStatus struct {
	// The metadata.generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// What the pool does at present, in a word. Pending: the controller has not
	// looked at it. Refused: it serves nobody. Active: it serves pods.
	// ChangeRefused: it serves pods as it was accepted before, its last change is
	// refused. Exhausted: all addresses are taken. Draining, Drained: it serves
	// no new pods, and none at all any more. Terminating: it was deleted, and
	// goes when nothing of it is in use. The conditions say why.
	//
	// +optional
	// +kubebuilder:default=Pending
	// +kubebuilder:validation:MaxLength=32
	State string `json:"state,omitempty"`

	// The entries of spec.addresses that were accepted. Nodes take blocks of
	// these, less status.exclude, and of nothing else, also while a later change
	// of the spec is not looked at yet or is refused. Empty: the pool was never
	// accepted.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=48
	// +kubebuilder:validation:items:MaxLength=79
	Addresses []string `json:"addresses,omitempty"`

	// What was left out of status.addresses when they were accepted: the entries
	// of spec.exclude at that time.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=48
	// +kubebuilder:validation:items:MaxLength=79
	Exclude []string `json:"exclude,omitempty"`

	// How many addresses a block has: spec.blockSize, or what was chosen when
	// the pool was accepted. Nodes take blocks of this size.
	//
	// +optional
	BlockSize *int32 `json:"blockSize,omitempty"`

	// The gateways that pods are given, one for each family of the pool:
	// spec.gateways, or what was chosen when the pool was accepted.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	Gateways []Gateway `json:"gateways,omitempty"`

	// How many addresses the pool has for pods; in a pool of both families, of
	// the one that has fewer. 9007199254740991 stands for any larger number.
	// See families for each.
	//
	// +optional
	Total int64 `json:"total"`

	// How many of those addresses pods have.
	// +optional
	Used int64 `json:"used"`

	// How many of those addresses no pod has. Some of them may still rest
	// (spec.reuseAfter).
	//
	// +optional
	Free int64 `json:"free"`

	// How many blocks nodes hold, those lent from node to node among them.
	// +optional
	Blocks int32 `json:"blocks"`

	// How many nodes hold blocks.
	// +optional
	Nodes int32 `json:"nodes"`

	// How many prefixes the nodes announce for the pool, all together.
	// Adjacent blocks of a node are one prefix.
	//
	// +optional
	Routes int32 `json:"routes"`

	// The numbers of addresses, for each family of the pool.
	//
	// +optional
	// +listType=map
	// +listMapKey=family
	// +kubebuilder:validation:MaxItems=2
	Families []FamilyUse `json:"families,omitempty"`

	// How far a pool is that drains, or that was deleted.
	// +optional
	Drain *DrainProgress `json:"drain,omitempty"`

	// Accepted: nodes may take blocks of the pool as the spec says. False with
	// reason Overlaps or Invalid, and a message that says what to change; what
	// was accepted before, if anything was, stays in use.
	// Exhausted: a new pod would get no address.
	// Drained: the last pod of a Draining pool has ended, and it can be deleted.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Family is an address family.
//
// +kubebuilder:validation:Enum=IPv4;IPv6
type Family string

const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// FamilyUse is the use of a pool's addresses of one family.
type FamilyUse struct {
	// IPv4 or IPv6.
	Family Family `json:"family"`
	// How many addresses there are for pods.
	Total int64 `json:"total"`
	// How many pods have.
	Used int64 `json:"used"`
	// How many no pod has.
	Free int64 `json:"free"`
}

// DrainProgress is how far a pool is that drains, or that was deleted.
type DrainProgress struct {
	// When the controller saw that it began.
	Since metav1.Time `json:"since"`
	// How many addresses pods still have.
	Leases int64 `json:"leases"`
	// How many blocks nodes still hold.
	Blocks int32 `json:"blocks"`
	// How many nodes hold them.
	Nodes int32 `json:"nodes"`
}
