package main

import (
	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/speaker"
)

// meshOf is nil without a mesh.
func meshOf(m config.Mesh) *agent.Mesh {
	if !m.Enabled {
		return nil
	}
	session := sessionOf(config.Peer{Options: m.Session, Password: m.Password})
	session.Families, session.Port = nil, 0
	out := &agent.Mesh{Session: session, Learn: m.Learn, MaxPrefixes: m.Session.Accept.Max, MaxNodes: m.MaxNodes}
	for _, f := range m.Session.Families {
		out.Families = append(out.Families, speaker.Family(f))
	}
	if b := m.Session.BFD; b.Enabled {
		out.BFD = &agent.BFD{Interval: b.Interval, ReceiveInterval: b.ReceiveInterval, Multiplier: b.Multiplier}
	}
	return out
}
