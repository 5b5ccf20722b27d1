package bfd

import (
	"fmt"
	"testing"
	"time"
)

const (
	ours   = 11
	theirs = 22
)

// start is when the tests' time begins.
func start() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }

func fast() Timers {
	return Timers{MinTx: 50 * time.Millisecond, MinRx: 50 * time.Millisecond, Multiplier: 3}
}

// fixed is no jitter: intervals are what they are at most.
func fixed() float64 { return 1 }

func newTestSession() *Session { return NewSession(start(), ours, fast(), false, fixed) }

// says is a packet of a peer with the timers of fast.
func says(state State) Packet {
	p := Packet{State: state, Multiplier: 3, MyDiscriminator: theirs, YourDiscriminator: ours, DesiredMinTx: time.Second, RequiredMinRx: 50 * time.Millisecond}
	if state == Up {
		p.DesiredMinTx = 50 * time.Millisecond
	}
	return p
}

// in gives a session in a state, and the time.
func in(t *testing.T, state State) (*Session, time.Time) {
	t.Helper()
	s, now := newTestSession(), start()
	s.Tick(now)
	switch state {
	case AdminDown:
		s.Shut(now)
	case Init:
		s.Receive(now, says(Down))
	case Up:
		s.Receive(now, says(Init))
		final := says(Up)
		final.Final = true
		s.Receive(now, final)
	}
	if got := s.Status().State; got != state {
		t.Fatalf("state %s, want %s", got, state)
	}
	return s, now
}

// The table of RFC 5880 section 6.8.6 and the diagram of section 6.2.
func TestStateMachine(t *testing.T) {
	for _, c := range []struct {
		local, hears, becomes State
		why                   Diagnostic
		failures              uint64
	}{
		{Down, AdminDown, Down, NoDiagnostic, 0},
		{Down, Down, Init, NoDiagnostic, 0},
		{Down, Init, Up, NoDiagnostic, 0},
		{Down, Up, Down, NoDiagnostic, 0},
		{Init, AdminDown, Down, NeighborDown, 0},
		{Init, Down, Init, NoDiagnostic, 0},
		{Init, Init, Up, NoDiagnostic, 0},
		{Init, Up, Up, NoDiagnostic, 0},
		{Up, AdminDown, Down, NeighborDown, 0},
		{Up, Down, Down, NeighborDown, 1},
		{Up, Init, Up, NoDiagnostic, 0},
		{Up, Up, Up, NoDiagnostic, 0},
		{AdminDown, AdminDown, AdminDown, AdministratorDown, 0},
		{AdminDown, Down, AdminDown, AdministratorDown, 0},
		{AdminDown, Init, AdminDown, AdministratorDown, 0},
		{AdminDown, Up, AdminDown, AdministratorDown, 0},
	} {
		t.Run(fmt.Sprintf("%s hears %s", c.local, c.hears), func(t *testing.T) {
			s, now := in(t, c.local)
			step := s.Receive(now, says(c.hears))
			st := s.Status()
			if st.State != c.becomes || st.Diagnostic != c.why || st.Failures != c.failures {
				t.Errorf("became %+v, want %s, %s, %d failures", st, c.becomes, c.why, c.failures)
			}
			changed := c.local != c.becomes
			if step.Changed != changed || step.Send != changed {
				t.Errorf("step %+v: want a packet at once exactly on a change", step)
			}
			if changed && (step.Packet.State != c.becomes || step.Packet.Diagnostic != c.why || step.Packet.YourDiscriminator != theirs) {
				t.Errorf("said %+v", step.Packet)
			}
		})
	}
}

func TestDetectionTime(t *testing.T) {
	for _, c := range []struct {
		state, becomes State
		after          time.Duration
		failures       uint64
	}{
		{Init, Down, 3 * time.Second, 0}, // the peer is at its slow rate
		{Up, Down, 150 * time.Millisecond, 1},
	} {
		s, now := in(t, c.state)
		if st := s.Status(); st.Detection != c.after {
			t.Errorf("%s: detection time %s, want %s", c.state, st.Detection, c.after)
		}
		s.Tick(now.Add(c.after - 1))
		if st := s.Status(); st.State != c.state {
			t.Errorf("%s: %+v before its time", c.state, st)
		}
		step := s.Tick(now.Add(c.after))
		st := s.Status()
		if st.State != c.becomes || st.Diagnostic != DetectionExpired || st.Failures != c.failures || st.Detection != 0 {
			t.Errorf("%s: became %+v", c.state, st)
		}
		if !step.Send || !step.Changed || step.Packet.YourDiscriminator != 0 || step.Packet.DesiredMinTx != time.Second {
			t.Errorf("%s: said %+v, want Down at the slow rate to an unknown peer", c.state, step)
		}
	}
}

// A packet that comes late, before the tick, saves the session.
func TestLatePacketCounts(t *testing.T) {
	s, now := in(t, Up)
	now = now.Add(time.Second)
	if !s.Expired(now) {
		t.Error("not expired")
	}
	s.Receive(now, says(Up))
	s.Tick(now)
	if st := s.Status(); st.State != Up || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
}

// ticks runs the session alone for a while, with the peer saying Up often
// enough, and gives the times between its packets.
func ticks(s *Session, now time.Time, d time.Duration, peer Packet) (gaps []time.Duration, last Packet) {
	sent, end := time.Time{}, now.Add(d)
	for now.Before(end) {
		if !peer.Final {
			s.Receive(now, peer)
		}
		if step := s.Tick(now); step.Send {
			if !sent.IsZero() {
				gaps = append(gaps, now.Sub(sent))
			}
			sent, last = now, step.Packet
		}
		now = now.Add(time.Millisecond)
	}
	return gaps, last
}

func TestIntervalsAndJitter(t *testing.T) {
	for _, c := range []struct {
		multiplier  uint8
		remoteRx    time.Duration
		least, most float64
	}{
		{3, 50 * time.Millisecond, 0.75, 1},
		{3, 200 * time.Millisecond, 0.75, 1},
		{1, 100 * time.Millisecond, 0.75, 0.9},
	} {
		number := 0
		random := func() float64 { number++; return float64(number%101) / 101 }
		timers := fast()
		timers.Multiplier = c.multiplier
		s := NewSession(start(), ours, timers, false, random)
		peer := says(Init)
		peer.RequiredMinRx = c.remoteRx
		s.Receive(start(), peer)
		peer.State, peer.Final = Up, true
		s.Receive(start(), peer)
		peer.Final = false
		gaps, _ := ticks(s, start(), 10*time.Second, peer)
		least, most := time.Hour, time.Duration(0)
		for _, g := range gaps[1:] {
			least, most = min(least, g), max(most, g)
		}
		low, high := time.Duration(c.least*float64(c.remoteRx)), time.Duration(c.most*float64(c.remoteRx))
		if least < low || most > high+time.Millisecond || most-least < (high-low)/2 {
			t.Errorf("multiplier %d, peer takes one in %s: packets %s to %s apart, want all of %s to %s", c.multiplier, c.remoteRx, least, most, low, high)
		}
	}
}

func TestSlowUntilUp(t *testing.T) {
	s := newTestSession()
	gaps, last := ticks(s, start(), 5*time.Second, Packet{Final: true})
	if len(gaps) != 4 || gaps[0] != time.Second || last.DesiredMinTx != time.Second || last.RequiredMinRx != 50*time.Millisecond {
		t.Errorf("gaps %v, last %+v", gaps, last)
	}
}

// Up brings the short interval with a Poll Sequence that goes on until the
// Final packet.
func TestPollOnUp(t *testing.T) {
	s, now := newTestSession(), start()
	step := s.Receive(now, says(Init))
	if !step.Packet.Poll || step.Packet.DesiredMinTx != 50*time.Millisecond {
		t.Errorf("said %+v, want a poll with the short interval", step.Packet)
	}
	if _, last := ticks(s, now, 200*time.Millisecond, says(Up)); !last.Poll {
		t.Error("the poll ended without an answer")
	}
	now = now.Add(200 * time.Millisecond)
	final := says(Up)
	final.Final = true
	s.Receive(now, final)
	if _, last := ticks(s, now, 200*time.Millisecond, says(Up)); last.Poll {
		t.Error("the poll goes on after its answer")
	}
}

// A longer interval and a shorter wait count only once the peer knows; the
// other way round at once (RFC 5880 section 6.8.3).
func TestAdjust(t *testing.T) {
	const short, long = 50 * time.Millisecond, 400 * time.Millisecond
	up := func() *Session { s, _ := in(t, Up); return s }
	final := says(Up)
	final.Final = true
	final.DesiredMinTx = 10 * time.Millisecond // its own interval does not count

	s := up()
	s.Adjust(Timers{MinTx: long, MinRx: short, Multiplier: 3})
	if st := s.Status(); st.Interval != short {
		t.Errorf("longer MinTx: interval %s before the peer knows", st.Interval)
	}
	s.Receive(start(), final)
	if st := s.Status(); st.Interval != long || st.State != Up {
		t.Errorf("longer MinTx: %+v", st)
	}
	s.Adjust(Timers{MinTx: short, MinRx: short, Multiplier: 3})
	if st := s.Status(); st.Interval != short {
		t.Errorf("shorter MinTx: %+v", st)
	}

	s = up()
	s.Receive(start(), final)
	s.Adjust(Timers{MinTx: short, MinRx: long, Multiplier: 3})
	if st := s.Status(); st.Detection != 3*long {
		t.Errorf("longer MinRx: %+v", st)
	}
	s.Receive(start(), final)
	s.Adjust(Timers{MinTx: short, MinRx: short, Multiplier: 3})
	if st := s.Status(); st.Detection != 3*long {
		t.Errorf("shorter MinRx: detection %s before the peer knows", st.Detection)
	}
	s.Receive(start(), final)
	if st := s.Status(); st.Detection != 3*short || st.State != Up || st.Failures != 0 {
		t.Errorf("shorter MinRx: %+v", st)
	}
}

// What is asked for during a Poll Sequence takes another one.
func TestAdjustDuringPoll(t *testing.T) {
	const step = 100 * time.Millisecond
	s, now := in(t, Up)
	final := says(Up)
	final.Final = true
	s.Adjust(Timers{MinTx: 2 * step, MinRx: step, Multiplier: 3})
	s.Adjust(Timers{MinTx: 4 * step, MinRx: step, Multiplier: 3})
	s.Receive(now, final)
	if st := s.Status(); st.Interval != 2*step {
		t.Errorf("after the first poll: interval %s, want what it was for", st.Interval)
	}
	if _, last := ticks(s, now, time.Second, says(Up)); !last.Poll {
		t.Error("no second poll")
	}
	s.Receive(now, final)
	if st := s.Status(); st.Interval != 4*step {
		t.Errorf("after the second poll: interval %s", st.Interval)
	}
}

func TestPollIsAnsweredAtOnce(t *testing.T) {
	s, now := in(t, Up)
	poll := says(Up)
	poll.Poll, poll.DesiredMinTx = true, 400*time.Millisecond
	step := s.Receive(now, poll)
	if !step.Send || !step.Packet.Final || step.Packet.Poll || step.Changed {
		t.Errorf("answered %+v", step)
	}
	if st := s.Status(); st.Detection != 1200*time.Millisecond {
		t.Errorf("detection time %s, want three of the peer's new intervals", st.Detection)
	}
	s, now = in(t, Down)
	poll = says(Down)
	poll.Poll = true
	if step := s.Receive(now, poll); !step.Packet.Final || step.Packet.State != Init || !step.Changed {
		t.Errorf("answered %+v, want one packet that is Final and says Init", step)
	}
}

// A peer that takes no periodic packets gets none, but a change of state.
func TestPeerThatTakesNone(t *testing.T) {
	s, now := in(t, Up)
	peer := says(Up)
	peer.RequiredMinRx = 0
	s.Receive(now, peer)
	if gaps, last := ticks(s, now, 5*time.Second, peer); len(gaps) > 0 || last.MyDiscriminator != 0 {
		t.Errorf("it was sent %v, %+v", gaps, last)
	}
	if st := s.Status(); st.Interval != 0 || st.State != Up {
		t.Errorf("%+v", st)
	}
	if step := s.Shut(now.Add(5 * time.Second)); !step.Send {
		t.Error("it was not told AdminDown")
	}
	s, now = in(t, Up)
	s.Receive(now, peer)
	s.Tick(now.Add(time.Second)) // it is gone, and with it what it asked for
	if gaps, _ := ticks(s, now.Add(time.Second), 5*time.Second, Packet{Final: true}); len(gaps) < 3 {
		t.Errorf("packets %v apart to a peer that may be back: want the slow rate", gaps)
	}
}

// A peer in demand mode gets periodic packets only while the session is not up
// and during a Poll Sequence (RFC 5880 section 6.6).
func TestDemand(t *testing.T) {
	s, now := in(t, Up)
	peer := says(Up)
	peer.Demand = true
	s.Receive(now, peer)
	if gaps, _ := ticks(s, now, time.Second, peer); len(gaps) > 0 {
		t.Errorf("periodic packets %v apart", gaps)
	}
	now = now.Add(time.Second)
	s.Adjust(Timers{MinTx: 100 * time.Millisecond, MinRx: 50 * time.Millisecond, Multiplier: 3})
	if gaps, last := ticks(s, now, time.Second, peer); len(gaps) < 5 || !last.Poll {
		t.Errorf("packets %v apart, last %+v: want a Poll Sequence", gaps, last)
	}
	final := peer
	final.Final = true
	s.Receive(now.Add(time.Second), final)
	if gaps, _ := ticks(s, now.Add(time.Second), time.Second, peer); len(gaps) > 0 {
		t.Errorf("packets %v apart after the Poll Sequence", gaps)
	}
	poll := peer
	poll.Poll = true
	if step := s.Receive(now.Add(2*time.Second), poll); !step.Packet.Final {
		t.Errorf("a poll in demand mode was answered with %+v", step)
	}
}

func TestShut(t *testing.T) {
	s, now := in(t, Up)
	step := s.Shut(now)
	if !step.Send || step.Packet.State != AdminDown || step.Packet.Diagnostic != AdministratorDown || step.Packet.DesiredMinTx != time.Second {
		t.Errorf("said %+v", step)
	}
	if s.Over(now) {
		t.Error("over before the peer knows")
	}
	if step := s.Shut(now); step.Send || step.Changed {
		t.Errorf("shut twice: %+v", step)
	}
	s.Receive(now, says(Up)) // on its way before the peer knew
	if s.Over(now) {
		t.Error("over while the peer is up")
	}
	s.Receive(now, says(Down))
	if !s.Over(now) || s.Status().Failures != 0 {
		t.Errorf("not over when the peer knows: %+v", s.Status())
	}

	s, now = in(t, Up)
	s.Shut(now)
	gaps, last := ticks(s, now, 2900*time.Millisecond, says(Up))
	if len(gaps) != 1 || last.State != AdminDown || s.Over(now.Add(2900*time.Millisecond)) {
		t.Errorf("a peer that does not hear: packets %v apart, %+v", gaps, last)
	}
	if end := now.Add(3 * time.Second); !s.Over(end) || s.Deadline().After(end) {
		t.Errorf("not over after the peer's Detection Time; due at %s", s.Deadline())
	}
	s, now = in(t, Down)
	s.Shut(now)
	if !s.Over(now) {
		t.Error("not over without a peer")
	}
}

// A peer that was restarted is another one, whatever this side believed.
func TestPeerRestarts(t *testing.T) {
	s, now := in(t, Up)
	again := says(Down)
	again.MyDiscriminator, again.YourDiscriminator = theirs+1, 0
	step := s.Receive(now, again)
	if st := s.Status(); st.State != Down || st.Diagnostic != NeighborDown || st.Failures != 1 || step.Packet.YourDiscriminator != theirs+1 {
		t.Errorf("became %+v, said %+v", st, step.Packet)
	}
	if step := s.Receive(now, again); s.Status().State != Init || step.Packet.State != Init {
		t.Errorf("became %+v, said %+v", s.Status(), step.Packet)
	}
}

func TestPacketOfAnotherSession(t *testing.T) {
	s, now := in(t, Up)
	other := says(Down)
	other.YourDiscriminator = ours + 1
	if step := s.Receive(now, other); step != (Step{}) || s.Status().State != Up {
		t.Errorf("it counted: %+v, %+v", step, s.Status())
	}
}
