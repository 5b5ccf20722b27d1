package speaker

import (
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// Kept is how long peers may keep this node's routes after they have noticed that
// its session is gone: longer than Time only with those that know long-lived
// graceful restart.
func (g GracefulRestart) Kept() time.Duration { return g.Time + g.LongLived }

// longLivedOf is GoBGP's form of RFC 9494 for one family.
func longLivedOf(g GracefulRestart) *api.LongLivedGracefulRestart {
	return &api.LongLivedGracefulRestart{Config: &api.LongLivedGracefulRestartConfig{
		Enabled: g.Enabled && g.LongLived > 0, RestartTime: uint32(g.LongLived / time.Second),
	}}
}

// helpsLongLived says whether a peer offered in its OPEN to keep this node's routes
// as stale ones after its restart time (RFC 9494).
func helpsLongLived(p *api.Peer) bool {
	for _, c := range p.GetState().GetRemoteCap() {
		if c.MessageIs(new(api.LongLivedGracefulRestartCapability)) {
			return true
		}
	}
	return false
}
