package bfd

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var simulationSeed = flag.Uint64("bfd.seed", 0, "run the simulation of this seed alone")

// longestDelay of the simulated path; packets overtake each other within it.
const longestDelay = 10 * time.Millisecond

// arrival is a packet on its way.
type arrival struct {
	at     time.Time
	to     int
	packet Packet
}

// world is two sessions and the path between them.
type world struct {
	t        *testing.T
	random   *rand.Rand
	now      time.Time
	sessions [2]*Session
	number   uint32 // of the last discriminator
	loss     float64
	cut      [2]bool // nothing arrives at this one
	onWay    []arrival
	periodic [2]time.Time // when the last one was sent
	history  []string
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 5880)), now: start()}
	w.restart(0)
	w.restart(1)
	return w
}

func (w *world) note(format string, a ...any) {
	w.history = append(w.history, fmt.Sprintf("%s: ", w.now.Sub(start()))+fmt.Sprintf(format, a...))
}

func (w *world) fail(format string, a ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%v", fmt.Sprintf(format, a...), w.history[max(0, len(w.history)-40):])
}

func (w *world) timers() Timers {
	some := func() time.Duration { return time.Duration(50+w.random.IntN(350)) * time.Millisecond }
	return Timers{MinTx: some(), MinRx: some(), Multiplier: uint8(3 + w.random.IntN(3))}
}

func (w *world) restart(i int) {
	w.number++
	w.sessions[i] = NewSession(w.now, w.number, w.timers(), false, w.random.Float64)
	w.note("%d starts anew", i)
}

// send puts what a step says on the path.
func (w *world) send(i int, step Step) {
	if step.Changed {
		w.note("%d is %+v", i, w.sessions[i].Status())
	}
	if !step.Send || w.random.Float64() < w.loss || w.cut[1-i] {
		return
	}
	delay := time.Duration(w.random.Int64N(int64(longestDelay)))
	w.onWay = append(w.onWay, arrival{w.now.Add(delay), 1 - i, step.Packet})
}

// next is the earliest thing that happens.
func (w *world) next() time.Time {
	var at time.Time
	consider := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for _, s := range w.sessions {
		consider(s.Deadline())
	}
	for _, a := range w.onWay {
		consider(a.at)
	}
	return at
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for at := w.next(); at.Before(end); at = w.next() {
		if at.After(w.now) {
			w.now = at
		}
		for i, s := range w.sessions {
			if step := s.Tick(w.now); step.Send {
				w.checkPace(i, step)
				w.send(i, step)
			}
		}
		due := slices.DeleteFunc(slices.Clone(w.onWay), func(a arrival) bool { return a.at.After(w.now) })
		w.onWay = slices.DeleteFunc(w.onWay, func(a arrival) bool { return !a.at.After(w.now) })
		for _, a := range due {
			w.send(a.to, w.sessions[a.to].Receive(w.now, a.packet))
		}
	}
	w.now = end
}

// checkPace holds a periodic packet against what the peer takes.
func (w *world) checkPace(i int, step Step) {
	gap := w.now.Sub(w.periodic[i])
	if least := w.sessions[i].remoteAsked.MinRx * 3 / 4; !step.Changed && w.sessions[i].remote != 0 && gap < least {
		w.fail("%d sent a packet %s after the last one, its peer takes one in %s", i, gap, least*4/3)
	}
	w.periodic[i] = w.now
}

func (w *world) failures() (n uint64) {
	for _, s := range w.sessions {
		n += s.Status().Failures
	}
	return n
}

// settled is what must hold on a path that is well for a while.
func (w *world) settled() {
	w.loss, w.cut = 0, [2]bool{}
	// Each may have to find out first that the other is gone, at most
	// multiplier × slow rate, and then three packets at the slow rate.
	w.run(12 * time.Second)
	for i, s := range w.sessions {
		if st := s.Status(); st.State != Up || st.RemoteState != Up || s.polling {
			w.fail("%d is %+v, polling %v, on a path that is well", i, st, s.polling)
		}
		other := w.sessions[1-i]
		if want := max(s.asked.MinTx, other.asked.MinRx); s.Status().Interval != want {
			w.fail("%d sends each %s, want %s", i, s.Status().Interval, want)
		}
		if want := time.Duration(other.asked.Multiplier) * max(s.asked.MinRx, other.asked.MinTx); s.Status().Detection != want {
			w.fail("%d has a detection time of %s, want %s", i, s.Status().Detection, want)
		}
	}
}

// trouble is one thing that happens to the path or to a session.
func (w *world) trouble() {
	i := w.random.IntN(2)
	switch w.random.IntN(6) {
	case 0:
		w.loss = w.random.Float64()
		w.note("loss of %.2f", w.loss)
		w.run(time.Duration(w.random.IntN(20)) * time.Second)
	case 1:
		w.restart(i)
		w.run(time.Duration(w.random.IntN(5000)) * time.Millisecond)
	case 2:
		w.partition([2]bool{true, true})
	case 3:
		cut := [2]bool{}
		cut[i] = true
		w.partition(cut)
	case 4:
		w.adjust(5)
	case 5:
		w.shut(i)
	}
}

// partition cuts the path: who hears nothing knows it within its Detection
// Time, and never comes up again before the path does.
func (w *world) partition(cut [2]bool) {
	w.cut = cut
	w.note("cut %v", cut)
	var bound time.Duration
	for i, s := range w.sessions {
		if cut[i] {
			bound = max(bound, s.Status().Detection)
		}
	}
	// What is on its way may still ask for other timers.
	w.run(longestDelay)
	for i, s := range w.sessions {
		if cut[i] {
			bound = max(bound, s.Status().Detection)
		}
	}
	w.run(bound + time.Millisecond)
	for range 5 {
		for i, s := range w.sessions {
			if st := s.Status(); cut[i] && st.State != Down {
				w.fail("%d hears nothing and is %+v", i, st)
			}
		}
		w.run(time.Second)
	}
}

// adjust changes timers on a path that is well: nothing goes down.
func (w *world) adjust(times int) {
	w.settled()
	before := w.failures()
	for range times {
		i, timers := w.random.IntN(2), w.timers()
		w.note("%d adjusts to %+v", i, timers)
		w.sessions[i].Adjust(timers)
		w.run(time.Duration(w.random.IntN(1000)) * time.Millisecond)
	}
	w.run(time.Second)
	if w.failures() != before {
		w.fail("a change of timers took the session down")
	}
}

// shut takes one side away in order: the other one counts no failure.
func (w *world) shut(i int) {
	w.settled()
	before := w.failures()
	w.send(i, w.sessions[i].Shut(w.now))
	w.run(2 * longestDelay)
	if st := w.sessions[1-i].Status(); st.State != Down || w.failures() != before {
		w.fail("the peer of a session that was shut is %+v", st)
	}
	w.run(slow) // packets that were overtaken may have told otherwise
	if st := w.sessions[1-i].Status(); st.State != Down || st.RemoteState != AdminDown {
		w.fail("the peer of a session that was shut is %+v", st)
	}
	if !w.sessions[i].Over(w.now) {
		w.fail("the session does not know that its peer knows")
	}
	w.restart(i)
}

// Two sessions over a path that delays, loses and reorders packets, and is
// cut; with restarts and changes of timers.
func TestSimulation(t *testing.T) {
	seeds := make([]uint64, 60)
	for i := range seeds {
		seeds[i] = uint64(i + 1)
	}
	if *simulationSeed != 0 {
		seeds = []uint64{*simulationSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for range 12 {
				w.trouble()
				w.settled()
			}
		})
	}
}
