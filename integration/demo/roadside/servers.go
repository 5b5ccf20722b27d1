package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// serve answers every request with one line: who we are and who asked.
func serve(ctx context.Context, name, listen string) error {
	page := func(w http.ResponseWriter, r *http.Request) {
		own, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		fmt.Fprintf(w, "this is %s at %s, you are %s\n", name, address(own.String()), address(r.RemoteAddr))
	}
	server := &http.Server{Addr: listen, Handler: http.HandlerFunc(page), ReadHeaderTimeout: patience}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", listen, err)
	}
	return nil
}

// database answers every connection with one line: who connected.
func database(ctx context.Context, listen string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("database: %w", err)
		}
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(conn, "this is the database, you are %s\n", address(conn.RemoteAddr().String()))
		}()
	}
}

// ask connects to a database and prints what it says.
func ask(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(io.LimitReader(conn, 1024))
	if err != nil {
		return err
	}
	fmt.Print(string(answer))
	return nil
}

// address drops the port, and what an IPv4 address wears on a socket of both
// families.
func address(hostport string) string {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return hostport
	}
	return ap.Addr().Unmap().String()
}
