package server

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v3/pkg/server"
)

// guards puts a guard on each connection of GoBGP, which makes its connections itself
// and has no hook for it. It has lines of its log, though: the one before a session is
// begun comes between the connection and the first byte that is read of it, on the
// goroutine that all routers' records belong to and with the lock of this one's held.
// That is when the guard takes the connection's place in the record, by reflection.
type guards struct {
	server *gobgp.BgpServer
	// restart is until when routers may hold routes of this node's life before this run.
	restart time.Time

	mu sync.Mutex
	on map[string]*guard // by the router's address as GoBGP writes it
}

// newGuards are those of a run that begins now.
func newGuards(g speaker.GracefulRestart) *guards {
	gs := &guards{on: make(map[string]*guard)}
	if g.Enabled && g.Restarting {
		gs.restart = time.Now().Add(g.Kept())
	}
	return gs
}

// The fields of GoBGP that matter: BgpServer.neighborMap[address].fsm.conn, what the
// OPENs agreed on for UPDATEs beside it, and fsm.peerInfo.Address, see call.
const (
	fieldRouters = "neighborMap"
	fieldMachine = "fsm"
	fieldConn    = "conn"
	fieldAgreed  = "marshallingOptions"
	fieldIdle    = "idleHoldTime" // in seconds, for the next time
	fieldInfo    = "peerInfo"
	fieldAddress = "Address"
	fieldHandler = "h" // of the state that the machine is in
)

// attach makes the guards those of a server that does not run yet. The error says that
// GoBGP is not the one that this package was written for.
func (gs *guards) attach(server *gobgp.BgpServer) error {
	gs.server = server
	routers, ok := reflect.TypeFor[gobgp.BgpServer]().FieldByName(fieldRouters)
	if !ok || routers.Type.Kind() != reflect.Map || routers.Type.Key().Kind() != reflect.String {
		return unknownLayout(fieldRouters)
	}
	machine, ok := fieldBehind(routers.Type.Elem(), fieldMachine)
	if !ok {
		return unknownLayout(fieldMachine)
	}
	if conn, ok := fieldBehind(machine, fieldConn); !ok || conn != reflect.TypeFor[net.Conn]() {
		return unknownLayout(fieldConn)
	}
	if agreed, ok := fieldBehind(machine, fieldAgreed); !ok || agreed != reflect.TypeFor[*bgp.MarshallingOption]() {
		return unknownLayout(fieldAgreed)
	}
	if idle, ok := fieldBehind(machine, fieldIdle); !ok || idle.Kind() != reflect.Float64 {
		return unknownLayout(fieldIdle)
	}
	if handler, ok := fieldBehind(machine, fieldHandler); !ok || handler.Kind() != reflect.Pointer {
		return unknownLayout(fieldHandler)
	}
	info, ok := fieldBehind(machine, fieldInfo)
	if !ok {
		return unknownLayout(fieldInfo)
	}
	if address, ok := fieldBehind(info, fieldAddress); !ok || address != reflect.TypeFor[net.IP]() {
		return unknownLayout(fieldAddress)
	}
	return nil
}

// fieldBehind is the type of a field of what a pointer type points to.
func fieldBehind(pointer reflect.Type, name string) (reflect.Type, bool) {
	if pointer.Kind() != reflect.Pointer || pointer.Elem().Kind() != reflect.Struct {
		return nil, false
	}
	f, ok := pointer.Elem().FieldByName(name)
	return f.Type, ok
}

var errLayout = errors.New("GoBGP is of another version than this program was made for: build it with the one in go.mod")

func unknownLayout(field string) error {
	return fmt.Errorf("guard connections by %s: %w", field, errLayout)
}

// put puts a guard on the connection with a router. Only the line of GoBGP's log that
// says that a session with it is begun may call it.
func (gs *guards) put(address string, o opening, l learner) {
	machine, ok := gs.machine(address)
	if !ok {
		return
	}
	conn := (*net.Conn)(machine.FieldByName(fieldConn).Addr().UnsafePointer())
	agreed := (**bgp.MarshallingOption)(machine.FieldByName(fieldAgreed).Addr().UnsafePointer())
	if *conn == nil {
		return
	}
	g := newGuard(*conn, func() *bgp.MarshallingOption { return *agreed })
	g.opening, g.learner = o, l
	handler := (*unsafe.Pointer)(machine.FieldByName(fieldHandler).Addr().UnsafePointer())
	before := atomic.LoadPointer(handler)
	g.handled = func() bool { return atomic.LoadPointer(handler) != before }
	*conn = g
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.on[address] = g
}

// machine is GoBGP's record of the sessions with a router.
func (gs *guards) machine(address string) (reflect.Value, bool) {
	router := reflect.ValueOf(gs.server).Elem().FieldByName(fieldRouters).MapIndex(reflect.ValueOf(address))
	if !router.IsValid() {
		return reflect.Value{}, false
	}
	return router.Elem().FieldByName(fieldMachine).Elem(), true
}

// Close may be called again: GoBGP does so when it lets go of a router whose session has
// ended before, and would log the error as a failure.
func (g *guard) Close() error {
	g.closed.Store(true)
	if err := g.Conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// drop lets go of a connection that has ended.
func (gs *guards) drop(address string) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g := gs.on[address]; g != nil {
		go g.out.ended() // which waits for a message that is being written
	}
	delete(gs.on, address)
}

// fault is what the guard of a router has found; empty for nothing.
func (gs *guards) fault(address string) string {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.on[address]
	if g == nil {
		return ""
	}
	f := g.fault.Load()
	if f == nil {
		return ""
	}
	return fmt.Sprintf("NOTIFICATION %s: %s", ceaseWords(f.code, f.subcode, f.data), f.words)
}
