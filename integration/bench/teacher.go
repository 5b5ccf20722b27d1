package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A teacher is a router that tells all its routes as fast as the node reads. A daemon in
// its place would be measured with it: BIRD 2.0.12 sleeps before its last UPDATE for up to
// 3 s where nothing else wakes it.

// routesOfUpdate is how many prefixes an UPDATE of a teacher has, as of BIRD.
const routesOfUpdate = 256

// Message types of RFC 4271, section 4.1.
const (
	bgpOpen      = 1
	bgpUpdate    = 2
	bgpKeepalive = 4
)

// startTeacher starts one in the network namespace of a process.
func startTeacher(ctx context.Context, pid int) (end func(), err error) {
	l, err := listenIn(ctx, pid, strings.Fields(learnedAddrs)[0]+":179")
	if err != nil {
		return nil, err
	}
	lesson := lessonOf(learnedRoutes)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			// One that ends early shows in that the routes do not come.
			_ = teach(ctx, conn, lesson)
		}
	}()
	return func() { _ = l.Close(); <-done }, nil
}

// listenIn listens at an address in the network namespace of a process.
func listenIn(ctx context.Context, pid int, address string) (l net.Listener, err error) {
	fail := func(err error) error {
		return fmt.Errorf("listen at %s in the namespace of process %d: %w", address, pid, err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, fail(err)
	}
	defer ns.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			l, err = new(net.ListenConfig).Listen(ctx, "tcp4", address)
		}
	}()
	<-done
	if err != nil {
		return nil, fail(err)
	}
	return l, nil
}

// teach is one session, until the node ends it or ctx does. It is shorter than its hold time.
func teach(ctx context.Context, conn net.Conn, lesson []byte) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer conn.Close()
	const asn, holdTime = 65001, 240
	open := []byte{4, asn >> 8, asn & 0xff, 0, holdTime}
	open = append(open, 192, 0, 2, 1, 14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0, asn>>8, asn&0xff) // IPv4 unicast, RFC 6793
	if _, err := conn.Write(bgpMessage(bgpOpen, open)); err != nil {
		return err
	}
	for {
		header := make([]byte, 19)
		if _, err := io.ReadFull(conn, header); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(header[16:]))-19); err != nil {
			return err
		}
		var say []byte
		switch header[18] {
		case bgpOpen:
			say = bgpMessage(bgpKeepalive, nil)
		case bgpKeepalive:
			say, lesson = lesson, nil
		}
		if _, err := conn.Write(say); err != nil {
			return err
		}
	}
}

// lessonOf are the UPDATEs for so many prefixes, in no order, and the End-of-RIB.
func lessonOf(prefixes int) []byte {
	var lesson []byte
	attributes := []byte{
		0x40, 1, 1, 0, // ORIGIN
		0x40, 2, 6, 2, 1, 0, 0, 65001 >> 8, 65001 & 0xff, // AS_PATH
		0x40, 3, 4, 192, 0, 2, 1, // NEXT_HOP
	}
	order := rand.New(rand.NewPCG(1, 1)).Perm(prefixes)
	for len(order) > 0 {
		n := min(len(order), routesOfUpdate)
		update := append([]byte{0, 0, 0, byte(len(attributes))}, attributes...)
		for _, i := range order[:n] {
			update = append(update, 24, 10+byte(i>>16), byte(i>>8), byte(i))
		}
		lesson, order = append(lesson, bgpMessage(bgpUpdate, update)...), order[n:]
	}
	return append(lesson, bgpMessage(bgpUpdate, make([]byte, 4))...)
}

func bgpMessage(kind byte, body []byte) []byte {
	m := bytes.Repeat([]byte{0xff}, 16)
	m = binary.BigEndian.AppendUint16(m, uint16(19+len(body)))
	return append(append(m, kind), body...)
}
