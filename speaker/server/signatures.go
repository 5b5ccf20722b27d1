package server

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

const (
	// netstat has the kernel's counters of this network namespace.
	netstat = "/proc/thread-self/net/netstat"
	// signatureTime is how often they are read while a router is waited for that may dial.
	signatureTime = 3 * time.Second
	// suspicionTime is for how long State has words about a Range whose routers may not
	// get in, after the last segment that was dropped: a router tries again within two
	// minutes.
	suspicionTime = 5 * time.Minute
)

// signatures count the TCP segments that the kernel has dropped since boot for their
// signature (RFC 2385), of whomever: to nobody else does it say that they came.
type signatures struct {
	wrong      uint64 // not as the password makes it
	missing    uint64 // there is a password for the sender
	unexpected uint64 // there is none
}

// since are those that were dropped after a count of before.
func (s signatures) since(before signatures) signatures {
	return signatures{s.wrong - before.wrong, s.missing - before.missing, s.unexpected - before.unexpected}
}

func (s signatures) plus(more signatures) signatures {
	return signatures{s.wrong + more.wrong, s.missing + more.missing, s.unexpected + more.unexpected}
}

// suspicion is what the drops may mean for a router that is waited for, and "" if they
// are none of one with, or without, a password.
func (s signatures) suspicion(signed bool) string {
	const dropped = " were dropped on this node, and the kernel does not say whose: "
	var kinds []string
	if s.wrong > 0 {
		kinds = append(kinds, "with a wrong TCP MD5 signature")
	}
	if s.missing > 0 {
		kinds = append(kinds, "without the TCP MD5 signature that a password asks for")
	}
	switch {
	case signed && len(kinds) > 0:
		return "segments " + strings.Join(kinds, ", and others ") + dropped + "see that the router has the same password"
	case !signed && s.unexpected > 0:
		return "segments with a TCP MD5 signature that no password is set for" + dropped + "set the router's password here, or take it from the router"
	}
	return ""
}

// countSignatures reads them out of the kernel's text: lines in pairs, the first of which
// names what the second counts. A kernel that lacks one never drops for it.
func countSignatures(text []byte) (s signatures, err error) {
	counters := map[string]*uint64{"TCPMD5Failure": &s.wrong, "TCPMD5NotFound": &s.missing, "TCPMD5Unexpected": &s.unexpected}
	var names [][]byte
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || string(fields[0]) != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names[:min(len(names), len(fields))] {
			if counter := counters[string(name)]; counter != nil {
				if *counter, err = strconv.ParseUint(string(fields[i]), 10, 64); err != nil {
					return signatures{}, fmt.Errorf("counter %s: %w", name, err)
				}
			}
		}
		return s, nil
	}
	return signatures{}, fmt.Errorf("no counters of TCP in %d bytes", len(text))
}

func readSignatures() (signatures, error) {
	text, err := os.ReadFile(netstat)
	if err != nil {
		return signatures{}, fmt.Errorf("segments that are dropped for their TCP MD5 signature: %w", err)
	}
	s, err := countSignatures(text)
	if err != nil {
		return signatures{}, fmt.Errorf("segments that are dropped for their TCP MD5 signature: %s: %w", netstat, err)
	}
	return s, nil
}

// watchSignatures enters in the ledger what the kernel drops of routers that dial, until
// ctx ends: a connection that fails so is known to nobody else.
func (s *Server) watchSignatures(ctx context.Context, l *ledger) {
	tick := time.NewTicker(signatureTime)
	defer tick.Stop()
	before, err := readSignatures()
	for fresh := true; err == nil; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !l.awaitsDialers() {
			fresh = false
			continue
		}
		var now signatures
		if now, err = readSignatures(); err == nil && fresh {
			for _, line := range l.suspect(now.since(before), time.Now()) {
				s.log.Warn("no BGP session", line...)
			}
		}
		before, fresh = now, true
	}
	s.log.Warn("routers that dial with another TCP MD5 password are not noticed", "err", err)
}

// suspicion is what is known of why no router of a Range gets in.
type suspicion struct {
	dropped signatures
	last    time.Time // that some were
}

func (s suspicion) isOver(now time.Time) bool { return now.Sub(s.last) > suspicionTime }

// awaitsDialers says whether some router may be about to open a session.
func (l *ledger) awaitsDialers() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if s.awaitsDialer() {
			return true
		}
	}
	return len(l.inviting()) > 0
}

func (s *session) awaitsDialer() bool {
	return s.peer.Passive && !s.peer.Down && !s.up && !s.opening && !s.excess && !s.stranded && s.freed == nil
}

// inviting are the ranges, by name, that nothing is known of but that routers may come: one
// that has come before and is waited for has words of its own. The lock is held.
func (l *ledger) inviting() map[string]speaker.Range {
	ranges := maps.Clone(l.ranges)
	for _, s := range l.sessions {
		if s.awaitsDialer() {
			delete(ranges, s.within)
		}
	}
	return ranges
}

// suspect enters drops in the records of those whom they may be about, and gives what the
// log is to say of it. What an attempt of the router's own has come to is known better, and
// stays.
func (l *ledger) suspect(dropped signatures, now time.Time) (news [][]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		signed := s.peer.Password != ""
		was := s.dropped.suspicion(signed)
		if !s.awaitsDialer() || s.trouble != was || dropped.suspicion(signed) == "" {
			continue
		}
		s.dropped = s.dropped.plus(dropped)
		if s.trouble = s.dropped.suspicion(signed); s.trouble != was {
			news = append(news, append(transition(s.peer, dialing, dialing), "reason", s.trouble))
		}
	}
	for name, rg := range l.inviting() {
		signed := rg.Password != ""
		if dropped.suspicion(signed) == "" {
			continue
		}
		all := l.suspicions[name]
		if all.isOver(now) {
			all = suspicion{}
		}
		was := all.dropped.suspicion(signed)
		l.suspicions[name] = suspicion{all.dropped.plus(dropped), now}
		if why := l.suspicions[name].dropped.suspicion(signed); why != was {
			news = append(news, []any{"range", name, "network", rg.Network, "asn", rg.ASN, "reason", why})
		}
	}
	return news
}

// rangeTrouble is State's. The lock is held.
func (l *ledger) rangeTrouble(now time.Time) string {
	var list []string
	ranges := l.inviting()
	for _, name := range slices.Sorted(maps.Keys(ranges)) {
		if all := l.suspicions[name]; !all.isOver(now) {
			list = append(list, name+": "+all.dropped.suspicion(ranges[name].Password != ""))
		}
	}
	return strings.Join(list, "; ")
}
