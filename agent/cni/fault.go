package cni

import (
	"context"
	"errors"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
)

// ErrTryAgain: the request failed for now and changed nothing. It may be made
// again as it was.
var ErrTryAgain = errors.New("try again later")

// ErrRefused: the pod is not served as things are. Asking again does not help
// until somebody has changed what the message names.
var ErrRefused = errors.New("refused")

// Refuse makes why, which says what would help, an ErrRefused as well.
func Refuse(why error) error { return refusal{why} }

type refusal struct{ why error }

func (r refusal) Error() string   { return r.why.Error() }
func (r refusal) Unwrap() []error { return []error{ErrRefused, r.why} }

// render gives err as the plugin prints it. It says no more than a message
// should: err may quote what came in.
func render(err error, version string) []byte {
	f := *faultOf(err)
	f.Msg, f.Details = bounded(f.Msg), bounded(f.Details)
	return f.AppendJSON(nil, version)
}

// faultOf finds the CNI error code and the way out of err.
func faultOf(err error) *wire.Fault {
	if f := (*wire.Fault)(nil); errors.As(err, &f) {
		return f
	}
	f := &wire.Fault{Code: wire.Internal, Msg: err.Error()}
	switch {
	case errors.Is(err, ErrTryAgain): // first, as it may wrap what ails other pools
		f.Code = wire.TryAgainLater
		f.Details = "nothing was changed; if it lasts, mend what the message names"
	case errors.Is(err, ErrRefused):
		f.Code = wire.Refused
	case errors.Is(err, pools.ErrExhausted), errors.Is(err, pools.ErrNoFree):
		f.Code = wire.TryAgainLater
		f.Details = "delete pods of this pool or give it more addresses; a released address is lent again after the pool's reuseAfter"
	case errors.Is(err, pools.ErrTaken):
		f.Code = wire.TryAgainLater
		f.Details = "ask for another address, or wait until this one is released and the pool's reuseAfter is over"
	case errors.Is(err, pools.ErrBlockExists):
		f.Code = wire.TryAgainLater
		f.Details = "ask for another address, or wait until the block that holds this one is given back"
	case errors.Is(err, pools.ErrMismatch):
		f.Code = wire.InvalidNetworkConfig
		f.Details = "asking again does not help: ask for something else, or DEL what the interface holds first"
	case errors.Is(err, pools.ErrUnknownPool):
		f.Code = wire.InvalidNetworkConfig
		f.Details = "name an existing pool in ipam.pool of the network configuration, or define this one"
	case errors.Is(err, pools.ErrOutside):
		f.Code = wire.InvalidNetworkConfig
		f.Details = "ask for an address of the pool, or for none"
	case errors.Is(err, pools.ErrNotOwner):
		f.Code = wire.NotOwner
		f.Details = "nothing was changed; delete the sandbox that holds it first"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		f.Code = wire.TryAgainLater
	}
	return f
}

func decodeFault(msg, wayOut string) *wire.Fault {
	return &wire.Fault{Code: wire.DecodingFailure, Msg: msg, Details: wayOut}
}

func configFault(msg, wayOut string) *wire.Fault {
	return &wire.Fault{Code: wire.InvalidNetworkConfig, Msg: msg, Details: wayOut}
}

func envFault(msg, wayOut string) *wire.Fault {
	return &wire.Fault{Code: wire.InvalidEnvironment, Msg: msg, Details: wayOut}
}

// quote makes s printable in a message and bounds its length.
func quote(s string) string {
	const most = 128
	if len(s) > most {
		s = s[:most] + "…"
	}
	return string(wire.AppendString(nil, s))
}

func bounded(msg string) string {
	const most = 4 << 10
	if len(msg) > most {
		return msg[:most] + "…"
	}
	return msg
}
