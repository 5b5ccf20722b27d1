package kube

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const loopback = "127.0.0.1"

// heldPort is a TCP port of the loopback address that stays the cluster's own
// while no component listens on it: only sockets of the same user that permit
// sharing (SO_REUSEPORT) can be bound to it as well. A nil one holds nothing.
type heldPort struct {
	socket int
	number int
}

// holdPort binds a free port without listening, so that connections to it are
// refused until a component listens.
func holdPort() (*heldPort, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold a port: %w", err)
	}
	p := &heldPort{socket: socket}
	if err := p.bind(); err != nil {
		return nil, errors.Join(fmt.Errorf("hold a port of %s: %w", loopback, err), p.close())
	}
	return p, nil
}

func (p *heldPort) bind() error {
	if err := unix.SetsockoptInt(p.socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	if err := unix.Bind(p.socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	bound, err := unix.Getsockname(p.socket)
	if err != nil {
		return err
	}
	p.number = bound.(*unix.SockaddrInet4).Port
	return nil
}

func (p *heldPort) close() error {
	if p == nil {
		return nil
	}
	return unix.Close(p.socket)
}
