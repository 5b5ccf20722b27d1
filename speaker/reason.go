package speaker

import "strings"

// Reason is why there is no session, or why the last one ended, in one word out of
// a fixed set: for counting and for alarms. The words for people are LastError.
type Reason string

const (
	ReasonNone             Reason = "" // no session was lost, and none is missing
	ReasonHoldTimer        Reason = "hold-timer-expired"
	ReasonBFD              Reason = "bfd-down"
	ReasonShutdown         Reason = "admin-shutdown"
	ReasonReset            Reason = "admin-reset"
	ReasonDeconfigured     Reason = "peer-deconfigured"
	ReasonMaxPrefixes      Reason = "max-prefixes"
	ReasonCollision        Reason = "collision"
	ReasonWrongASN         Reason = "wrong-asn"
	ReasonOpenRefused      Reason = "open-refused"
	ReasonCannotConnect    Reason = "cannot-connect"
	ReasonConnectionClosed Reason = "connection-closed"
	ReasonUpdateError      Reason = "update-error" // a malformed UPDATE
	ReasonProtocolError    Reason = "protocol-error"
	ReasonCease            Reason = "cease" // another one, see RFC 4486
	ReasonOther            Reason = "other"
)

// SinceThen is what a LastError has between why the last session ended and why none
// came about since.
const SinceThen = "; since then: "

// Reasons are all but ReasonNone.
func Reasons() []Reason {
	var all []Reason
	for _, w := range tellingWords() {
		all = append(all, w.reason)
	}
	return append(all, ReasonOther)
}

// tellingWord is what the words of one Reason contain.
type tellingWord struct {
	reason Reason
	words  []string
}

// tellingWords are in the order in which they count.
func tellingWords() []tellingWord {
	return []tellingWord{
		{ReasonHoldTimer, []string{"hold timer expired"}},
		{ReasonBFD, []string{"BFD down"}},
		{ReasonMaxPrefixes, []string{"maximum number of prefixes", "the peer sent more than"}},
		{ReasonShutdown, []string{"administrative shutdown", "shut down on this node"}},
		{ReasonReset, []string{"administrative reset"}},
		{ReasonDeconfigured, []string{"peer deconfigured"}},
		{ReasonCollision, []string{"connection collision"}},
		{ReasonWrongASN, []string{"bad peer as"}},
		{ReasonOpenRefused, []string{" code 2(", "refused our OPEN"}},
		{ReasonUpdateError, []string{" code 3("}},
		{ReasonCease, []string{" code 6("}},
		{ReasonProtocolError, []string{" code 1(", " code 5(", " code 7("}},
		{ReasonCannotConnect, []string{"cannot connect to port", "were dropped on this node"}},
		{ReasonConnectionClosed, []string{"the connection was closed", "writing to the peer failed"}},
	}
}

// Reason is the LastError in a word: of what came last, where a session ended and
// none came about since.
func (p PeerState) Reason() Reason {
	if p.LastError == "" {
		return ReasonNone
	}
	words := p.LastError
	if at := strings.LastIndex(words, SinceThen); at >= 0 {
		words = words[at:]
	}
	words, _, _ = strings.Cut(words, `"`) // what follows is what somebody on the other side wrote
	for _, w := range tellingWords() {
		for _, has := range w.words {
			if strings.Contains(words, has) {
				return w.reason
			}
		}
	}
	return ReasonOther
}
