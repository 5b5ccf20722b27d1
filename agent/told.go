package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go4.org/netipx"
)

// toldFile, in the run directory, is what told keeps.
const toldFile = "announced.json"

// told remembers, for the next agent of this boot, that BGP was spoken, what of
// its blocks peers were told of and which routes of the kernel they may rely on.
// The file's time of modification says when this agent was last alive.
type told struct {
	path, boot string
	now        func() time.Time

	mu     sync.Mutex
	begun  bool
	blocks *netipx.IPSet
	routes []netip.Prefix
	shrunk int // the last plan that wanted less announced than the one before
}

type toldRecord struct {
	Boot   string         `json:"boot"`
	Blocks []netip.Prefix `json:"blocks"`
	Routes []netip.Prefix `json:"routes,omitempty"`
}

func newTold(runDir, boot string, now func() time.Time) *told {
	return &told{path: filepath.Join(runDir, toldFile), boot: boot, now: now, blocks: &netipx.IPSet{}}
}

// recall reads what an agent of this boot left, if it was alive not longer
// than within ago: after that, peers have given up its routes. It says whether
// there was one.
func (t *told) recall(within time.Duration) bool {
	info, err := os.Stat(t.path)
	if err != nil || t.now().Sub(info.ModTime()) > within {
		return false
	}
	var r toldRecord
	data, err := os.ReadFile(t.path)
	if err != nil || json.Unmarshal(data, &r) != nil || r.Boot != t.boot {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var b netipx.IPSetBuilder
	for _, p := range r.Blocks {
		b.AddPrefix(p)
	}
	blocks, err := b.IPSet()
	if err != nil {
		return false
	}
	t.blocks, t.routes = blocks, r.Routes
	return true
}

// relied are the routes that peers may rely on.
func (t *told) relied() []netip.Prefix {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.routes
}

// all is what peers were told of.
func (t *told) all() *netipx.IPSet {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.blocks
}

// keep forgets what is not in the blocks held any more: claimed again, they are
// new to the peers.
func (t *told) keep(held *netipx.IPSet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blocks = common(t.blocks, held)
}

// begin leaves a mark before the first word to a peer, and later ones to show
// that the agent lives. routes, from now on the caller's no more, are those
// that peers may rely on after that word.
func (t *told) begin(routes []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var unsaved error
	if old := t.routes; !t.begun || !slices.Equal(old, routes) {
		t.routes = routes
		if unsaved = t.save(); unsaved == nil {
			return nil
		}
		t.routes = old // to be tried again
	}
	if !t.begun {
		return unsaved
	}
	now := t.now()
	if err := os.Chtimes(t.path, now, now); err != nil {
		return errors.Join(unsaved, fmt.Errorf("mark the agent alive: %w", err))
	}
	return unsaved
}

// add remembers what peers were told of by plan number, unless something of it
// may have been withdrawn since.
func (t *told) add(news *netipx.IPSet, number int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b netipx.IPSetBuilder
	b.AddSet(t.blocks)
	b.AddSet(news)
	all := built(&b)
	if number < t.shrunk || all.Equal(t.blocks) {
		return nil
	}
	t.blocks = all
	return t.save()
}

// retain forgets all but what is announced now, before the rest is withdrawn: all
// of that or, with an error, nothing. What plans before shrunk are found to have
// told peers is not remembered after that.
func (t *told) retain(announced *netipx.IPSet, shrunk int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shrunk = shrunk
	before := t.blocks
	stays := common(before, announced)
	if stays.Equal(before) {
		return nil
	}
	t.blocks = stays
	if err := t.save(); err != nil {
		t.blocks = before
		return err
	}
	return nil
}

// save writes the file in one step. The lock is held.
func (t *told) save() error {
	data, err := json.Marshal(toldRecord{t.boot, t.blocks.Prefixes(), t.routes})
	if err != nil {
		return err
	}
	fresh := t.path + ".new"
	if err := os.WriteFile(fresh, data, 0o600); err != nil {
		return fmt.Errorf("remember what was announced: %w", err)
	}
	if err := os.Rename(fresh, t.path); err != nil {
		return fmt.Errorf("remember what was announced: %w", err)
	}
	t.begun = true
	return nil
}

// forget removes the file once everything was withdrawn.
func (t *told) forget() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blocks, t.routes, t.begun = &netipx.IPSet{}, nil, false
	if err := os.Remove(t.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what was announced: %w", err)
	}
	return nil
}
