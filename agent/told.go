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

// told remembers, for the next agent of this boot, that BGP was spoken and
// which blocks peers were told of. The file's time of modification says when
// this agent was last alive.
type told struct {
	path, boot string
	now        func() time.Time

	mu     sync.Mutex
	begun  bool
	blocks map[netip.Prefix]bool
}

type toldRecord struct {
	Boot   string         `json:"boot"`
	Blocks []netip.Prefix `json:"blocks"`
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
	return true
}

// has says whether peers were told of block.
func (t *told) has(block netip.Prefix) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.blocks[block]
}

// keep forgets the blocks that are not held any more: claimed again, they are
// new to the peers.
func (t *told) keep(held map[netip.Prefix]*door) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.blocks, func(p netip.Prefix, _ bool) bool { return held[p] == nil })
}

// begin leaves a mark before the first word to a peer, and later ones to show
// that the agent lives.
func (t *told) begin() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.begun {
		return t.save()
	}
	now := t.now()
	if err := os.Chtimes(t.path, now, now); err != nil {
		return fmt.Errorf("mark the agent alive: %w", err)
	}
	return nil
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

// remove forgets a block that is about to be withdrawn.
func (t *told) remove(block netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.blocks[block] {
		return nil
	}
	delete(t.blocks, block)
	return t.save()
}

// save writes the file in one step. The lock is held.
func (t *told) save() error {
	blocks := slices.SortedFunc(maps.Keys(t.blocks), netipx.ComparePrefix)
	data, err := json.Marshal(toldRecord{t.boot, blocks})
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
	t.begun = false
	if err := os.Remove(t.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what was announced: %w", err)
	}
	return nil
}
