package server

import "time"

const (
	// bulkRoutes is how many routes in a row are many.
	bulkRoutes = 2000
	// bulkPause ends such a row.
	bulkPause = 2 * time.Second
	// bulkPercent is the collector's meanwhile: the heap grows by what stays, and to look
	// through it often is in vain.
	bulkPercent = 200
)

// pace notes when many routes go to the sink in a row. set is called when that
// begins and when it is over; nil is for nobody.
type pace struct {
	set    func(bulk bool)
	routes int
	last   time.Time
}

// handed says that routes went to the sink.
func (p *pace) handed(n int, now time.Time) {
	if n == 0 || p.set == nil {
		return
	}
	before := p.routes
	p.routes, p.last = before+n, now
	if before < bulkRoutes && p.routes >= bulkRoutes {
		p.set(true)
	}
}

// rest ends a row that is over, and says when to call it again, or zero for not at all.
func (p *pace) rest(now time.Time) time.Time {
	switch over := p.last.Add(bulkPause); {
	case p.routes == 0:
		return time.Time{}
	case now.Before(over):
		return over
	}
	if p.routes >= bulkRoutes {
		p.set(false)
	}
	p.routes = 0
	return time.Time{}
}

// spendMore has this process's garbage collector spend less time, and more memory, while
// there are many routes. A process that has other work should not have it.
func (c *collector) spendMore() func(bulk bool) {
	var end func()
	return func(bulk bool) {
		if bulk {
			end = c.at(bulkPercent)
			return
		}
		end()
	}
}
