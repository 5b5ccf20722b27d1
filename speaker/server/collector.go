package server

import (
	"runtime/debug"
	"slices"
	"sync"
)

// collector is the garbage collector of this process, which runs at another pace while
// many routes change. Its percentages are those of debug.SetGCPercent.
type collector struct {
	set  func(percent int) (before int)
	free func() // gives memory that is free back to the kernel

	mu    sync.Mutex
	usual int    // the percentage when nobody asks for one
	asked []*int // those that were asked for, the latest last
}

func newCollector() *collector {
	return &collector{set: debug.SetGCPercent, free: debug.FreeOSMemory}
}

// at has the collector run at a percentage until end is called, once. Of several at a time
// the latest holds.
func (c *collector) at(percent int) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.set(percent); len(c.asked) == 0 {
		c.usual = before
	}
	c.asked = append(c.asked, &percent)
	return func() {
		if c.drop(&percent) {
			c.free()
		}
	}
}

// drop forgets a percentage, and says whether it was the last.
func (c *collector) drop(percent *int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = slices.DeleteFunc(c.asked, func(p *int) bool { return p == percent })
	if n := len(c.asked); n > 0 {
		c.set(*c.asked[n-1])
		return false
	}
	c.set(c.usual)
	return true
}
