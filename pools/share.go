package pools

import "time"

// share is the node's part of one pool. A share whose pool was taken away is
// retired: it leases nothing and waits until its addresses have rested and its
// blocks are returned.
type share struct {
	pool *Pool
	lots map[Family]*lot
	gone bool
}

func newShare(p *Pool) *share {
	return &share{pool: p, lots: map[Family]*lot{IPv4: newLot(p, IPv4), IPv6: newLot(p, IPv6)}}
}

func (s *share) lot(f Family) *lot { return s.lots[f] }
func (s *share) retired() bool     { return s.gone }
func (s *share) retire()           { s.gone = true }

func (s *share) empty() bool {
	return len(s.lots[IPv4].blocks)+len(s.lots[IPv6].blocks) == 0
}

func (s *share) hold(b Block) error { return s.lot(FamilyOf(b.Prefix.Addr())).add(b) }

// become takes on a changed definition of the same pool: what left it is no
// longer leased, what is new in it is free.
func (s *share) become(p *Pool) {
	s.pool, s.gone = p, false
	for _, l := range s.lots {
		l.pool = p
		for _, b := range l.blocks {
			l.review(b)
		}
	}
}

// rested are the blocks in which no address is cooling down.
func (s *share) rested(now time.Time) (out []Block) {
	for _, l := range s.lots {
		l.advance(now)
		for _, b := range l.blocks {
			if b.count(cooling)+b.count(lent) == 0 {
				out = append(out, b.Block)
			}
		}
	}
	return out
}

func (s *share) idle(now time.Time, after time.Duration) (out []Block) {
	for _, l := range s.lots {
		l.advance(now)
		for _, b := range l.blocks {
			if !b.closed && b.leased() == 0 && b.count(cooling)+b.count(lent) == 0 && now.Sub(b.idleSince()) >= after {
				out = append(out, b.Block)
			}
		}
	}
	return out
}

func (s *share) usage(now time.Time) Usage {
	u := Usage{Pool: s.pool.Name()}
	for _, l := range s.lots {
		l.advance(now)
		for _, b := range l.blocks {
			if b.closed {
				continue
			}
			u.Blocks++
			u.Leased += b.leased()
			u.Free += b.count(free)
			u.Cooling += b.count(cooling)
			u.Lent += b.count(lent)
		}
	}
	return u
}
