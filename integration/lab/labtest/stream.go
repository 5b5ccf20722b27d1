package labtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/internal/namespace"
)

const (
	packetEvery = 2 * time.Millisecond
	// lastArrival is how long after an arrival the next one is waited for.
	lastArrival = 2 * time.Second
)

// Inside runs f in the network of a node. A socket that f opens stays there.
func Inside(t testing.TB, n *lab.Node, f func() error) {
	t.Helper()
	if err := namespace.Inside(fmt.Sprintf("/proc/%d/ns/net", n.PID()), f); err != nil {
		t.Fatal(err)
	}
}

// End is where a stream comes from or goes to: an address of a node.
type End struct {
	Node    *lab.Node
	Address netip.Addr // the zero one, of a sender, is the kernel's choice
}

// Stream is numbered packets from one node to another until it is ended.
type Stream struct {
	t        testing.TB
	from, to *net.UDPConn
	stop     chan struct{}
	stopped  chan struct{} // nothing is sent any more
	work     sync.WaitGroup

	mu   sync.Mutex
	sent []time.Time
	came map[uint64]bool
	news chan struct{} // of size one: another packet came
}

// Tally is what a stream counted.
type Tally struct {
	Sent int
	Lost []int // numbers
	// Gap is the longest time between the sending of two packets that arrived with none
	// between them that did; 0 if none was lost.
	Gap time.Duration
}

func (c Tally) String() string {
	return fmt.Sprintf("%d of %d packets lost, %s without one", len(c.Lost), c.Sent, c.Gap.Round(time.Millisecond))
}

// StartStream sends packets that count as arrived when they come back.
func StartStream(t testing.TB, from, to End) *Stream {
	t.Helper()
	s := newStream(t, from, to)
	s.work.Go(func() { sendBack(s.to) })
	s.work.Go(func() { s.receive(s.from) })
	return s
}

// StartOneWay sends packets that count as arrived at the other end.
func StartOneWay(t testing.TB, from, to End) *Stream {
	t.Helper()
	s := newStream(t, from, to)
	s.work.Go(func() { s.receive(s.to) })
	return s
}

func newStream(t testing.TB, from, to End) *Stream {
	t.Helper()
	s := &Stream{t: t, stop: make(chan struct{}), stopped: make(chan struct{}), came: map[uint64]bool{}, news: make(chan struct{}, 1)}
	var here *net.UDPAddr
	if from.Address.IsValid() {
		here = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Address, 0))
	}
	Inside(t, to.Node, func() (err error) {
		s.to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Address, 0)))
		return err
	})
	Inside(t, from.Node, func() (err error) {
		s.from, err = net.DialUDP("udp", here, s.to.LocalAddr().(*net.UDPAddr))
		return err
	})
	t.Cleanup(s.close)
	s.work.Go(s.send)
	return s
}

func sendBack(c *net.UDPConn) {
	b := make([]byte, 64)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(b[:n], from) // what does not leave is lost
	}
}

func (s *Stream) send() {
	defer close(s.stopped)
	tick := time.NewTicker(packetEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		number := uint64(len(s.sent))
		s.sent = append(s.sent, time.Now())
		s.mu.Unlock()
		_, _ = s.from.Write(binary.BigEndian.AppendUint64(nil, number)) // what does not leave is lost
	}
}

func (s *Stream) receive(at *net.UDPConn) {
	b := make([]byte, 64)
	for {
		n, err := at.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil || n < 8:
			continue // what a router says of a packet before
		}
		s.mu.Lock()
		s.came[binary.BigEndian.Uint64(b)] = true
		s.mu.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

// Flows waits until packets arrive that are sent from now on, so that the stream has
// seen what has happened.
func (s *Stream) Flows() {
	s.t.Helper()
	const enough = 50
	s.mu.Lock()
	next := uint64(len(s.sent))
	s.mu.Unlock()
	deadline := time.After(Soon)
	for {
		s.mu.Lock()
		arrived := 0
		for n := next; n < uint64(len(s.sent)); n++ {
			if s.came[n] {
				arrived++
			}
		}
		s.mu.Unlock()
		if arrived >= enough {
			return
		}
		select {
		case <-s.news:
		case <-deadline:
			s.t.Fatalf("of the packets sent in the last %s %d arrived", Soon, arrived)
		}
	}
}

// End stops sending and counts.
func (s *Stream) End() Tally {
	s.t.Helper()
	close(s.stop)
	<-s.stopped // one more may have been on its way
	for waiting := true; waiting && !s.complete(); {
		select {
		case <-s.news:
		case <-time.After(lastArrival):
			waiting = false
		}
	}
	s.close()
	return s.tally()
}

func (s *Stream) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.came) == len(s.sent)
}

func (s *Stream) tally() (c Tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Sent = len(s.sent)
	last := -1
	for n := range s.sent {
		if !s.came[uint64(n)] {
			c.Lost = append(c.Lost, n)
			continue
		}
		if last >= 0 && last < n-1 {
			c.Gap = max(c.Gap, s.sent[n].Sub(s.sent[last]))
		}
		last = n
	}
	return c
}

// close ends what is left of the stream; it may be called again.
func (s *Stream) close() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	_, _ = s.from.Close(), s.to.Close()
	s.work.Wait()
}
