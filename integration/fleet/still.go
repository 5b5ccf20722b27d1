package fleet

import (
	"context"
	"net/netip"

	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
)

// stillKernel has every route at once.
type stillKernel struct{}

func (stillKernel) Sync(context.Context, []routes.Route) error { return nil }

func (stillKernel) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

// stillSpeaker has no peers, so that nobody has to be told.
type stillSpeaker struct{}

func (stillSpeaker) Set(context.Context, speaker.Desired) error { return nil }

func (stillSpeaker) Flush(_ context.Context, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	return speaker.ErrNoPeer
}

func (stillSpeaker) State(context.Context) (speaker.State, error) { return speaker.State{}, nil }

func (stillSpeaker) Fail(context.Context, string) error { return nil }

func (stillSpeaker) Close(context.Context, speaker.Stop) error { return nil }
