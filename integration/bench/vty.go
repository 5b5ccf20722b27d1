package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"
)

// vty asks one of FRR's daemons over the socket that vtysh uses, which takes well
// under a millisecond: a vtysh for each question would take a processor from those
// that are measured.
type vty struct {
	conn   net.Conn
	reader *bufio.Reader
}

func dialVTY(ctx context.Context, dir, daemon string) (*vty, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, daemon+".vty"))
	if err != nil {
		return nil, err
	}
	return &vty{conn, bufio.NewReader(conn)}, nil
}

// ask gives what the daemon says to a command.
func (v *vty) ask(ctx context.Context, command string) (string, error) {
	deadline, _ := ctx.Deadline()
	if deadline.IsZero() {
		deadline = time.Now().Add(time.Minute)
	}
	if err := v.conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := v.conn.Write([]byte(command + "\x00")); err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	var said strings.Builder
	for { // the answer ends with three zeros and its status
		text, err := v.reader.ReadString(0)
		if err != nil {
			return "", fmt.Errorf("%s: %w", command, err)
		}
		said.WriteString(strings.TrimSuffix(text, "\x00"))
		if end, err := v.reader.Peek(3); err == nil && end[0] == 0 && end[1] == 0 {
			if _, err := v.reader.Discard(3); err != nil {
				return "", err
			}
			if end[2] != 0 {
				return "", fmt.Errorf("%s: FRR's status %d: %s", command, end[2], said.String())
			}
			return said.String(), nil
		}
	}
}
