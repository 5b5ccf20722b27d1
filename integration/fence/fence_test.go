package fence

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/integration/nodes"
	"github.com/fairway-network/fairway/integration/router"
)

// A node is declared gone while it is cut off, down, or well, and another one gets its
// addresses. When it is back it has none of them from the moment at which its fence is
// off, and its pods know.
func TestFence(t *testing.T) {
	c := newCluster(t)
	for i, s := range stories() {
		s.cell = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 30, byte(i), 0}), 30)
		s.pool = fmt.Sprintf("pool-%d", i)
		t.Run(s.name, func(t *testing.T) { s.play(t, c) })
	}
}

func stories() []story {
	deleted := func(t *testing.T, n *node) { n.unregister(t) }
	return []story{
		{
			name: "cut off", alone: true, remembers: true,
			leave: func(_ *testing.T, n *node) { n.Gate.Close() }, gone: deleted,
			back: func(t *testing.T, n *node) { n.register(t); n.Gate.Open() },
		},
		{
			name: "cut off, with a part lent, and the controller ends", alone: true, remembers: true, lends: true,
			leave: func(_ *testing.T, n *node) { n.Gate.Close() }, gone: deleted,
			back: func(t *testing.T, n *node) { n.in.relieve(t); n.register(t); n.Gate.Open() },
		},
		{
			name: "cut off in silence", remembers: true,
			leave: func(_ *testing.T, n *node) { n.Gate.Stick() }, gone: deleted,
			back: func(t *testing.T, n *node) { n.register(t); n.Gate.Open() },
		},
		{
			name: "frozen", remembers: true,
			leave: func(t *testing.T, n *node) { n.Signal(t, syscall.SIGSTOP) }, gone: deleted,
			back: func(t *testing.T, n *node) { n.register(t); n.Signal(t, syscall.SIGCONT) },
		},
		{
			name: "out of service, and well", well: true, remembers: true,
			leave: func(*testing.T, *node) {},
			gone:  func(t *testing.T, n *node) { n.taint(t, true) },
			back:  func(t *testing.T, n *node) { n.taint(t, false) },
		},
		{
			name: "killed", remembers: true,
			leave: func(t *testing.T, n *node) { n.Kill(t) }, gone: deleted,
			back: func(t *testing.T, n *node) {
				n.register(t)
				n.awaitLifting(t) // and nobody confirms it
				n.Start(t)
			},
		},
		{
			name:  "rebooted",
			leave: func(t *testing.T, n *node) { n.Kill(t); n.forget(t) }, gone: deleted,
			back: func(t *testing.T, n *node) { n.register(t); n.Start(t) },
		},
	}
}

// story is one of a node that is declared gone, with a pool of one cell.
type story struct {
	name, pool        string
	cell              netip.Prefix
	leave, gone, back func(*testing.T, *node)
	alone             bool // its agent serves pods and hears of nothing
	well              bool // its agent hears of all
	remembers         bool // its agent knows in the end what it had leased
	lends             bool // a part of its cell is another node's
}

func (s story) play(t *testing.T, c *cluster) {
	a, b := c.node(t), c.node(t)
	c.accepts(t, s.pool, s.cell)
	first := a.pod(t, s.pool+"-first", s.pool, netip.Addr{})
	a.serves(t, first)
	if by := c.announced(t, s.cell); !slices.Equal(by, []netip.Addr{a.address}) || !a.delivers(t, s.cell) {
		t.Fatalf("%s is announced by %v, want %s alone; its kernel delivers it: %t", s.cell, by, a.address, a.delivers(t, s.cell))
	}
	if s.lends {
		b.serves(t, b.pod(t, s.pool+"-borrower", s.pool, netip.Addr{}))
	}
	second := a.pod(t, s.pool+"-second", s.pool, netip.Addr{})
	a.knows(t, second)

	s.leave(t, a)
	s.gone(t, a)
	nodes.Await(t, "the block is taken from "+a.Name, func() error {
		if is := c.owner(t, s.cell); is == a.Name {
			return fmt.Errorf("it is of node %q", is)
		}
		return nil
	})
	if c.fence(t, a.Name) == nil {
		t.Fatal("a block was taken from a node without a fence")
	}
	if s.alone {
		a.serves(t, second) // it can't know
	}
	if s.well {
		a.givesUp(t, first, second)
	}
	other := b.pod(t, s.pool+"-other", s.pool, first.address)
	b.serves(t, other)
	if other.address != first.address {
		t.Fatalf("the other pod has %s, want %s", other.address, first.address)
	}

	s.back(t, a)
	nodes.Await(t, "the fence is off", func() error {
		if prefix := c.announces(t, a, s.cell); !s.remembers && prefix.IsValid() {
			t.Fatalf("%s announces %s, which it can't have had from the store", a.Name, prefix)
		}
		if f := c.fence(t, a.Name); f != nil {
			return fmt.Errorf("it is %+v", f)
		}
		return nil
	})
	if why := a.has(t, first.address); why != "" {
		t.Errorf("without a fence %s has %s still, which is another node's: %s", a.Name, first.address, why)
	}
	s.settled(t, c, a, b, first, second, other)
}

// givesUp waits until the node has lost the block of a pod, and sees that it serves no
// other one behind its fence.
func (n *node) givesUp(t *testing.T, first, second *pod) {
	t.Helper()
	nodes.Await(t, n.Name+" gives its block up", func() error {
		if why := n.has(t, first.address); why != "" {
			return errors.New(why)
		}
		return nil
	})
	if err := n.cni("ADD", second); err == nil || !strings.Contains(err.Error(), "counts as gone") {
		t.Errorf("a new pod behind a fence: %v", err)
	}
}

// settled looks at what is in the end.
func (s story) settled(t *testing.T, c *cluster, a, b *node, first, second, other *pod) {
	t.Helper()
	router.Await(t, fmt.Sprintf("nothing of %s leads to %s", s.cell, a.Name), aMoment, func() error {
		if prefix := c.announces(t, a, s.cell); prefix.IsValid() {
			return fmt.Errorf("it announces %s", prefix)
		}
		if a.delivers(t, s.cell) {
			return fmt.Errorf("its kernel delivers %s", s.cell)
		}
		return nil
	})
	if s.remembers {
		c.told(t, first)
	}
	if s.alone {
		c.told(t, second)
	}
	third := a.pod(t, s.pool+"-third", s.pool, netip.Addr{})
	a.serves(t, third) // b lends it
	if why := b.has(t, third.address); why != "" {
		t.Errorf("%s has leased %s, and %s has it, too: %s", a.Name, third.address, b.Name, why)
	}
	if err := a.cni("DEL", first); err != nil {
		t.Error(err)
	}
	if why := b.has(t, other.address); why != fmt.Sprintf("pod %s has it", other.Name) {
		t.Errorf("%s of pod %s, after the end of the one before: %q", other.address, other.Name, why)
	}
	nodes.Await(t, "each address leads to one node", func() error {
		want := map[netip.Addr]netip.Addr{third.address: a.address, other.address: b.address}
		for address, node := range want {
			if to := c.leads(t, address); !slices.Equal(to, []netip.Addr{node}) {
				return fmt.Errorf("%s leads to %v, want %s", address, to, node)
			}
		}
		return nil
	})
}

// awaitLifting waits until the controller has said that the fence is to be lifted.
func (n *node) awaitLifting(t *testing.T) {
	t.Helper()
	nodes.Await(t, "the fence of "+n.Name+" is to be lifted", func() error {
		if f := n.in.fence(t, n.Name); f == nil || !f.Lifting {
			return fmt.Errorf("it is %+v", f)
		}
		return nil
	})
}

// knows waits until the agent has seen the Pod object.
func (n *node) knows(t *testing.T, p *pod) {
	t.Helper()
	nodes.Await(t, n.Name+" knows pod "+p.Name, func() error {
		kept, err := os.ReadFile(n.File("run/cluster.json"))
		if err == nil && !strings.Contains(string(kept), p.Name) {
			err = fmt.Errorf("it is not among %s", kept)
		}
		return err
	})
}
