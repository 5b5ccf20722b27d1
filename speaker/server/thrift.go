package server

import (
	"sync"
	"time"
)

const (
	// many is how many changes of prefixes are worth thrift.
	many = 1000
	// settleTime is how long GoBGP may take to be done with them.
	settleTime = 5 * time.Second
	// thriftyPercent is the collector's while they go on.
	thriftyPercent = 25
)

// thrift is about memory when many prefixes change at once. GoBGP makes a lot of garbage
// of each, between what it keeps, and pages with something of both stay. The collector
// runs more often meanwhile, which no router waits for, and what is free after that goes
// back to the kernel. It is about the whole process.
type thrift struct {
	collector *collector

	mu    sync.Mutex
	end   func() // nil when it is off
	timer *time.Timer
}

// spend makes the process thrifty until some time after what it returns was called.
func (t *thrift) spend() (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	if t.end == nil {
		t.end = t.collector.at(thriftyPercent)
	}
	return t.settle
}

func (t *thrift) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(settleTime, t.stop)
}

func (t *thrift) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end != nil {
		t.end()
		t.end = nil
	}
}
