package labtest

import (
	"net/netip"
	"testing"

	"github.com/fairway-network/fairway/integration/lab"
)

// A stream that is ended while it flows has lost nothing, also not what was sent last.
func TestStreamLosesNothingAtItsEnd(t *testing.T) {
	t.Parallel()
	l := Up(t, &lab.Topology{Name: "stream", Nodes: []lab.NodeSpec{{Name: "one"}}})
	here := End{Node: Node(t, l, "one"), Address: netip.MustParseAddr("127.0.0.1")}
	for n := range 500 {
		start := StartStream
		if n%2 > 0 {
			start = StartOneWay
		}
		s := start(t, here, here)
		<-s.news
		if count := s.End(); len(count.Lost) > 0 || count.Gap != 0 || count.Sent == 0 {
			t.Fatalf("%s: %v", count, count.Lost)
		}
	}
}
