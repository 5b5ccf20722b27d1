package main

import (
	"hash/fnv"
	"net"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/speaker"
)

// settingsOf says what c means for an agent on a host with these addresses.
func settingsOf(c *config.Config, host []netip.Addr) agent.Settings {
	s := agent.Settings{AnnounceTimeout: c.BGP.AnnounceTimeout, Local: localOf(c, host)}
	if c.BGP.OnStop == config.Withdraw {
		s.OnStop = speaker.Withdraw
	}
	for _, p := range c.Pools {
		s.Pools = append(s.Pools, agent.Pool{Pool: p.Checked(), Quiet: !p.Announce, IdleAfter: p.IdleAfter})
	}
	for _, p := range c.Peers {
		s.Peers = append(s.Peers, peerOf(p))
	}
	return s
}

func localOf(c *config.Config, host []netip.Addr) speaker.Local {
	l := speaker.Local{
		ASN: uint32(c.BGP.ASN), RouterID: c.BGP.RouterID,
		Listen: c.BGP.Listen.Addresses, Port: c.BGP.Listen.Port, APISocket: c.BGP.API.Socket,
		GracefulRestart: speaker.GracefulRestart{
			Enabled: c.BGP.GracefulRestart.Enabled, Time: c.BGP.GracefulRestart.RestartTime, Deferral: c.BGP.GracefulRestart.DeferralTime,
		},
	}
	if c.BGP.API.Address.IsValid() {
		l.APIAddress = c.BGP.API.Address.String()
	}
	if !l.RouterID.IsValid() {
		l.RouterID = routerID(c.Node, c.Pools, host)
	}
	return l
}

func peerOf(p config.Peer) speaker.Peer {
	out := speaker.Peer{
		Name: p.Name, Address: p.Address, ASN: uint32(p.ASN),
		Session: speaker.Session{Port: p.Port, Password: speaker.Secret(p.Password), Multihop: p.EBGPMultihop, HoldTime: p.HoldTime},
	}
	for _, f := range p.Families {
		out.Families = append(out.Families, speaker.Family(f))
	}
	return out
}

// routerID chooses a BGP identifier: the host's lowest global IPv4 address
// that is not of a pool, so that it does not change when pods come and go; on
// a host without one a number made of the node's name.
func routerID(node string, ps []config.Pool, host []netip.Addr) netip.Addr {
	own := slices.DeleteFunc(slices.Clone(host), func(a netip.Addr) bool {
		ofPool := slices.ContainsFunc(ps, func(p config.Pool) bool { return p.Checked().Contains(a) })
		return !a.Is4() || !a.IsGlobalUnicast() || ofPool
	})
	if len(own) > 0 {
		return slices.MinFunc(own, netip.Addr.Compare)
	}
	h := fnv.New32a()
	h.Write([]byte(node))
	id := h.Sum32()>>2 | 1 // no multicast address, and not 0.0.0.0
	return netip.AddrFrom4([4]byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)})
}

func hostAddresses() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}
