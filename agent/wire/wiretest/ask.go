// Package wiretest asks an agent over its socket what the plugin would ask, without a
// process.
package wiretest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"

	"github.com/fairway-network/fairway/agent/wire"
)

// Ask has the agent at a socket answer the plugin's environment and standard input, and
// returns what the plugin would print. What the agent refuses is a *wire.Fault; an
// answer that breaks off is io.ErrUnexpectedEOF. When ctx ends the connection is closed,
// as it is when the plugin is killed.
func Ask(ctx context.Context, socket string, environ []string, stdin string) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := conn.Write(wire.AppendRequest(nil, environ, []byte(stdin))); err != nil {
		return nil, err
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return nil, err
	}
	text, failed, whole := wire.SplitAnswer(answer)
	switch {
	case !whole:
		return nil, fmt.Errorf("the answer %q: %w", answer, io.ErrUnexpectedEOF)
	case failed:
		return nil, faultOf(text)
	}
	return text, nil
}

// faultOf is wire.Fault's AppendJSON the other way round.
func faultOf(text []byte) error {
	var said struct {
		Code         wire.Code
		Msg, Details string
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return fmt.Errorf("an error that can't be read: %s: %w", text, err)
	}
	return &wire.Fault{Code: said.Code, Msg: said.Msg, Details: said.Details}
}
