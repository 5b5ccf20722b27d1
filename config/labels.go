package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Labels are labels and their values, as those of a Kubernetes object.
type Labels map[string]string

// In says whether all of l are among labels, with these values.
func (l Labels) In(labels map[string]string) bool {
	for k, v := range l {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// excludes says whether no labels can have all of l and all of m.
func (l Labels) excludes(m Labels) bool {
	for k, v := range l {
		if other, ok := m[k]; ok && other != v {
			return true
		}
	}
	return false
}

var (
	labelName  = compiled(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	labelValue = compiled(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
)

// isLabelKey says whether a label or an annotation can have that key.
func isLabelKey(key string) bool {
	prefix, name, parted := strings.Cut(key, "/")
	if !parted {
		return labelName().MatchString(key)
	}
	return len(prefix) <= 253 && dnsName.MatchString(prefix) && labelName().MatchString(name)
}

// labels holds n against the rules of labels and returns those that are right,
// each as "key=value": viper takes capitals and dots out of the keys of a mapping.
func (s *source) labels(n *yaml.Node, path string) any {
	out := []any{}
	if !s.plain(n, path) {
		return out
	}
	if n.Kind != yaml.MappingNode {
		s.fail(path, "%s: write labels and their values here, such as topology.kubernetes.io/rack: r1", describe(n))
		return out
	}
	values := map[string]string{}
	for i := 0; i+1 < len(n.Content) && !s.full(); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Anchor != "" || !isLabelKey(key.Value) {
			s.failAt(key.Line, path, "%q can't be the key of a label: write one such as example.com/rack", shown(key.Value))
			s.bad[path] = true
			continue
		}
		at := fmt.Sprintf("%s.%s", path, key.Value)
		if _, twice := values[key.Value]; twice {
			s.failAt(key.Line, at, "the label is there twice, first in line %d: remove one", s.lines[at])
			continue
		}
		s.lines[at] = key.Line
		if s.labelValue(value, at) {
			values[key.Value] = value.Value
		} else {
			s.bad[path] = true
		}
	}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		out = append(out, k+"="+values[k])
	}
	return out
}

func (s *source) labelValue(n *yaml.Node, at string) bool {
	switch {
	case isNull(n):
		s.fail(at, `it has no value: write one, or "" for none`)
	case !s.plain(n, at):
	case n.Kind != yaml.ScalarNode:
		s.fail(at, "%s, want one value", describe(n))
	case !labelValue().MatchString(n.Value):
		s.fail(at, "%q can't be the value of a label: write up to 63 letters, digits, inner hyphens, dots and underscores", shown(n.Value))
	default:
		return true
	}
	return false
}

// labelsOf undoes what labels made.
func labelsOf(pairs []any) Labels {
	out := Labels{}
	for _, p := range pairs {
		text, _ := p.(string)
		k, v, _ := strings.Cut(text, "=")
		out[k] = v
	}
	return out
}
