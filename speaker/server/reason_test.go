package server

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/speaker"
)

// The reasons of what routers and this node say, with the subcodes that RFC 4271,
// RFC 4486, RFC 8538 and RFC 9384 give them.
func TestReason(t *testing.T) {
	t.Parallel()
	note := func(code, subcode uint8, data ...byte) string {
		return "received NOTIFICATION " + ceaseWords(code, subcode, data)
	}
	for words, want := range map[string]speaker.Reason{
		"":                        speaker.ReasonNone,
		note(4, 0):                speaker.ReasonHoldTimer,
		note(6, 10):               speaker.ReasonBFD,
		note(6, 1):                speaker.ReasonMaxPrefixes,
		note(6, 2):                speaker.ReasonShutdown,
		note(6, 9, 6, 2):          speaker.ReasonShutdown,
		note(6, 4):                speaker.ReasonReset,
		note(6, 3):                speaker.ReasonDeconfigured,
		note(6, 7):                speaker.ReasonCollision,
		note(6, 8):                speaker.ReasonCease,
		note(6, 200):              speaker.ReasonCease,
		note(2, 2):                speaker.ReasonWrongASN,
		note(2, 7):                speaker.ReasonOpenRefused,
		note(3, 1):                speaker.ReasonUpdateError,
		note(1, 2):                speaker.ReasonProtocolError,
		note(5, 0):                speaker.ReasonProtocolError,
		shutWords(speaker.Peer{}): speaker.ReasonShutdown,
		bfdDown:                   speaker.ReasonBFD,
		"something new":           speaker.ReasonOther,
		signatures{wrong: 1, missing: 1}.suspicion(true):                       speaker.ReasonCannotConnect,
		signatures{unexpected: 1}.suspicion(false):                             speaker.ReasonCannotConnect,
		reasonWords("read-failed", 0):                                          speaker.ReasonConnectionClosed,
		reasonWords("hold-timer-expired", 0):                                   speaker.ReasonHoldTimer,
		note(6, 4, append([]byte{40}, strings.Repeat("BFD down", 5)...)...):    speaker.ReasonReset,
		note(6, 2) + speaker.SinceThen + "cannot connect to port 179: refused": speaker.ReasonCannotConnect,
	} {
		got := speaker.PeerState{LastError: words}.Reason()
		if got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
		if got != speaker.ReasonNone && !slices.Contains(speaker.Reasons(), got) {
			t.Errorf("%q is not among the reasons", got)
		}
	}
}
