package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/vishvananda/netns"
)

var errNotYet = errors.New("not yet")

const (
	// streamPause is the time between two packets of a stream.
	streamPause = 5 * time.Millisecond
	streamPort  = 5005
)

// stream sends numbered packets from the client to the pod.
type stream struct {
	t        *testing.T
	from, to *net.UDPConn
	stop     chan struct{}
	work     sync.WaitGroup

	mu   sync.Mutex
	sent []time.Time
	came map[uint64]time.Time
}

// tally is what a stream counted: gap is the longest time between the sending of two
// packets that arrived with none between them that did.
type tally struct {
	sent, lost int
	gap        time.Duration
}

func startStream(t *testing.T, client, node *lab.Node) *stream {
	t.Helper()
	s := &stream{t: t, stop: make(chan struct{}), came: map[uint64]time.Time{}}
	pod := netip.AddrPortFrom(netip.MustParseAddr(podAddress), streamPort)
	inside(t, node, func() (err error) {
		s.to, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(pod))
		return err
	})
	inside(t, client, func() (err error) {
		s.from, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(clientAt)}, net.UDPAddrFromAddrPort(pod))
		return err
	})
	s.work.Go(s.send)
	s.work.Go(s.receive)
	t.Cleanup(func() {
		s.close()
	})
	return s
}

// inside runs f in the network namespace of a node. A socket that f opens stays in
// it.
func inside(t *testing.T, n *lab.Node, f func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		result <- func() error {
			space, err := netns.GetFromPid(n.PID())
			if err != nil {
				return err
			}
			defer space.Close()
			if err := netns.Set(space); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

func (s *stream) send() {
	tick := time.NewTicker(streamPause)
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

func (s *stream) receive() {
	var b [8]byte
	for {
		if _, err := s.to.Read(b[:]); err != nil {
			return
		}
		s.mu.Lock()
		s.came[binary.BigEndian.Uint64(b[:])] = time.Now()
		s.mu.Unlock()
	}
}

// flows waits until packets arrive that were sent from now on.
func (s *stream) flows() {
	s.t.Helper()
	s.mu.Lock()
	next := uint64(len(s.sent))
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	err := lab.Await(ctx, "the stream flows", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for n := next; n < uint64(len(s.sent)); n++ {
			if _, came := s.came[n]; came {
				return nil
			}
		}
		return errNotYet
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// end stops the stream and counts. What was sent after the last packet that came
// may be under way, and does not count.
func (s *stream) end() tally {
	s.close()
	var c tally
	var last time.Time
	missing := 0
	for n, sent := range s.sent {
		if _, came := s.came[uint64(n)]; !came {
			missing++
			continue
		}
		if !last.IsZero() && missing > 0 {
			c.gap = max(c.gap, sent.Sub(last))
		}
		c.lost, c.sent, missing, last = c.lost+missing, n+1, 0, sent
	}
	return c
}

func (s *stream) close() {
	select {
	case <-s.stop:
		return
	default:
	}
	close(s.stop)
	_ = s.to.Close()
	s.work.Wait()
	_ = s.from.Close()
}

// watch has what changes in the routes of a node's kernel.
type watch struct {
	cmd  *exec.Cmd
	stop context.CancelFunc
	out  bytes.Buffer
}

func watchRoutes(t *testing.T, n *lab.Node) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{stop: cancel}
	w.cmd = n.Command(ctx, "ip", "monitor", "route")
	w.cmd.Stdout = &w.out
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end() })
	return w
}

// end gives what changed.
func (w *watch) end() string {
	w.stop()
	_ = w.cmd.Wait() // it was killed
	return w.out.String()
}
