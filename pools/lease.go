package pools

import (
	"fmt"
	"net/netip"
	"time"
)

// Attachment identifies one interface of one sandbox in one network: what the
// CNI specification calls the (network name, CNI_CONTAINERID, CNI_IFNAME)
// triple. A sandbox holds at most one lease for each family in an attachment.
type Attachment struct {
	Network     string
	ContainerID string
	IfName      string
}

// String gives network/container/interface, for messages.
func (a Attachment) String() string {
	return a.Network + "/" + a.ContainerID + "/" + a.IfName
}

// Owner is who holds a lease: the attachment, and the pod behind it where the
// runtime names one. PodUID, Namespace and Pod are empty outside Kubernetes.
type Owner struct {
	Attachment
	PodUID    string
	Namespace string
	Pod       string
}

// Owns says whether a release or a repeated request by o may act on what
// other holds: the attachment is the same and the pod UIDs do not contradict
// each other. A runtime that leaves the UID out is trusted on the container ID
// alone, which is unique on a node.
func (o Owner) Owns(other Owner) bool {
	return o.Attachment == other.Attachment &&
		(o.PodUID == "" || other.PodUID == "" || o.PodUID == other.PodUID)
}

// String names the pod if there is one, and the attachment.
func (o Owner) String() string {
	if o.Pod == "" {
		return o.Attachment.String()
	}
	return fmt.Sprintf("%s/%s (%s)", o.Namespace, o.Pod, o.Attachment)
}

// Lease is one address held by one owner.
type Lease struct {
	Pool  string
	Addr  netip.Addr
	Owner Owner
	Since time.Time
}

// Netns is the network namespace of a sandbox as it was found when its addresses
// were leased. Nothing here looks at it: it is kept for whoever has to know,
// later, whether the sandbox is still there. The zero Netns was not noted.
type Netns struct {
	Path string // as the runtime named it
	// Namespace was found at Path, and Dir is the directory that Path is in: both
	// are zero where no namespace could be seen there.
	Namespace, Dir FileID
}

// FileID tells a file from all others of a machine that are there at one time.
type FileID struct{ Dev, Inode uint64 }

// Request asks for the addresses of one attachment: one of each family that
// the pool has. Want names chosen addresses, at most one for each family; a
// family without one gets any. Netns is kept with the lease.
type Request struct {
	Pool  string
	Owner Owner
	Want  []netip.Addr
	Netns Netns
}
