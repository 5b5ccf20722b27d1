package wire

// maxDepth bounds how deep arrays and objects may nest.
const maxDepth = 1000

// Members calls visit for each member of the object doc, with its unescaped
// key and the value as it stands, without spaces around it. Both may alias
// doc. It returns false, perhaps after some calls, unless doc is exactly one
// valid JSON object (RFC 8259; strings that are not UTF-8 pass) that nests no
// deeper than 1,000 levels.
func Members(doc []byte, visit func(key, value []byte)) bool {
	i := skipSpace(doc, 0)
	if i == len(doc) || doc[i] != '{' {
		return false
	}
	i = skipMembers(doc, i, 1, visit)
	return i >= 0 && skipSpace(doc, i) == len(doc)
}

// Lookup returns the value at path, a chain of keys, as it stands in doc. Of
// a key that occurs twice the last one counts. ok is false when doc is not
// valid (see Members) or has no such value.
func Lookup(doc []byte, path ...string) (value []byte, ok bool) {
	value = doc
	for _, want := range path {
		var found []byte
		valid := Members(value, func(key, v []byte) {
			if string(key) == want {
				found = v
			}
		})
		if !valid || found == nil {
			return nil, false
		}
		value = found
	}
	return value, true
}

// Unquote gives the content of the JSON string literal, quotes included, that
// Members or Lookup returned. ok is false when it is no string.
func Unquote(literal []byte) (s []byte, ok bool) {
	if len(literal) < 2 || literal[0] != '"' || skipString(literal, 0) != len(literal) {
		return nil, false
	}
	return unescape(literal[1 : len(literal)-1]), true
}

// AppendString appends s as a JSON string literal. Bytes that are not UTF-8
// become U+FFFD.
func AppendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}

func skipSpace(d []byte, i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\n' || d[i] == '\t' || d[i] == '\r') {
		i++
	}
	return i
}

// The skip functions take the position where the thing named begins and
// return the one behind it, or -1 when it is malformed.

func skipValue(d []byte, i, depth int) int {
	if i >= len(d) || depth > maxDepth {
		return -1
	}
	switch d[i] {
	case '{':
		return skipMembers(d, i, depth+1, nil)
	case '[':
		return skipArray(d, i, depth+1)
	case '"':
		return skipString(d, i)
	case 't':
		return skipWord(d, i, "true")
	case 'f':
		return skipWord(d, i, "false")
	case 'n':
		return skipWord(d, i, "null")
	}
	return skipNumber(d, i)
}

func skipMembers(d []byte, i, depth int, visit func(key, value []byte)) int {
	if i = skipSpace(d, i+1); i < len(d) && d[i] == '}' {
		return i + 1
	}
	for i < len(d) && d[i] == '"' {
		from := i
		if i = skipString(d, i); i < 0 {
			return -1
		}
		key := d[from+1 : i-1]
		if i = skipSpace(d, i); i == len(d) || d[i] != ':' {
			return -1
		}
		from = skipSpace(d, i+1)
		if i = skipValue(d, from, depth); i < 0 {
			return -1
		}
		if visit != nil {
			visit(unescape(key), d[from:i])
		}
		if i = skipSpace(d, i); i < len(d) && d[i] == '}' {
			return i + 1
		}
		if i == len(d) || d[i] != ',' {
			return -1
		}
		i = skipSpace(d, i+1)
	}
	return -1
}

func skipArray(d []byte, i, depth int) int {
	if i = skipSpace(d, i+1); i < len(d) && d[i] == ']' {
		return i + 1
	}
	for {
		if i = skipValue(d, i, depth); i < 0 {
			return -1
		}
		if i = skipSpace(d, i); i < len(d) && d[i] == ']' {
			return i + 1
		}
		if i == len(d) || d[i] != ',' {
			return -1
		}
		i = skipSpace(d, i+1)
	}
}

func skipString(d []byte, i int) int {
	for i++; i < len(d); i++ {
		switch c := d[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i = skipEscape(d, i); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// skipEscape returns the position of the escape's last byte.
func skipEscape(d []byte, i int) int {
	if i++; i == len(d) {
		return -1
	}
	switch d[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i
	case 'u':
		if _, ok := hex4(d[i+1:]); ok {
			return i + 4
		}
	}
	return -1
}

func skipWord(d []byte, i int, word string) int {
	if len(d)-i < len(word) || string(d[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func skipNumber(d []byte, i int) int {
	if i < len(d) && d[i] == '-' {
		i++
	}
	whole := i
	if i = skipDigits(d, i); i < 0 || d[whole] == '0' && i > whole+1 {
		return -1
	}
	if i < len(d) && d[i] == '.' {
		if i = skipDigits(d, i+1); i < 0 {
			return -1
		}
	}
	if i < len(d) && (d[i] == 'e' || d[i] == 'E') {
		if i++; i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		return skipDigits(d, i)
	}
	return i
}

// skipDigits wants at least one.
func skipDigits(d []byte, i int) int {
	from := i
	for i < len(d) && d[i] >= '0' && d[i] <= '9' {
		i++
	}
	if i == from {
		return -1
	}
	return i
}

func hex4(d []byte) (r rune, ok bool) {
	if len(d) < 4 {
		return 0, false
	}
	for _, c := range d[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape resolves the escapes of a valid string's content. Without any it
// returns s itself.
func unescape(s []byte) []byte {
	i := 0
	for i < len(s) && s[i] != '\\' {
		i++
	}
	if i == len(s) {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	for i < len(s) {
		if s[i] != '\\' {
			out, i = append(out, s[i]), i+1
			continue
		}
		if s[i+1] == 'u' {
			var r rune
			r, i = unescapeRune(s, i)
			out = append(out, string(r)...)
			continue
		}
		out, i = append(out, plainEscape(s[i+1])), i+2
	}
	return out
}

func plainEscape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// unescapeRune reads \uXXXX at i, or two of them that are a surrogate pair; a
// lone surrogate is U+FFFD.
func unescapeRune(s []byte, i int) (r rune, next int) {
	const surrogates, low, end = 0xd800, 0xdc00, 0xe000
	r, _ = hex4(s[i+2:])
	i += 6
	if r < surrogates || r >= end {
		return r, i
	}
	if r < low && i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
		if r2, _ := hex4(s[i+2:]); r2 >= low && r2 < end {
			return (r-surrogates)<<10 | (r2 - low) + 0x10000, i + 6
		}
	}
	return 0xfffd, i
}
