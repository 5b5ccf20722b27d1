package fence

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/controller"
	"github.com/fairway-network/fairway/integration/nodes"
	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/internal/namespace"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	// aMoment is how long a withdrawal may take, on a busy machine.
	aMoment = 10 * time.Second
	// absence is after which a node whose Node object is away is gone.
	absence = time.Second
	// mostNodes are there in all tests together.
	mostNodes = 16
	torASN    = 65000
	nodeASN   = 64512
	shop      = "shop" // the pods' namespace
)

// cluster is one with a controller, and a router of its nodes.
type cluster struct {
	*nodes.Cluster
	tor     *router.Router
	control func() error // ends the controller
	made    int          // so many nodes
	log     io.Writer    // of the whole test
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	namespace.Need(t)
	router.Need(t, router.BIRD)
	c := &cluster{Cluster: nodes.NewCluster(t), log: t.Output()}
	if _, err := c.Admin.CoreV1().Namespaces().Create(t.Context(), &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// There always is some node: no node at all says nothing.
	if _, err := c.Admin.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: "steady"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.relieve(t)
	t.Cleanup(func() {
		if err := c.control(); err != nil {
			t.Error("the controller ended with", err)
		}
	})
	c.route(t)
	return c
}

// relieve runs a controller instead of the one that ran before, with the rights that it
// has in a cluster.
func (c *cluster) relieve(t *testing.T) {
	t.Helper()
	if c.control != nil {
		if err := c.control(); err != nil {
			t.Error("the controller ended with", err)
		}
	}
	const group = "system:serviceaccounts"
	ctl, err := controller.New(controller.Options{
		Config:  c.As("system:serviceaccount:fairway-system:fairway-controller", group, group+":fairway-system", "system:authenticated"),
		Absence: absence, Log: slog.New(slog.NewTextHandler(c.log, nil)).With("who", "controller"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ctl.Run(ctx) }()
	c.control = sync.OnceValue(func() error {
		stop()
		return <-ended
	})
}

// route puts a router on the switch that believes all nodes and forgets one at once
// that has gone.
func (c *cluster) route(t *testing.T) {
	t.Helper()
	here := router.Namespace{}
	own := onSwitch(254)
	config := router.Config{ASN: torASN, RouterID: own[0].Addr()}
	for _, own := range own {
		here.Run(t, "ip", "addr", "add", own.String(), "dev", nodes.Switch, "nodad")
		config.Addresses = append(config.Addresses, own.Addr())
	}
	for number := range mostNodes {
		for _, its := range onSwitch(number + 1) {
			config.Neighbors = append(config.Neighbors, router.Neighbor{Address: its.Addr(), ASN: nodeASN, Extra: []string{"graceful restart off"}})
		}
	}
	c.tor = router.Start(t, router.BIRD, here, config)
}

// onSwitch are the addresses of a host on the switch, one of each family: those of a node
// by its number from 1.
func onSwitch(number int) []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", number)),
		netip.MustParsePrefix(fmt.Sprintf("2001:db8::%x/64", number)),
	}
}

// accepts makes a pool of one cell of each family, and waits until the controller has
// accepted it.
func (c *cluster) accepts(t *testing.T, name string, cells []netip.Prefix) {
	t.Helper()
	manifest := fmt.Sprintf("apiVersion: fairway.network/v1alpha1\nkind: AddressPool\nmetadata: {name: %s}\nspec: {addresses: [%q, %q], blockSize: %d, reuseAfter: 0s, gateways: [10.255.255.1/8]}",
		name, cells[0], cells[1], 1<<(cells[0].Addr().BitLen()-cells[0].Bits()))
	if err := c.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	nodes.Await(t, "the controller accepts pool "+name, func() error {
		var p v1alpha1.AddressPool
		if err := c.get(t, "addresspools", name, &p); err != nil {
			return err
		}
		for _, is := range p.Status.Conditions {
			if is.Type == v1alpha1.ConditionAccepted && is.Status == metav1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %+v", p.Status.Conditions)
	})
}

// get reads an object of ours.
func (c *cluster) get(t *testing.T, resource, name string, into any) error {
	t.Helper()
	o, err := c.Resource(resource).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into)
}

// owner is the node that has the block of a prefix, "" if it is vacant, "none" if there
// is no block.
func (c *cluster) owner(t *testing.T, prefix netip.Prefix) string {
	t.Helper()
	var b v1alpha1.AddressBlock
	err := c.get(t, "addressblocks", v1alpha1.BlockName(prefix), &b)
	if apierrors.IsNotFound(err) {
		return "none"
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Spec.Node
}

// fence is that of a node's NodeSpeaker, nil for none.
func (c *cluster) fence(t *testing.T, node string) *v1alpha1.Fence {
	t.Helper()
	var s v1alpha1.NodeSpeaker
	if err := c.get(t, "nodespeakers", node, &s); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return s.Spec.Fence
}

// announced are the nodes that the router has a prefix from, by their addresses.
func (c *cluster) announced(t *testing.T, prefix netip.Prefix) (by []netip.Addr) {
	t.Helper()
	for _, r := range c.tor.Routes(t) {
		if r.Prefix == prefix {
			by = append(by, r.From)
		}
	}
	return by
}

// announces is what the router has from a node of a cell, the zero prefix if it has
// nothing.
func (c *cluster) announces(t *testing.T, n *node, cell netip.Prefix) netip.Prefix {
	t.Helper()
	for _, r := range c.tor.Routes(t) {
		if r.From == n.end(cell.Addr()) && cell.Overlaps(r.Prefix) {
			return r.Prefix
		}
	}
	return netip.Prefix{}
}

// leads are the nodes that the router has the longest match of an address from.
func (c *cluster) leads(t *testing.T, a netip.Addr) (to []netip.Addr) {
	t.Helper()
	longest := -1
	for _, r := range c.tor.Routes(t) {
		switch {
		case !r.Prefix.Contains(a) || r.Prefix.Bits() < longest:
			continue
		case r.Prefix.Bits() > longest:
			longest, to = r.Prefix.Bits(), nil
		}
		to = append(to, r.From)
	}
	return to
}

// told waits until a pod has an event that its addresses are lost.
func (c *cluster) told(t *testing.T, p *pod) {
	t.Helper()
	nodes.Await(t, "pod "+p.Name+" is told that its addresses are lost", func() error {
		list, err := c.Admin.CoreV1().Events(shop).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
		if err != nil {
			return err
		}
		lost := fmt.Sprintf("has lost %s and %s of", p.addresses[0], p.addresses[1])
		for _, e := range list.Items {
			if e.Reason == "AddressLost" && strings.Contains(e.Message, lost) {
				return nil
			}
		}
		return fmt.Errorf("none says that it %s: its events are %+v", lost, list.Items)
	})
}
