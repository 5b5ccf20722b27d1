package lab

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// object returns the values of a mapping by key and refuses keys that are not
// known. A missing or empty mapping has no keys.
func object(n *yaml.Node, what string, known ...string) (map[string]*yaml.Node, error) {
	out := map[string]*yaml.Node{}
	if n == nil || n.Tag == "!!null" {
		return out, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: %s: not a mapping of keys to values", n.Line, what)
	}
	for key, value := range entries(n) {
		if !slices.Contains(known, key.Value) {
			return nil, fmt.Errorf("line %d: %s: unknown key %q: known are %s", key.Line, what, key.Value, strings.Join(known, ", "))
		}
		if out[key.Value] != nil {
			return nil, fmt.Errorf("line %d: %s: key %q stands twice", key.Line, what, key.Value)
		}
		out[key.Value] = value
	}
	return out, nil
}

// entries walks a mapping in its order; of anything else there are none.
func entries(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// decode is Node.Decode for a node that may be missing.
func decode(n *yaml.Node, into any) error {
	if n == nil {
		return nil
	}
	return n.Decode(into)
}
