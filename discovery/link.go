package discovery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// lookEvery is how often the interface is looked at.
const lookEvery = 250 * time.Millisecond

// Config says on which interface to look, and what for.
type Config struct {
	Interface string
	// Changed is called, without a lock held, when State may have changed. It must
	// not call Close.
	Changed func()
	// Holds says whether a router is known to be there by other means, as by a
	// session with it: it stays then, whatever others send. It must not call back.
	Holds func(netip.Addr) bool
}

// State is what is known of a link.
type State struct {
	// Up says that the interface is there, runs, and has a link-local address that
	// may be used.
	Up bool
	// Router is the router's link-local address, with the interface as its zone; the
	// zero address if none was found yet. It stays while the link is down.
	Router netip.Addr
	// Others are further routers on the link, sorted.
	Others []netip.Addr
	// Lost counts how often a link that was Up was not as it had been any more: down,
	// gone, or with another link-local address. Sessions over it are broken then.
	Lost int
	// Trouble is why there is no router, or what is wrong beside; empty if all is well.
	Trouble string
}

// Link looks for the router on one interface until Close. The interface need not
// be there yet, and may go and come back.
type Link struct {
	config Config
	stop   context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	table  table
	broken string // why nothing can be sent or received
}

// Watch begins to look.
func Watch(c Config) *Link {
	ctx, stop := context.WithCancel(context.Background())
	l := &Link{config: c, stop: stop, ended: make(chan struct{})}
	l.table.jitter = func(most time.Duration) time.Duration { return rand.N(most) }
	go l.run(ctx)
	return l
}

// Close ends the search. Nothing is called afterwards.
func (l *Link) Close() {
	l.stop()
	<-l.ended
}

// State says what is known now.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.table
	s := State{Up: t.end.usable(), Router: t.chosen, Others: t.others(), Lost: t.lost}
	switch {
	case l.broken != "":
		s.Trouble = l.broken
	case !s.Router.IsValid():
		s.Trouble = fmt.Sprintf("no router was found on %s yet: nobody there sends router advertisements or answers at ff02::2", l.config.Interface)
	case len(s.Others) > 0:
		s.Trouble = fmt.Sprintf("more than one router is on %s: this is %s, others are %s: name the one that is meant by its address", l.config.Interface, s.Router, words(s.Others))
	}
	return s
}

func words(list []netip.Addr) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// run looks at the interface, and while it is usable sends and hears on it.
func (l *Link) run(ctx context.Context) {
	defer close(l.ended)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var s *socket
	var reading sync.WaitGroup
	drop := func() {
		if s != nil {
			s.close()
			reading.Wait()
			s = nil
		}
	}
	defer drop()
	for {
		e, err := look(l.config.Interface, l.own())
		changed := l.enter(e, err)
		if changed {
			drop()
		}
		if s == nil && e.usable() {
			if s, err = open(ctx, l.config.Interface, e.index); err == nil {
				reading.Go(func() { l.hear(ctx, s) })
			}
			changed = l.blame(err) || changed
		}
		if s != nil {
			changed = l.send(s) || changed
		}
		if (l.settle() || changed) && ctx.Err() == nil {
			l.config.Changed()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// enter takes note of the interface, and says whether that is news.
func (l *Link) enter(e end, err error) bool {
	l.mu.Lock()
	changed := l.table.setEnd(e, time.Now())
	l.mu.Unlock()
	if err == nil && !changed {
		return false // what open or send complain of stands
	}
	return l.blame(err) || changed
}

// blame takes note of why nothing works, and says whether that is news.
func (l *Link) blame(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.broken
	l.broken = ""
	if err != nil {
		l.broken = err.Error()
	}
	return l.broken != was
}

func (l *Link) settle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.settle(time.Now(), l.config.Holds)
}

// own is the address that this node goes by on the link.
func (l *Link) own() netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.end.own
}

// send sends what is due, and says whether how that went is news.
func (l *Link) send(s *socket) bool {
	l.mu.Lock()
	list := l.table.due(time.Now())
	l.mu.Unlock()
	if len(list) == 0 {
		return false
	}
	for _, m := range list {
		if err := s.send(m); err != nil {
			return l.blame(fmt.Errorf("interface %s: look for its router: %w", l.config.Interface, err))
		}
	}
	return l.blame(nil)
}

// hear reads until the socket is closed.
func (l *Link) hear(ctx context.Context, s *socket) {
	for {
		from, what, err := s.receive()
		if err != nil {
			return
		}
		l.mu.Lock()
		news := false
		switch what {
		case fromRouter:
			news = l.table.hear(from, time.Now())
		case solicited:
			l.table.asked(time.Now())
		}
		l.mu.Unlock()
		if news && ctx.Err() == nil {
			l.config.Changed()
		}
	}
}
