package server

import (
	"bufio"
	"bytes"
	"fmt"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// GoBGP neither offers extended messages (RFC 8654) nor knows their capability, but it
// reads a message of any length that a header can give. So the guard offers them in
// GoBGP's place, lets them in where the router has offered them, too, and nowhere else.
// What this node says itself stays below the old bound, as the RFC allows.

const (
	capabilityExtended = 6     // BGP Extended Message
	mostExtended       = 65535 // octets of a message
)

// opening is what this node's OPEN is to say where GoBGP does not.
type opening struct {
	forwards bool // this node went on forwarding for the router
	extended bool // it takes extended messages
}

// opening is that of the next session with a router, see forwardsTo.
func (l *ledger) opening(address string, restart time.Time) opening {
	o := opening{forwards: l.forwardsTo(address, restart)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[address]; s != nil {
		o.extended = s.peer.ExtendedMessages
	}
	return o
}

// apply gives GoBGP's OPEN with all that is to be in it.
func (o opening) apply(open []byte) ([]byte, error) {
	if o == (opening{}) {
		return open, nil
	}
	m, err := bgp.ParseBGPMessage(open)
	if err != nil {
		return nil, fmt.Errorf("this node's own OPEN: %w", err)
	}
	body := m.Body.(*bgp.BGPOpen)
	if o.forwards {
		for _, c := range capabilities(body) {
			keepForwarding(c)
		}
	}
	if o.extended {
		offer := bgp.NewCapUnknown(capabilityExtended, nil)
		body.OptParams = append(body.OptParams, bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{offer}))
	}
	m.Header.Len = 0 // which has it counted again
	return m.Serialize()
}

// offersExtended is about a capability of a router.
func offersExtended(c bgp.ParameterCapabilityInterface) bool {
	return c.Code() == capabilityExtended && c.Len() == 2 // nothing is in it
}

// makeRoom has the reader hold a message of a length. Only sessions in which a long one
// comes have the memory for it.
func (g *guard) makeRoom(length int) {
	if length > g.in.Size() {
		g.in = bufio.NewReaderSize(g.in, mostExtended)
	}
}

// unanswerable says what is wrong with a long UPDATE that GoBGP answers with a
// NOTIFICATION that holds all of an attribute: one that is longer than it can write it
// keeps to itself, and then neither reads on nor ends the session.
func unanswerable(message []byte) *fault {
	if len(message) <= bgp.BGP_MAX_MESSAGE_LENGTH || message[18] != bgp.BGP_MSG_UPDATE {
		return nil
	}
	_, rest, _ := counted(message[bgp.BGP_HEADER_LENGTH:])
	list, _, _ := counted(rest)
	for len(list) > 0 {
		kind, _, rest, ok := attribute(list)
		if !ok {
			return nil
		}
		p, err := bgp.GetPathAttribute(list)
		if _, unknown := p.(*bgp.PathAttributeUnknown); err == nil && unknown && bgp.BGPAttrFlag(list[0])&bgp.BGP_ATTR_FLAG_OPTIONAL == 0 {
			return &fault{bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE,
				bytes.Clone(list[:len(list)-len(rest)]), fmt.Sprintf("an UPDATE came with attribute %d, which has to be known", kind)}
		}
		list = rest
	}
	return nil
}
