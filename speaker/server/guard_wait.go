package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

const (
	// turnTime is for how long GoBGP waits for messages that its turn has not come for.
	turnTime = 500 * time.Millisecond
	// glanceTime is how often it is asked whether that still is so while nothing comes.
	glanceTime = 5 * time.Millisecond
	// maxWaiting is how many bytes of messages, but for one more, wait for GoBGP. Beyond
	// that it reads, and the router waits as TCP has it.
	maxWaiting = 1 << 20
)

// learner learns from a router's UPDATEs before GoBGP has them.
type learner struct {
	// tell is given each one without its header, with how to read it. It keeps nothing
	// of it.
	tell func(update []byte, agreed *bgp.MarshallingOption)
	// busy says that there is more to do than gets done at once. GoBGP would take the
	// processor from it, for what nobody waits for.
	busy func() bool
}

// turn hears at least one message that GoBGP has not read, and more as long as the
// learner is busy. A hold timer, which is three seconds at least, bears the wait.
func (g *guard) turn() error {
	if g.closed.Load() {
		return net.ErrClosed // by GoBGP, which would read what waits all the same
	}
	if g.waiting.Len() == 0 {
		if g.waiting.Cap() > 2*bgp.BGP_MAX_MESSAGE_LENGTH {
			g.waiting = bytes.Buffer{}
		}
		if err := g.next(); err != nil {
			return err
		}
		g.latest = time.Now().Add(turnTime)
	}
	for g.waits() {
		switch err := g.glance(); {
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // GoBGP meets it when it has read the rest
			g.latest = time.Time{}
		}
	}
	length := binary.BigEndian.Uint16(g.waiting.Bytes()[16:])
	g.left = max(int(length), bgp.BGP_HEADER_LENGTH)
	return nil
}

// waits says whether GoBGP is to wait.
func (g *guard) waits() bool {
	return g.learner.busy != nil && g.heard == established && g.learner.busy() && g.fault.Load() == nil &&
		g.waiting.Len() < maxWaiting && time.Now().Before(g.latest)
}

// glance hears a message if one comes soon.
func (g *guard) glance() error {
	if err := g.SetReadDeadline(time.Now().Add(glanceTime)); err != nil {
		return err
	}
	err := g.next()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, g.SetReadDeadline(time.Time{}))
}
