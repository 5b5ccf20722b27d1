package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// onConnections calls do with a duplicate of the descriptor of each TCP connection
// of this process that is a BGP session with a router: this node dialled the
// router's address and port, or was dialled at the port that it listens on. GoBGP
// keeps its connections to itself.
func onConnections(router netip.AddrPort, listens uint16, do func(fd int) error) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("find the connection with %s: %w", router, err)
	}
	var errs []error
	found := false
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A duplicate stays the same connection while it is looked at.
		mine, err := duplicate(fd)
		if err != nil {
			continue // closed meanwhile
		}
		near, far := ends(mine)
		if far.Addr() == router.Addr() && (far.Port() == router.Port() || near.Port() == listens) {
			found = true
			errs = append(errs, do(mine))
		}
		errs = append(errs, syscall.Close(mine))
	}
	if !found {
		errs = append(errs, fmt.Errorf("no connection with %s", router))
	}
	return errors.Join(errs...)
}

// duplicate gives a second descriptor, which no process that is started gets.
func duplicate(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	mine, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(mine)
	}
	return mine, err
}

// ends of a TCP connection; zero for anything else.
func ends(fd int) (near, far netip.AddrPort) {
	remote, err := syscall.Getpeername(fd)
	if err != nil {
		return near, far
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		return near, far
	}
	return addrPortOf(local), addrPortOf(remote)
}

func addrPortOf(s syscall.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *syscall.SockaddrInet6:
		a := netip.AddrFrom16(s.Addr).Unmap()
		if s.ZoneId != 0 {
			if i, err := net.InterfaceByIndex(int(s.ZoneId)); err == nil {
				a = a.WithZone(i.Name)
			}
		}
		return netip.AddrPortFrom(a, uint16(s.Port))
	}
	return netip.AddrPort{}
}
