package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/fairway-network/fairway/pools"
)

// identityFile, in the run directory, has the router ID that an agent of this
// boot has chosen.
const identityFile = "router-id.json"

// identity is a choice of a router ID. It outlives the agent: peers take a
// speaker that comes back under another one for another speaker, and keep
// nothing of what the first one announced.
type identity struct {
	Boot     string     `json:"boot"`
	Node     string     `json:"node"`
	RouterID netip.Addr `json:"routerID"`
}

// identify gives s a BGP identifier if it has none, and the addresses of its own. An
// identifier that was chosen stays: under a running agent in any case, and in this boot
// for as long as it is this node's. The reload lock is held, or nobody else is there.
func (a *Agent) identify(s *Settings) {
	if !s.Local.RouterID.IsValid() {
		if !a.chosen.IsValid() {
			a.chosen = a.choose(s)
		}
		s.Local.RouterID = a.chosen
	}
	s.own = a.ownAddresses(s)
}

// ownAddresses are those by which this node is known, at most one of each family: the
// router ID, if the host has it, else the lowest that the Node object has, else the
// lowest that faces the peers, else the lowest of the host.
func (a *Agent) ownAddresses(s *Settings) (own []netip.Addr) {
	if id := s.Local.RouterID; slices.Contains(s.Host, id) {
		own = append(own, id)
	} else if is := a.lowestOf(s, pools.IPv4); is.IsValid() {
		own = append(own, is)
	}
	if is := a.lowestOf(s, pools.IPv6); is.IsValid() {
		own = append(own, is)
	}
	return own
}

func (a *Agent) lowestOf(s *Settings, f pools.Family) netip.Addr {
	return cmp.Or(lowestOwn(a.nodeAddresses(), s.Pools, f), lowestOwn(s.Facing, s.Pools, f), lowestOwn(s.Host, s.Pools, f))
}

// nodeAddresses are those of the Node object, if there is one, or that it had last. The
// reload lock is held, or nobody else is there.
func (a *Agent) nodeAddresses() []netip.Addr {
	if a.Cluster == nil {
		return nil
	}
	if now := a.Cluster.State().Addresses; len(now) > 0 {
		a.memory.addresses = now
	}
	return a.memory.addresses
}

// reidentify brings the node's own addresses to what is known now: the Node object may
// get its own late, and the API server show it late. The reload lock is held.
func (a *Agent) reidentify() {
	s := *a.settings.Load()
	was := s.own
	if s.own = a.ownAddresses(&s); slices.Equal(s.own, was) {
		return
	}
	a.settings.Store(&s)
	a.call()
}

func (a *Agent) choose(s *Settings) netip.Addr {
	path := filepath.Join(a.RunDir, identityFile)
	last, err := recallIdentity(path)
	if err != nil {
		a.Log.Warn("the router ID of the last run is unknown; it is chosen anew", "err", err)
	}
	node, facing := a.nodeAddresses(), s.Facing
	numbered := numberOf(a.Node)
	if id := last.RouterID; last.Boot == a.Boot && last.Node == a.Node &&
		(id == numbered || slices.Contains(s.Host, id) || slices.Contains(node, id)) {
		return id
	}
	if err == nil && last == (identity{}) && s.Local.Restarting {
		// The agent before this one was of a version that kept no file and chose among
		// the host's addresses. Its peers are to know this one as the same speaker.
		node, facing = nil, nil
	}
	id := cmp.Or(lowestOwn(node, s.Pools, pools.IPv4), lowestOwn(facing, s.Pools, pools.IPv4), lowestOwn(s.Host, s.Pools, pools.IPv4), numbered)
	if err := keepIdentity(path, identity{a.Boot, a.Node, id}); err != nil {
		a.Log.Warn("the router ID may be another one after a restart", "routerID", id, "err", err)
	}
	return id
}

// lowestOwn is the lowest global address of a family that is of no pool, nor a pool's
// gateway, which the node's end of each pod's link may have: those come and go
// with the pods. It is the zero Addr if there is none.
func lowestOwn(addrs []netip.Addr, ps []Pool, f pools.Family) (lowest netip.Addr) {
	for _, a := range addrs {
		ofPool := slices.ContainsFunc(ps, func(p Pool) bool { return p.Contains(a) || p.Reserved(a) })
		if pools.FamilyOf(a) == f && a.IsGlobalUnicast() && !ofPool && (!lowest.IsValid() || a.Less(lowest)) {
			lowest = a
		}
	}
	return lowest
}

// numberOf makes an identifier of a node's name, for one without IPv4.
func numberOf(node string) netip.Addr {
	h := fnv.New32a()
	h.Write([]byte(node))
	id := h.Sum32()>>2 | 1 // no multicast address, and not 0.0.0.0
	return netip.AddrFrom4([4]byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)})
}

// recallIdentity reads the file. That there is none is no error, and nothing is
// recalled.
func recallIdentity(path string) (last identity, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, nil
	}
	if err != nil {
		return identity{}, err
	}
	if err := json.Unmarshal(data, &last); err != nil {
		return identity{}, fmt.Errorf("%s: %w", path, err)
	}
	return last, nil
}

// keepIdentity writes the file in one step.
func keepIdentity(path string, id identity) error {
	data, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
