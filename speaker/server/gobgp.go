package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v3/pkg/server"
)

// globalOf is GoBGP's form of this node's side. GoBGP names families by their
// place in a table of its own, in which IPv4 and IPv6 unicast come first.
func globalOf(l speaker.Local) *api.Global {
	g := &api.Global{
		Asn:        l.ASN,
		RouterId:   l.RouterID.String(),
		ListenPort: -1,
		Families:   []uint32{0, 1},
	}
	if len(l.Listen) > 0 {
		g.ListenPort = int32(portOf(l))
	}
	for _, a := range l.Listen {
		g.ListenAddresses = append(g.ListenAddresses, a.String())
	}
	return g
}

func portOf(l speaker.Local) uint16 {
	if l.Port == 0 {
		return defaultPort
	}
	return l.Port
}

func unicast(f speaker.Family) *api.Family {
	if f == speaker.IPv4 {
		return &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	}
	return &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
}

// pathOf is a prefix that this node originates, of a class; nil is for withdrawals.
// It is handed over as it goes over the wire, which costs GoBGP less than messages of
// its API that it has to take apart.
func pathOf(p netip.Prefix, c *class) (*api.Path, error) {
	octets := p.Addr().AsSlice()[:(p.Bits()+7)/8]
	path := &api.Path{
		Family:     unicast(familyOf(p.Addr())),
		NlriBinary: append([]byte{byte(p.Bits())}, octets...), // RFC 4271, section 4.3
	}
	for _, a := range originalsOf(familyOf(p.Addr()), c) {
		b, err := a.Serialize()
		if err != nil {
			return nil, fmt.Errorf("prefix %s: attribute %s: %w", p, a.GetType(), err)
		}
		path.PattrsBinary = append(path.PattrsBinary, b)
	}
	return path, nil
}

// originalsOf are the attributes of a path of a family. The next hop is unspecified: GoBGP puts
// this node's address of each session in its place.
func originalsOf(f speaker.Family, c *class) []bgp.PathAttributeInterface {
	list := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)}
	if f == speaker.IPv4 {
		list = append(list, bgp.NewPathAttributeNextHop("0.0.0.0"))
	} else { // GoBGP takes the next hop from it, and insists on some prefix
		some := bgp.NewIPv6AddrPrefix(0, "::")
		list = append(list, bgp.NewPathAttributeMpReachNLRI("::", []bgp.AddrPrefixInterface{some}))
	}
	if c != nil && !c.plain() {
		list = append(list, tagOf(c))
		if c.least() {
			list = append(list, bgp.NewPathAttributeLocalPref(0)) // stays where the policy sets no other
		}
	}
	return list
}

// setListenerKey makes the listeners take connections from an address with a
// password, and with "" unsigned ones alone: what GoBGP leaves of a deleted peer
// would have the kernel drop those. GoBGP does so only for a dynamic neighbour of a
// peer group that has a password.
func setListenerKey(ctx context.Context, server *gobgp.BgpServer, a netip.Addr, key speaker.Secret) error {
	const group = "listener-key"
	fail := func(err error) error { return fmt.Errorf("change the password of the listeners: %w", err) }
	err := server.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: &api.PeerGroup{
		Conf: &api.PeerGroupConf{PeerGroupName: group, AuthPassword: cmp.Or(string(key), "any")},
	}})
	if err != nil {
		return fail(err)
	}
	only := netip.PrefixFrom(a, a.BitLen()).String()
	if key == "" {
		err = server.DeleteDynamicNeighbor(ctx, &api.DeleteDynamicNeighborRequest{Prefix: only, PeerGroup: group})
	} else {
		err = server.AddDynamicNeighbor(ctx, &api.AddDynamicNeighborRequest{
			DynamicNeighbor: &api.DynamicNeighbor{Prefix: only, PeerGroup: group}})
	}
	err = errors.Join(err, server.DeletePeerGroup(ctx, &api.DeletePeerGroupRequest{Name: group}))
	if err != nil {
		return fail(err)
	}
	return nil
}

// importLocal makes the import policy: what this node originates passes, since GoBGP
// asks about that, too, and all else is dropped.
func importLocal(ctx context.Context, server *gobgp.BgpServer) error {
	const name = "only-local"
	policy := &api.Policy{Name: name, Statements: []*api.Statement{{
		Name:       name,
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT},
	}}}
	if err := server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: policy}); err != nil {
		return fmt.Errorf("policy %s: %w", name, err)
	}
	err := server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name:          "global",
		Direction:     api.PolicyDirection_IMPORT,
		Policies:      []*api.Policy{{Name: name}},
		DefaultAction: api.RouteAction_REJECT,
	}})
	if err != nil {
		return fmt.Errorf("policy %s: %w", name, err)
	}
	return nil
}

// carriedBy reads the families that a peer offered in its OPEN. A peer that
// offers none takes IPv4 (RFC 4760 section 8).
func carriedBy(p *api.Peer) map[speaker.Family]bool {
	families := make(map[speaker.Family]bool)
	for _, c := range p.GetState().GetRemoteCap() {
		var mp api.MultiProtocolCapability
		if c.UnmarshalTo(&mp) != nil || mp.Family.GetSafi() != api.Family_SAFI_UNICAST {
			continue
		}
		switch mp.Family.GetAfi() {
		case api.Family_AFI_IP:
			families[speaker.IPv4] = true
		case api.Family_AFI_IP6:
			families[speaker.IPv6] = true
		}
	}
	if len(families) == 0 {
		families[speaker.IPv4] = true
	}
	return families
}

// restartNotification is the N bit of the graceful restart capability.
const restartNotification = 0x04

// takesHardReset says whether a peer keeps this node's routes over a NOTIFICATION
// that is no hard reset (RFC 8538), which it offers with the N bit.
func takesHardReset(p *api.Peer) bool {
	for _, c := range p.GetState().GetRemoteCap() {
		var gr api.GracefulRestartCapability
		if c.UnmarshalTo(&gr) == nil {
			return gr.Flags&restartNotification != 0
		}
	}
	return false
}

// helpsRestart says whether a peer offered in its OPEN to keep this node's
// routes while it restarts (RFC 4724).
func helpsRestart(p *api.Peer) bool {
	for _, c := range p.GetState().GetRemoteCap() {
		if c.MessageIs(new(api.GracefulRestartCapability)) {
			return true
		}
	}
	return false
}

// sessionWords are the states of RFC 4271 section 8.
func sessionWords(s api.PeerState_SessionState) string {
	switch s {
	case api.PeerState_CONNECT:
		return "Connect"
	case api.PeerState_ACTIVE:
		return "Active"
	case api.PeerState_OPENSENT:
		return "OpenSent"
	case api.PeerState_OPENCONFIRM:
		return "OpenConfirm"
	case api.PeerState_ESTABLISHED:
		return "Established"
	}
	return "Idle"
}
