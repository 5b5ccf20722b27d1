package main

import (
	"net"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/speaker"
)

// settingsOf says what c, as it is in force on one node, means for an agent on a
// host with these addresses.
func settingsOf(c *config.Config, host []netip.Addr) agent.Settings {
	s := agent.Settings{AnnounceTimeout: c.BGP.AnnounceTimeout, Local: localOf(c), Host: host, BFD: map[string]agent.BFD{}, Mesh: meshOf(c.BGP.Mesh)}
	if c.BGP.OnStop == config.Withdraw {
		s.OnStop = speaker.Withdraw
	}
	switch c.Health.Peers {
	case config.AllPeers:
		s.Healthy = agent.AllPeers
	case config.NoPeers:
		s.Healthy = agent.NoPeers
	}
	for _, p := range c.Pools {
		s.Pools = append(s.Pools, agent.Pool{Pool: p.Checked(), Quiet: !p.Announce, IdleAfter: p.IdleAfter})
	}
	for _, p := range c.Peers {
		if p.Range.IsValid() {
			s.Ranges = append(s.Ranges, rangeOf(p))
		} else {
			s.Peers = append(s.Peers, peerOf(p))
		}
		if b := p.BFD; b.Enabled {
			s.BFD[p.Name] = agent.BFD{Interval: b.Interval, ReceiveInterval: b.ReceiveInterval, Multiplier: b.Multiplier}
		}
	}
	for _, a := range c.Announcements {
		s.Rules = append(s.Rules, ruleOf(a))
	}
	return s
}

func localOf(c *config.Config) speaker.Local {
	l := speaker.Local{
		ASN: uint32(c.BGP.ASN), RouterID: c.BGP.RouterID,
		Listen: c.BGP.Listen.Addresses, Port: c.BGP.Listen.Port, APISocket: c.BGP.API.Socket,
		GracefulRestart: speaker.GracefulRestart{
			Enabled: c.BGP.GracefulRestart.Enabled, Time: c.BGP.GracefulRestart.RestartTime,
			LongLived: c.BGP.GracefulRestart.LongLivedTime, Deferral: c.BGP.GracefulRestart.DeferralTime,
		},
	}
	if c.BGP.API.Address.IsValid() {
		l.APIAddress = c.BGP.API.Address.String()
	}
	return l
}

func peerOf(p config.Peer) speaker.Peer {
	return speaker.Peer{
		Name: p.Name, Address: p.Address, Interface: p.Interface, ASN: uint32(p.ASN), Session: sessionOf(p), Accept: acceptOf(p.Accept),
	}
}

func rangeOf(p config.Peer) speaker.Range {
	return speaker.Range{
		Name: p.Name, Network: p.Range.Prefix, ASN: uint32(p.ASN), Most: p.Most, Session: sessionOf(p), Accept: acceptOf(p.Accept),
	}
}

func sessionOf(p config.Peer) speaker.Session {
	s := speaker.Session{
		Port: p.Port, LocalAddress: p.LocalAddress, LocalASN: uint32(p.LocalASN), Passive: p.Passive, Password: speaker.Secret(p.Password),
		Multihop: p.EBGPMultihop, TTLSecurity: p.TTLSecurity,
		HoldTime: p.HoldTime, Keepalive: p.KeepaliveTime, ConnectRetry: p.ConnectRetryTime,
		RouteReflectorClient: p.RouteReflectorClient, ReceivePaths: p.AddPaths.Receive, ExtendedMessages: p.ExtendedMessages,
		Down: p.Shutdown, DownMessage: p.ShutdownMessage,
	}
	if p.Passive || p.Range.IsValid() {
		s.ConnectRetry = 0 // it may come from a template, and nothing is tried
	}
	for _, f := range p.Families {
		s.Families = append(s.Families, speaker.Family(f))
	}
	return s
}

func acceptOf(a config.Accept) speaker.Accept {
	out := speaker.Accept{Max: a.Max}
	for _, r := range a.Prefixes {
		out.Prefixes = append(out.Prefixes, speaker.PrefixRule{Network: r.Prefix.Prefix, AtLeast: r.GE, AtMost: r.LE})
	}
	return out
}

func ruleOf(a config.Announcement) agent.Rule {
	r := agent.Rule{
		Pools: a.Pools, Peers: a.Peers, Withhold: !a.Announce, OwnNextHop: slices.Contains(a.NextHop, config.NextHopUnchanged),
		Attributes: speaker.Attributes{LocalPreference: a.LocalPreference, MED: a.MED, Prepend: a.Prepend, NextHops: a.NextHops()},
		Aggregate:  agent.Aggregate(a.Aggregate),
	}
	for _, c := range a.Communities {
		r.Attributes.Communities = append(r.Attributes.Communities, speaker.Community(c))
	}
	for _, c := range a.LargeCommunities {
		r.Attributes.LargeCommunities = append(r.Attributes.LargeCommunities, speaker.LargeCommunity(c))
	}
	return r
}

// facing are the addresses of this host that packets to the peers leave with. The kernel says
// so without sending any; where it has no route there is none.
func facing(peers []config.Peer) (own []netip.Addr) {
	for _, p := range peers {
		if p.LocalAddress.IsValid() {
			own = append(own, p.LocalAddress)
			continue
		}
		if !p.Address.IsValid() {
			continue // its router is found on a link, or comes by itself
		}
		const discard = 9
		conn, err := net.Dial("udp", netip.AddrPortFrom(p.Address, discard).String())
		if err != nil {
			continue
		}
		own = append(own, conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
		_ = conn.Close()
	}
	return own
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
