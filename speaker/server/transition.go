package server

import (
	"fmt"
	"strings"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// dialing is the state of a session that a connection is tried for.
const dialing = bgp.BGP_FSM_ACTIVE

// transition is what every line of the log about a session begins with: whose it
// is, and from which state of RFC 4271, section 8.2.2, it came to which.
func transition(p speaker.Peer, from, to any) []any {
	return []any{"peer", p.Name, "address", p.Address, "asn", p.ASN, "from", stateWords(from), "to", stateWords(to)}
}

// stateWords is GoBGP's word for a state as the RFC writes it.
func stateWords(state any) string {
	word := strings.TrimPrefix(fmt.Sprint(state), "BGP_FSM_")
	switch word {
	case "OPENSENT":
		return "OpenSent"
	case "OPENCONFIRM":
		return "OpenConfirm"
	}
	return word[:min(1, len(word))] + strings.ToLower(word[min(1, len(word)):])
}
