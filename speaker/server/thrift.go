package server

import (
	"runtime/debug"
	"sync"
	"time"
)

const (
	// many is how many changes of prefixes are worth thrift.
	many = 1000
	// settleTime is how long GoBGP may take to be done with them.
	settleTime = 5 * time.Second
	// thriftyPercent is the collector's while they go on, see debug.SetGCPercent.
	thriftyPercent = 25
)

// thrift is about memory when many prefixes change at once. GoBGP makes a lot of garbage
// of each, between what it keeps, and pages with something of both stay. The collector
// runs more often meanwhile, which no router waits for, and what is free after that goes
// back to the kernel. It is about the whole process.
type thrift struct {
	mu    sync.Mutex
	on    bool
	usual int // the collector's percentage when it is off
	timer *time.Timer
}

// spend makes the process thrifty until some time after what it returns was called.
func (t *thrift) spend() (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	if !t.on {
		t.on, t.usual = true, debug.SetGCPercent(thriftyPercent)
	}
	return t.settle
}

func (t *thrift) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(settleTime, t.end)
}

func (t *thrift) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.on {
		t.on = false
		debug.SetGCPercent(t.usual)
		debug.FreeOSMemory()
	}
}
