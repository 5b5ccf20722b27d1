package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	maxShown = 80  // how much of a wrong value an error repeats
	maxValue = 320 // no value is longer than this
)

// mapping holds n against s and returns what of it is right: for each key a
// string, or a map or list of such. What is wrong is noted and left out.
func (s *source) mapping(n *yaml.Node, path string, want *shape) map[string]any {
	out := map[string]any{}
	if !s.plain(n, path) {
		return out
	}
	if n.Kind != yaml.MappingNode {
		s.fail(path, "%s: write keys and values here: %s", describe(n), strings.Join(want.keys(), ", "))
		return out
	}
	seen, lines := map[string]*yaml.Node{}, linesOf(n)
	for i := 0; i+1 < len(n.Content) && !s.full(); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f := s.known(key, path, want, lines)
		if f == nil {
			continue
		}
		if first := seen[f.key]; first != nil {
			s.failAt(key.Line, join(path, f.key), "the key is there twice, first in line %d: remove one", first.Line)
			continue
		}
		seen[f.key] = key
		s.lines[join(path, f.key)] = key.Line
		if v, ok := s.value(value, join(path, f.key), f.shape); ok {
			out[f.key] = v
		}
	}
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// known finds the field of a key and notes a key that has none. lines are
// those of the keys beside it.
func (s *source) known(key *yaml.Node, path string, want *shape, lines map[string]int) *field {
	if key.Kind != yaml.ScalarNode || key.Alias != nil || key.Anchor != "" {
		s.failAt(key.Line, path, "a key that is not one word: write one of %s", strings.Join(want.keys(), ", "))
		return nil
	}
	if f := want.field(key.Value); f != nil {
		return f
	}
	text, meant := advice(path, key.Value, want, lines)
	s.failAt(key.Line, path, "unknown key %q: %s", shown(key.Value), text)
	if meant != "" {
		s.bad[join(path, meant)] = true // so that it is not missed as well
	}
	return nil
}

func linesOf(n *yaml.Node) map[string]int {
	out := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		out[n.Content[i].Value] = n.Content[i].Line
	}
	return out
}

// value is mapping for whatever may stand at path. ok is false when nothing of it can be used.
func (s *source) value(n *yaml.Node, path string, want *shape) (v any, ok bool) {
	switch {
	case isNull(n) && n.Kind == yaml.ScalarNode:
		s.fail(path, "it has no value: write one, or remove the line")
		return nil, false
	case want.quiet && !isPlainString(n):
		s.fail(path, "the value is no string: write the absolute path of a file, in quotes if it has signs in it")
		return nil, false
	case want.isLabels():
		return s.labels(n, path), true
	case want.isMapping():
		return s.mapping(n, path, want), true
	case want.elem != nil:
		return s.list(n, path, want)
	case !s.plain(n, path):
		return nil, false
	}
	return s.scalar(n, path, want)
}

// isPlainString says whether no error about n itself is to be expected.
func isPlainString(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Anchor == "" &&
		n.Style&yaml.TaggedStyle == 0 && len(n.Value) <= maxValue
}

func (s *source) list(n *yaml.Node, path string, want *shape) (any, bool) {
	elem := want.elem
	if !s.plain(n, path) {
		return nil, false
	}
	if want.lone && n.Kind == yaml.ScalarNode {
		v, ok := s.scalar(n, path, elem)
		return []any{v}, ok
	}
	if n.Kind != yaml.SequenceNode {
		what := "[" + shown(n.Value) + "]"
		if n.Kind == yaml.MappingNode {
			what = "each entry after a hyphen"
		}
		s.fail(path, "%s, want a list: write %s", describe(n), what)
		return nil, false
	}
	out := []any{}
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		s.lines[at] = item.Line
		v, ok := s.value(item, at, elem)
		if m, _ := v.(map[string]any); elem.isMapping() && m == nil {
			v, ok = map[string]any{}, true // so that indexes stay
		}
		if ok {
			out = append(out, v)
		} else {
			s.bad[path] = true
		}
	}
	return out, true
}

// complete gives the elements of lists their defaults, which viper does not know
// of, and notes what is required in them and missing.
func (s *source) complete(v any, path string, want *shape, listed bool) {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			s.complete(item, fmt.Sprintf("%s[%d]", path, i), want.elem, true)
		}
	case map[string]any:
		for _, f := range want.fields {
			key := join(path, f.key)
			if listed {
				s.supply(v, path, f)
			}
			s.complete(v[f.key], key, f.shape, listed)
		}
	}
}

// supply sees to one key of an element of a list.
func (s *source) supply(m map[string]any, path string, f field) {
	key := join(path, f.key)
	if s.bad[path] {
		s.bad[key] = true
	}
	_, given := m[f.key]
	switch {
	case given || s.bad[key]:
	case f.required && s.lines[key] == 0:
		s.fail(key, "it is missing: every entry needs %s", f.key)
	case f.def != "":
		m[f.key] = f.defaultValue()
	case f.shape.isMapping():
		m[f.key] = map[string]any{}
	}
}

// defaultValue is the default as the file would have it.
func (f *field) defaultValue() any {
	if f.shape.elem == nil {
		return f.def
	}
	var out []any
	for word := range strings.SplitSeq(f.def, ",") {
		out = append(out, word)
	}
	return out
}

// plain refuses what YAML can do and a configuration does not need: anchors
// and aliases, with which a small file becomes a huge one, and tags.
func (s *source) plain(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		s.fail(path, "*%s is a YAML alias: write the value itself", shown(n.Value))
	case n.Anchor != "":
		s.fail(path, "&%s is a YAML anchor: remove it and write the value wherever it is needed", shown(n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		s.fail(path, "%s is a YAML tag: remove it", shown(n.Tag))
	default:
		return true
	}
	return false
}

// scalar returns the text of n once it is known to be right.
func (s *source) scalar(n *yaml.Node, path string, want *shape) (any, bool) {
	if n.Kind != yaml.ScalarNode {
		s.fail(path, "%s, want one value (%s)%s", describe(n), want.wanted(), unquoted(n))
		return nil, false
	}
	if err := mistyped(n, want); err != nil {
		s.fail(path, "%v", err)
		return nil, false
	}
	if err := want.validate(path, n.Value); err != nil {
		s.fail(path, "%v", err)
		return nil, false
	}
	return n.Value, true
}

// validate is parse for its error alone, with the exceptions that go by key.
func (s *shape) validate(path, text string) error {
	if len(text) > maxValue {
		return fmt.Errorf("%q… is %d bytes long: no value is that long", text[:maxShown/2], len(text))
	}
	if strings.HasSuffix(path, ".blockSize") {
		if err := mistakenForBits(text); err != nil {
			return err
		}
	}
	_, err := s.parse(text)
	return err
}

// mistyped refuses a value that YAML takes for something else than is wanted.
func mistyped(n *yaml.Node, want *shape) error {
	tag, quoted := n.ShortTag(), n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	switch kind := want.typ.Kind(); {
	case !isWord(want.typ) && kind == reflect.String && want.oneof == nil && tag != "!!str":
		return fmt.Errorf("%s is %s in YAML, want a string: write %q in quotes", shown(n.Value), tagWords(tag), shown(n.Value))
	case (kind == reflect.Bool || isWhole(want.typ)) && quoted:
		return fmt.Errorf("%q is a string in YAML, want %s: write it without quotes", shown(n.Value), want.wanted())
	}
	return nil
}

// isWord is for types whose text is the same whatever YAML takes it for.
func isWord(t reflect.Type) bool { return t.Kind() == reflect.Struct }

func isWhole(t reflect.Type) bool {
	if t == reflect.TypeFor[time.Duration]() || t == reflect.TypeFor[Community]() || !isScalar(t) {
		return false
	}
	switch t.Kind() {
	case reflect.Int, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return t.Name() != "Level"
	}
	return false
}

func tagWords(tag string) string {
	switch tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a truth value"
	case "!!timestamp":
		return "a date"
	}
	return tag[2:]
}

// unquoted explains the mapping that YAML makes of a bare IPv6 address at the
// end of a line or before a comma.
func unquoted(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 && strings.Contains(n.Content[0].Value, ":") {
		return fmt.Sprintf(`: write the IPv6 address in quotes, "%s:"`, shown(n.Content[0].Value))
	}
	return ""
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "this is a mapping"
	case yaml.SequenceNode:
		return "this is a list"
	}
	return fmt.Sprintf("%q is a single value", shown(n.Value))
}

// shown cuts what a person gave us down to what an error may repeat.
func shown(text string) string {
	if len(text) > maxShown {
		return strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}
