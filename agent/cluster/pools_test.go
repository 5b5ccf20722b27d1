package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/agent/choice"
	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/kube"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// unreachable is a cluster whose API server nobody reaches.
func unreachable(t *testing.T, dir string) *Cluster {
	t.Helper()
	client, err := kube.NewClient(&rest.Config{Host: "http://127.0.0.1:1"}, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Client: client, Node: "n1", RunDir: dir, Boot: "boot-1", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

// accepted is a pool in force.
func accepted(name, addresses string) v1alpha1.AddressPool {
	size := int32(4)
	return v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "1", Generation: 1},
		Spec:       v1alpha1.AddressPoolSpec{Addresses: []v1alpha1.AddressRange{v1alpha1.AddressRange(addresses)}},
		Status: v1alpha1.AddressPoolStatus{BlockSize: &size, Addresses: []string{addresses}, Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, ObservedGeneration: 1},
		}},
	}
}

func (c *Cluster) show(ps ...v1alpha1.AddressPool) {
	c.update(func() { c.objects, c.listed.pools = ps, true })
}

// said is what the agent and the choice are told of the pools.
func (c *Cluster) said() string {
	var words []string
	for _, p := range c.State().Pools {
		word := fmt.Sprintf("%s:%v", p.Name(), p.Addresses().Ranges())
		if p.Draining {
			word += ":draining"
		}
		words = append(words, word)
	}
	for _, o := range c.offers {
		words = append(words, fmt.Sprintf("%s=%s", o.Name, [...]string{"pending", "refused", "draining", "active"}[o.State]))
	}
	return strings.Join(words, " ")
}

func TestPoolsAsTheAgentUsesThem(t *testing.T) {
	web := func(change func(*v1alpha1.AddressPool)) v1alpha1.AddressPool {
		p := accepted("web", "10.1.0.0/24")
		change(&p)
		return p
	}
	const usual = "web:[10.1.0.0-10.1.0.255] web=active"
	said := func(status metav1.ConditionStatus, generation int64) []metav1.Condition {
		return []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: status, ObservedGeneration: generation}}
	}
	for _, c := range []struct {
		name  string
		shown v1alpha1.AddressPool
		want  string // after usual, and at first sight
	}{
		{"as it was", web(func(*v1alpha1.AddressPool) {}), usual},
		{"its numbers change", web(func(p *v1alpha1.AddressPool) { p.Status.Used = 7 }), usual},
		{"it asks for more and nobody has looked", web(func(p *v1alpha1.AddressPool) {
			p.Generation, p.Spec.Addresses = 2, append(p.Spec.Addresses, "10.2.0.0/24")
		}), usual},
		{"it asks for more and that is refused", web(func(p *v1alpha1.AddressPool) {
			p.Generation, p.Spec.Addresses, p.Status.Conditions = 2, append(p.Spec.Addresses, "10.2.0.0/24"), said(metav1.ConditionFalse, 2)
		}), usual},
		{"it asks for more and has it", web(func(p *v1alpha1.AddressPool) {
			p.Generation, p.Spec.Addresses = 2, append(p.Spec.Addresses, "10.2.0.0/24")
			p.Status.Conditions[0].ObservedGeneration, p.Status.Addresses = 2, append(p.Status.Addresses, "10.2.0.0/24")
		}), "web:[10.1.0.0-10.1.0.255 10.2.0.0-10.2.0.255] web=active"},
		{"it has what was left out, but for some that is not looked at", web(func(p *v1alpha1.AddressPool) {
			p.Generation, p.Status.Exclude = 2, []string{"10.1.0.128/25"}
		}), "web:[10.1.0.0-10.1.0.127] web=active"},
		{"it was never accepted", web(func(p *v1alpha1.AddressPool) {
			p.Status = v1alpha1.AddressPoolStatus{State: v1alpha1.PoolIsPending}
		}), "web=pending"},
		{"it was never accepted and is refused", web(func(p *v1alpha1.AddressPool) {
			p.Status = v1alpha1.AddressPoolStatus{Conditions: said(metav1.ConditionFalse, 1)}
		}), "web=refused"},
		{"a controller from before has accepted it", web(func(p *v1alpha1.AddressPool) { p.Status.Addresses = nil }), usual},
		{"and it was changed since", web(func(p *v1alpha1.AddressPool) { p.Status.Addresses, p.Generation = nil, 2 }), "web=pending"},
		{"it is another one of that name", web(func(p *v1alpha1.AddressPool) {
			p.UID, p.Status = "2", v1alpha1.AddressPoolStatus{}
		}), "web=pending"},
		{"it drains, though nobody has looked", web(func(p *v1alpha1.AddressPool) {
			p.Generation, p.Spec.State = 2, v1alpha1.PoolDraining
		}), "web:[10.1.0.0-10.1.0.255]:draining web=draining"},
		{"it was deleted and is in use", web(func(p *v1alpha1.AddressPool) {
			p.Generation, p.DeletionTimestamp = 2, &metav1.Time{Time: time.Unix(1, 0)}
		}), "web:[10.1.0.0-10.1.0.255]:draining web=draining"},
		{"it is for other nodes", web(func(p *v1alpha1.AddressPool) {
			p.Generation = 2
			p.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "b"}}
		}), "web:[10.1.0.0-10.1.0.255]:draining web=active"},
		{"its selector can't be read", web(func(p *v1alpha1.AddressPool) {
			p.Generation = 2
			p.Spec.PodSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
		}), "web=refused"},
		{"its addresses can't be read", web(func(p *v1alpha1.AddressPool) { p.Status.Addresses[0] = "10.1.0.1/24" }), "web=refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := unreachable(t, t.TempDir())
			cluster.update(func() {
				cluster.node, cluster.listed.node = kube.Node{Name: "n1", UID: "m1", Labels: map[string]string{"rack": "a"}}, true
			})
			cluster.show(c.shown)
			if got := cluster.said(); got != c.want {
				t.Errorf("at first sight: %s\nwant %s", got, c.want)
			}
			cluster.show()
			cluster.show(accepted("web", "10.1.0.0/24"))
			if got := cluster.said(); got != usual {
				t.Fatalf("a usual pool: %s", got)
			}
			cluster.show(c.shown)
			if got := cluster.said(); got != c.want {
				t.Errorf("afterwards: %s\nwant %s", got, c.want)
			}
		})
	}
}

// One pool that can't be read takes no other with it.
func TestBadPoolStandsAlone(t *testing.T) {
	c := unreachable(t, t.TempDir())
	c.show(accepted("a", "10.1.0.1/24"), accepted("b", "10.2.0.0/24"))
	if got, want := c.said(), "b:[10.2.0.0-10.2.0.255] a=refused b=active"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if why := c.offers[0].Why; !strings.Contains(why, "10.1.0.0/24") {
		t.Errorf("it is refused because %q", why)
	}
}

// What an earlier agent of this boot saw is enough to place its pods.
func TestPlaceAfterARestartWithoutAnAPIServer(t *testing.T) {
	dir := t.TempDir()
	kept := sight{
		Boot: "boot-1", Node: kube.Node{Name: "n1", UID: "m1"}, Pools: []v1alpha1.AddressPool{accepted("web", "10.1.0.0/24")},
		Pods:       []kube.Pod{{Namespace: "shop", Name: "w", UID: "u1", Annotations: map[string]string{choice.AddressesAnnotation: "10.1.0.9"}}},
		Namespaces: []kube.Namespace{{Name: "shop", Annotations: map[string]string{choice.PoolAnnotation: "web"}}},
	}
	kept.keep(t, dir)
	c := unreachable(t, dir)
	o := pools.Owner{Namespace: "shop", Pod: "w", PodUID: "u1"}
	got, err := c.Place(t.Context(), o, "")
	if err != nil || got.Pool != "web" || len(got.Want) != 1 || got.Want[0] != netip.MustParseAddr("10.1.0.9") {
		t.Errorf("placed at %+v, %v", got, err)
	}
	o.PodUID = "u2"
	if _, err := c.Place(t.Context(), o, ""); !errors.Is(err, cni.ErrTryAgain) || !strings.Contains(err.Error(), "the API server does not say") {
		t.Errorf("another pod of that name: %v", err)
	}
	if c.State().Seen {
		t.Error("what an earlier agent saw is taken for seen")
	}
}

func (s sight) keep(t *testing.T, dir string) {
	t.Helper()
	text, err := json.Marshal(s)
	if err == nil {
		err = write(filepath.Join(dir, sightFile), text)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRecallOfWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	if s, err := recall(dir, "boot-1"); s != nil || err != nil {
		t.Errorf("without a file %v, %v", s, err)
	}
	if err := os.WriteFile(filepath.Join(dir, sightFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := recall(dir, "boot-1"); s != nil || err == nil {
		t.Errorf("of half a file %v, %v", s, err)
	}
	unreachable(t, dir) // is made all the same
	sight{Boot: "boot-0"}.keep(t, dir)
	if s, err := recall(dir, "boot-1"); s != nil || err != nil {
		t.Errorf("of another boot %v, %v", s, err)
	}
}

func TestStatusOfANode(t *testing.T) {
	c := unreachable(t, t.TempDir())
	r := agent.Report{ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.1"), Blocks: 2, Routes: 1, Peers: []agent.PeerStatus{
		{Name: "a", Address: netip.MustParseAddr("192.0.2.9"), ASN: 65000, Session: "Established", Advertised: 1, Received: 5, Accepted: 4},
		{Name: "b", Address: netip.MustParseAddr("192.0.2.8"), ASN: 65000, Session: "Active", Flaps: 3, LastError: strings.Repeat("ä", 5000), BFD: &agent.BFDStatus{State: "Down", Problem: "nothing heard"}},
	}}
	s := c.statusOf(r, v1alpha1.NodeSpeaker{})
	if s.PeerCount != 2 || s.EstablishedCount != 1 || s.Blocks != 2 || s.Routes != 1 || s.Conditions[0].Status != metav1.ConditionTrue || len(s.Peers[1].LastError) != maxWords {
		t.Errorf("status %+v", s)
	}
	if a, b := s.Peers[0], s.Peers[1]; a.Accepted != 4 || a.BFD != "" || b.Flaps != 3 || b.BFD != "Down: nothing heard" {
		t.Errorf("peers %+v", s.Peers)
	}
	if up := s.Conditions[1]; up.Type != v1alpha1.ConditionPeersUp || up.Status != metav1.ConditionFalse || up.Reason != "SomeMissing" || up.Message != "no session with b" {
		t.Errorf("condition %+v", up)
	}
	r.Trouble = "the network is down"
	s = c.statusOf(r, v1alpha1.NodeSpeaker{Status: s})
	if ready := s.Conditions[0]; len(s.Conditions) != 2 || ready.Status != metav1.ConditionFalse || ready.Message != r.Trouble {
		t.Errorf("conditions in trouble: %+v", s.Conditions)
	}
}
