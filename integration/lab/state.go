package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// state is what a lab leaves in its directory for other processes.
type state struct {
	Topology *Topology
	Env      map[string]string
	Nodes    map[string]body
}

// body is the processes that a node stands on.
type body struct {
	Outer Process // its death is the node's
	Init  Process // PID 1 of the node; zero until the node stands
}

func stateFile(dir string) string { return filepath.Join(dir, "lab.json") }

// Open returns the lab that stands in a directory, for a process that did not
// bring it up. The error wraps fs.ErrNotExist when there is none.
func Open(dir string) (*Lab, error) {
	text, err := os.ReadFile(stateFile(dir))
	if err != nil {
		return nil, fmt.Errorf("lab in %s: %w", dir, err)
	}
	s := state{Topology: &Topology{}}
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("lab in %s: %s: %w", dir, stateFile(dir), err)
	}
	l := newLab(s.Topology, Options{Dir: dir, Env: s.Env, Persist: true})
	for name, b := range s.Nodes {
		if n := l.nodes[name]; n != nil {
			n.body = b
		}
	}
	return l, nil
}

// claimDir makes the lab's directory. What a lab left there that has no live
// process any more is cleared away.
func (l *Lab) claimDir() error {
	old, err := Open(l.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("%w: remove the directory if no lab runs", err)
	default:
		for _, n := range old.nodes {
			if n.body.Outer.Alive() || n.body.Init.Alive() {
				return fmt.Errorf("%w: %s in %s: take it down first", ErrUp, old.Name(), l.dir)
			}
		}
		if err := old.Down(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("lab %s: %w", l.Name(), err)
	}
	return l.save()
}

// save writes the state file, whole or not at all.
func (l *Lab) save() error {
	l.saving.Lock()
	defer l.saving.Unlock()
	s := state{Topology: l.topology, Env: l.env, Nodes: map[string]body{}}
	for name, n := range l.nodes {
		s.Nodes[name] = n.current()
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("lab %s: state: %w", l.Name(), err)
	}
	draft := stateFile(l.dir) + ".new"
	if err := os.WriteFile(draft, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("lab %s: state: %w", l.Name(), err)
	}
	if err := os.Rename(draft, stateFile(l.dir)); err != nil {
		return fmt.Errorf("lab %s: state: %w", l.Name(), err)
	}
	return nil
}
