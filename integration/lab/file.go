package lab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Load reads a containerlab topology file. It knows name, topology.defaults,
// kinds, nodes and links; of a node kind (linux alone), image, cmd, binds,
// exec, env, sysctls, cap-add, startup-delay, network-mode (none alone) and
// stages.*.wait-for; of a link its two endpoints and mtu. Labels and groups
// are passed over. Any other key is refused with its line.
func Load(path string) (*Topology, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	t, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("topology %s: %w", path, err)
	}
	if t.Dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("topology %s: %w", path, err)
	}
	return t, nil
}

// Parse reads the text of a topology file. The Dir of the result is empty.
func Parse(text []byte) (*Topology, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("empty file: a topology has a name and a topology")
	}
	root, err := object(doc.Content[0], "topology file", "name", "prefix", "topology")
	if err != nil {
		return nil, err
	}
	t := &Topology{}
	if err := decode(root["name"], &t.Name); err != nil {
		return nil, err
	}
	top, err := object(root["topology"], "topology", "defaults", "kinds", "nodes", "links")
	if err != nil {
		return nil, err
	}
	if t.Nodes, err = parseNodes(top); err != nil {
		return nil, err
	}
	if t.Links, err = parseLinks(top["links"]); err != nil {
		return nil, err
	}
	return t, t.Validate()
}

// fileNode is a node as the file has it, in defaults, kinds and nodes alike.
type fileNode struct {
	Kind         string
	Image        string
	Cmd          string
	Binds        []string
	Exec         []string
	Env          map[string]string
	Sysctls      map[string]string
	CapAdd       []string `yaml:"cap-add"`
	StartupDelay int      `yaml:"startup-delay"`
	NetworkMode  string   `yaml:"network-mode"`
	waits        []Wait
}

func parseNodes(top map[string]*yaml.Node) ([]NodeSpec, error) {
	defaults, err := parseNode(top["defaults"], "defaults")
	if err != nil {
		return nil, err
	}
	kinds := map[string]fileNode{}
	for name, body := range entries(top["kinds"]) {
		if kinds[name.Value], err = parseNode(body, "kind "+name.Value); err != nil {
			return nil, err
		}
	}
	var nodes []NodeSpec
	for name, body := range entries(top["nodes"]) {
		own, err := parseNode(body, "node "+name.Value)
		if err != nil {
			return nil, err
		}
		merged := defaults.under(kinds[firstOf(own.Kind, defaults.Kind)]).under(own)
		spec, err := merged.spec(name.Value)
		if err != nil {
			return nil, fmt.Errorf("line %d: node %q: %w", name.Line, name.Value, err)
		}
		nodes = append(nodes, spec)
	}
	return nodes, nil
}

func parseNode(body *yaml.Node, what string) (fileNode, error) {
	var f fileNode
	keys, err := object(body, what, "kind", "image", "cmd", "binds", "exec", "env", "sysctls", "cap-add",
		"startup-delay", "network-mode", "stages", "group", "labels")
	if err != nil {
		return f, err
	}
	if err := decode(body, &f); err != nil {
		return f, err
	}
	for stage, entry := range entries(keys["stages"]) {
		inner, err := object(entry, "stage "+stage.Value, "wait-for")
		if err != nil {
			return f, err
		}
		var waits []struct{ Node, Stage string }
		if err := decode(inner["wait-for"], &waits); err != nil {
			return f, err
		}
		for _, w := range waits {
			f.waits = append(f.waits, Wait{Stage: Stage(stage.Value), Node: w.Node, Until: Stage(w.Stage)})
		}
	}
	return f, nil
}

// under lays over on top of f as containerlab does: single values are
// replaced, lists appended, maps merged.
func (f fileNode) under(over fileNode) fileNode {
	out := f
	out.Kind = firstOf(over.Kind, f.Kind)
	out.Image = firstOf(over.Image, f.Image)
	out.Cmd = firstOf(over.Cmd, f.Cmd)
	out.NetworkMode = firstOf(over.NetworkMode, f.NetworkMode)
	out.StartupDelay = firstOf(over.StartupDelay, f.StartupDelay)
	out.Binds = slices.Concat(f.Binds, over.Binds)
	out.Exec = slices.Concat(f.Exec, over.Exec)
	out.waits = slices.Concat(f.waits, over.waits)
	out.Env = merge(f.Env, over.Env)
	out.Sysctls = merge(f.Sysctls, over.Sysctls)
	return out
}

func firstOf[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}

func merge(under, over map[string]string) map[string]string {
	if under == nil {
		return over
	}
	out := maps.Clone(under)
	maps.Copy(out, over)
	return out
}

func (f fileNode) spec(name string) (NodeSpec, error) {
	if f.Kind != "linux" {
		return NodeSpec{}, fmt.Errorf("kind %q: only nodes of kind linux can be run here", f.Kind)
	}
	if f.NetworkMode != "" && f.NetworkMode != "none" {
		return NodeSpec{}, fmt.Errorf("network-mode %q: only none is known here", f.NetworkMode)
	}
	spec := NodeSpec{
		Name: name, Image: f.Image, Cmd: f.Cmd, Exec: f.Exec, Env: f.Env, Sysctls: f.Sysctls,
		StartupDelay: time.Duration(f.StartupDelay) * time.Second, WaitFor: f.waits,
	}
	for _, text := range f.Binds {
		bind, err := parseBind(text)
		if err != nil {
			return NodeSpec{}, err
		}
		spec.Binds = append(spec.Binds, bind)
	}
	return spec, nil
}

func parseBind(text string) (Bind, error) {
	parts := strings.Split(text, ":")
	switch {
	case len(parts) == 2:
		return Bind{Source: parts[0], Target: parts[1]}, nil
	case len(parts) == 3 && (parts[2] == "ro" || parts[2] == "rw"):
		return Bind{Source: parts[0], Target: parts[1], ReadOnly: parts[2] == "ro"}, nil
	}
	return Bind{}, fmt.Errorf("bind %q: write it as source:target, source:target:ro or source:target:rw", text)
}

func parseLinks(list *yaml.Node) ([]Link, error) {
	if list == nil {
		return nil, nil
	}
	var bodies []yaml.Node
	if err := decode(list, &bodies); err != nil {
		return nil, err
	}
	var links []Link
	for i := range bodies {
		if _, err := object(&bodies[i], "link", "endpoints", "mtu", "labels"); err != nil {
			return nil, err
		}
		var link struct {
			Endpoints []Endpoint
			MTU       int
		}
		if err := decode(&bodies[i], &link); err != nil {
			return nil, err
		}
		if len(link.Endpoints) != 2 {
			return nil, fmt.Errorf("line %d: link with %d endpoints: it has two ends", bodies[i].Line, len(link.Endpoints))
		}
		links = append(links, Link{A: link.Endpoints[0], B: link.Endpoints[1], MTU: link.MTU})
	}
	return links, nil
}
