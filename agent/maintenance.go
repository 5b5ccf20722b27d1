package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
)

const (
	// upkeepFile, in the run directory, is what upkeep keeps.
	upkeepFile = "maintenance.json"
	// upkeepTime bounds the wait for what a person asked for to reach the peers.
	upkeepTime = 15 * time.Second
	// maxMessage is what RFC 9003 leaves for words.
	maxMessage = 255
	// maxAsked bounds a request to the control socket.
	maxAsked = 64 << 10
)

// Upkeep is what a person has told this node's agent to do with its sessions,
// beside its settings. It holds until it is taken back or the machine boots, for
// later agents, too.
type Upkeep struct {
	Maintenance Maintenance `json:"maintenance"`
	// Disabled are the sessions that are kept shut, by the name of the peer or
	// range, with words for the people on the other side (RFC 9003), or "".
	Disabled map[string]string `json:"disabled,omitempty"`
}

// Idle says whether there is nothing of it.
func (u Upkeep) Idle() bool {
	return !u.Maintenance.Node && len(u.Maintenance.Peers) == 0 && len(u.Disabled) == 0
}

func (u Upkeep) clone() Upkeep {
	u.Maintenance.Peers, u.Disabled = slices.Clone(u.Maintenance.Peers), maps.Clone(u.Disabled)
	return u
}

// onto gives s as u has it.
func (u Upkeep) onto(s *Settings) *Settings {
	if u.Idle() {
		return s
	}
	out := *s
	out.Maintenance.Node = s.Maintenance.Node || u.Maintenance.Node
	out.Maintenance.Peers = slices.Concat(s.Maintenance.Peers, u.Maintenance.Peers)
	out.Peers, out.Ranges = slices.Clone(s.Peers), slices.Clone(s.Ranges)
	for i := range out.Peers {
		u.shut(out.Peers[i].Name, &out.Peers[i].Session)
	}
	for i := range out.Ranges {
		u.shut(out.Ranges[i].Name, &out.Ranges[i].Session)
	}
	return &out
}

func (u Upkeep) shut(name string, s *speaker.Session) {
	if message, is := u.Disabled[name]; is {
		s.Down, s.DownMessage = true, message
	}
}

// upkeep keeps an Upkeep for the agents of one boot, and knows how far the
// speaker has followed it.
type upkeep struct {
	path, boot string

	mu        sync.Mutex
	now       Upkeep
	number    int            // of changes so far
	followed  int            // the change that the speaker was last handed
	announced []netip.Prefix // with that
	trouble   error          // and what did not work
	changed   chan struct{}  // closed and replaced when followed changes
}

type upkeepRecord struct {
	Boot string `json:"boot"`
	Upkeep
}

func newUpkeep(runDir, boot string) *upkeep {
	return &upkeep{path: filepath.Join(runDir, upkeepFile), boot: boot, changed: make(chan struct{})}
}

// recall reads what an agent of this boot left. That there is none is no error.
func (u *upkeep) recall() error {
	data, err := os.ReadFile(u.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r upkeepRecord
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return fmt.Errorf("what was disabled or under maintenance: %s: %w: remove the file to begin with nothing", u.path, err)
	}
	if r.Boot == u.boot {
		u.now = r.Upkeep
	}
	return nil
}

// current is what holds, and the number of its last change.
func (u *upkeep) current() (Upkeep, int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now.clone(), u.number
}

// change makes what f makes of the Upkeep hold, once it is kept for later agents.
func (u *upkeep) change(f func(*Upkeep) error) (number int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := u.now.clone()
	if err := f(&next); err != nil {
		return 0, err
	}
	data, err := json.Marshal(upkeepRecord{u.boot, next})
	if err == nil {
		err = os.WriteFile(u.path+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(u.path+".new", u.path)
	}
	if err != nil {
		return 0, fmt.Errorf("nothing was changed, since it would not outlive the agent: %w", err)
	}
	u.now = next
	u.number++
	return u.number, nil
}

// follow notes that the speaker was handed everything up to a change.
func (u *upkeep) follow(number int, announced []netip.Prefix, trouble error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.followed, u.announced, u.trouble = number, announced, trouble
	close(u.changed)
	u.changed = make(chan struct{})
}

// await waits until the speaker was handed a change, and gives what it announces.
func (u *upkeep) await(ctx context.Context, number int) (announced []netip.Prefix, err error) {
	for {
		u.mu.Lock()
		followed, changed := u.followed, u.changed
		announced, err = u.announced, u.trouble
		u.mu.Unlock()
		if followed >= number {
			return announced, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// Maintain begins or ends the maintenance of one session, by the name of its peer
// or range, or with "" of the node: peers are asked to prefer other ways while this
// node still delivers (RFC 8326). It returns when every peer that has a session
// was told. To end the node's ends all of it.
func (a *Agent) Maintain(ctx context.Context, on bool, peer string) error {
	return a.changeUpkeep(ctx, func(u *Upkeep) error {
		m := &u.Maintenance
		switch {
		case peer == "" && on:
			m.Node = true
		case peer == "":
			*m = Maintenance{}
		case on:
			if err := a.knows(peer); err != nil {
				return err
			}
			if !slices.Contains(m.Peers, peer) {
				m.Peers = append(m.Peers, peer)
			}
		case m.Node:
			return errors.New("the whole node is under maintenance: end that, and begin it for the peers that are to stay out")
		case !slices.Contains(m.Peers, peer):
			return fmt.Errorf("peer %s is not under maintenance: %s", peer, listed(m.Peers, "no peer is", "these are"))
		default:
			m.Peers = slices.DeleteFunc(m.Peers, func(p string) bool { return p == peer })
		}
		return nil
	})
}

// Disable shuts the session of a peer, or those of a range, with words for the
// people on the other side (RFC 9003, at most 255 bytes of UTF-8), and keeps it
// shut. It returns when that is done.
func (a *Agent) Disable(ctx context.Context, peer, message string) error {
	if len(message) > maxMessage || !utf8.ValidString(message) {
		return fmt.Errorf("message of %d bytes: want at most %d bytes of UTF-8 (RFC 9003)", len(message), maxMessage)
	}
	return a.changeUpkeep(ctx, func(u *Upkeep) error {
		if err := a.knows(peer); err != nil {
			return err
		}
		if u.Disabled == nil {
			u.Disabled = map[string]string{}
		}
		u.Disabled[peer] = message
		return nil
	})
}

// Enable takes a Disable back.
func (a *Agent) Enable(ctx context.Context, peer string) error {
	return a.changeUpkeep(ctx, func(u *Upkeep) error {
		if _, is := u.Disabled[peer]; !is {
			return fmt.Errorf("peer %s is not disabled by command: %s", peer, listed(slices.Sorted(maps.Keys(u.Disabled)), "no peer is", "these are"))
		}
		delete(u.Disabled, peer)
		return nil
	})
}

// knows is an error for a name that no peer and no range has.
func (a *Agent) knows(peer string) error {
	s := a.settings.Load()
	var names []string
	for _, p := range s.Peers {
		names = append(names, p.Name)
	}
	for _, r := range s.Ranges {
		names = append(names, r.Name)
	}
	if slices.Contains(names, peer) {
		return nil
	}
	if i := slices.IndexFunc(s.Ranges, func(r speaker.Range) bool { return strings.HasPrefix(peer, r.Name+"/") }); i >= 0 {
		return fmt.Errorf("peer %s: %w: a router of a range can't be named alone: name %s for all of them", peer, speaker.ErrUnknownPeer, s.Ranges[i].Name)
	}
	return fmt.Errorf("peer %s: %w: %s", peer, speaker.ErrUnknownPeer, listed(names, "none is configured", "there are"))
}

func listed(names []string, none, some string) string {
	if len(names) == 0 {
		return none
	}
	return some + " " + strings.Join(names, ", ")
}

// changeUpkeep returns when the peers with a session have heard of the change.
func (a *Agent) changeUpkeep(ctx context.Context, f func(*Upkeep) error) error {
	number, err := a.upkeep.change(f)
	if err != nil {
		return err
	}
	now, _ := a.upkeep.current()
	a.Log.Info("what is disabled or under maintenance changed", "maintenance", now.Maintenance.Node,
		"peersUnderMaintenance", now.Maintenance.Peers, "disabled", slices.Sorted(maps.Keys(now.Disabled)))
	a.call()
	ctx, cancel := context.WithTimeout(ctx, upkeepTime)
	defer cancel()
	announced, err := a.upkeep.await(ctx, number)
	if err == nil {
		err = a.flushed(ctx, announced)
	}
	if err != nil {
		return fmt.Errorf("it holds from now on, but not all peers have heard of it yet: %w", err)
	}
	return nil
}

// flushed waits until the peers that have a session have been told of prefixes.
func (a *Agent) flushed(ctx context.Context, prefixes []netip.Prefix) error {
	var errs []error
	for _, f := range []pools.Family{pools.IPv4, pools.IPv6} {
		if !a.sessionUp(ctx) {
			break // there is nobody to tell
		}
		of := slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return pools.FamilyOf(p.Addr()) != f })
		err := bounded(ctx, flushTime, func(ctx context.Context) error { return a.Speaker.Flush(ctx, of) })
		if !errors.Is(err, speaker.ErrNoPeer) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// UpkeepRequest is what the fairway command asks for, of one peer or, with "", of
// the node.
type UpkeepRequest struct {
	Peer    string `json:"peer,omitempty"`
	On      bool   `json:"on"`
	Message string `json:"message,omitempty"` // for whom a session is shut to
}

// serveUpkeep adds what changes an Upkeep to the control socket.
func (a *Agent) serveUpkeep(mux *http.ServeMux) {
	serve := func(path string, do func(context.Context, UpkeepRequest) error) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var asked UpkeepRequest
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsked)).Decode(&asked); err != nil {
				http.Error(w, "what is asked for: "+err.Error(), http.StatusBadRequest)
			} else if err := do(r.Context(), asked); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
			}
		})
	}
	serve("/v1/maintenance", func(ctx context.Context, r UpkeepRequest) error { return a.Maintain(ctx, r.On, r.Peer) })
	serve("/v1/peer", func(ctx context.Context, r UpkeepRequest) error {
		if r.On {
			return a.Enable(ctx, r.Peer)
		}
		return a.Disable(ctx, r.Peer, r.Message)
	})
}
