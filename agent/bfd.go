package agent

import "time"

// BFD is how the path to a peer is watched (RFC 5882): with a BFD session of
// these timers, whose failure ends the BGP session. What is 0 gets the default of
// package bfd.
type BFD struct {
	Interval        time.Duration // between packets that this node likes to send
	ReceiveInterval time.Duration // the least between packets that it can take
	Multiplier      uint8         // of packets in a row that the peer must miss
}
