package exchange_test

import (
	"testing"
	"time"

	. "github.com/fairway-network/fairway/pools/exchange"
)

// What a node is told first it has heeded if it has just read its blocks from the
// store. Later there may have been a fence that was forgotten meanwhile.
func TestTheFirstOrdersOfANodeThatHasReadItsBlocks(t *testing.T) {
	for after, unheeded := range map[time.Duration]bool{time.Second: false, Settle: true} {
		s := newScene(t)
		a := s.enter(t, "a", "a.1")
		if _, err := a.Found(nil, nil, s.now); err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(after)
		if news := a.Obey(Orders{Number: NoOrders}, s.now); news != unheeded || a.Unheeded(s.now, true) != unheeded {
			t.Errorf("%v after it has read its blocks: news %v, to be heeded %v", after, news, a.Unheeded(s.now, true))
		}
	}
}
