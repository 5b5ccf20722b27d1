package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	gobgp "github.com/osrg/gobgp/v3/pkg/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxSocketPath is the longest path of a unix socket, sun_path less its NUL.
const maxSocketPath = 107

// endpoints is where GoBGP serves its API. GoBGP binds the socket in a
// directory of its own, closed to others, and it is moved to its path with its
// mode set: there is no moment at which another user could open it.
type endpoints struct {
	socket  string // the path that users see; empty for none
	private string // the directory in which GoBGP binds it
	ours    os.FileInfo
	address string
}

// newEndpoints checks that the places are free, since GoBGP would end the
// process over one that is not, or held by the run that is to be replaced.
func newEndpoints(ctx context.Context, l speaker.Local, h held) (*endpoints, error) {
	e := &endpoints{socket: l.APISocket, address: l.APIAddress}
	if e.address != "" {
		a, err := netip.ParseAddrPort(e.address)
		if err == nil {
			err = probe(ctx, a, h)
		}
		if err != nil {
			return nil, fmt.Errorf("BGP API address %s: %w", e.address, err)
		}
	}
	if e.socket == "" {
		return e, nil
	}
	if h.socket != e.socket {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", e.socket); err == nil {
			return nil, errors.Join(fmt.Errorf("BGP API socket %s: another process answers on it: stop that one or name another socket", e.socket), conn.Close())
		}
	}
	if info, err := os.Lstat(e.socket); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("BGP API socket %s: a file that is no socket stands there: move it away or name another socket", e.socket)
	}
	private, err := os.MkdirTemp(filepath.Dir(e.socket), ".bgp-")
	if err != nil {
		return nil, fmt.Errorf("BGP API socket %s: %w", e.socket, err)
	}
	e.private = private
	if longest := max(len(e.bound()), len(e.socket)); longest > maxSocketPath {
		return nil, errors.Join(fmt.Errorf("BGP API socket %s: the path is %d bytes too long", e.socket, longest-maxSocketPath), e.close())
	}
	return e, nil
}

// bound is where GoBGP binds the unix socket.
func (e *endpoints) bound() string { return filepath.Join(e.private, "s") }

// options are GoBGP's, to serve a read-only API at the endpoints.
func (e *endpoints) options() []gobgp.ServerOption {
	var hosts []string
	if e.socket != "" {
		hosts = append(hosts, "unix://"+e.bound())
	}
	if e.address != "" {
		hosts = append(hosts, e.address)
	}
	if len(hosts) == 0 {
		return nil
	}
	return []gobgp.ServerOption{
		gobgp.GrpcListenAddress(strings.Join(hosts, ",")),
		gobgp.GrpcOption([]grpc.ServerOption{grpc.UnaryInterceptor(readOnlyUnary), grpc.StreamInterceptor(readOnlyStream)}),
	}
}

// publish waits until GoBGP listens and puts the socket in its place.
func (e *endpoints) publish(ctx context.Context, l *ledger) error {
	if e.socket == "" && e.address == "" {
		return nil
	}
	network, address := "tcp", e.address
	if e.socket != "" {
		network, address = "unix", e.bound()
	}
	if err := waitListening(ctx, network, address, l); err != nil {
		return err
	}
	if e.socket == "" {
		return nil
	}
	if err := os.Chmod(e.bound(), 0o600); err != nil {
		return fmt.Errorf("BGP API socket: %w", err)
	}
	var err error
	if e.ours, err = os.Lstat(e.bound()); err != nil {
		return fmt.Errorf("BGP API socket: %w", err)
	}
	if err := os.Rename(e.bound(), e.socket); err != nil {
		return fmt.Errorf("BGP API socket: %w", err)
	}
	return os.Remove(e.private)
}

// close removes the socket, unless another process has put its own there.
func (e *endpoints) close() error {
	if e.private == "" {
		return nil
	}
	err := os.RemoveAll(e.private)
	if info, statErr := os.Lstat(e.socket); statErr == nil && e.ours != nil && os.SameFile(info, e.ours) {
		err = errors.Join(err, os.Remove(e.socket))
	}
	return err
}

// readable says whether a method of GoBGP's API only reads.
func readable(fullMethod string) bool {
	m := path.Base(fullMethod)
	return strings.HasPrefix(m, "List") || strings.HasPrefix(m, "Get") || m == "WatchEvent"
}

func refuse(fullMethod string) error {
	return status.Errorf(codes.PermissionDenied, "%s: this API is read-only: change the configuration of the agent instead", path.Base(fullMethod))
}

func readOnlyUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if !readable(info.FullMethod) {
		return nil, refuse(info.FullMethod)
	}
	return next(ctx, req)
}

func readOnlyStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if !readable(info.FullMethod) {
		return refuse(info.FullMethod)
	}
	return next(srv, withoutSecrets{stream})
}

// withoutSecrets blanks the passwords that GoBGP puts into its answers.
type withoutSecrets struct{ grpc.ServerStream }

func (s withoutSecrets) SendMsg(m any) error {
	switch m := m.(type) {
	case *api.ListPeerResponse:
		if c := m.GetPeer().GetConf(); c != nil {
			c.AuthPassword = ""
		}
		if st := m.GetPeer().GetState(); st != nil {
			st.AuthPassword = ""
		}
	case *api.ListPeerGroupResponse:
		if c := m.GetPeerGroup().GetConf(); c != nil {
			c.AuthPassword = ""
		}
	}
	return s.ServerStream.SendMsg(m)
}
