package exchange

import "time"

// NoOrders is the number of those of a node that there is no place to leave any for, or
// begins it, where something tells one time of that from the next. Its blocks may have
// been taken without a word: a place for orders may have come and gone in between.
const NoOrders = "none"

// ordersTime is how long a node that has its blocks from its journal waits with new
// leases for what it was told meanwhile. If by then there is no connection to the
// store that is away, and the node goes on without.
const ordersTime = time.Second

// Orders are what a node is told of its being taken for gone. Each time that they
// change it may have lost blocks.
type Orders struct {
	// Number is another one after each change, also one that was undone before
	// anybody saw it; NoOrders when nobody can have given any, and "" while they are
	// not known.
	Number string
	// Fence says since when and why the node counts as gone; "" if it does not.
	Fence string
	// Lifting says that Fence comes off once the node has heeded Number, for which it
	// takes its blocks anew.
	Lifting bool
}

// duty is what a node has done about its orders.
type duty struct {
	told     Orders
	recalled bool      // the blocks are from the journal
	read     time.Time // when they were read from the store instead
	heeded   string    // since which the blocks were read
	// until is before when orders that are not known are waited for in any case.
	until time.Time
	doubt bool // blocks may have been lost since the start
	// audit and renewal are the numbers of those that are to be over; 0 is none.
	audit, renewal int
}

// Recall says that the node has its blocks from its journal, and which orders the
// life before has heeded.
func (n *Node) Recall(heeded string, now time.Time) {
	n.at(now)
	n.duty = duty{recalled: true, heeded: heeded, until: now.Add(ordersTime)}
}

// Obey takes orders in, and says whether they are news that blocks are read for.
// With a fence that is to be lifted they are taken anew, too. A node that has just
// read its blocks from the store has heeded what it is told first; after a while there
// may have been a fence that was forgotten.
func (n *Node) Obey(o Orders, now time.Time) (news bool) {
	n.at(now)
	d := &n.duty
	if o.Number == "" || o == d.told {
		return false
	}
	if d.told.Number == "" && now.Before(d.read.Add(Settle)) && o.Fence == "" {
		d.heeded = o.Number
	}
	d.told = o
	news = o.Number != d.heeded || o.Fence != ""
	if news {
		d.doubt = true
		n.outdate()
		d.audit = n.Audit()
		n.audit.goOn() // though it has failed until now: the store has just spoken
	}
	d.renewal = 0 // the controller has thought better of it
	if o.Lifting && o.Number != d.heeded {
		d.renewal = n.Renew()
	}
	return news
}

// heed notes that the audit for the orders is over, and the blocks are taken anew if
// they are to be.
func (n *Node) heed() {
	d := &n.duty
	if d.audit == 0 || !n.Audited(d.audit) || !n.Renewed(d.renewal) {
		return
	}
	d.audit, d.renewal = 0, 0
	d.heeded = d.told.Number
}

// doubts says whether a block may have been lost that nobody has read since the start.
func (d *duty) doubts() bool { return d.doubt || d.recalled && d.told.Number == "" }

// Fenced is why nothing new may be leased, however long one waits; "" if it may. The
// node's blocks are taken from it one by one.
func (n *Node) Fenced() string { return n.duty.told.Fence }

// Unheeded says whether the blocks have to be read before something new is leased.
// reached says whether the store is there: then it has orders to show, if they are
// not known yet.
func (n *Node) Unheeded(now time.Time, reached bool) bool {
	d := &n.duty
	if d.told.Number == "" {
		return d.recalled && (reached || now.Before(d.until))
	}
	return d.told.Number != d.heeded
}

// Heeded is the number of the last orders since which the blocks were read, and
// taken anew if they were to be. Whoever has given them may be told.
func (n *Node) Heeded() string { return n.duty.heeded }

// nextOrders is when a node stops to wait for orders that nobody can show it.
func (n *Node) nextOrders() (next time.Time) {
	if d := &n.duty; d.told.Number == "" && n.now.Before(d.until) {
		return d.until
	}
	return next
}
