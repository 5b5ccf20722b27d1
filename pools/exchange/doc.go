// Package exchange is how a node comes by the blocks of a pool and parts with
// them, among nodes that share nothing but a store: claims, loans, returns.
// It is a state machine without clock, network or goroutine: Node is told what
// happened and what time it is, and says what to do next. The same inputs make
// the same outputs.
//
// # Ownership
//
// An address is the node's whose block is its longest match. A cell of a pool
// is claimed by making the block named after it: of two nodes that try, the
// store lets one win. A part of a block is lent by a smaller block inside.
//
// Nesting: a block is removed only when no block of another node stands in it.
// Its node knows what it has lent, and the controller makes the block of a node
// that is gone vacant before it looks inside. Whoever makes a cell's block
// therefore has all of it, and need not look.
//
// # Loans
//
// A node that finds no free cell makes a Request. Those that have addresses to
// spare set some aside, in their journals too, have the network lead them away no
// more, and answer with Grants: each by a compare-and-swap of the request, until there
// are as many as it asks for. The asker then makes the lent blocks in its own name,
// removes the request, and reads the blocks that they were lent out of: where it was
// this removal that counted, and the block around stands as the grant says, whoever
// comes to own the space around later finds the lent block there; else the asker uses
// nothing of it. A lender, when the request is gone, looks for the lent block: it is
// there for as long as the addresses are lent.
//
// A lent block is used by the node that drew it and by no other life of that
// node: one that is found and not remembered is returned.
//
// # Fences
//
// A node that counts as gone may live. It is fenced before a block of it is made
// vacant: it leases nothing new, and reads what it still has. When it is back it is
// told that the fence is to be lifted, takes all its blocks anew, and only then the
// fence comes off. What was begun to free them is bound to versions from before.
//
// # Unknown outcomes
//
// A write that nobody answered may have happened. The machine repeats it, or
// reads, until it knows, and does nothing in between that contradicts it: what
// was perhaps granted stays set aside, what was perhaps removed stays unused.
package exchange
