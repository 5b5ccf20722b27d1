package exchange

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// auditor is a node that does nothing but audits.
type auditor struct {
	*testing.T
	node *Node
	now  time.Time
}

func newAuditor(t *testing.T) *auditor {
	keep := func(pools.Record) error { return nil }
	c := Config{Name: "n", Machine: "m", Shared: true, Keep: keep, Log: slog.New(slog.DiscardHandler)}
	return &auditor{t, NewNode(c, pools.NewLedger("n")), time.Unix(1000, 0)}
}

// reads is the read that begins after a while; nil for none.
func (a *auditor) reads(after time.Duration) *Op {
	a.Helper()
	a.now = a.now.Add(after)
	ops, _ := a.node.Advance(a.now)
	switch {
	case len(ops) == 0:
		return nil
	case len(ops) > 1 || ops[0].Kind != Own:
		a.Fatalf("calls %v", ops)
	}
	return ops[0]
}

func (a *auditor) is(what string, got, want bool) {
	a.Helper()
	if got != want {
		a.Errorf("%s: %v", what, got)
	}
}

// What is asked for while the store is read may come after what was read.
func TestAnAuditDuringAnAudit(t *testing.T) {
	a := newAuditor(t)
	first := a.node.Audit()
	reading := a.reads(0)
	second := a.node.Audit()
	a.is("another read beside it", a.reads(0) != nil, false)
	a.node.Done(reading, Result{}, a.now)
	a.is("the first is over", a.node.Audited(first), true)
	a.is("the second is over", a.node.Audited(second), false)
	reading = a.reads(0)
	a.node.Done(reading, Result{Err: errors.New("no answer")}, a.now)
	a.is("the second is over after a failure", a.node.Audited(second), false)
	reading = a.reads(time.Second)
	a.node.Done(reading, Result{}, a.now)
	a.is("the second is over after all", a.node.Audited(second), true)
	a.is("there is another one", a.reads(time.Hour) != nil, false)
}

// An audit at a certain time is neither early, nor replaced by an earlier one, nor
// does it keep one that is asked for at once.
func TestAuditsAtTheirTime(t *testing.T) {
	a := newAuditor(t)
	a.node.auditAt(a.now.Add(time.Minute))
	a.node.auditAt(a.now.Add(3 * time.Minute))
	a.is("it reads early", a.reads(59*time.Second) != nil, false)
	a.node.Audit()
	a.node.Done(a.reads(0), Result{}, a.now)
	a.is("it reads early", a.reads(0) != nil, false)
	reading := a.reads(time.Second)
	a.node.auditAt(a.now.Add(time.Minute)) // while it reads
	a.node.Done(reading, Result{}, a.now)
	a.is("it reads before the next time", a.reads(59*time.Second) != nil, false)
	a.node.Done(a.reads(time.Second), Result{}, a.now)
	a.is("it reads before the last time", a.reads(59*time.Second) != nil, false)
	a.node.Done(a.reads(time.Second), Result{}, a.now)
	a.is("there is another one", a.reads(time.Hour) != nil, false)
}
