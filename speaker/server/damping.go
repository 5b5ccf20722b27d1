package server

import (
	"fmt"
	"time"

	"github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// patience is how long a router has no session after one that this node ended over what
// the router said in it (DampPeerOscillations of RFC 4271, section 8.1.1): first, then
// twice as long each time, up to most. A session that stood for settled makes up for
// those before it. All are whole seconds.
type patience struct{ first, most, settled time.Duration }

// usualPatience keeps a router out for less than the time that it goes on with this
// node's routes without a session, which is two minutes unless it is configured.
func usualPatience() patience {
	return patience{first: 5 * time.Second, most: 80 * time.Second, settled: 5 * time.Minute}
}

// damping is what the sessions of a router that ended so have come to.
type damping struct {
	blamed bool // the session that is up is being ended so
	times  int  // in a row
	pause  time.Duration
	until  time.Time // the end of the pause
}

// after is the damping after one more such session, which stood for so long.
func (d damping) after(p patience, stood time.Duration, now time.Time) damping {
	if stood >= p.settled {
		d = damping{}
	}
	pause := min(max(2*d.pause, p.first), p.most)
	return damping{times: d.times + 1, pause: pause, until: now.Add(pause)}
}

// rests says whether there is to be no session.
func (d damping) rests(now time.Time) bool { return now.Before(d.until) }

// words follow those for the end of a session.
func (d damping) words(now time.Time) string {
	if !d.rests(now) {
		return ""
	}
	return fmt.Sprintf("; held off for %v, as %d in a row ended so", d.pause, d.times)
}

// blames says whether a NOTIFICATION of this node is about what the router said: the form
// of its messages, what they hold, their order. OPENs are not among it, as people mend
// what is wrong with them on either side.
func blames(f log.Fields) bool {
	code, _ := f["Code"].(uint8)
	switch code {
	case bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, bgp.BGP_ERROR_FSM_ERROR, bgp.BGP_ERROR_ROUTE_REFRESH_MESSAGE_ERROR:
		return true
	}
	return false
}

// blame records that the session with a router is being ended over what it said.
func (l *ledger) blame(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[address]; s != nil && s.up {
		s.damped.blamed = true
	}
}

// damp records that the session with a router, which the ledger has as up still, has
// ended, and gives for how long there shall be no other; 0 if nobody is to blame.
func (l *ledger) damp(address string, now time.Time) damping {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || !s.up || !s.damped.blamed {
		return damping{}
	}
	s.damped = s.damped.after(l.patience, now.Sub(s.since), now)
	time.AfterFunc(s.damped.pause, l.callTend)
	return s.damped
}

// isExcess says whether a router of a range has a connection that it is not to have.
func (l *ledger) isExcess(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	return s != nil && s.excess
}

// rest makes GoBGP stay idle for a pause before it begins another session with a router:
// it neither dials nor takes a connection. Only the line of its log that says that a
// session has ended may call it, as it comes before the router's idle time is begun and
// with the lock of its record held. It is a second more than the pause: a router that
// is to be told of the restart bit is put back in that, see lostBits.
func (gs *guards) rest(address string, pause time.Duration) {
	machine, ok := gs.machine(address)
	if !ok {
		return
	}
	idle := (*float64)(machine.FieldByName(fieldIdle).Addr().UnsafePointer())
	*idle = (pause + time.Second).Seconds()
}

// cut closes the connection of a router before anything was said on it.
func (gs *guards) cut(address string) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g := gs.on[address]; g != nil {
		_ = g.Close() // GoBGP finds out when it reads
	}
}
