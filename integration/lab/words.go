package lab

import (
	"errors"
	"strings"
)

// splitWords splits a command into words as a POSIX shell does, with single
// and double quotes and backslashes, and with nothing expanded.
func splitWords(line string) ([]string, error) {
	var (
		words  []string
		word   strings.Builder
		inWord bool
		quote  byte
		escape bool
	)
	for i := range len(line) {
		r := line[i] // what splits is ASCII, all else passes as it is
		switch {
		case escape:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteByte(r)
			escape = false
		case r == '\\' && quote != '\'':
			escape, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(r)
			inWord = true
		}
	}
	switch {
	case quote != 0:
		return nil, errors.New("a quote is left open: close it")
	case escape:
		return nil, errors.New("a backslash at the end escapes nothing: take it away")
	case inWord:
		words = append(words, word.String())
	}
	return words, nil
}
