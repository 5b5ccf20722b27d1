package exchange

// Concerned says whether what nodes ask for concerns this one: it holds or wants
// something, or has something to clear up. While it is not concerned it needs
// not be told of requests, but for some of its own: those that an earlier life has
// made, or a call without an answer, and that come to count up to Settle later.
func (n *Node) Concerned() bool {
	return len(n.held)+len(n.wants)+len(n.helpers)+len(n.loans)+len(n.strays)+len(n.orphans)+len(n.unfit)+len(n.asleep) > 0
}
