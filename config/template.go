package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// inherit gives peers what their templates say and they don't. values are those
// of the file, without defaults.
func (s *source) inherit(values map[string]any) {
	templates, _ := values["templates"].([]any)
	peers, _ := values["peers"].([]any)
	places := map[string]int{}
	for i, t := range templates {
		name, _ := t.(map[string]any)["name"].(string)
		at := fmt.Sprintf("templates[%d].name", i)
		if j, twice := places[name]; twice && name != "" {
			s.fail(at, "%q is the name of the template in line %d already: choose another", shown(name), s.line(fmt.Sprintf("templates[%d].name", j)))
			continue
		}
		places[name] = i
	}
	for i, p := range peers {
		peer, at := p.(map[string]any), fmt.Sprintf("peers[%d]", i)
		name, ok := peer["template"].(string)
		if !ok {
			continue
		}
		place, known := places[name]
		if !known || name == "" {
			s.fail(at+".template", "there is no template %q%s", shown(name), suggestion(name, slices.Sorted(maps.Keys(places)), "templates"))
			s.bad[at+".asn"] = true // it may well be in the template that was meant
			continue
		}
		s.mix(peer, templates[place].(map[string]any), at, fmt.Sprintf("templates[%d]", place), name)
	}
}

// suggestion is the way out after an unknown name.
func suggestion(name string, known []string, list string) string {
	known = slices.DeleteFunc(known, func(k string) bool { return k == "" })
	if meant := closest(name, known); meant != "" {
		return fmt.Sprintf(": did you mean %q?", shown(meant))
	}
	if len(known) == 0 {
		return fmt.Sprintf(": there is none in %s", list)
	}
	if len(known) > 8 {
		return fmt.Sprintf(": write a name from %s", list)
	}
	quoted := make([]string, len(known))
	for i, k := range known {
		quoted[i] = fmt.Sprintf("%q", shown(k))
	}
	return ": write " + orList(quoted)
}

// rivals are keys of which one takes the place of the others.
func rivals(key string) []string {
	for _, group := range [][]string{{"asn", "asnFrom"}, {"ebgpMultihop", "ttlSecurity"}} {
		if slices.Contains(group, key) {
			return group
		}
	}
	return []string{key}
}

// mix adds to own, at the path at, what a template says at the path from.
func (s *source) mix(own, template map[string]any, at, from, name string) {
	written := func(key string) bool {
		return slices.ContainsFunc(rivals(key), func(k string) bool { return s.lines[join(at, k)] > 0 && s.heirs[join(at, k)] == "" })
	}
	for _, key := range slices.Sorted(maps.Keys(template)) {
		v := template[key]
		inner, isMap := v.(map[string]any)
		have, haveMap := own[key].(map[string]any)
		switch {
		case key == "name":
		case isMap && haveMap && !slices.Contains([]string{"asnFrom", "addressFrom"}, key):
			s.mix(have, inner, join(at, key), join(from, key), name)
		case written(key):
		default:
			own[key] = copied(v)
			s.heirs[join(at, key)] = name
			s.moveNotes(join(from, key), join(at, key))
		}
	}
	for key := range s.bad {
		if rest, inside := strings.CutPrefix(key, from+"."); inside && !strings.Contains(rest, ".") && !written(rest) {
			s.bad[join(at, rest)] = true
		}
	}
}

// moveNotes makes what is known of the places below from known below to.
func (s *source) moveNotes(from, to string) {
	below := func(key string) (rest string, ok bool) {
		rest, ok = strings.CutPrefix(key, from)
		return rest, ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	for _, key := range slices.Collect(maps.Keys(s.lines)) {
		if rest, ok := below(key); ok {
			s.lines[to+rest] = s.lines[key]
		}
	}
	for _, key := range slices.Collect(maps.Keys(s.bad)) {
		if rest, ok := below(key); ok {
			s.bad[to+rest] = true
		}
	}
}

// copied is v with maps and lists of its own.
func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, inner := range v {
			out[k] = copied(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = copied(inner)
		}
		return out
	}
	return v
}
