// Package cni is the agent's side of the CNI plugin: it translates between the
// CNI specification (1.1, 1.0 and 0.4) and leases. A Handler's Serve takes a
// request in the format of package wire and gives an answer; ServeSocket does
// it for the plugins on a socket.
package cni

import (
	"context"
	"errors"
	"net/netip"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
)

// DefaultPool is where addresses come from when the network configuration
// names no pool.
const DefaultPool = "default"

// Leases is what the agent lends to CNI. All of it may be called by many
// goroutines at once.
type Leases interface {
	// Lease returns the addresses of one attachment, one for each family of
	// the pool. The same owner asking again gets the same ones. Of r.Netns the
	// Path is as the runtime gave it, and the rest for who leases to find out. The error wraps
	// ErrRefused when somebody has to change something first. An error after
	// which asking again may help wraps ErrTryAgain, pools.ErrNoFree,
	// pools.ErrExhausted, pools.ErrTaken or pools.ErrBlockExists.
	Lease(ctx context.Context, r pools.Request) (Grant, error)
	// Release gives back what the owner holds; to hold nothing is fine. It
	// returns pools.ErrNotOwner, and changes nothing, when the attachment is
	// another pod's.
	Release(ctx context.Context, o pools.Owner) error
	// Held returns the leases of an attachment.
	Held(a pools.Attachment) []pools.Lease
	// Retain releases the leases of network whose attachment is not valid.
	Retain(ctx context.Context, network string, valid []pools.Attachment) error
	// Ready says why Lease cannot be served from pool now; the error wraps
	// pools.ErrUnknownPool if there is no such pool.
	Ready(ctx context.Context, pool string) error
}

// Grant is what an attachment is lent.
type Grant struct{ Addresses []Address }

// Address is one address as a pod's interface needs it.
type Address struct {
	Addr netip.Addr
	Bits int // prefix length of the pod's interface
	// Gateway is the pod's next hop; the zero Addr is none. ptp wants the
	// prefix to hold it.
	Gateway netip.Addr
}

// Handler serves CNI requests from Leases. It must not be copied.
type Handler struct {
	Leases Leases
	// Chosen says that Leases knows which pool is a pod's: where the network
	// configuration names none, it gets "" instead of DefaultPool.
	Chosen   bool
	settings settingsCache
}

// pool is the one to ask for.
func (h *Handler) pool(s *settings) string {
	if s.pool == "" && !h.Chosen {
		return DefaultPool
	}
	return s.pool
}

// Serve answers one request. It keeps nothing of request. Every answer is
// whole and decodable, whatever the request is. A request that fails because
// ctx was cancelled, which its error must wrap, gets none (nil): hang up, and
// the plugin asks again, this time the next agent.
func (h *Handler) Serve(ctx context.Context, request []byte) (answer []byte) {
	var n network
	text, err := h.serve(ctx, request, &n)
	if errors.Is(err, context.Canceled) && errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	if err != nil {
		text = render(err, n.version)
	}
	return wire.AppendAnswer(text, nil, err != nil)
}

// serve fills in n as far as it comes, so that an error is told in the
// version asked for.
func (h *Handler) serve(ctx context.Context, request []byte, n *network) (text []byte, err error) {
	env, stdin, ok := wire.SplitRequest(request)
	if !ok || len(request) > wire.MaxRequest {
		return nil, &wire.Fault{Code: wire.DecodingFailure, Msg: "this is not a request of fairway-ipam, or it is larger than 1 MiB",
			Details: "is the plugin of the same release as the agent?"}
	}
	confErr := n.parse(stdin)
	c, err := parseCall(env)
	if err != nil {
		return nil, err
	}
	if c.command == "VERSION" {
		return wire.AppendVersions(nil, n.version), nil
	}
	if confErr != nil {
		return nil, confErr
	}
	if err := n.check(c.command); err != nil {
		return nil, err
	}
	return h.do(ctx, c, n)
}

func (h *Handler) do(ctx context.Context, c call, n *network) ([]byte, error) {
	switch c.command {
	case "ADD":
		return h.add(ctx, c, n)
	case "DEL":
		return nil, h.del(ctx, c, n)
	case "CHECK":
		return nil, h.check(c, n)
	case "GC":
		return nil, h.gc(ctx, n)
	case "STATUS":
		return nil, h.status(ctx, n)
	}
	return nil, unknownCommand(c.command)
}

func (h *Handler) add(ctx context.Context, c call, n *network) ([]byte, error) {
	s, err := h.settings.of(n.ipam)
	if err != nil {
		return nil, err
	}
	args, err := parseArgs(c.args)
	if err != nil {
		return nil, err
	}
	want, err := n.want(args.ip)
	if err != nil {
		return nil, err
	}
	grant, err := h.Leases.Lease(ctx, pools.Request{Pool: h.pool(s), Owner: args.owner(c, n), Want: want, Netns: pools.Netns{Path: c.netns}})
	if err != nil {
		return nil, err
	}
	return appendResult(make([]byte, 0, 512), n.version, grant, s), nil
}

// del looks at no more than it needs: a DEL follows every ADD, also one that
// was refused for what its configuration or arguments say.
func (h *Handler) del(ctx context.Context, c call, n *network) error {
	args, err := parseArgs(c.args)
	if err != nil {
		args = podArgs{}
	}
	return h.Leases.Release(ctx, args.owner(c, n))
}

func (h *Handler) status(ctx context.Context, n *network) error {
	s, err := h.settings.of(n.ipam)
	if err != nil {
		return err
	}
	pool := h.pool(s)
	if err := h.Leases.Ready(ctx, pool); err != nil {
		f := *faultOf(err)
		of := " of pool " + quote(pool)
		if pool == "" {
			of = ""
		}
		f.Code, f.Msg = wire.NotAvailable, "the Fairway agent cannot lease addresses"+of+" now: "+f.Msg
		return &f
	}
	return nil
}
