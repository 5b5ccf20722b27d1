package controller

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// scanner picks values out of JSON (RFC 8259) and steps over all others, which
// are most of a Kubernetes object. It is some ten times as quick as encoding/json,
// which a list of a hundred thousand objects feels, and it allocates nothing.
// What it steps over it does not check.
type scanner struct {
	text []byte
	at   int
	err  error // the first one; from then on there is nothing more
}

var errCut = errors.New("JSON ends too early")

func (s *scanner) fail(want string) {
	if s.err != nil {
		return
	}
	if s.at >= len(s.text) {
		s.err = errCut
	} else {
		s.err = fmt.Errorf("JSON: %q at byte %d, where %s should be", s.text[s.at], s.at, want)
	}
	s.at = len(s.text)
}

// next is the byte behind white space, 0 at the end.
func (s *scanner) next() byte {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// take steps over c.
func (s *scanner) take(c byte) bool {
	if s.err != nil || s.next() != c {
		return false
	}
	s.at++
	return true
}

// object calls each for every member; each must read or skip the value. null
// has no members.
func (s *scanner) object(each func(key []byte)) {
	if s.null() {
		return
	}
	if !s.take('{') {
		s.fail("an object")
		return
	}
	if s.take('}') {
		return
	}
	for s.err == nil {
		key := s.raw()
		if !s.take(':') {
			s.fail("a colon")
			return
		}
		each(key)
		if s.take('}') {
			return
		}
		if !s.take(',') {
			s.fail("a comma")
		}
	}
}

// array calls each for every element; each must read or skip it. null has none.
func (s *scanner) array(each func()) {
	if s.null() {
		return
	}
	if !s.take('[') {
		s.fail("an array")
		return
	}
	if s.take(']') {
		return
	}
	for s.err == nil {
		each()
		if s.take(']') {
			return
		}
		if !s.take(',') {
			s.fail("a comma")
		}
	}
}

// raw is a string without its quotes, escapes as they are written.
func (s *scanner) raw() []byte {
	if !s.take('"') {
		s.fail("a string")
		return nil
	}
	from := s.at
	for {
		end := bytes.IndexByte(s.text[s.at:], '"')
		if end < 0 {
			s.at = len(s.text)
			s.fail("a string's end")
			return nil
		}
		s.at += end + 1
		if !escaped(s.text[from : s.at-1]) {
			return s.text[from : s.at-1]
		}
	}
}

// escaped says whether the byte behind b is escaped: an odd number of
// backslashes stands before it.
func escaped(b []byte) bool {
	n := 0
	for n < len(b) && b[len(b)-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// text is a string; null is the empty one. It is part of the scanner's text
// unless there are escapes in it.
func (s *scanner) string() []byte {
	if s.null() {
		return nil
	}
	raw := s.raw()
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	var plain string
	if err := json.Unmarshal([]byte(`"`+string(raw)+`"`), &plain); err != nil && s.err == nil {
		s.err = err
	}
	return []byte(plain)
}

// number is a whole number that is not below zero; null is 0.
func (s *scanner) number() (n uint64) {
	if s.null() {
		return 0
	}
	c, from := s.next(), s.at
	for ; c >= '0' && c <= '9' && s.err == nil; c = s.peek() {
		if s.at-from > 18 {
			s.fail("a smaller number")
		}
		n = n*10 + uint64(c-'0')
		s.at++
	}
	if s.at == from || c == '.' || c == 'e' || c == 'E' {
		s.fail("a whole number")
		return 0
	}
	return n
}

// peek is the byte at hand, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) null() bool {
	if s.err != nil || s.next() != 'n' || !bytes.HasPrefix(s.text[s.at:], []byte("null")) {
		return false
	}
	s.at += len("null")
	return true
}

// skip steps over a value.
func (s *scanner) skip() {
	switch s.next() {
	case '"':
		s.raw()
		return
	case '{', '[':
		s.skipNested()
		return
	}
	from := s.at
	for s.at < len(s.text) && bytes.IndexByte([]byte(" \t\r\n,:]}[{\""), s.text[s.at]) < 0 {
		s.at++
	}
	if s.at == from {
		s.fail("a value")
	}
}

// skipNested steps over an object or an array, whose brackets it counts.
func (s *scanner) skipNested() {
	depth := 0
	for s.err == nil {
		at := bytes.IndexAny(s.text[s.at:], `"{}[]`)
		if at < 0 {
			s.at = len(s.text)
			s.fail("its end")
			return
		}
		s.at += at
		switch s.text[s.at] {
		case '"':
			s.raw()
			continue
		case '{', '[':
			depth++
		default:
			depth--
		}
		if s.at++; depth == 0 {
			return
		}
	}
}
