package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// ErrPacket: the bytes are no BFD Control packet that this package takes (RFC
// 5880 section 6.8.6); it is discarded without an answer.
var ErrPacket = errors.New("BFD packet discarded")

// State of a session (RFC 5880 section 4.1).
type State uint8

// The states, with their numbers on the wire.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

// String is the state's name in the RFC.
func (s State) String() string {
	switch s {
	case AdminDown:
		return "AdminDown"
	case Down:
		return "Down"
	case Init:
		return "Init"
	case Up:
		return "Up"
	}
	return "state " + strconv.Itoa(int(s))
}

// Diagnostic is the reason of the last change of state (RFC 5880 section 4.1).
type Diagnostic uint8

// The diagnostics that this package gives; a peer may give others.
const (
	NoDiagnostic      Diagnostic = 0
	DetectionExpired  Diagnostic = 1
	NeighborDown      Diagnostic = 3
	AdministratorDown Diagnostic = 7
)

// String is the diagnostic in words.
func (d Diagnostic) String() string {
	words := [...]string{
		"no diagnostic", "control detection time expired", "echo function failed", "neighbor signaled session down",
		"forwarding plane reset", "path down", "concatenated path down", "administratively down", "reverse concatenated path down",
	}
	if int(d) < len(words) {
		return words[d]
	}
	return "diagnostic " + strconv.Itoa(int(d))
}

// Packet is a BFD Control packet without authentication (RFC 5880 section
// 4.1). Intervals are whole microseconds, less than 2^32 of them.
type Packet struct {
	Diagnostic              Diagnostic
	State                   State
	Poll                    bool
	Final                   bool
	ControlPlaneIndependent bool
	Demand                  bool
	Multiplier              uint8
	MyDiscriminator         uint32
	YourDiscriminator       uint32 // 0 while it is not known
	DesiredMinTx            time.Duration
	RequiredMinRx           time.Duration // 0: send no periodic packets
	RequiredMinEchoRx       time.Duration // 0: no echo
}

const (
	version      = 1
	packetLength = 24
)

// The bits of the second byte below the state.
const (
	multipointBit = 1 << iota
	demandBit
	authenticationBit
	independentBit
	finalBit
	pollBit
)

// Append adds the packet as it goes on the wire.
func (p Packet) Append(b []byte) []byte {
	flags := byte(p.State) << 6
	for _, f := range []struct {
		set bool
		bit byte
	}{{p.Poll, pollBit}, {p.Final, finalBit}, {p.ControlPlaneIndependent, independentBit}, {p.Demand, demandBit}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = append(b, version<<5|byte(p.Diagnostic)&0x1f, flags, p.Multiplier, packetLength)
	for _, word := range []uint32{p.MyDiscriminator, p.YourDiscriminator, microseconds(p.DesiredMinTx), microseconds(p.RequiredMinRx), microseconds(p.RequiredMinEchoRx)} {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	return b
}

func microseconds(d time.Duration) uint32 { return uint32(d / time.Microsecond) }

// Parse reads a Control packet and makes all checks of RFC 5880 section 6.8.6
// that need no session. What follows the packet's own length is ignored. An
// error wraps ErrPacket.
func Parse(b []byte) (Packet, error) {
	refuse := func(format string, a ...any) (Packet, error) {
		return Packet{}, fmt.Errorf("%w: %s", ErrPacket, fmt.Sprintf(format, a...))
	}
	if len(b) < packetLength {
		return refuse("%d bytes, want %d", len(b), packetLength)
	}
	flags, length := b[1], int(b[3])
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[4+4*i:]) }
	interval := func(i int) time.Duration { return time.Duration(word(i)) * time.Microsecond }
	p := Packet{
		Diagnostic:              Diagnostic(b[0] & 0x1f),
		State:                   State(flags >> 6),
		Poll:                    flags&pollBit != 0,
		Final:                   flags&finalBit != 0,
		ControlPlaneIndependent: flags&independentBit != 0,
		Demand:                  flags&demandBit != 0,
		Multiplier:              b[2],
		MyDiscriminator:         word(0),
		YourDiscriminator:       word(1),
		DesiredMinTx:            interval(2),
		RequiredMinRx:           interval(3),
		RequiredMinEchoRx:       interval(4),
	}
	switch {
	case b[0]>>5 != version:
		return refuse("version %d, want %d", b[0]>>5, version)
	case flags&authenticationBit != 0:
		return refuse("it is authenticated: take authentication away at the peer")
	case length < packetLength || length > len(b):
		return refuse("length field %d in %d bytes", length, len(b))
	case p.Multiplier == 0:
		return refuse("detect multiplier 0")
	case flags&multipointBit != 0:
		return refuse("multipoint bit set")
	case p.MyDiscriminator == 0:
		return refuse("my discriminator 0")
	case p.YourDiscriminator == 0 && p.State > Down:
		return refuse("your discriminator 0 in state %s", p.State)
	case p.Poll && p.Final: // RFC 5880 section 6.5
		return refuse("poll and final bit set")
	}
	return p, nil
}
