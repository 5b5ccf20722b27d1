package pools

import "errors"

// The decisions that a caller can be asked to make. Every error of this
// package that stands for one of them wraps it.
var (
	// ErrUnknownPool: no pool of that name is defined here.
	ErrUnknownPool = errors.New("unknown pool")
	// ErrNoFree: the blocks that this node holds have no address that may be
	// leased now. Another block may have one: claim it and ask again.
	ErrNoFree = errors.New("no free address in the blocks held")
	// ErrExhausted: the pool has no free cell left, so no block can be claimed.
	ErrExhausted = errors.New("pool exhausted")
	// ErrNotOwner: a release or a repeated request names an address that
	// another sandbox holds. Nothing was changed.
	ErrNotOwner = errors.New("held by another owner")
	// ErrTaken: the address that was asked for is leased, cooling down or in a
	// block that is being returned. It may be free later.
	ErrTaken = errors.New("address not available")
	// ErrMismatch: the request contradicts what stands, and will for as long:
	// its attachment holds something else, or no pod can have what it asks for.
	ErrMismatch = errors.New("contradictory request")
	// ErrOutside: the address or block lies outside of what it should be in.
	ErrOutside = errors.New("outside of the pool")
	// ErrBlockExists: somebody holds that block already.
	ErrBlockExists = errors.New("block exists")
)
