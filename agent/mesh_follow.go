package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

const (
	// meshFile, in the run directory, is where the nodes of a mesh are kept.
	meshFile = "mesh.json"
	// manyNodes is from when on a mesh is no good idea any more.
	manyNodes = 100
	// settleTime is how long sessions take at most to come up where nothing is wrong.
	settleTime = 5 * time.Second
)

// mesh is what an agent knows of the other nodes of its mesh. The reload lock guards
// it.
type mesh struct {
	meshRecord
	path   string
	known  bool      // Nodes are those of the cluster, or were in this boot
	self   *MeshNode // as the others are to find this node; nil for not at all
	kept   string    // what the file holds, as far as known
	many   bool      // it was said that there are
	peers  []string  // the names of its peers
	turned chan struct{}
	// woven is when there were last other peers, in nanoseconds.
	woven atomic.Int64
}

// meshRecord is what the next agent of a boot needs while the API server is away.
type meshRecord struct {
	Boot  string     `json:"boot"`
	Nodes []MeshNode `json:"nodes"`
	// Addresses are this node's.
	Addresses []netip.Addr `json:"addresses"`
}

// apart is what of Settings came without the mesh.
type apart struct {
	peers   []speaker.Peer
	bfd     map[string]BFD
	unmet   error
	awaited []speaker.Peer
}

func newMesh(runDir, boot string) *mesh {
	return &mesh{path: filepath.Join(runDir, meshFile), meshRecord: meshRecord{Boot: boot}, turned: make(chan struct{}, 1)}
}

// recallMesh begins with what an earlier agent of this boot knew.
func (a *Agent) recallMesh() {
	m := a.mesh
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var r meshRecord
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	switch {
	case err != nil:
		a.Log.Warn("the mesh begins once the API server shows its nodes", "file", m.path, "err", err)
	case r.Boot == m.Boot:
		m.meshRecord, m.known, m.kept = r, true, string(data)
	}
}

// keep writes the file in one step, if it is another one.
func (m *mesh) keep() error {
	data, err := json.Marshal(m.meshRecord)
	if err != nil || string(data) == m.kept || !m.known {
		return err
	}
	if err := os.WriteFile(m.path+".new", data, 0o600); err != nil {
		return fmt.Errorf("remember the nodes of the mesh: %w", err)
	}
	if err := os.Rename(m.path+".new", m.path); err != nil {
		return fmt.Errorf("remember the nodes of the mesh: %w", err)
	}
	m.kept = string(data)
	return nil
}

// weave gives s the peers of its mesh, in place of those that it had. A peer of the
// configuration at the address of a node stands for it. The reload lock is held, or
// nobody else is there.
func (a *Agent) weave(s *Settings) {
	if s.apart == nil {
		s.apart = &apart{s.Peers, s.BFD, s.Unmet, s.Awaited}
	}
	s.Peers, s.BFD, s.Unmet, s.Awaited = s.apart.peers, s.apart.bfd, s.apart.unmet, s.apart.awaited
	if s.Mesh == nil || a.Cluster == nil {
		a.present(nil)
		a.mesh.weave(nil)
		return
	}
	state := a.Cluster.State()
	if len(state.Addresses) > 0 { // a Node object that goes, to come back perhaps, ends no session
		a.mesh.Addresses = state.Addresses
	}
	a.present(s.Mesh.endpoint(a.Node, s.Local, a.mesh.Addresses))
	peers, err := a.meshPeers(s, state.Pools)
	if err != nil {
		s.Unmet = errors.Join(s.Unmet, err)
	}
	if err != nil && (errors.Is(err, errOutside) || !a.mesh.known) {
		s.Awaited = append(slices.Clip(s.Awaited), speaker.Peer{Name: MeshPeers, Session: speaker.Session{Families: s.Mesh.families()}})
	}
	s.add(peers)
	a.mesh.weave(peers)
}

// weave notes when peers come or go.
func (m *mesh) weave(peers []speaker.Peer) {
	names := make([]string, len(peers))
	for i, p := range peers {
		names[i] = p.Name
	}
	if !slices.Equal(names, m.peers) {
		m.peers = names
		m.woven.Store(time.Now().UnixNano())
	}
}

// meshPeers are those of the mesh, and why there are not more.
func (a *Agent) meshPeers(s *Settings, accepted []Pool) ([]speaker.Peer, error) {
	self := a.mesh.self
	switch {
	case s.Local.ASN == 0:
		return nil, fmt.Errorf("%w: its ASN is not known yet", errOutside)
	case self == nil && len(a.mesh.Addresses) == 0:
		return nil, fmt.Errorf("%w: its Node object has no internal address yet", errOutside)
	case self == nil:
		return nil, fmt.Errorf("%w: its Node object has no internal address of the families %v, only %v", errOutside, s.Mesh.families(), a.mesh.Addresses)
	case !a.mesh.known:
		return nil, errors.New("mesh: the other nodes are not known yet: the API server has not shown them")
	}
	peers, err := s.Mesh.peers(*self, a.mesh.Nodes, ranges(slices.Concat(accepted, s.Pools)))
	if !a.mesh.shown() {
		err = errors.Join(err, errors.New("mesh: the other nodes can't find this one yet: its NodeSpeaker has no status.mesh, as with an older CustomResourceDefinition, another one than this agent reports, or a fence"))
	}
	return peers, err
}

// shown says whether the others know this node as it is.
func (m *mesh) shown() bool {
	return m.self == nil || slices.ContainsFunc(m.Nodes, func(n MeshNode) bool {
		n.Since = m.self.Since
		return reflect.DeepEqual(n, *m.self)
	})
}

// add gives s peers of the mesh.
func (s *Settings) add(peers []speaker.Peer) {
	own := s.Peers
	s.Peers, s.BFD = slices.Clone(s.Peers), maps.Clone(s.BFD)
	if s.BFD == nil {
		s.BFD = map[string]BFD{}
	}
	for _, p := range peers {
		if slices.ContainsFunc(own, func(q speaker.Peer) bool { return q.Address == p.Address }) {
			continue
		}
		s.Peers = append(s.Peers, p)
		if s.Mesh.BFD != nil {
			s.BFD[p.Name] = *s.Mesh.BFD
		}
	}
}

// present has the cluster told where this node's speaker is, nil for nowhere, when
// that is news. The reload lock is held.
func (a *Agent) present(self *MeshNode) {
	if !reflect.DeepEqual(self, a.mesh.self) {
		a.mesh.self = self
		a.hurryReport()
	}
}

// presented is where the others are to find this node.
func (a *Agent) presented() *MeshNode {
	a.reload.Lock()
	defer a.reload.Unlock()
	return a.mesh.self
}

// isPresented says whether they have been shown that.
func (a *Agent) isPresented() bool {
	a.reload.Lock()
	defer a.reload.Unlock()
	return a.mesh.shown()
}

// reweave brings the peers of the mesh to what is known now. The reload lock is held.
func (a *Agent) reweave() {
	was := a.settings.Load()
	if was.Mesh == nil {
		return
	}
	s := *was
	a.weave(&s)
	if err := a.mesh.keep(); err != nil {
		a.Log.Warn("after a restart the mesh needs the API server", "err", err)
	}
	if reflect.DeepEqual(s.Peers, was.Peers) && reflect.DeepEqual(s.Awaited, was.Awaited) && fmt.Sprint(s.Unmet) == fmt.Sprint(was.Unmet) {
		return
	}
	a.settings.Store(&s)
	a.call()
}

// meet takes in the nodes of the mesh.
func (a *Agent) meet(nodes []MeshNode) {
	a.reload.Lock()
	defer a.reload.Unlock()
	came, left := missing(nodes, a.mesh.Nodes), missing(a.mesh.Nodes, nodes)
	a.mesh.Nodes, a.mesh.known = nodes, true
	if len(came) > 0 || len(left) > 0 {
		a.Log.Info("the nodes of the mesh changed", "nodes", len(nodes), "came", came, "left", left)
	}
	if many := len(nodes) > manyNodes; many != a.mesh.many {
		a.mesh.many = many
		if many {
			a.Log.Warn("a mesh costs the API server an event for each node whenever the status of one changes: peer with routers instead, such as route reflectors", "nodes", len(nodes), "good", manyNodes)
		}
	}
	a.reweave()
	if s := a.mesh.self; s != nil && len(missing([]MeshNode{*s}, nodes)) > 0 {
		a.hurryReport()
	}
}

// missing are the names of those in nodes that are not among others.
func missing(nodes, others []MeshNode) (names []string) {
	for _, n := range nodes {
		if !slices.ContainsFunc(others, func(o MeshNode) bool { return o.Name == n.Name }) {
			names = append(names, n.Name)
		}
	}
	return names
}

// turnMesh says that there may be a mesh now, or none any more. It never blocks.
func (a *Agent) turnMesh() {
	select {
	case a.mesh.turned <- struct{}{}:
	default:
	}
}

// watchMesh follows the nodes of the mesh for as long as there is one, until ctx
// ends.
func (a *Agent) watchMesh(ctx context.Context) {
	for ctx.Err() == nil {
		if a.settings.Load().Mesh != nil {
			a.followMesh(ctx)
			continue
		}
		select {
		case <-a.mesh.turned:
		case <-ctx.Done():
		}
	}
}

// followMesh returns when the settings have no mesh any more.
func (a *Agent) followMesh(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			err := a.Cluster.WatchMesh(ctx, a.meet)
			if ctx.Err() != nil {
				return
			}
			a.Log.Warn("the nodes of the mesh are not watched; trying again", "err", err, "in", resync)
			pause(ctx, resync)
		}
	}()
	for ctx.Err() == nil && a.settings.Load().Mesh != nil {
		select {
		case <-a.mesh.turned:
		case <-ctx.Done():
		}
	}
	cancel()
	<-ended
}

// isSettled says whether nodes of the mesh that have no session at now are away, and
// not about to come: there is nobody to tell of a new block, and this node's pods reach
// each other.
func (a *Agent) isSettled(now time.Time) bool {
	return now.Sub(time.Unix(0, max(a.servingSince.Load(), a.mesh.woven.Load()))) > settleTime
}
