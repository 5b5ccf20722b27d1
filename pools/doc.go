// Package pools is the core: which addresses a pool has, which node holds
// which of them, and which sandbox leases which. It holds pure values: no
// clock, no file, no network. Time comes in as an argument, and the same calls
// always give the same result.
//
// A pool's ranges are cut at multiples of its block size into cells. A node
// claims a free cell and then holds a block. Of several blocks around an
// address the smallest one decides whose it is, the rule that routers use
// (longest match). What is left of a node's blocks after that is its
// effective set: what it may lease, announce and deliver, and nothing else.
//
// Pool knows the addresses, Effective and NextCell the blocks of all nodes,
// Ledger the blocks and leases of one node.
package pools
