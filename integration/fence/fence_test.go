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
		s.cells = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.30.%d.0/30", i)), netip.MustParsePrefix(fmt.Sprintf("fd00:30:%x::/126", i))}
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

// story is one of a node that is declared gone, with a pool of one cell of each family.
type story struct {
	name, pool        string
	cells             []netip.Prefix
	leave, gone, back func(*testing.T, *node)
	alone             bool // its agent serves pods and hears of nothing
	well              bool // its agent hears of all
	remembers         bool // its agent knows in the end what it had leased
	lends             bool // a part of each cell is another node's
}

func (s story) play(t *testing.T, c *cluster) {
	a, b := c.node(t), c.node(t)
	c.accepts(t, s.pool, s.cells)
	first := a.pod(t, s.pool+"-first", s.pool)
	a.serves(t, first)
	for _, cell := range s.cells {
		if by := c.announced(t, cell); !slices.Equal(by, []netip.Addr{a.end(cell.Addr())}) || !a.delivers(t, cell) {
			t.Fatalf("%s is announced by %v, want %s alone; its kernel delivers it: %t", cell, by, a.end(cell.Addr()), a.delivers(t, cell))
		}
	}
	if s.lends {
		b.serves(t, b.pod(t, s.pool+"-borrower", s.pool))
	}
	second := a.pod(t, s.pool+"-second", s.pool)
	a.knows(t, second)

	s.leave(t, a)
	s.gone(t, a)
	nodes.Await(t, "the blocks are taken from "+a.Name, func() error {
		for _, cell := range s.cells {
			if is := c.owner(t, cell); is == a.Name {
				return fmt.Errorf("%s is of node %q", cell, is)
			}
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
	other := b.pod(t, s.pool+"-other", s.pool, first.addresses...)
	b.serves(t, other)
	if !slices.Equal(other.addresses, first.addresses) {
		t.Fatalf("the other pod has %s, want %s", other.addresses, first.addresses)
	}

	s.back(t, a)
	nodes.Await(t, "the fence is off", func() error {
		for _, cell := range s.cells {
			if prefix := c.announces(t, a, cell); !s.remembers && prefix.IsValid() {
				t.Fatalf("%s announces %s, which it can't have had from the store", a.Name, prefix)
			}
		}
		if f := c.fence(t, a.Name); f != nil {
			return fmt.Errorf("it is %+v", f)
		}
		return nil
	})
	if why := a.has(t, first.addresses); why != "" {
		t.Errorf("without a fence %s has still what is another node's: %s", a.Name, why)
	}
	s.settled(t, c, a, b, first, second, other)
}

// givesUp waits until the node has lost the blocks of a pod, and sees that it serves no
// other one behind its fence.
func (n *node) givesUp(t *testing.T, first, second *pod) {
	t.Helper()
	nodes.Await(t, n.Name+" gives its blocks up", func() error {
		if why := n.has(t, first.addresses); why != "" {
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
	router.Await(t, fmt.Sprintf("nothing of %s leads to %s", s.cells, a.Name), aMoment, func() error {
		for _, cell := range s.cells {
			if prefix := c.announces(t, a, cell); prefix.IsValid() {
				return fmt.Errorf("it announces %s", prefix)
			}
			if a.delivers(t, cell) {
				return fmt.Errorf("its kernel delivers %s", cell)
			}
		}
		return nil
	})
	if s.remembers {
		c.told(t, first)
	}
	if s.alone {
		c.told(t, second)
	}
	third := a.pod(t, s.pool+"-third", s.pool)
	a.serves(t, third) // b lends it
	if why := b.has(t, third.addresses); why != "" {
		t.Errorf("%s has leased %s, and %s has it, too: %s", a.Name, third.addresses, b.Name, why)
	}
	if err := a.cni("DEL", first); err != nil {
		t.Error(err)
	}
	for _, address := range other.addresses {
		if why := b.has(t, []netip.Addr{address}); !strings.HasSuffix(why, fmt.Sprintf("pod %s has it", other.Name)) {
			t.Errorf("%s of pod %s, after the end of the one before: %q", address, other.Name, why)
		}
	}
	nodes.Await(t, "each address leads to one node", func() error {
		return errors.Join(c.leadAlone(t, third.addresses, a), c.leadAlone(t, other.addresses, b))
	})
}

// leadAlone says which of some addresses does not lead to one node alone.
func (c *cluster) leadAlone(t *testing.T, addresses []netip.Addr, n *node) error {
	t.Helper()
	for _, address := range addresses {
		if to := c.leads(t, address); !slices.Equal(to, []netip.Addr{n.end(address)}) {
			return fmt.Errorf("%s leads to %v, want %s", address, to, n.end(address))
		}
	}
	return nil
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
