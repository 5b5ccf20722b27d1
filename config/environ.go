package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// envPrefix begins every variable that overrides a key.
const envPrefix = "FAIRWAY_"

// environ checks the variables that override keys and returns the names of
// those that are set, by key. An empty variable is one that is not set.
func (s *source) environ(want *shape) map[string]string {
	known := map[string]string{}
	s.knownVariables(want, "", known)
	set := map[string]string{}
	var names []string
	for name, key := range known {
		names = append(names, name)
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		s.vars[key] = name
		if err := want.at(key).shape.validate(key, text); err != nil {
			s.fail(key, "%v", err)
			continue
		}
		set[key] = name
		delete(s.bad, key)
	}
	slices.Sort(names)
	s.misspelt(names)
	return set
}

func (s *source) knownVariables(want *shape, prefix string, out map[string]string) {
	for _, f := range want.fields {
		switch path := join(prefix, f.key); {
		case f.shape.isMapping():
			s.knownVariables(f.shape, path, out)
		case f.shape.elem == nil && !f.shape.isLabels():
			out[variable(path)] = path
		}
	}
}

// at is the field of a key path that crosses no list.
func (s *shape) at(path string) (f *field) {
	for key := range strings.SplitSeq(path, ".") {
		f = s.field(key)
		s = f.shape
	}
	return f
}

// serviceLink matches the variables that Kubernetes sets for a Service whose
// name begins with fairway.
var serviceLink = compiled(`_SERVICE_(HOST|PORT.*)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$`)

// compiled is a regular expression that is compiled when it is used first: most are
// for errors, and a program that starts has others waiting for it.
func compiled(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// misspelt refuses variables that were clearly meant to override a key. Others
// that begin in the same way may belong to somebody else.
func (s *source) misspelt(known []string) {
	for _, pair := range os.Environ() {
		name, text, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, envPrefix) || text == "" || slices.Contains(known, name) ||
			serviceLink().MatchString(name) || strings.Contains(text, "://") {
			continue
		}
		if meant := nearest(name, known); meant != "" {
			s.note(Problem{Source: name, Text: "unknown variable: did you mean " + meant + "?"})
		} else if list := listOf(name); list != "" {
			s.note(Problem{Source: name, Text: "unknown variable: " + list + " is a list, which only the file can set"})
		}
	}
}

func nearest(name string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(fold(name), fold(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// listOf is the list that a variable names or reaches into.
func listOf(name string) string {
	for _, k := range Keys() {
		v := variable(k.Path)
		if strings.HasPrefix(k.Type, "list") && !strings.Contains(k.Path, "[]") && (name == v || strings.HasPrefix(name, v+"_")) {
			return k.Path
		}
	}
	return ""
}
