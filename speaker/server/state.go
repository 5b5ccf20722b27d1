package server

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// tallies are the numbers of each router's routes, by its address as GoBGP writes it.
// Nothing is accepted where nothing is learned.
func (l *learned) tallies() map[string]map[speaker.Family]tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	numbers := make(map[string]map[speaker.Family]tally, len(l.table.teachers))
	for address, r := range l.table.teachers {
		numbers[address] = make(map[speaker.Family]tally, len(r.counts))
		for f, c := range r.counts {
			n := *c
			if l.open == nil {
				n.accepted = 0
			}
			numbers[address][f] = n
		}
	}
	return numbers
}

// describe adds what GoBGP knows of a peer to its state. GoBGP takes all that came
// in for accepted. The ledger's lock is held.
func (s *session) describe(ps *speaker.PeerState, p *api.Peer, tallies map[speaker.Family]tally) {
	ps.Flaps, ps.Range = s.flaps, s.within
	for _, a := range p.GetAfiSafis() {
		ps.Received += int(a.GetState().GetReceived())
		f, is := familyNamed(a.GetState().GetFamily())
		if !is || !s.up || !s.carries(f) {
			continue
		}
		fs := speaker.FamilyState{Family: f, Received: int(a.GetState().GetReceived()), Accepted: tallies[f].accepted,
			Echoes: tallies[f].echoes, Limit: mostPrefixes(s.peer.Accept)}
		if o := s.out[f]; o != nil {
			fs.Advertised = len(o.sent)
		}
		ps.Families = append(ps.Families, fs)
	}
	slices.SortFunc(ps.Families, func(a, b speaker.FamilyState) int { return strings.Compare(string(a.Family), string(b.Family)) })
	for _, o := range s.out {
		ps.Advertised += len(o.sent)
	}
	if !s.up {
		return
	}
	ps.ASN = cmp.Or(ps.ASN, p.GetState().GetPeerAsn())
	ps.RouterID, _ = netip.ParseAddr(p.GetState().GetRouterId())
	ps.HoldTime = time.Duration(p.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second
	ps.Capabilities = capabilityWords(p)
}

func familyNamed(f *api.Family) (speaker.Family, bool) {
	switch {
	case f.GetSafi() != api.Family_SAFI_UNICAST:
	case f.GetAfi() == api.Family_AFI_IP:
		return speaker.IPv4, true
	case f.GetAfi() == api.Family_AFI_IP6:
		return speaker.IPv6, true
	}
	return "", false
}

// capabilityWords are what a router offered in its OPEN, sorted, but for the
// families.
func capabilityWords(p *api.Peer) []string {
	var words []string
	for _, c := range p.GetState().GetRemoteCap() {
		m, err := c.UnmarshalNew()
		if err != nil {
			continue
		}
		switch c := m.(type) {
		case *api.RouteRefreshCapability:
			words = append(words, "route refresh")
		case *api.EnhancedRouteRefreshCapability:
			words = append(words, "enhanced route refresh")
		case *api.FourOctetASNCapability:
			words = append(words, "four-octet ASNs")
		case *api.ExtendedNexthopCapability:
			words = append(words, "IPv6 next hops for IPv4")
		case *api.AddPathCapability:
			words = append(words, addPathWords(c)...)
		case *api.GracefulRestartCapability:
			words = append(words, restartWords(c)...)
		case *api.LongLivedGracefulRestartCapability:
			words = append(words, "long-lived graceful restart")
		case *api.FqdnCapability:
			words = append(words, "host name "+legible(c.HostName))
		case *api.SoftwareVersionCapability:
			words = append(words, "software "+legible(c.SoftwareVersion))
		case *api.UnknownCapability:
			words = append(words, unknownWords(c.Code))
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}

func addPathWords(c *api.AddPathCapability) []string {
	var words []string
	for _, t := range c.Tuples {
		f, is := familyNamed(t.Family)
		if !is {
			continue
		}
		if t.Mode&api.AddPathCapabilityTuple_RECEIVE != 0 {
			words = append(words, "takes several paths of "+string(f))
		}
		if t.Mode&api.AddPathCapabilityTuple_SEND != 0 {
			words = append(words, "sends several paths of "+string(f))
		}
	}
	return words
}

func restartWords(c *api.GracefulRestartCapability) []string {
	words := []string{fmt.Sprintf("graceful restart within %d s", c.Time)}
	if c.Flags&restartNotification != 0 {
		words = append(words, "graceful restart after notifications")
	}
	return words
}

// unknownWords name what GoBGP does not know, from the registry of IANA.
func unknownWords(code uint32) string {
	switch code {
	case 6:
		return "extended messages"
	case 7:
		return "BGPsec"
	case 8:
		return "multiple labels"
	case 9:
		return "BGP role"
	case 71:
		return "long-lived graceful restart"
	}
	return fmt.Sprintf("capability %d", code)
}

// legible makes text of a router fit for a log: a line of at most 255 bytes of UTF-8.
func legible(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || r == 0x7f {
			return '?'
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), 255)], "") // a rune may be cut
}

// ceaseWords describes a NOTIFICATION by its code, subcode and data: what a hard
// reset (RFC 8538) stands for, and what a shutdown says for people (RFC 9003).
func ceaseWords(code, subcode uint8, data []byte) string {
	if code != bgp.BGP_ERROR_CEASE {
		return bgp.NewNotificationErrorCode(code, subcode).String()
	}
	switch subcode {
	case ceaseHardReset:
		if len(data) >= 2 && !(data[0] == bgp.BGP_ERROR_CEASE && data[1] == ceaseHardReset) {
			return "hard reset: " + ceaseWords(data[0], data[1], data[2:])
		}
		return fmt.Sprintf("code %d(cease) subcode %d(hard reset)", code, subcode)
	case ceaseBFDDown:
		return fmt.Sprintf("code %d(cease) subcode %d(BFD down)", code, subcode)
	case ceaseShutdown, bgp.BGP_ERROR_SUB_ADMINISTRATIVE_RESET:
		if len(data) > 1 {
			said := data[1:][:min(int(data[0]), len(data)-1)]
			return fmt.Sprintf("%s: %q", bgp.NewNotificationErrorCode(code, subcode), legible(string(said)))
		}
	}
	return bgp.NewNotificationErrorCode(code, subcode).String()
}
