package bfd

import "time"

const (
	// slow is the least interval of a session that is not up (RFC 5880 section
	// 6.8.3).
	slow = time.Second
	// longestFarewell bounds for how long a peer that says nothing is told of
	// AdminDown, whatever it asks for.
	longestFarewell = 10 * time.Second
)

// Timers are what one side of a session asks for. A change of them leaves a
// session up.
type Timers struct {
	// MinTx is the least interval between packets that this side likes to
	// send, and MinRx the least between packets that it can take, in whole
	// microseconds. Packets go at the larger of one side's MinTx and the
	// other's MinRx, and at one in a second until the session is up.
	MinTx, MinRx time.Duration
	// Multiplier is how many packets in a row the other side must miss to
	// call the path down.
	Multiplier uint8
}

// Status is what a session knows.
type Status struct {
	State            State
	RemoteState      State
	Diagnostic       Diagnostic // why State was reached
	RemoteDiagnostic Diagnostic // the last one heard
	Since            time.Time  // when State was reached
	// Heard is when the last packet came that counted; zero is never.
	Heard time.Time
	// Failures counts how often the session was Up and lost the path, as told
	// in the package's comment.
	Failures uint64
	// Interval is the one between packets sent, before jitter; 0 is none.
	Interval time.Duration
	// Detection is how long the peer may be silent; 0 while nothing is heard
	// of it.
	Detection time.Duration
	// RemoteControlPlaneIndependent is the C bit last heard.
	RemoteControlPlaneIndependent bool
}

// Step is what a Session wants done after it was told something.
type Step struct {
	Send    bool   // Packet is to be sent, now
	Packet  Packet // if Send
	Changed bool   // the state is another one: see Status
}

// Session is the state machine of RFC 5880 section 6.8, in the active role and
// asynchronous mode. It is a pure value: the same calls give the same steps.
// Whoever runs it calls Tick at Deadline or soon after and Receive for each
// packet of the session, and sends what the steps say. Not safe for use by
// several goroutines.
type Session struct {
	local       uint32 // our discriminator
	independent bool
	asked       Timers
	random      func() float64

	status      Status
	remote      uint32 // the peer's discriminator; 0 while nothing is heard of it
	remoteAsked Timers
	demand      bool // the peer asked for demand mode

	inForce Timers // MinTx and MinRx that count: see settle
	polling bool   // a Poll Sequence for polled is under way
	polled  Timers

	heard   time.Time     // when the last packet came; zero when remote is 0
	sent    time.Time     // when the last packet but a Final one left
	next    time.Time     // when the next periodic packet is due
	spacing time.Duration // the interval that next was made of
	shut    time.Time     // when AdminDown began
}

// NewSession gives a session in state Down whose first packet is due at now.
// local is its discriminator, not 0 and no other session's. independent
// is the C bit: forwarding outlives the program that runs the session. random
// gives numbers from 0 to less than 1 for the jitter.
func NewSession(now time.Time, local uint32, t Timers, independent bool, random func() float64) *Session {
	s := &Session{local: local, independent: independent, asked: t, random: random, next: now}
	s.status.State, s.status.Since = Down, now
	s.forget()
	s.settle()
	return s
}

// Status gives what the session knows.
func (s *Session) Status() Status {
	st := s.status
	st.Interval, st.Detection = s.interval(), s.detection()
	if s.quiet() {
		st.Interval = 0
	}
	return st
}

// Deadline is when Tick has something to do; zero is never.
func (s *Session) Deadline() time.Time {
	earliest := time.Time{}
	consider := func(t time.Time) {
		if earliest.IsZero() || t.Before(earliest) {
			earliest = t
		}
	}
	if !s.quiet() {
		consider(s.next)
	}
	if !s.heard.IsZero() {
		consider(s.heard.Add(s.detection()))
	}
	if s.status.State == AdminDown {
		consider(s.farewell())
	}
	return earliest
}

// Expired says whether the Detection Time is over at now: a Tick takes the
// session down, a packet that came in the meantime would save it.
func (s *Session) Expired(now time.Time) bool {
	return !s.heard.IsZero() && !now.Before(s.heard.Add(s.detection()))
}

// Tick does what is due at now.
func (s *Session) Tick(now time.Time) Step {
	before := s.status.State
	if s.Expired(now) {
		s.forget()
		if before == Init || before == Up {
			s.become(now, Down, DetectionExpired)
		}
		s.settle()
		s.reschedule()
	}
	changed := s.status.State != before
	if changed || !s.quiet() && !now.Before(s.next) {
		return Step{Send: true, Packet: s.emit(now), Changed: changed}
	}
	return Step{}
}

// Receive takes a packet that passed Parse (RFC 5880 section 6.8.6, from the
// selection of the session on). One that is meant for another session is
// discarded.
func (s *Session) Receive(now time.Time, p Packet) Step {
	if p.YourDiscriminator != 0 && p.YourDiscriminator != s.local {
		return Step{}
	}
	before := s.status.State
	s.learn(now, p)
	if p.Final && s.polling {
		s.pollDone()
	}
	s.transit(now, p.State)
	s.settle()
	changed := s.status.State != before
	switch {
	case s.status.State == AdminDown:
	case p.Poll:
		if changed {
			s.emit(now) // the Final packet below says as much
		}
		s.reschedule()
		final := s.packet()
		final.Poll, final.Final = false, true
		return Step{Send: true, Packet: final, Changed: changed}
	case changed:
		return Step{Send: true, Packet: s.emit(now), Changed: true}
	}
	s.reschedule()
	return Step{}
}

// learn takes over what a packet says of the peer.
func (s *Session) learn(now time.Time, p Packet) {
	s.heard, s.status.Heard = now, now
	s.remote = p.MyDiscriminator
	s.remoteAsked = Timers{MinTx: p.DesiredMinTx, MinRx: p.RequiredMinRx, Multiplier: p.Multiplier}
	s.demand = p.Demand
	s.status.RemoteState = p.State
	s.status.RemoteDiagnostic = p.Diagnostic
	s.status.RemoteControlPlaneIndependent = p.ControlPlaneIndependent
}

// forget is for a peer of which nothing was heard for a Detection Time.
func (s *Session) forget() {
	s.heard = time.Time{}
	s.remote, s.demand = 0, false
	s.remoteAsked = Timers{MinRx: time.Microsecond}
	s.status.RemoteState = Down
}

// transit is the state machine of RFC 5880 section 6.2.
func (s *Session) transit(now time.Time, remote State) {
	switch local := s.status.State; {
	case local == AdminDown:
	case remote == AdminDown:
		if local != Down {
			s.become(now, Down, NeighborDown)
		}
	case local == Down && remote == Down:
		s.become(now, Init, NoDiagnostic)
	case local == Down && remote == Init, local == Init && remote >= Init:
		s.become(now, Up, NoDiagnostic)
	case local == Up && remote == Down:
		s.become(now, Down, NeighborDown)
	}
}

// become changes the state.
func (s *Session) become(now time.Time, state State, why Diagnostic) {
	if s.status.State == Up && state == Down && s.status.RemoteState != AdminDown {
		s.status.Failures++
	}
	s.status.State, s.status.Diagnostic, s.status.Since = state, why, now
}

// Adjust asks for other timers. An Up session negotiates them by a Poll
// Sequence and stays up.
func (s *Session) Adjust(t Timers) {
	s.asked = t
	s.settle()
	s.reschedule()
}

// SetControlPlaneIndependent changes the C bit of the packets to come.
func (s *Session) SetControlPlaneIndependent(independent bool) { s.independent = independent }

// Shut takes the session to AdminDown, for good: the peer learns that this is
// no failure (RFC 5880 section 6.8.16). The session should run on until Over.
func (s *Session) Shut(now time.Time) Step {
	if s.status.State == AdminDown {
		return Step{}
	}
	s.become(now, AdminDown, AdministratorDown)
	s.shut = now
	s.settle()
	return Step{Send: true, Packet: s.emit(now), Changed: true}
}

// Over says whether a session that was Shut may be forgotten: the peer knows,
// there is none, or it was told for a Detection Time.
func (s *Session) Over(now time.Time) bool {
	if s.status.State != AdminDown {
		return false
	}
	return s.remote == 0 || s.status.RemoteState <= Down || !now.Before(s.farewell())
}

// farewell is when the peer's Detection Time is over after a Shut.
func (s *Session) farewell() time.Time {
	return s.shut.Add(min(time.Duration(s.asked.Multiplier)*s.interval(), longestFarewell))
}

// wanted is what this side announces in its present state.
func (s *Session) wanted() Timers {
	t := s.asked
	if s.status.State != Up {
		t.MinTx = max(t.MinTx, slow)
	}
	return t
}

// settle works out which timers count after the state or asked changed. While
// the session is up a longer MinTx and a shorter MinRx count only when the
// peer has confirmed them by the end of a Poll Sequence (RFC 5880 section
// 6.8.3). A session that is not up needs none: its handshake tells the timers.
func (s *Session) settle() {
	want := s.wanted()
	if s.status.State != Up {
		s.inForce, s.polling = want, false
		return
	}
	if !s.polling && (want.MinTx != s.inForce.MinTx || want.MinRx != s.inForce.MinRx) {
		s.polling, s.polled = true, want
	}
	s.inForce.MinTx = min(s.inForce.MinTx, want.MinTx)
	s.inForce.MinRx = max(s.inForce.MinRx, want.MinRx)
}

// pollDone puts in force what the peer has confirmed, as far as it is still
// wanted. What was asked for in the meantime takes another Poll Sequence, which
// settle begins.
func (s *Session) pollDone() {
	want := s.wanted()
	s.inForce.MinTx = min(s.polled.MinTx, want.MinTx)
	s.inForce.MinRx = max(s.polled.MinRx, want.MinRx)
	s.polling = false
}

// interval between periodic packets (RFC 5880 section 6.8.7), before jitter.
func (s *Session) interval() time.Duration { return max(s.inForce.MinTx, s.remoteAsked.MinRx) }

// detection is the Detection Time (RFC 5880 section 6.8.4); 0 while nothing is
// heard of the peer.
func (s *Session) detection() time.Duration {
	return time.Duration(s.remoteAsked.Multiplier) * max(s.inForce.MinRx, s.remoteAsked.MinTx)
}

// quiet says whether the peer wants no periodic packets.
func (s *Session) quiet() bool {
	inDemand := s.demand && s.status.State == Up && s.status.RemoteState == Up && !s.polling
	return s.remoteAsked.MinRx == 0 || inDemand
}

// jittered shortens an interval by up to a quarter, and by a tenth at least
// where one lost packet is a failure (RFC 5880 section 6.8.7).
func (s *Session) jittered(d time.Duration) time.Duration {
	spread := 0.25
	if s.asked.Multiplier == 1 {
		spread = 0.15
	}
	return time.Duration(float64(d) * (0.75 + spread*s.random()))
}

// reschedule makes a changed interval count from the last packet on.
func (s *Session) reschedule() {
	if d := s.interval(); d != s.spacing && !s.sent.IsZero() {
		s.spacing, s.next = d, s.sent.Add(s.jittered(d))
	}
}

// emit gives the packet that leaves now and plans the next one.
func (s *Session) emit(now time.Time) Packet {
	s.sent, s.spacing = now, s.interval()
	s.next = now.Add(s.jittered(s.spacing))
	return s.packet()
}

func (s *Session) packet() Packet {
	want := s.wanted()
	return Packet{
		Diagnostic:              s.status.Diagnostic,
		State:                   s.status.State,
		Poll:                    s.polling,
		ControlPlaneIndependent: s.independent,
		Multiplier:              want.Multiplier,
		MyDiscriminator:         s.local,
		YourDiscriminator:       s.remote,
		DesiredMinTx:            want.MinTx,
		RequiredMinRx:           want.MinRx,
	}
}
