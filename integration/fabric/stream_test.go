package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
	"golang.org/x/sys/unix"
)

const (
	packetEvery = 2 * time.Millisecond
	echoPort    = 7007
	// lastEcho is how long after the last packet an echo still counts.
	lastEcho = 5 * time.Second
)

// stream is packets from the client to the pod, which sends them back.
type stream struct {
	conn *net.UDPConn // the client's
	echo *net.UDPConn // the pod's
	stop chan struct{}
	sent chan int // how many, once it has stopped

	mu     sync.Mutex
	echoed map[uint32]bool
	news   chan struct{} // of size one: another echo came
}

// newStream sends to one of the pod's addresses until end.
func (f *fabric) newStream(pod netip.Addr) *stream {
	f.t.Helper()
	var echo, conn *net.UDPConn
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(pod, echoPort))
	inNamespace(f.t, f.node, func() (err error) {
		echo, err = net.ListenUDP("udp", to)
		return err
	})
	inNamespace(f.t, f.client, func() (err error) {
		conn, err = net.DialUDP("udp", nil, to)
		return err
	})
	f.t.Cleanup(func() { _, _ = echo.Close(), conn.Close() })
	s := &stream{conn: conn, echo: echo, stop: make(chan struct{}), sent: make(chan int, 1), echoed: map[uint32]bool{}, news: make(chan struct{}, 1)}
	go sendBack(echo)
	go s.send()
	go s.receive()
	return s
}

// inNamespace calls open on a thread in a node's network, where sockets stay that
// are opened there.
func inNamespace(t *testing.T, n *lab.Node, open func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", n.PID()))
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = open()
		}
		done <- err
	}()
	must(t, <-done)
}

func sendBack(c *net.UDPConn) {
	b := make([]byte, 64)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(b[:n], from)
	}
}

func (s *stream) send() {
	tick := time.NewTicker(packetEvery)
	defer tick.Stop()
	for n := uint32(0); ; n++ {
		select {
		case <-tick.C:
			// One that can't be sent is as lost as one that is dropped.
			_, _ = s.conn.Write(binary.BigEndian.AppendUint32(nil, n))
		case <-s.stop:
			s.sent <- int(n)
			return
		}
	}
}

func (s *stream) receive() {
	b := make([]byte, 64)
	for {
		n, err := s.conn.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil || n < 4:
			continue // what a router says of a packet before
		}
		s.mu.Lock()
		s.echoed[binary.BigEndian.Uint32(b)] = true
		s.mu.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

func (s *stream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.echoed)
}

// flows waits until some more packets have come back, so that the stream has seen
// what has happened.
func (s *stream) flows(t *testing.T) {
	t.Helper()
	deadline := time.After(soon)
	for want := s.count() + 50; s.count() < want; {
		select {
		case <-s.news:
		case <-deadline:
			t.Fatalf("no packet comes back: %d so far", s.count())
		}
	}
}

// end says how many packets were sent, and which of them were lost.
func (s *stream) end() (sent int, lost []uint32) {
	close(s.stop)
	sent = <-s.sent
	deadline := time.After(lastEcho)
	for waiting := true; waiting && s.count() < sent; {
		select {
		case <-s.news:
		case <-deadline:
			waiting = false
		}
	}
	_, _ = s.conn.Close(), s.echo.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range uint32(sent) {
		if !s.echoed[n] {
			lost = append(lost, n)
		}
	}
	return sent, lost
}

// watcher is the router's kernel telling of its routes.
type watcher struct {
	f     *fabric
	log   string
	marks int
	from  int // where in the log the present section begins
}

func (f *fabric) watchRoutes() *watcher {
	f.t.Helper()
	w := &watcher{f: f, log: f.tor.LogFile("routes")}
	_, err := f.tor.Start(f.t.Context(), "routes", "ip", "monitor", "route")
	must(f.t, err)
	w.section()
	return w
}

// section gives what the kernel has told since the one before of the pool's
// prefixes.
func (w *watcher) section() (events []string) {
	w.f.t.Helper()
	w.marks++
	mark := fmt.Sprintf("198.18.0.%d", w.marks)
	var text string
	w.f.await("the kernel's routes are being told", func() error {
		// The kernel tells nobody of a route that is there already.
		labtest.Exec(w.f.t, w.f.tor, "ip", "route", "add", mark+"/32", "dev", "lo")
		labtest.Exec(w.f.t, w.f.tor, "ip", "route", "del", mark+"/32", "dev", "lo")
		data, err := os.ReadFile(w.log)
		if text = string(data); err == nil && !strings.Contains(text[w.from:], mark) {
			err = fmt.Errorf("nothing of %s in %d bytes", mark, len(data))
		}
		return err
	})
	for line := range strings.Lines(text[w.from:]) {
		if strings.Contains(line, pool4) || strings.Contains(line, pool6) {
			events = append(events, strings.TrimSpace(line))
		}
	}
	w.from = len(text)
	return events
}
