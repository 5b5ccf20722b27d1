package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

// told remembers, for the next agent of this boot, that BGP was spoken, which
// blocks peers were told of and which routes of the kernel they may rely on.
// The file's time of modification says when this agent was last alive.
type told struct {
	path, boot string
	now        func() time.Time

	mu     sync.Mutex
	begun  bool
	blocks map[netip.Prefix]bool
	routes []netip.Prefix
}

type toldRecord struct {
	Boot   string         `json:"boot"`
	Blocks []netip.Prefix `json:"blocks"`
	Routes []netip.Prefix `json:"routes,omitempty"`
}

func newTold(runDir, boot string, now func() time.Time) *told {
	return &told{path: filepath.Join(runDir, toldFile), boot: boot, now: now, blocks: map[netip.Prefix]bool{}}
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
	for _, p := range r.Blocks {
		t.blocks[p] = true
	}
	t.routes = r.Routes
	return true
}

// relied are the routes that peers may rely on.
func (t *told) relied() []netip.Prefix {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.routes
}

// has says whether peers were told of block.
func (t *told) has(block netip.Prefix) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.blocks[block]
}

// keep forgets the blocks that are not held any more: claimed again, they are
// new to the peers.
func (t *told) keep(held func(block netip.Prefix) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.blocks, func(p netip.Prefix, _ bool) bool { return !held(p) })
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

// add remembers blocks that peers were told of.
func (t *told) add(blocks []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := false
	for _, b := range blocks {
		news = news || !t.blocks[b]
		t.blocks[b] = true
	}
	if !news {
		return nil
	}
	return t.save()
}

// remove forgets blocks that are about to be withdrawn: all of them or, with
// an error, none.
func (t *told) remove(blocks []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := maps.Clone(t.blocks)
	for _, b := range blocks {
		delete(t.blocks, b)
	}
	if len(t.blocks) == len(before) {
		return nil
	}
	err := t.save()
	if err != nil {
		t.blocks = before
	}
	return err
}

// save writes the file in one step. The lock is held.
func (t *told) save() error {
	blocks := slices.SortedFunc(maps.Keys(t.blocks), netipx.ComparePrefix)
	data, err := json.Marshal(toldRecord{t.boot, blocks, t.routes})
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
	clear(t.blocks)
	t.routes, t.begun = nil, false
	if err := os.Remove(t.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what was announced: %w", err)
	}
	return nil
}
