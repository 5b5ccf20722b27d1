package cluster

import (
	"strings"
	"testing"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Orders that are shown again are the same; that there are none again says nothing of
// what was in between.
func TestThatThereAreNoOrdersIsNewsEachTime(t *testing.T) {
	var c Cluster
	s := &v1alpha1.NodeSpeaker{ObjectMeta: metav1.ObjectMeta{UID: "u", Generation: 3}}
	if one, two := c.ordersOf(s), c.ordersOf(s); one != two || one != "u/3" {
		t.Errorf("the same orders are %q and %q", one, two)
	}
	one, two := c.ordersOf(nil), c.ordersOf(nil)
	if one == two || !strings.HasPrefix(one, exchange.NoOrders) || !strings.HasPrefix(two, exchange.NoOrders) {
		t.Errorf("no orders are %q and then %q", one, two)
	}
	if n := heeded(two, *s); n != s.Status.ObservedGeneration {
		t.Errorf("no orders are taken for generation %d", n)
	}
}
