package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// pupil is a learner who is busy for as long as a test wants.
type pupil struct {
	heard atomic.Int64 // UPDATEs
	busy  atomic.Bool
}

// taught is a guard on a connection with a router, whose greeting was read, for a learner
// who is busy; and the router's end of it.
func taught(t *testing.T) (*guard, *pupil, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	router, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	conn, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { _ = errors.Join(router.Close(), conn.Close()) })
	g, p := newGuard(conn, func() *bgp.MarshallingOption { return nil }), new(pupil)
	g.learner = learner{tell: func([]byte, *bgp.MarshallingOption) { p.heard.Add(1) }, busy: p.busy.Load}
	_, err = router.Write(greeting())
	must(t, err)
	_, err = io.ReadFull(g, make([]byte, len(greeting())))
	must(t, err)
	p.busy.Store(true)
	return g, p, router
}

// updates are so many, each of one prefix.
func updates(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, framed(bgp.BGP_MSG_UPDATE, 0, 4, 24, 10, byte(i>>8), byte(i), 0, 0)...)
	}
	return b
}

// reading reads until there is an error, and gives what came.
func reading(g *guard) <-chan []byte {
	all := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(g)
		all <- b
	}()
	return all
}

func (p *pupil) hears(t *testing.T, n int) {
	t.Helper()
	eventually(t, "the learner has heard all", func() bool { return p.heard.Load() == int64(n) })
}

// GoBGP waits while a learner is busy, who hears all that comes meanwhile; then it has the
// same messages in the same order, and the end of the connection after them.
func TestTurnComesAfterLearner(t *testing.T) {
	t.Parallel()
	g, p, router := taught(t)
	first := make([]byte, 1)
	begun := time.Now()
	read := make(chan error, 1)
	go func() {
		_, err := g.Read(first)
		read <- err
	}()
	said := updates(1000)
	_, err := router.Write(said)
	must(t, err)
	p.hears(t, 1000)
	select {
	case <-read:
		if time.Since(begun) < turnTime {
			t.Fatal("GoBGP did not wait")
		}
	default:
		p.busy.Store(false)
		must(t, <-read)
	}
	must(t, router.Close())
	if got := append(first, <-reading(g)...); !bytes.Equal(got, said) {
		t.Errorf("GoBGP has read %d bytes, want the %d that were said", len(got), len(said))
	}
}

// It waits for a while only, however busy the learner is, and not at all with more than
// may wait, or when the connection has ended.
func TestTurnComesAnyway(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(net.Conn) error{
		"in time": func(net.Conn) error { return nil },
		"with too many": func(router net.Conn) error {
			_, err := router.Write(updates(1 + maxWaiting/27))
			return err
		},
		"in the end": func(router net.Conn) error { return router.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g, p, router := taught(t)
			begun, message := time.Now(), framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 0)
			_, err := router.Write(message)
			must(t, err)
			if name == "in the end" {
				must(t, then(router))
			} else {
				go func() { _ = then(router) }()
			}
			got := make([]byte, len(message))
			if _, err := io.ReadFull(g, got); err != nil || !bytes.Equal(got, message) {
				t.Errorf("GoBGP has read %x, %v, want %x", got, err, message)
			}
			if name == "with too many" && time.Since(begun) < turnTime && p.heard.Load() < maxWaiting/27 {
				t.Errorf("the learner heard %d UPDATEs before", p.heard.Load())
			}
		})
	}
}

// What waits for GoBGP when it closes the connection is not read any more.
func TestNothingComesAfterClose(t *testing.T) {
	t.Parallel()
	g, _, router := taught(t)
	g.waiting.Write(updates(10))
	_, err := router.Write(updates(10))
	must(t, err)
	must(t, g.Close())
	if n, err := g.Read(make([]byte, 1)); n > 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("GoBGP has read %d bytes, %v", n, err)
	}
}

// A message that ends the session is told after those before it.
func TestFaultWaitsItsTurn(t *testing.T) {
	t.Parallel()
	g, _, router := taught(t)
	said := updates(10)
	_, err := router.Write(append(bytes.Clone(said), header(6)...))
	must(t, err)
	got := <-reading(g)
	if !bytes.Equal(got[:len(said)], said) || len(got) != len(said)+bgp.BGP_HEADER_LENGTH {
		t.Errorf("GoBGP has read %d bytes, want the %d before and a header that it refuses", len(got), len(said))
	}
	if f := g.fault.Load(); f == nil || f.subcode != bgp.BGP_ERROR_SUB_BAD_MESSAGE_TYPE {
		t.Errorf("the fault is %+v", f)
	}
}
