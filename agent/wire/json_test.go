package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// documents seed the fuzz targets: what a runtime sends, and each rule of the
// grammar kept and broken.
func documents() []string {
	return []string{
		`{"cniVersion":"1.0.0","name":"n","type":"ptp","ipam":{"type":"fairway-ipam","socket":"/run/x.sock","routes":[{"dst":"0.0.0.0/0"}]}}`,
		" {\t\"ipam\" :\r\n{ \"socket\" : \"\\/run\\u002fx\" } } ",
		`{"ipam":{"socket":"a"},"ipam":{"socket":"b"}}`, `{"ipam":{"socket":"a","socket":null}}`,
		`{"\u0069pam":{"sock\u0065t":"\ud83d\ude00\ud83d\"\udc00\b\f\n\r\t"}}`,
		`{"ipam":"{\"socket\":\"/no\"}"}`, `{"x":{"ipam":{"socket":"/no"}}}`, `{"ipam":[{"socket":"/no"}]}`,
		`{}`, `[]`, `null`, `"x"`, ``, `{`, `}`, `{}}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":[1,]}`, `{"a":[,]}`, `{"a":[]}`, `{a:1}`,
		`{"a":-0}`, `{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":1.5E+10}`, `{"a":1e-2}`, `{"a":0.0}`, `{"a":+1}`,
		`{"a":tru}`, `{"a":nul}`, `{"a":[true,false,null]}`, "{\"a\":\"\n\"}", `{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\`, `{"a":"`,
		"{\"\xff\":\"\xff\"}", strings.Repeat(`{"ipam":`, 900) + "1" + strings.Repeat("}", 900), strings.Repeat("[", 5000),
	}
}

func FuzzLookup(f *testing.F) {
	for _, d := range documents() {
		f.Add([]byte(d))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		literal, found := Lookup(doc, "ipam", "socket")
		if depth(doc) > maxDepth {
			return // encoding/json goes deeper
		}
		want := oracle(oracle(doc, "ipam"), "socket")
		if found != (want != nil) || !bytes.Equal(literal, want) {
			t.Fatalf("Lookup: %q, %v; encoding/json has %q", literal, found, want)
		}
		got, ok := Unquote(literal)
		var s string
		if isString := len(want) > 0 && want[0] == '"' && json.Unmarshal(want, &s) == nil; ok != isString {
			t.Fatalf("Unquote(%q): %v", literal, ok)
		}
		if ok && utf8.Valid(literal) && string(got) != s {
			t.Fatalf("Unquote(%q): %q, want %q", literal, got, s)
		}
	})
}

func FuzzMembersAcceptsJSONObjects(f *testing.F) {
	for _, d := range documents() {
		f.Add([]byte(d))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if depth(doc) > maxDepth {
			return
		}
		want := json.Valid(doc) && bytes.HasPrefix(bytes.TrimLeft(doc, " \t\r\n"), []byte("{"))
		if got := Members(doc, func(_, _ []byte) {}); got != want {
			t.Fatalf("Members(%q) = %v, encoding/json says %v", doc, got, want)
		}
	})
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\"\\\x00\x1f\x7f\xff\u2028 é 😀")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(AppendString(nil, s), &got); err != nil || got != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Fatalf("%q became %q, %v", s, got, err)
		}
	})
}

// depth is at least how deep doc nests.
func depth(doc []byte) int { return bytes.Count(doc, []byte("{")) + bytes.Count(doc, []byte("[")) }

// oracle is the last member of doc called key, by encoding/json; nil if there
// is none. Keys that are not UTF-8 are no keys of ours.
func oracle(doc []byte, key string) []byte {
	var members map[string]json.RawMessage
	if json.Unmarshal(doc, &members) != nil {
		return nil
	}
	return members[key]
}

func TestMembersBoundsTheDepth(t *testing.T) {
	for _, brackets := range []string{"[]", "{}"} {
		opening := brackets[:1]
		if opening == "{" {
			opening = `{"a":`
		}
		nest := func(n int) []byte {
			return []byte(`{"a":` + strings.Repeat(opening, n-1) + "1" + strings.Repeat(brackets[1:], n-1) + "}")
		}
		if !Members(nest(maxDepth), func(_, _ []byte) {}) {
			t.Errorf("%d levels of %s were refused", maxDepth, brackets)
		}
		if Members(nest(maxDepth+1), func(_, _ []byte) {}) {
			t.Errorf("%d levels of %s were accepted", maxDepth+1, brackets)
		}
	}
}
