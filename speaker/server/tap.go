package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// tap is GoBGP's logger. It passes on what a network engineer wants to read,
// with peers by their names, and enters in the ledger what GoBGP tells nowhere
// else: each UPDATE after it was written to its peer, as far as it was, and why a session ended.
// GoBGP writes these lines in order for each peer, some with its locks held,
// so nothing here may call back.
type tap struct {
	log     *slog.Logger
	ledger  *ledger
	learned *learned // is told of what routers say
	guards  *guards  // of the connections
}

// The lines of GoBGP that the ledger is kept by.
const (
	lineSentUpdate   = "sent update"
	linePeerDeleted  = "Delete a peer configuration"
	lineStateChanged = "state changed"
	lineSentNote     = "sent notification"
	lineGotNote      = "received notification"
	lineDialFailed   = "failed to connect"
	lineSyncFinished = "sync finished"
	lineFreed        = "freed fsm.h"
	lineAnyASN       = "skipped asn negotiation"
	lineWelcome      = "Accepted a new dynamic neighbor"
	lineAPIFailed    = "failed to listen grpc port"
	lineBadHeader    = "Session will be reset due to malformed BGP Header"
)

func (t tap) Panic(msg string, f log.Fields) { panic("gobgp: " + msg + " " + fmt.Sprint(f)) }

// Fatal is called where GoBGP would end the process. Without its API it can go
// on, and Set returns the error; where it found itself inconsistent it can't.
func (t tap) Fatal(msg string, f log.Fields) {
	if msg != lineAPIFailed {
		t.Panic(msg, f)
	}
	err, _ := f["Err"].(error)
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	t.ledger.apiError = fmt.Errorf("serve the BGP API: %w", err)
	t.ledger.wake()
}

func (t tap) Error(msg string, f log.Fields) { t.pass(slog.LevelError, msg, f) }

func (t tap) Warn(msg string, f log.Fields) {
	address := keyOf(f)
	level := slog.LevelWarn
	switch msg {
	case lineSentNote:
		level = slog.LevelDebug // the end of the session says the same
		t.ledger.note(address, "sent "+cmp.Or(t.guards.fault(address), notificationWords(f)))
		if blames(f) {
			t.ledger.blame(address)
		}
	case lineGotNote:
		level = slog.LevelDebug
		t.ledger.note(address, "received "+notificationWords(f))
	case lineBadHeader:
		level = slog.LevelDebug // of the guard's making
	case "Closed an accepted connection", "accepted conn is closed to avoid be blocked", "active conn is closed to avoid being blocked":
		level = slog.LevelDebug // both sides dialled
	case "No matching path for withdraw found, may be path was not installed into table":
		level = slog.LevelDebug // the import policy had dropped it
	}
	t.pass(level, msg, f)
}

func (t tap) Info(msg string, f log.Fields) {
	switch msg {
	case lineSyncFinished:
		t.ledger.restarted()
	case linePeerDeleted:
		t.learned.left(f)
	case lineAnyASN:
		asn, _ := f["Asn"].(uint32)
		t.ledger.introduce(keyOf(f), asn)
	}
	t.pass(slog.LevelDebug, msg, f)
}

func (t tap) Debug(msg string, f log.Fields) {
	switch msg {
	case lineSentUpdate:
		t.sentUpdate(f)
	case lineStateChanged:
		t.learned.session(f)
		t.stateChanged(f)
	case lineDialFailed:
		err, _ := f["Error"].(error)
		if p, why, news := t.ledger.cannotConnect(keyOf(f), err); news {
			t.log.Warn("no BGP session", append(transition(p, dialing, dialing), "reason", why)...)
		}
	case lineWelcome:
		if refused := t.ledger.welcome(keyOf(f)); refused != "" {
			t.log.Warn("no BGP session", "address", keyOf(f), "reason", refused)
		}
	case lineFreed:
		t.guards.drop(keyOf(f))
		t.ledger.gone(keyOf(f))
	}
}

// SetLevel does nothing: the ledger needs every line.
func (t tap) SetLevel(log.LogLevel) {}

func (t tap) GetLevel() log.LogLevel { return log.DebugLevel }

// pass hands a line on, with the peer's name in place of GoBGP's key.
func (t tap) pass(level slog.Level, msg string, f log.Fields) {
	if !t.log.Enabled(context.Background(), level) {
		return
	}
	args := make([]any, 0, 2*len(f))
	for k, v := range f {
		switch k {
		case "Topic", "State":
		case "Key":
			args = append(args, "peer", t.ledger.name(keyOf(f)))
		default:
			args = append(args, strings.ToLower(k), fmt.Sprint(v))
		}
	}
	t.log.Log(context.Background(), level, "gobgp: "+msg, args...)
}

func (t tap) sentUpdate(f log.Fields) {
	var announced, withdrawn []netip.Prefix
	nlri, _ := f["nlri"].([]*bgp.IPAddrPrefix)
	for _, n := range nlri {
		announced = append(announced, prefixOf(n))
	}
	old, _ := f["withdrawals"].([]*bgp.IPAddrPrefix)
	for _, n := range old {
		withdrawn = append(withdrawn, prefixOf(n))
	}
	attributes, _ := f["attributes"].([]bgp.PathAttributeInterface)
	for _, a := range attributes {
		switch a := a.(type) {
		case *bgp.PathAttributeMpReachNLRI:
			for _, n := range a.Value {
				announced = append(announced, prefixOf(n))
			}
		case *bgp.PathAttributeMpUnreachNLRI:
			for _, n := range a.Value {
				withdrawn = append(withdrawn, prefixOf(n))
			}
		}
	}
	if c := t.guards.courier(keyOf(f)); c != nil {
		kept := c.keptBack()
		isKept := func(p netip.Prefix) bool { return slices.Contains(kept, p) }
		announced, withdrawn = slices.DeleteFunc(announced, isKept), slices.DeleteFunc(withdrawn, isKept)
		defer c.reported()
	}
	t.ledger.update(keyOf(f), announced, withdrawn, attributes)
	end := bgp.BGPUpdate{NLRI: nlri, WithdrawnRoutes: old, PathAttributes: attributes}
	switch is, family := end.IsEndOfRib(); {
	case !is:
	case family == bgp.RF_IPv4_UC:
		t.ledger.endOfRIB(keyOf(f), speaker.IPv4)
	case family == bgp.RF_IPv6_UC:
		t.ledger.endOfRIB(keyOf(f), speaker.IPv6)
	}
}

func (t tap) stateChanged(f log.Fields) {
	was, is := f["old"], f["new"]
	switch {
	case is == bgp.BGP_FSM_ESTABLISHED.String():
		hopless := t.ledger.hopless(keyOf(f), t.guards.takesHops(keyOf(f)))
		if p, ok := t.ledger.established(keyOf(f)); ok {
			t.log.Info("BGP session established", transition(p, was, is)...)
			if hopless {
				t.log.Warn("BGP router takes no IPv4 prefixes with IPv6 next hops (RFC 8950), and this session has no others but those that are given: "+
					"turn that on at the router, or take ipv4 out of the peer's families", "peer", p.Name, "address", p.Address)
			}
		}
	case is == bgp.BGP_FSM_OPENSENT.String():
		t.guards.put(keyOf(f), t.ledger.opening(keyOf(f), t.guards.restart), t.learner(keyOf(f)))
		t.guards.call(keyOf(f), t.ledger.calledAs(keyOf(f)))
		t.ledger.opens(keyOf(f))
		if t.ledger.isExcess(keyOf(f)) {
			t.guards.cut(keyOf(f))
		}
	case is != bgp.BGP_FSM_IDLE.String() || was == is:
	default:
		t.guards.drop(keyOf(f))
		damped := t.ledger.damp(keyOf(f), time.Now())
		if damped.pause > 0 {
			t.guards.rest(keyOf(f), damped.pause)
		}
		p, why, wasUp, news := t.ledger.down(keyOf(f), reasonWords(fmt.Sprint(f["reason"]), was))
		switch {
		case damped.pause > 0:
			t.log.Warn("BGP session lost", append(transition(p, was, is), "reason", why, "times", damped.times, "pause", damped.pause)...)
		case wasUp && p.Down:
			t.log.Info("BGP session ended", append(transition(p, was, is), "reason", why)...)
		case wasUp:
			t.log.Warn("BGP session lost", append(transition(p, was, is), "reason", why)...)
		case news:
			t.log.Warn("no BGP session", append(transition(p, was, is), "reason", why)...)
		}
	}
}

// learner learns what a router says.
func (t tap) learner(router string) learner {
	tell := func(update []byte, agreed *bgp.MarshallingOption) {
		t.ledger.overLimit(t.learned.received(router, update, agreed)...)
	}
	return learner{tell: tell, busy: t.learned.busy.Load}
}

// reasonWords puts GoBGP's reason for a state change into words.
func reasonWords(reason string, was any) string {
	switch reason {
	case "read-failed", "graceful-restart":
		return "the connection was closed by the peer or the network"
	case "write-failed":
		return "writing to the peer failed"
	case "invalid-msg":
		if was == bgp.BGP_FSM_OPENSENT.String() || was == bgp.BGP_FSM_OPENCONFIRM.String() {
			return "the peer refused our OPEN: compare ASN, address and families on both sides (its log names the reason)"
		}
	case "hold-timer-expired":
		return "hold timer expired: nothing was heard of the peer"
	}
	return strings.ReplaceAll(reason, "-", " ")
}

// notificationWords describes the NOTIFICATION of a log line.
func notificationWords(f log.Fields) string {
	code, ok := f["Code"].(uint8)
	subcode, _ := f["Subcode"].(uint8)
	if e, is := f["Data"].(*bgp.MessageError); !ok && is {
		return "NOTIFICATION " + bgp.NewNotificationErrorCode(e.TypeCode, e.SubTypeCode).String() + ": " + e.Message
	}
	data, _ := f["Data"].([]byte)
	if said, is := f["Communicated-Reason"].(string); is && said != "" {
		data = communication(said) // which GoBGP has taken apart
	}
	return "NOTIFICATION " + ceaseWords(code, subcode, data)
}

func keyOf(f log.Fields) string {
	switch k := f["Key"].(type) {
	case string:
		return k
	case fmt.Stringer:
		return k.String()
	}
	return ""
}

// prefixOf is the zero prefix for what is no IPv4 or IPv6 unicast prefix.
func prefixOf(n bgp.AddrPrefixInterface) netip.Prefix {
	switch n := n.(type) {
	case *bgp.IPAddrPrefix:
		return prefixFrom(n.Prefix.To4(), n.Length)
	case *bgp.IPv6AddrPrefix:
		return prefixFrom(n.Prefix.To16(), n.Length)
	}
	return netip.Prefix{}
}

func prefixFrom(ip net.IP, bits uint8) netip.Prefix {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, int(bits))
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// innermost is the cause of a network error without the addresses around it.
func innermost(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
