// Command relay is the least that a BGP speaker in a process of its own can be, against
// which the benchmarks hold Fairway's: it has a session with the router that it is given the
// address of, and writes to that what it reads of its standard input.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

func main() {
	fmt.Fprintln(os.Stderr, "relay:", run(os.Args[1:]))
	os.Exit(1)
}

// run says why it has ended, which it does with the process that started it at the latest.
func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments: want the router's address with its port", len(args))
	}
	if err := syscall.SetNonblock(int(os.Stdin.Fd()), true); err != nil { // so that a read waits as one of a connection does
		return err
	}
	parent := os.NewFile(os.Stdin.Fd(), "parent")
	router, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	if err := open(router); err != nil {
		return fmt.Errorf("session with %s: %w", args[0], err)
	}
	go func() { _, _ = io.Copy(io.Discard, router) }()
	for b := make([]byte, 4096); ; {
		n, err := parent.Read(b)
		if err != nil {
			return err
		}
		if _, err := router.Write(b[:n]); err != nil {
			return err
		}
	}
}

// Message types of RFC 4271, section 4.1.
const (
	bgpOpen      = 1
	bgpKeepalive = 4
)

// open brings the session up, as 192.0.2.2 of the ASN 64512. It has no hold time: nothing is
// to be done but what it is told.
func open(router net.Conn) error {
	said := []byte{4, 64512 >> 8, 64512 & 0xff, 0, 0, 192, 0, 2, 2, 14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 64512 >> 8, 64512 & 0xff} // IPv4 unicast, RFC 6793
	for _, turn := range []struct {
		say    []byte
		awaits byte
	}{{message(bgpOpen, said), bgpOpen}, {message(bgpKeepalive, nil), bgpKeepalive}} {
		if _, err := router.Write(turn.say); err != nil {
			return err
		}
		header := make([]byte, 19)
		if _, err := io.ReadFull(router, header); err != nil {
			return err
		}
		if header[18] != turn.awaits {
			return fmt.Errorf("a message of type %d came, want %d", header[18], turn.awaits)
		}
		if _, err := io.CopyN(io.Discard, router, int64(binary.BigEndian.Uint16(header[16:]))-19); err != nil {
			return err
		}
	}
	return nil
}

func message(kind byte, body []byte) []byte {
	m := bytes.Repeat([]byte{0xff}, 16)
	m = binary.BigEndian.AppendUint16(m, uint16(19+len(body)))
	return append(append(m, kind), body...)
}
