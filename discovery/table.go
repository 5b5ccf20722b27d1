package discovery

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// advertEvery is the time between two advertisements of this node, less up to a
	// quarter.
	advertEvery = 10 * time.Second
	// firstAdverts follow each other by burstEvery (RFC 4861, section 6.2.4).
	firstAdverts = 3
	burstEvery   = 3 * time.Second
	// solicitFirst is the time between the first two solicitations, which doubles up
	// to solicitMost (in the manner of RFC 7559).
	solicitFirst = time.Second
	solicitMost  = 10 * time.Second
	// echoAfter is how long a router has to advertise itself before all routers are
	// asked for an echo.
	echoAfter = time.Second / 2
	// contestTime is how long the router that was chosen has to say something after
	// another one did.
	contestTime = 5 * time.Second
	// answerEvery is the least time between two answers to what others send.
	answerEvery = time.Second
	// maxHeard bounds how many routers are remembered of a link.
	maxHeard = 16
	// heardFor is how long a router counts that says nothing more.
	heardFor = 10 * time.Minute
)

// message is what this node sends.
type message int

const (
	advert message = iota
	solicit
	echo
)

// end is this node's end of a link; the zero value while nothing can be sent.
type end struct {
	index int
	own   netip.Addr // its link-local address
}

func (e end) usable() bool { return e.own.IsValid() }

// table is what is known of a link. It is pure: time and jitter are passed in.
type table struct {
	end    end
	lost   int // how often a usable end was lost
	chosen netip.Addr
	heard  map[netip.Addr]time.Time // since the end is as it is
	// contest is since when another router than the chosen one is heard; zero for no
	// such time.
	contest time.Time

	since       time.Time // the end is as it is
	advertised  int       // since then
	nextAdvert  time.Time
	nextSolicit time.Time
	pause       time.Duration // after the next solicitation
	answered    time.Time
	jitter      func(most time.Duration) time.Duration
}

// setEnd says how the link is now, and whether that is a change.
func (t *table) setEnd(e end, now time.Time) bool {
	if e == t.end {
		return false
	}
	if t.end.usable() {
		t.lost++
	}
	t.end, t.heard, t.contest = e, nil, time.Time{}
	t.since, t.advertised, t.nextAdvert = now, 0, now
	t.search(now)
	return true
}

// search begins to solicit.
func (t *table) search(now time.Time) { t.nextSolicit, t.pause = now, solicitFirst }

// hear says that a router sent something, and whether that changes what is known.
func (t *table) hear(a netip.Addr, now time.Time) bool {
	if !t.end.usable() || a == t.end.own {
		return false
	}
	_, known := t.heard[a]
	if !known && len(t.heard) >= maxHeard {
		return false
	}
	if t.heard == nil {
		t.heard = make(map[netip.Addr]time.Time)
	}
	t.heard[a] = now
	if !known && now.Sub(t.answered) >= answerEvery {
		t.answered, t.nextAdvert = now, now // it may have come up after the last one
	}
	switch {
	case !t.chosen.IsValid():
		t.chosen = a
		return true
	case a != t.chosen && t.contest.IsZero():
		t.contest = now
		t.search(now)
	}
	return !known
}

// asked says that somebody solicits an advertisement.
func (t *table) asked(now time.Time) {
	if now.Sub(t.answered) >= answerEvery {
		t.answered, t.nextAdvert = now, now
	}
}

// settle ends a contest whose time is over, and says whether another router is
// chosen. One that holds says is there stays.
func (t *table) settle(now time.Time, holds func(netip.Addr) bool) bool {
	for a, at := range t.heard {
		if now.Sub(at) > heardFor {
			delete(t.heard, a)
		}
	}
	if t.contest.IsZero() || now.Sub(t.contest) < contestTime {
		return false
	}
	begun := t.contest
	t.contest = time.Time{}
	if at, heard := t.heard[t.chosen]; heard && !at.Before(begun) || holds(t.chosen) {
		return false
	}
	delete(t.heard, t.chosen)
	if others := t.others(); len(others) > 0 {
		t.chosen = others[0]
		return true
	}
	return false
}

// others are the routers that were heard beside the chosen one, sorted.
func (t *table) others() []netip.Addr {
	var list []netip.Addr
	for a := range t.heard {
		if a != t.chosen {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// due is what to send now.
func (t *table) due(now time.Time) []message {
	if !t.end.usable() {
		return nil
	}
	var out []message
	if !now.Before(t.nextAdvert) {
		out = append(out, advert)
		pause := advertEvery - t.jitter(advertEvery/4)
		if t.advertised++; t.advertised < firstAdverts {
			pause = burstEvery
		}
		t.nextAdvert = now.Add(pause)
	}
	if _, heard := t.heard[t.chosen]; heard && t.contest.IsZero() || now.Before(t.nextSolicit) {
		return out
	}
	out = append(out, solicit)
	if now.Sub(t.since) >= echoAfter {
		out = append(out, echo)
	}
	t.nextSolicit = now.Add(t.pause - t.jitter(t.pause/4))
	t.pause = min(2*t.pause, solicitMost)
	return out
}
