package speaker

import (
	"maps"
	"slices"
)

// Every Set compares what it is given with what it was given last, and a router waits for
// that: reflect.DeepEqual takes several times as long.

// equalBesides says whether d and e are the same but for their announcements.
func (d *Desired) equalBesides(e *Desired) bool {
	return d.Local.equal(&e.Local) && equalAll(d.Peers, e.Peers) && equalAll(d.Ranges, e.Ranges) &&
		maps.EqualFunc(d.Terms, e.Terms, Terms.equal)
}

// equalAll is slices.EqualFunc without a copy of each.
func equalAll[T any, P interface {
	*T
	equal(*T) bool
}](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !P(&a[i]).equal(&b[i]) {
			return false
		}
	}
	return true
}

func (l *Local) equal(m *Local) bool {
	return l.ASN == m.ASN && l.RouterID == m.RouterID && slices.Equal(l.Listen, m.Listen) && l.Port == m.Port &&
		l.APISocket == m.APISocket && l.APIAddress == m.APIAddress && l.GracefulRestart == m.GracefulRestart
}

func (p *Peer) equal(q *Peer) bool {
	return p.Name == q.Name && p.Address == q.Address && p.Interface == q.Interface && p.ASN == q.ASN &&
		p.Session.equal(&q.Session) && p.Accept.equal(&q.Accept)
}

func (r *Range) equal(s *Range) bool {
	return r.Name == s.Name && r.Network == s.Network && r.ASN == s.ASN && r.Most == s.Most &&
		r.Session.equal(&s.Session) && r.Accept.equal(&s.Accept)
}

func (s *Session) equal(t *Session) bool {
	return s.Port == t.Port && slices.Equal(s.Families, t.Families) &&
		s.LocalAddress == t.LocalAddress && s.LocalASN == t.LocalASN && s.Passive == t.Passive && s.Password == t.Password &&
		s.Multihop == t.Multihop && s.TTLSecurity == t.TTLSecurity &&
		s.HoldTime == t.HoldTime && s.Keepalive == t.Keepalive && s.ConnectRetry == t.ConnectRetry &&
		s.RouteReflectorClient == t.RouteReflectorClient && s.ReceivePaths == t.ReceivePaths &&
		s.ExtendedMessages == t.ExtendedMessages && s.Down == t.Down && s.DownMessage == t.DownMessage
}

func (a *Accept) equal(b *Accept) bool { return slices.Equal(a.Prefixes, b.Prefixes) && a.Max == b.Max }

func (t Terms) equal(u Terms) bool {
	return maps.EqualFunc(t, u, func(a, b Attributes) bool { return a.equal(&b) })
}

func (a *Attributes) equal(b *Attributes) bool {
	return slices.Equal(a.Communities, b.Communities) && slices.Equal(a.LargeCommunities, b.LargeCommunities) &&
		equalValue(a.LocalPreference, b.LocalPreference) && equalValue(a.MED, b.MED) &&
		a.Prepend == b.Prepend && slices.Equal(a.NextHops, b.NextHops)
}

// equalValue says whether two pointers are both nil, or to the same value.
func equalValue[T comparable](p, q *T) bool {
	if p == nil || q == nil {
		return p == q
	}
	return *p == *q
}
