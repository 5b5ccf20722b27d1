package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong, or doubtful, in a configuration.
type Problem struct {
	// Source is the file, or the environment variable that set the value.
	Source string
	// Line in the file, from 1; 0 where there is none to point at.
	Line int
	// Key is the path of the value, such as "peers[0].asn", where lists count
	// from 0. It is empty for the file as a whole.
	Key string
	// Text names the value, what is wrong and the way out, on one line.
	Text string
}

// Error gives "file:line: key: text".
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Source)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems are all that is wrong, in the order of the file.
type Problems []Problem

// Error gives one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// source is a file being read: where its values stand, and what is wrong.
type source struct {
	file     string
	lines    map[string]int    // of each key path that the file has
	vars     map[string]string // the environment variable that sets a key path
	bad      map[string]bool   // key paths whose value was refused already
	heirs    map[string]string // the template that a key path has its value from
	problems Problems
	warnings Problems
}

func newSource(file string) *source {
	return &source{file: file, lines: map[string]int{}, vars: map[string]string{}, bad: map[string]bool{}, heirs: map[string]string{}}
}

// maxProblems bounds what a file full of garbage makes us say.
const maxProblems = 100

// fail notes that the value at key is wrong.
func (s *source) fail(key, format string, args ...any) {
	s.bad[key] = true
	s.note(s.problem(key, format, args...))
}

// failAt is fail for a line that no value at key stands in.
func (s *source) failAt(line int, key, format string, args ...any) {
	s.note(Problem{s.file, line, key, fmt.Sprintf(format, args...)})
}

func (s *source) note(p Problem) {
	if !s.full() {
		s.problems = append(s.problems, p)
	}
}

// full says whether another problem would be one too many to list.
func (s *source) full() bool { return len(s.problems) >= maxProblems }

// verdict is all that was noted, nil for nothing.
func (s *source) verdict() error {
	if len(s.problems) == 0 {
		return nil
	}
	out := s.inOrder(s.problems)
	if s.full() {
		out = append(out, Problem{Source: s.file, Text: fmt.Sprintf("there may be more than these %d problems: mend them and try again", maxProblems)})
	}
	return out
}

// warn notes that the value at key is doubtful.
func (s *source) warn(key, format string, args ...any) {
	s.warnings = append(s.warnings, s.problem(key, format, args...))
}

func (s *source) problem(key, format string, args ...any) Problem {
	text := fmt.Sprintf(format, args...) + s.heritage(key)
	if name, ok := s.vars[key]; ok {
		return Problem{Source: name, Key: key, Text: text}
	}
	return Problem{s.file, s.line(key), key, text}
}

// origin names the variable that set the value of key, in brackets after a
// space; it is empty if none did.
func (s *source) origin(key string) string {
	if name, ok := s.vars[key]; ok {
		return " (" + name + ")"
	}
	return ""
}

// item is the path of an element of a list, or of the list itself if a refused
// element has moved the others.
func (s *source) item(list string, i int) string {
	if s.bad[list] {
		return list
	}
	return fmt.Sprintf("%s[%d]", list, i)
}

// line of key or, where the file does not have it, of what is around it.
func (s *source) line(key string) int {
	for ; key != ""; key = around(key) {
		if n, ok := s.lines[key]; ok {
			return n
		}
	}
	return 0
}

// heritage names the template that the value at key comes from, in brackets after
// a space; it is empty if it stands in its own place.
func (s *source) heritage(key string) string {
	for ; key != ""; key = around(key) {
		if name, ok := s.heirs[key]; ok {
			return fmt.Sprintf(" (from template %q)", shown(name))
		}
	}
	return ""
}

// around is the path of the mapping or list that key is in.
func around(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// inOrder sorts by line, what comes from the environment last.
func (s *source) inOrder(ps Problems) Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(-cmp.Compare(btoi(a.Source == s.file), btoi(b.Source == s.file)), cmp.Compare(a.Line, b.Line))
	})
	return ps
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
