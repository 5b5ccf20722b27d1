package lab

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inNode gives f a netlink socket in the network namespace of a node.
func (n *Node) inNode(f func(*netlink.Handle) error) error {
	init, err := n.running()
	if err != nil {
		return err
	}
	space, err := netns.GetFromPid(init.PID)
	if err != nil {
		return fmt.Errorf("node %s: network namespace: %w", n.Name(), err)
	}
	defer space.Close()
	handle, err := netlink.NewHandleAt(space)
	if err != nil {
		return fmt.Errorf("node %s: netlink: %w", n.Name(), err)
	}
	defer handle.Close()
	return f(handle)
}

// plug makes a link. It is made from within one of its nodes, so that neither
// end is ever in the host's network, where its name may be in use.
func (l *Lab) plug(link Link) error {
	a, b := l.nodes[link.A.Node()], l.nodes[link.B.Node()]
	other, err := b.running()
	if err != nil {
		return err
	}
	space, err := netns.GetFromPid(other.PID)
	if err != nil {
		return fmt.Errorf("link %s %s: %w", link.A, link.B, err)
	}
	defer space.Close()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: link.A.Interface(), MTU: link.MTU},
		PeerName:      link.B.Interface(),
		PeerNamespace: netlink.NsFd(int(space)),
	}
	err = a.inNode(func(h *netlink.Handle) error { return h.LinkAdd(veth) })
	if err != nil {
		return fmt.Errorf("link %s %s: %w", link.A, link.B, err)
	}
	return errors.Join(l.Restore(link.A), l.Restore(link.B))
}

// Cut sets one end of a link down, as an administrator does: the other end
// loses its carrier, and this end its IPv4 routes and all IPv6 ones, but not its addresses.
func (l *Lab) Cut(end Endpoint) error {
	return l.setLink(end, (*netlink.Handle).LinkSetDown)
}

// Restore sets one end of a link up again.
func (l *Lab) Restore(end Endpoint) error {
	return l.setLink(end, (*netlink.Handle).LinkSetUp)
}

func (l *Lab) setLink(end Endpoint, set func(*netlink.Handle, netlink.Link) error) error {
	n, err := l.Node(end.Node())
	if err != nil {
		return err
	}
	return n.inNode(func(h *netlink.Handle) error {
		link, err := h.LinkByName(end.Interface())
		if err != nil {
			return fmt.Errorf("link end %s: %w", end, err)
		}
		if err := set(h, link); err != nil {
			return fmt.Errorf("link end %s: %w", end, err)
		}
		return nil
	})
}
