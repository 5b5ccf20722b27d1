package journal

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// scanRecord reads what appendRecord writes, but for strings with escapes, in
// a tenth of the time of decodeRecord: an agent reads its journal before it
// serves. ok is false for anything else, valid or not; decodeRecord judges it.
func scanRecord(payload []byte) (rec pools.Record, ok bool) {
	s := scanner{rest: string(payload)}
	op, err := opOf(s.after(`{"op":`))
	if err != nil {
		return rec, false
	}
	rec.Op = op
	if op.OfLease() {
		rec.At = time.Unix(0, s.number(`,"at":`))
		rec.Pool = s.after(`,"pool":`)
		s.lease(&rec)
		return rec, s.done() && check(&rec) == nil
	}
	rec.At = s.time(`,"at":`)
	rec.Pool = s.after(`,"pool":`)
	s.block(&rec)
	return rec, s.done() && check(&rec) == nil
}

// scanner takes a line apart from its front. After a failure it gives zeros.
type scanner struct {
	rest   string
	failed bool
}

func (s *scanner) lease(rec *pools.Record) {
	rec.Addrs = s.addrs(`,"addrs":[`)
	s.field(`,"network":`, &rec.Owner.Network)
	s.field(`,"container":`, &rec.Owner.ContainerID)
	s.field(`,"if":`, &rec.Owner.IfName)
	s.field(`,"podUID":`, &rec.Owner.PodUID)
	s.field(`,"namespace":`, &rec.Owner.Namespace)
	s.field(`,"pod":`, &rec.Owner.Pod)
	s.field(`,"netns":`, &rec.Netns.Path)
	s.fileID(`,"netnsID":`, &rec.Netns.Namespace)
	s.fileID(`,"netnsDir":`, &rec.Netns.Dir)
}

func (s *scanner) block(rec *pools.Record) {
	b := &pools.Block{Pool: rec.Pool}
	rec.Block = b
	var err error
	if b.Prefix, err = netip.ParsePrefix(s.after(`,"block":`)); err != nil {
		s.failed = true
		return
	}
	s.field(`,"node":`, &b.Node)
	s.field(`,"lender":`, &b.Lender)
	b.Created = s.time(`,"created":`)
	s.field(`,"uid":`, &b.UID)
	s.field(`,"machine":`, &b.Machine)
	if strings.HasPrefix(s.rest, `,"tenure":`) {
		b.Tenure = int(s.number(`,"tenure":`))
	}
	s.field(`,"ref":`, &rec.Ref)
}

// field takes off key and the plain string behind it, if they are next.
func (s *scanner) field(key string, into *string) {
	if strings.HasPrefix(s.rest, key) {
		*into = s.after(key)
	}
}

// fileID takes off key and the file's identity behind it, if they are next.
func (s *scanner) fileID(key string, into *pools.FileID) {
	if strings.HasPrefix(s.rest, key) {
		id, err := parseFileID(s.after(key))
		*into, s.failed = pools.FileID(id), s.failed || err != nil
	}
}

// time takes off key and the time behind it; it is zero if they are not next.
func (s *scanner) time(key string) (at time.Time) {
	if strings.HasPrefix(s.rest, key) {
		at = time.Unix(0, s.number(key))
	}
	return at
}

// done says whether the line was taken off to its end.
func (s *scanner) done() bool { return !s.failed && s.rest == "}" }

// skip takes literal off.
func (s *scanner) skip(literal string) {
	rest, ok := strings.CutPrefix(s.rest, literal)
	s.rest, s.failed = rest, s.failed || !ok
}

// after takes off key and the plain string behind it.
func (s *scanner) after(key string) string {
	s.skip(key)
	s.skip(`"`)
	value, rest, ok := strings.Cut(s.rest, `"`)
	s.rest, s.failed = rest, s.failed || !ok
	for i := range len(value) {
		// What appendString writes as it is.
		if c := value[i]; c < ' ' || c > '~' || c == '\\' {
			s.failed = true
		}
	}
	if s.failed {
		return ""
	}
	return value
}

// number takes off key and the number behind it, as strconv writes it.
func (s *scanner) number(key string) int64 {
	s.skip(key)
	end := len(s.rest) - len(strings.TrimLeft(s.rest, "-0123456789"))
	n, err := strconv.ParseInt(s.rest[:end], 10, 64)
	s.failed = s.failed || err != nil || strconv.FormatInt(n, 10) != s.rest[:end]
	s.rest = s.rest[end:]
	return n
}

// addrs takes off key and a list of addresses, its bracket included.
func (s *scanner) addrs(key string) (out []netip.Addr) {
	s.skip(key)
	for separator := ""; !s.failed; separator = "," {
		a, err := netip.ParseAddr(s.after(separator))
		if err != nil || a.Zone() != "" || a.Is4In6() {
			s.failed = true
			break
		}
		out = append(out, a)
		if strings.HasPrefix(s.rest, "]") {
			s.skip("]")
			return out
		}
	}
	return nil
}
