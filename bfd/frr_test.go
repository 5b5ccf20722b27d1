package bfd

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// frrConfig is FRR's side of all kinds of sessions on tor.
func frrConfig(multiplier int) string {
	timers := fmt.Sprintf("  receive-interval 50\n  transmit-interval 50\n  detect-multiplier %d\n", multiplier)
	return "bfd\n peer 10.0.1.1 interface eth1\n" + timers +
		" peer fd00:1::1 local-address fd00:1::2 interface eth1\n" + timers +
		" peer fe80::1 local-address fe80::2 interface eth1\n" + timers +
		" peer 10.0.9.1 multihop local-address 10.0.9.2\n" + timers
}

func frrPeers() []Peer {
	return []Peer{single("v4", "10.0.1.2", ""), single("v6", "fd00:1::2", "eth1"), single("ll", "fe80::2%eth1", ""), multihop("far", "10.0.9.2", "10.0.9.1")}
}

// frrEnd is FRR on tor.
func frrEnd(t *testing.T) end {
	f := startFRR(t, "tor", frrConfig(20))
	return end{
		daemon: f, peers: frrPeers(), addresses: []string{"10.0.1.1", "fd00:1::1", "fe80::1", "10.0.9.1"},
		heard: func(t *testing.T) bool {
			p := f.peer(t, "fe80::1")
			return p.RemoteTransmitInterval == 120 && p.RemoteReceiveInterval == 80 && p.RemoteMultiplier == 21
		},
		change: func(t *testing.T) {
			f.configure(t, "bfd", "peer 10.0.1.1 interface eth1", "transmit-interval 200", "receive-interval 200")
		},
		changed: []string{"v4"},
		again:   func(t *testing.T) { startFRR(t, "tor", frrConfig(20)) },
	}
}

// A server that is closed says so.
func TestFRRIsToldOfClose(t *testing.T) {
	e := frrEnd(t)
	s := e.start(t)
	must(t, s.Close(t.Context()))
	for _, a := range e.addresses {
		e.knowsAdminDown(t, a)
	}
}

// What FRR does on purpose is no failure.
func TestFRRAdminDown(t *testing.T) {
	e := frrEnd(t)
	s, f := e.start(t), e.daemon.(*frr)
	f.configure(t, "bfd", "peer 10.0.1.1 interface eth1", "shutdown")
	s.await(t, "v4 is down", func() bool { return s.state(t, "v4").State == Down })
	if p := s.state(t, "v4"); p.RemoteState != AdminDown || p.Failures != 0 {
		t.Errorf("FRR shut the session down: %+v", p)
	}
	f.configure(t, "bfd", "peer 10.0.1.1 interface eth1", "no shutdown")
	s.are(t, Up)
}

// BFD packets that are none, or nobody's, or come from too far, in a flood
// from FRR's own address: the sessions don't notice. A socket takes no more of
// a flood than it has room for, so one goes on until each kind was counted.
func TestFRRBehindGarbage(t *testing.T) {
	s := frrEnd(t).start(t)
	before := s.State()
	good := Packet{State: Down, Multiplier: 3, MyDiscriminator: 1, DesiredMinTx: time.Second, RequiredMinRx: time.Second}
	stale, stray := good, good
	stale.YourDiscriminator = 0xdead
	stray.State = Up
	strange := [][]byte{nil, {0x20}, slices.Repeat([]byte{0xff}, 1400), make([]byte, packetLength), stale.Append(nil), stray.Append(nil)}
	near := func(d, was Discards) bool { return d.Malformed > was.Malformed && d.Discriminator > was.Discriminator }
	for _, c := range []struct {
		ttl      int
		from, to string
		payloads [][]byte
		counted  func(now, before Discards) bool
	}{
		{255, "10.0.1.2:0", "10.0.1.1:3784", strange, near},
		{64, "10.0.1.2:0", "10.0.1.1:3784", slices.Concat(strange, [][]byte{good.Append(nil)}), func(d, was Discards) bool { return d.TTL > was.TTL }},
		{255, "[fd00:1::2]:0", "[fd00:1::1]:3784", strange, near},
		{255, "10.0.9.2:0", "10.0.9.1:4784", strange, near},
		{255, "10.0.3.1:0", "10.0.1.1:3784", strange, func(d, was Discards) bool { return d.Strangers > was.Strangers }},
	} {
		raw, was := newRaw(t, "tor", c.from, c.ttl), s.Discards()
		each := func() {
			for _, p := range c.payloads {
				raw.send(t, c.to, p)
			}
		}
		for range 300 {
			each()
		}
		eventually(t, fmt.Sprintf("those from %s with TTL %d are counted", c.from, c.ttl), func() bool {
			each()
			return c.counted(s.Discards(), was)
		})
	}
	s.steady(t, before)
	t.Logf("%+v", s.Discards())
}
