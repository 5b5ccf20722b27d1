package main

import (
	"net"
	"net/netip"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/speaker"
)

// settingsOf says what c means for an agent on a host with these addresses.
func settingsOf(c *config.Config, host []netip.Addr) agent.Settings {
	s := agent.Settings{AnnounceTimeout: c.BGP.AnnounceTimeout, Local: localOf(c), Host: host}
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

func localOf(c *config.Config) speaker.Local {
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
