package speaker

import (
	"slices"
	"strings"
	"testing"
)

// The reasons of what routers and this node say, with the subcodes that RFC 4271,
// RFC 4486, RFC 8538 and RFC 9384 give them.
func TestReason(t *testing.T) {
	t.Parallel()
	note := func(code, subcode uint8, data ...byte) string {
		return "received NOTIFICATION " + ceaseWords(code, subcode, data)
	}
	for words, want := range map[string]Reason{
		"":                                   ReasonNone,
		note(4, 0):                           ReasonHoldTimer,
		note(6, 10):                          ReasonBFD,
		note(6, 1):                           ReasonMaxPrefixes,
		note(6, 2):                           ReasonShutdown,
		note(6, 9, 6, 2):                     ReasonShutdown,
		note(6, 4):                           ReasonReset,
		note(6, 3):                           ReasonDeconfigured,
		note(6, 7):                           ReasonCollision,
		note(6, 8):                           ReasonCease,
		note(6, 200):                         ReasonCease,
		note(2, 2):                           ReasonWrongASN,
		note(2, 7):                           ReasonOpenRefused,
		note(3, 1):                           ReasonUpdateError,
		note(1, 2):                           ReasonProtocolError,
		note(5, 0):                           ReasonProtocolError,
		shutWords(Peer{}):                    ReasonShutdown,
		bfdDown:                              ReasonBFD,
		"something new":                      ReasonOther,
		reasonWords("read-failed", 0):        ReasonConnectionClosed,
		reasonWords("hold-timer-expired", 0): ReasonHoldTimer,
		note(6, 4, append([]byte{40}, strings.Repeat("BFD down", 5)...)...): ReasonReset,
		note(6, 2) + sinceThen + "cannot connect to port 179: refused":      ReasonCannotConnect,
	} {
		got := PeerState{LastError: words}.Reason()
		if got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
		if got != ReasonNone && !slices.Contains(Reasons(), got) {
			t.Errorf("%q is not among the reasons", got)
		}
	}
}
