package config

import (
	"fmt"
	"reflect"
	"strings"
)

// advice is the way out for an unknown key, and the key of the same mapping
// that was meant, if it is known. lines are those of the keys beside it.
func advice(path, key string, want *shape, lines map[string]int) (text, meant string) {
	if text, meant := neighbours(section(path), fold(key)); text != "" {
		return text, strings.TrimPrefix(meant, path+".")
	}
	best := closest(key, want.keys())
	switch {
	case best != "" && lines[best] > 0:
		return fmt.Sprintf("%s is there already, in line %d: remove one of them", best, lines[best]), best
	case strings.EqualFold(best, key):
		return fmt.Sprintf("write %s, capitals count", best), best
	case best != "":
		return fmt.Sprintf("did you mean %s?", best), best
	}
	if elsewhere := homeOf(key); elsewhere != "" {
		return "did you mean " + elsewhere + "?", ""
	}
	return "known here: " + strings.Join(want.keys(), ", "), ""
}

// section is the path of a list without its indexes. All that is a mapping inside
// of an element is one section, without a name of its own.
func section(path string) string {
	name, rest, listed := strings.Cut(path, "[")
	if listed && strings.Contains(rest, ".") {
		return "inside"
	}
	return name
}

// homeOf is the path of the key of that name, if there is exactly one.
func homeOf(key string) string {
	var found []string
	for _, k := range keysOf(schemaOf(reflect.TypeFor[Config]()), "", false) {
		if fold(k.Path[strings.LastIndex(k.Path, ".")+1:]) == fold(key) && !strings.HasPrefix(k.Path, "templates") {
			found = append(found, k.Path)
		}
	}
	if len(found) > 3 {
		return ""
	}
	return orList(found)
}

// closest is the word of known that was probably meant, "" for none.
func closest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(fold(word), fold(k)); d < distance && d < len(k)-1 {
			best, distance = k, d
		}
	}
	return best
}

// fold makes one of all ways to write a key: my-asn, my_asn, myASN.
func fold(key string) string {
	return strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(key, "-", ""), "_", ""))
}

// edits is the Levenshtein distance of two short words.
func edits(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
