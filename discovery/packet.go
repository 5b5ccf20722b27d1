package discovery

import (
	"encoding/binary"
	"net"
)

// Types of ICMPv6 messages (RFC 4861, RFC 4443).
const (
	typeEchoRequest   = 128
	typeEchoReply     = 129
	typeSolicitation  = 133
	typeAdvertisement = 134

	optionSourceLink = 1
	nearHopLimit     = 255 // of what no router has forwarded
	echoID           = 0x4657
)

// kind is what a packet says.
type kind int

const (
	nothing    kind = iota
	fromRouter      // its sender is a router
	solicited       // its sender looks for routers
)

// read says what an ICMPv6 message means that came with a hop limit. The kernel has
// checked its checksum.
func read(b []byte, hopLimit int) kind {
	switch {
	case len(b) < 8 || b[1] != 0:
	case b[0] == typeEchoReply:
		if binary.BigEndian.Uint16(b[4:]) == echoID {
			return fromRouter
		}
	case hopLimit != nearHopLimit: // RFC 4861, sections 6.1.1 and 6.1.2
	case b[0] == typeSolicitation && wholeOptions(b[8:]):
		return solicited
	case b[0] == typeAdvertisement && len(b) >= 16 && wholeOptions(b[16:]):
		return fromRouter
	}
	return nothing
}

// wholeOptions says whether all options have a length, as they must.
func wholeOptions(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 2 || b[1] == 0 || len(b) < 8*int(b[1]) {
			return false
		}
		b = b[8*int(b[1]):]
	}
	return true
}

// bytes of a message from an interface with a hardware address, without a
// checksum, which is the kernel's to add.
func (m message) bytes(hardware net.HardwareAddr) []byte {
	switch m {
	case solicit:
		return append([]byte{typeSolicitation, 0, 0, 0, 0, 0, 0, 0}, sourceLink(hardware)...)
	case echo:
		return binary.BigEndian.AppendUint32([]byte{typeEchoRequest, 0, 0, 0}, echoID<<16)
	}
	// Hop limit, flags, router lifetime and both timers are 0: nobody is to set
	// anything by it.
	return append([]byte{typeAdvertisement, 15: 0}, sourceLink(hardware)...)
}

// sourceLink is the option with the sender's hardware address; nothing for one that
// is no Ethernet address.
func sourceLink(hardware net.HardwareAddr) []byte {
	if len(hardware) != 6 {
		return nil
	}
	return append([]byte{optionSourceLink, 1}, hardware...)
}
