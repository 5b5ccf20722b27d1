package server

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

func TestCeaseWords(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		code, subcode uint8
		data          []byte
	}{
		"code 6(cease) subcode 10(BFD down)":                                {6, 10, nil},
		`code 6(cease) subcode 2(administrative shutdown): "see #4"`:        {6, 2, []byte("\x06see #4")},
		`code 6(cease) subcode 4(administrative reset): "soon"`:             {6, 4, []byte("\x20soon")},
		"code 6(cease) subcode 2(administrative shutdown)":                  {6, 2, []byte{0}},
		`hard reset: code 6(cease) subcode 2(administrative shutdown): "x"`: {6, 9, []byte("\x06\x02\x01x")},
		"hard reset: code 6(cease) subcode 10(BFD down)":                    {6, 9, []byte{6, 10}},
		"code 6(cease) subcode 9(hard reset)":                               {6, 9, []byte{6}},
		"code 2(open) subcode 2(bad peer as)":                               {2, 2, []byte{0xfd, 0xe8}},
	} {
		if got := ceaseWords(c.code, c.subcode, c.data); got != want {
			t.Errorf("%d/%d %q: %s, want %s", c.code, c.subcode, c.data, got, want)
		}
	}
}

// What a router says is bounded, and can't break a line of a log.
func FuzzCeaseWords(f *testing.F) {
	f.Add(uint8(6), uint8(2), []byte("\x05hello"))
	f.Add(uint8(6), uint8(9), []byte("\x06\x02\xff\xe2\x9c\x82\n"))
	f.Add(uint8(6), uint8(9), []byte("\x06\x09\x06\x09\x06\x09"))
	f.Add(uint8(0), uint8(255), []byte(nil))
	f.Fuzz(func(t *testing.T, code, subcode uint8, data []byte) {
		words := ceaseWords(code, subcode, data)
		if !utf8.ValidString(words) || strings.ContainsAny(words, "\r\n") || len(words) > 1500 {
			t.Errorf("%d bytes: %q", len(words), words)
		}
		said := legible(string(data))
		if len(said) > 255 || !utf8.ValidString(said) || slices.Contains([]byte(said), '\n') {
			t.Errorf("%q", said)
		}
	})
}

// A shutdown's words arrive as they were said.
func TestCommunication(t *testing.T) {
	t.Parallel()
	words := strings.Repeat("ü", maxDownMessage/2)
	data := communication(words)
	if got := ceaseWords(bgp.BGP_ERROR_CEASE, ceaseShutdown, data); !strings.Contains(got, words) {
		t.Errorf("%q", got)
	}
	if communication("") != nil {
		t.Error("no words are some")
	}
}
