package server

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/speaker"
)

// A sink that can't be opened, or not be read, is trouble that the state and, once,
// the log name. BGP goes on, and what was learned is there when the sink is.
func TestSinkThatFails(t *testing.T) {
	t.Parallel()
	one := startRouter(t, "127.0.3.1", routerASN)
	one.accept(t, "127.0.0.1", "", speaker.IPv4)
	one.tells(t, "172.16.1.0/24", true)
	sink := newMemorySink("172.30.0.0/16 10.0.0.9")
	sink.breaks(errors.New("it is locked"))
	s := newTestServer(t)
	said := new(lines)
	s.log = slog.New(slog.NewTextHandler(said, nil))
	s.Learn(sink.open)
	p := one.peer("one")
	p.Accept = everything()
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{p}, Announcements: announce("10.64.0.0/24")}
	must(t, s.Set(within(t, soon), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	one.has(t, "10.64.0.0/24", "172.16.1.0/24")
	trouble := func(want string) func() bool {
		return func() bool {
			st, err := s.State(within(t, soon))
			return err == nil && st.LearnedTrouble == want
		}
	}
	eventually(t, "the state names what fails", trouble("learned routes have nowhere to go: it is locked"))
	sink.breaks(nil)
	sink.has(t, "172.16.1.0/24 127.0.3.1")
	eventually(t, "no trouble is left", trouble(""))
	since := stateOf(t, s, "one").Since

	sink.breaks(errors.New("it is blurred"))
	sink.changes(t)
	eventually(t, "the state names what fails", trouble("learned routes that stand: it is blurred"))
	sink.breaks(nil)
	eventually(t, "no trouble is left", trouble(""))
	if stateOf(t, s, "one").Since != since {
		t.Error("the session was dropped")
	}
	for _, why := range []string{"it is locked", "it is blurred"} {
		if n := strings.Count(said.String(), why); n != 1 {
			t.Errorf("%q was logged %d times:\n%s", why, n, said)
		}
	}
}

// A host that takes no learned routes has BGP all the same.
func TestChildWithoutSink(t *testing.T) {
	t.Parallel()
	r := startRouter(t, "127.0.3.2", routerASN)
	r.accept(t, "127.0.0.1", "")
	spawn := testSpawn(t)
	spawn.Env = []string{asChild + "=" + withoutSink}
	c := childOf(spawn)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor")}, Announcements: announce("10.1.0.0/26")}
	must(t, c.Set(within(t, soon), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	r.has(t, "10.1.0.0/26")
	if st, err := c.State(within(t, soon)); err != nil || st.LearnedTrouble != "" {
		t.Errorf("%q is trouble though nobody is listened to, %v", st.LearnedTrouble, err)
	}
	d.Peers[0].Accept = everything()
	must(t, c.Set(within(t, soon), d))
	eventually(t, "the state names the trouble", func() bool {
		st, err := c.State(within(t, soon))
		return err == nil && strings.Contains(st.LearnedTrouble, "no sink here")
	})
	if err := c.Close(within(t, soon), speaker.Withdraw); err == nil || !strings.Contains(err.Error(), "no sink here") {
		t.Errorf("Close does not say what may be left: %v", err)
	}
	r.has(t)
}
