package cluster_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestOnARealAPIServer has one control plane for all: a start takes seconds.
func TestOnARealAPIServer(t *testing.T) {
	s := newStage(t)
	t.Run("claim, lend and return", s.claimLendReturn)
	t.Run("no read for a known pod", s.noReads)
	t.Run("the pool serves as many pods as it has addresses", s.exact)
	t.Run("a refused pod gets an event", s.refused)
	t.Run("a pool that is changed and drained", s.changedPool)
	t.Run("cordoned, and made anew", s.otherNode)
	t.Run("fenced", s.fenced)
	t.Run("a fence that is lifted", s.fenceLifted)
	t.Run("fenced while the agent was down", s.fencedMeanwhile)
	t.Run("the Node object is away", s.nodeAway)
	t.Run("a chosen address", s.chosen)
	t.Run("what was just said counts", s.justSaid)
	t.Run("what was mended counts", s.mended)
	t.Run("pods that are gone", s.gone)
	t.Run("API server away", s.away) // stops and starts it
	s.sound(t)
}

func (s *stage) claimLendReturn(t *testing.T) {
	s.pool(t, "lend", 4, "addresses: [10.1.0.0/30]")
	a, b := s.node(t, "a1"), s.node(t, "a2")
	one, two := s.pod(t, "a1", "lend-1", inPool("lend")), s.pod(t, "a2", "lend-2", inPool("lend"))
	a.knows(t, "lend")
	b.knows(t, "lend")
	first := a.add(t, one)
	if got := s.blocks(t, "lend"); !slices.Equal(got, []string{"10.1.0.0/30 a1"}) {
		t.Errorf("blocks after a claim: %v", got)
	}
	second := b.add(t, two)
	if first == second {
		t.Fatalf("both pods got %s", first)
	}
	loans := a.status(t).Loans
	if len(loans) != 1 || loans[0].Node != "a2" || !loans[0].Prefix.Contains(second) || loans[0].Block.String() != "10.1.0.0/30" {
		t.Errorf("the lender's loans: %+v; want one with %s", loans, second)
	}
	borrowed := b.status(t).Blocks
	if len(borrowed) != 1 || borrowed[0].Lender != "a1" {
		t.Errorf("the borrower's blocks: %+v", borrowed)
	}
	b.del(t, two)
	for i := range 3 { // all others
		a.add(t, s.pod(t, "a1", fmt.Sprintf("lend-%d", i+3), inPool("lend")))
	}
	if got := s.blocks(t, "lend"); !slices.Equal(got, []string{"10.1.0.0/30 a1"}) {
		t.Errorf("blocks when what was lent was needed again: %v", got)
	}
	if loans := a.status(t).Loans; len(loans) != 0 {
		t.Errorf("loans that have come back: %+v", loans)
	}
}

func (s *stage) noReads(t *testing.T) {
	s.pool(t, "known", 16, "addresses: [10.2.0.0/24]")
	n := s.node(t, "b1")
	n.knows(t, "known")
	first := s.pod(t, "b1", "known-0", inPool("known"))
	n.add(t, first) // claims a block
	pods := make([]*core.Pod, 8)
	for i := range pods {
		pods[i] = s.pod(t, "b1", fmt.Sprintf("known-%d", i+1), inPool("known"))
	}
	await(t, "the agent knows the pods", func() bool {
		kept, err := os.ReadFile(filepath.Join(n.dir, "cluster.json"))
		return err == nil && strings.Contains(string(kept), "known-8")
	})
	before := n.calls.Load()
	for _, p := range pods {
		n.add(t, p)
		n.del(t, p)
	}
	if made := n.calls.Load() - before; made != 0 {
		t.Errorf("%d calls of the API server for ADDs and DELs in a block that is held", made)
	}
}

func (s *stage) exact(t *testing.T) {
	const count = 24
	s.pool(t, "exact", 8, "addresses: [10.3.0.0-10.3.0.23]")
	var nodes []*node
	for i := range 3 {
		nodes = append(nodes, s.node(t, fmt.Sprintf("c%d", i)))
		nodes[i].knows(t, "exact")
	}
	// Twice: the second time most pods are on other nodes than the first time.
	for round, share := range [][]int{{20, 3, 1}, {2, 2, 20}} {
		var pods sync.WaitGroup
		var mu sync.Mutex
		holders := map[netip.Addr]string{}
		var made []func()
		for i, n := range nodes {
			for k := range share[i] {
				p := s.pod(t, n.name, fmt.Sprintf("exact-%d-%d-%d", round, i, k), inPool("exact"))
				made = append(made, func() { n.del(t, p) })
				pods.Go(func() {
					a, err := n.cni("ADD", p)
					for refusedWith(wire.TryAgainLater, err) { // as a kubelet would
						a, err = n.cni("ADD", p)
					}
					mu.Lock()
					defer mu.Unlock()
					if other := holders[a]; err != nil || other != "" {
						t.Errorf("round %d, pod %s: %v %v, which pod %q has", round, p.Name, a, err, other)
						return
					}
					holders[a] = p.Name
				})
			}
		}
		pods.Wait()
		if len(holders) != count {
			t.Fatalf("round %d: %d pods of %d are served", round, len(holders), count)
		}
		for _, del := range made {
			del()
		}
	}
	s.sound(t)
}

func (s *stage) refused(t *testing.T) {
	s.pool(t, "picky", 4, "addresses: [10.4.0.0/28], namespaceSelector: {matchLabels: {team: bank}}")
	n := s.node(t, "d1")
	n.knows(t, "picky")
	p := s.pod(t, "d1", "picky-1", inPool("picky"))
	for range 2 {
		_, err := n.cni("ADD", p)
		if !refusedWith(wire.Refused, err) || !strings.Contains(err.Error(), `pool "picky" does not serve it`) &&
			!strings.Contains(err.Error(), "namespaceSelector wants team=bank") {
			t.Fatalf("the pod's error: %v", err)
		}
	}
	var events []core.Event
	await(t, "there is an event", func() bool {
		list, err := s.admin.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
		if err != nil {
			t.Fatal(err)
		}
		events = list.Items
		return len(events) > 0
	})
	if e := events[0]; len(events) != 1 || e.Type != core.EventTypeWarning || e.Reason != "PoolRefused" || !strings.Contains(e.Message, "team=bank") {
		t.Errorf("events: %+v", events)
	}
}

func (s *stage) patchPool(t *testing.T, name, spec string) {
	t.Helper()
	if _, err := s.resource("addresspools").Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":`+spec+`}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *stage) changedPool(t *testing.T) {
	s.pool(t, "grow", 2, "addresses: [10.5.0.0/31]")
	n := s.node(t, "e1")
	n.knows(t, "grow")
	var pods []*core.Pod
	for i := range 4 {
		pods = append(pods, s.pod(t, "e1", fmt.Sprintf("grow-%d", i), inPool("grow")))
	}
	n.add(t, pods[0])
	n.add(t, pods[1])
	if _, err := n.cni("ADD", pods[2]); err == nil || !strings.Contains(err.Error(), `pool "grow" has no free IPv4 address: size 2, 2 leased`) {
		t.Errorf("a third pod of two addresses: %v", err)
	}
	s.patchPool(t, "grow", `{"addresses":["10.5.0.0/31","10.5.0.4/31"]}`)
	n.del(t, pods[1])
	n.add(t, pods[1]) // not looked at again yet: it serves as it did
	s.refuse(t, "grow")
	await(t, "the refusal is known", func() bool {
		kept, err := os.ReadFile(filepath.Join(n.dir, "cluster.json"))
		return err == nil && strings.Contains(string(kept), "no more of it")
	})
	n.del(t, pods[1])
	n.add(t, pods[1]) // refused: the same
	if _, err := n.cni("ADD", pods[2]); err == nil || !strings.Contains(err.Error(), `pool "grow" has no free IPv4 address: size 2, 2 leased`) {
		t.Errorf("a third pod of two accepted addresses: %v", err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	// A new agent, also one that remembers nothing of it.
	if err := os.Remove(filepath.Join(n.dir, "cluster.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(n.dir, "pools.json")); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	n.knows(t, "grow")
	n.add(t, pods[1])
	if _, err := n.cni("ADD", pods[2]); err == nil || !strings.Contains(err.Error(), `pool "grow" has no free IPv4 address: size 2, 2 leased`) {
		t.Errorf("a third pod of two accepted addresses, after a restart: %v", err)
	}
	s.accept(t, "grow", 2)
	await(t, "the new addresses serve", func() bool {
		_, err := n.cni("ADD", pods[2])
		return err == nil
	})
	s.drainsPool(t, n, pods[:3], pods[3])
}

// drainsPool has the pool "grow" drain, which serves old pods, and a new one not.
func (s *stage) drainsPool(t *testing.T, n *node, old []*core.Pod, fresh *core.Pod) {
	s.patchPool(t, "grow", `{"state":"Draining"}`)
	s.accept(t, "grow", 2)
	await(t, "the pool serves nothing new", func() bool {
		_, err := n.cni("ADD", fresh)
		if err == nil {
			n.del(t, fresh)
		}
		return err != nil && strings.Contains(err.Error(), "Draining")
	})
	n.add(t, old[0]) // the same again
	for _, p := range old {
		n.del(t, p)
	}
	await(t, "no block is left", func() bool { return len(s.blocks(t, "grow")) == 0 })
}

// refuse refuses what was changed of a pool, as the controller would.
func (s *stage) refuse(t *testing.T, name string) {
	t.Helper()
	pool, err := s.resource("addresspools").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status := fmt.Sprintf(`{"status":{"conditions":[{"type":"Accepted","status":"False","reason":"Overlaps","message":"no more of it","observedGeneration":%d,"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, pool.GetGeneration())
	if _, err := s.resource("addresspools").Patch(t.Context(), name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
}

func (s *stage) otherNode(t *testing.T) {
	s.pool(t, "machine", 2, "addresses: [10.6.0.0/28]")
	s.makeNode(t, "f1")
	n := s.nodeAs(t, "f1", s.Config()) // the node's own token ends with the node
	n.knows(t, "machine")
	one := s.pod(t, "f1", "machine-1", inPool("machine"))
	n.add(t, one)
	nodes := s.admin.CoreV1().Nodes()
	if err := nodes.Delete(t.Context(), "f1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	uid := s.makeNode(t, "f1")
	two := s.pod(t, "f1", "machine-2", inPool("machine")) // when a pod comes the agent looks at the Node
	await(t, "the block has the name of the new machine", func() bool {
		b, err := s.resource("addressblocks").Get(t.Context(), blockName(t, n), metav1.GetOptions{})
		return err == nil && b.Object["spec"].(map[string]any)["nodeUID"] == string(uid)
	})
	cordon := func(yes bool, pod string) *core.Pod {
		t.Helper()
		if _, err := nodes.Patch(t.Context(), "f1", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, yes), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		p := s.pod(t, "f1", pod, inPool("machine"))
		await(t, "the agent knows", func() bool { return n.status(t).Cordoned == yes })
		return p
	}
	three := cordon(true, "machine-3")
	n.add(t, two)
	if _, err := n.cni("ADD", three); err == nil || !strings.Contains(err.Error(), "cordoned") {
		t.Errorf("a new block on a cordoned node: %v", err)
	}
	cordon(false, "machine-4")
	n.add(t, three)
}

// blockName is that of the node's one block.
func blockName(t *testing.T, n *node) string {
	t.Helper()
	blocks := n.status(t).Blocks
	if len(blocks) != 1 {
		t.Fatalf("blocks of %s: %+v", n.name, blocks)
	}
	return strings.NewReplacer(".", "-", "/", "-").Replace(blocks[0].Prefix.String())
}

// A node that was declared gone, and has read its blocks while they were still
// its own, gives up what it loses after that.
func (s *stage) fenced(t *testing.T) {
	s.pool(t, "fence", 4, "addresses: [10.8.0.0/28]")
	n := s.node(t, "g1")
	n.knows(t, "fence")
	p := s.pod(t, "g1", "fence-1", inPool("fence"))
	n.add(t, p)
	calls := n.calls.Load()
	err := s.Apply(t.Context(), "apiVersion: fairway.network/v1alpha1\nkind: NodeSpeaker\nmetadata: {name: g1}\nspec: {fence: {since: \"2026-01-01T00:00:00Z\", reason: test}}")
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the agent has read its blocks", func() bool { return n.calls.Load() > calls })
	block, name := s.resource("addressblocks"), blockName(t, n)
	_, err = block.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"fairway.network/force-delete":"yes"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := block.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the agent holds nothing of it", func() bool { return len(n.status(t).Blocks) == 0 })
	if leases := n.status(t).Leases; len(leases) != 0 {
		t.Errorf("leases in a block that is lost: %+v", leases)
	}
}

// An address that a pod asks for is lent if another node has it.
func (s *stage) chosen(t *testing.T) {
	s.pool(t, "chosen", 16, "addresses: [10.9.0.0/28]")
	a, b := s.node(t, "i1"), s.node(t, "i2")
	a.knows(t, "chosen")
	b.knows(t, "chosen")
	a.add(t, s.pod(t, "i1", "chosen-1", inPool("chosen")))
	annotations := inPool("chosen")
	annotations["fairway.network/addresses"] = "10.9.0.13"
	if got := b.add(t, s.pod(t, "i2", "chosen-2", annotations)); got.String() != "10.9.0.13" {
		t.Errorf("the pod got %s", got)
	}
	if got := s.blocks(t, "chosen"); !slices.Equal(got, []string{"10.9.0.0/28 i1", "10.9.0.13/32 i2"}) {
		t.Errorf("blocks: %v", got)
	}
}

// Only what the API server says now is evidence that a pod is gone.
func (s *stage) gone(t *testing.T) {
	n := s.node(t, "j1")
	p := s.pod(t, "j1", "gone-1", nil)
	static := s.pod(t, "j1", "static-j1", map[string]string{core.MirrorPodAnnotationKey: "hash", "fairway.network/pool": "x"})
	owner := func(p *core.Pod, uid string) pools.Owner {
		return pools.Owner{Attachment: pools.Attachment{ContainerID: "c"}, Namespace: p.Namespace, Pod: p.Name, PodUID: uid}
	}
	is := func(what string, o pools.Owner, want bool) {
		t.Helper()
		if got, err := n.cluster.Gone(t.Context(), o); err != nil || got != want {
			t.Errorf("%s: gone is %v, %v; want %v", what, got, err, want)
		}
	}
	await(t, "the pods are known", func() bool {
		kept, err := os.ReadFile(filepath.Join(n.dir, "cluster.json"))
		return err == nil && strings.Contains(string(kept), "static-j1")
	})
	is("a pod that is there", owner(p, string(p.UID)), false)
	is("one without a UID", owner(p, ""), false)
	is("another one of that name", owner(p, "other"), true)
	is("a static pod, by its kubelet's UID", owner(static, "hash"), false)
	if err := s.admin.CoreV1().Pods("shop").Delete(t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	await(t, "the pod is known to be gone", func() bool {
		gone, err := n.cluster.Gone(t.Context(), owner(p, string(p.UID)))
		return err == nil && gone
	})
}

func (s *stage) away(t *testing.T) {
	s.pool(t, "away", 4, "addresses: [10.7.0.0/28]")
	n := s.node(t, "h1")
	n.knows(t, "away")
	var pods []*core.Pod
	for i := range 5 {
		pods = append(pods, s.pod(t, "h1", fmt.Sprintf("away-%d", i), inPool("away")))
	}
	first := n.add(t, pods[0])
	await(t, "the agent will remember the pods", func() bool {
		kept, err := os.ReadFile(filepath.Join(n.dir, "cluster.json"))
		return err == nil && strings.Contains(string(kept), "away-4")
	})
	if !n.cluster.State().Reached {
		t.Error("the API server that is there counts as away")
	}
	if err := s.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	await(t, "the API server counts as away", func() bool { return !n.cluster.State().Reached })
	n.add(t, pods[1])
	n.del(t, pods[1])
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	if again := n.add(t, pods[0]); again != first {
		t.Errorf("the pod has %s, after a restart of the agent %s", first, again)
	}
	for _, p := range pods[1:4] {
		n.add(t, p)
	}
	lost := pools.Owner{Namespace: "shop", Pod: "lost", PodUID: "lost"}
	if gone, err := n.cluster.Gone(t.Context(), lost); err == nil {
		t.Errorf("without the API server a pod is gone: %v", gone)
	}
	if _, err := n.cni("ADD", pods[4]); !refusedWith(wire.TryAgainLater, err) || !strings.Contains(err.Error(), "claim a block of pool") {
		t.Errorf("a claim without the API server: %v", err)
	}
	n.del(t, pods[3])
	if err := s.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.add(t, pods[3])
	await(t, "a new block can be claimed", func() bool {
		_, err := n.cni("ADD", pods[4])
		return err == nil
	})
	if got := s.blocks(t, "away"); len(got) != 2 {
		t.Errorf("blocks: %v", got)
	}
}
