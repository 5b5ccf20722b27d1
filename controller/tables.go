package controller

import (
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/kube"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// node is what is kept of a Node.
type node struct {
	name    string
	machine string // metadata.uid
	made    time.Time
	out     bool // of service, says its operator
}

func keepNode(o *core.Node) node {
	return node{o.Name, string(o.UID), o.CreationTimestamp.Time, outOfService(o)}
}

// outOfService says whether the operator of the node has stated that it is down
// and will not write to anything again.
func outOfService(o *core.Node) bool {
	return slices.ContainsFunc(o.Spec.Taints, func(t core.Taint) bool { return t.Key == core.TaintNodeOutOfService })
}

// nodes are all nodes, by name.
type nodes map[string]node

// put: a kubelet writes its Node every few minutes at least, and hardly ever
// anything of what is kept.
func (t nodes) put(n node) (news bool) {
	old := t[n.name]
	t[n.name] = n
	return old.machine != n.machine || old.out != n.out
}

func (t nodes) drop(n node) (news bool) {
	_, news = t[n.name]
	delete(t, n.name)
	return news
}

const takeOverTime = kube.TakeOverTime

// gone returns what a Reaper asks. Where there is no node at all, nobody is
// gone: that is what a list looks like that failed to be one.
func (t nodes) gone(now time.Time) func(name, machine string) bool {
	return func(name, machine string) bool {
		if len(t) == 0 {
			return false
		}
		n, is := t[name]
		switch {
		case !is || n.out:
			return true
		case machine == "" || machine == n.machine:
			return false
		}
		return now.Sub(n.made) >= takeOverTime
	}
}

// pod is what is kept of a Pod.
type pod struct {
	uid   types.UID
	addrs [2]netip.Addr // those that it has, of the pods' network
}

func keepPod(o *core.Pod) pod {
	p := pod{uid: o.UID}
	if o.Spec.HostNetwork || o.Status.Phase == core.PodSucceeded || o.Status.Phase == core.PodFailed {
		return p
	}
	n := 0
	for _, ip := range o.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil && n < len(p.addrs) {
			p.addrs[n] = a.Unmap().WithZone("")
			n++
		}
	}
	return p
}

// pods are those that have addresses.
type pods map[uid][2]netip.Addr

// put: a pod's status is written many times, and its addresses once.
func (t pods) put(p pod) (news bool) {
	id, err := parseUID(string(p.uid))
	if err != nil {
		return false
	}
	news = t[id] != p.addrs
	if p.addrs[0].IsValid() {
		t[id] = p.addrs
	} else {
		delete(t, id)
	}
	return news
}

func (t pods) drop(p pod) (news bool) { return t.put(pod{uid: p.uid}) }

// addresses of all pods, sorted; one may occur twice.
func (t pods) addresses() []netip.Addr {
	out := make([]netip.Addr, 0, len(t))
	for _, addrs := range t {
		for _, a := range addrs {
			if a.IsValid() {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// poolObjects are all pools, by UID.
type poolObjects map[types.UID]*v1alpha1.AddressPool

// put: what changes a pool's numbers is mostly ourselves.
func (t poolObjects) put(o *v1alpha1.AddressPool) (news bool) {
	old := t[o.UID]
	t[o.UID] = o
	return old == nil || old.Generation != o.Generation || standingOf(old) != standingOf(o)
}

func (t poolObjects) drop(o *v1alpha1.AddressPool) (news bool) {
	_, news = t[o.UID]
	delete(t, o.UID)
	return news
}

func keepPool(o *v1alpha1.AddressPool) *v1alpha1.AddressPool {
	o.ManagedFields, o.Annotations = nil, nil
	return o
}
