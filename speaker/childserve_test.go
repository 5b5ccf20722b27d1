package speaker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// A request of an agent of another version, which has settings that this process knows
// nothing of, ends it with words about that: what it would pass over would not hold.
func TestServeAnotherVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		framed(frameJSON, `{"ID":1,"Op":"set","Desired":{"Local":{"ASN":64512},"Quiet":true}}`):     errVersions,
		framed(frameJSON, `{"ID":1,"Op":"set","Desired":{"Peers":[{"Name":"tor","Silent":true}]}}`): errVersions,
		framed(frameJSON, `no JSON`):                    errVersions,
		framed(frameJSON, `{"ID":1`):                    errVersions,
		framed(frameChange, `no change`):                errVersions,
		framed(frameDone, "\x01"):                       errVersions,
		framed('x', ``):                                 errVersions,
		"j\xff\xff\xff\xff":                             errVersions,
		`{"ID":1,"Op":"state"}`:                         errVersions, // of an agent that knows no frames
		framed(frameJSON, `{"ID":1,"Op":"state"}`)[:10]: ErrParentGone,
		"j\x00": ErrParentGone,
		``:      ErrParentGone,
	} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.WriteString(theirs, text)
			_ = theirs.Close()
		}()
		err := serveLink(t.Context(), ours, nil)
		if !errors.Is(err, want) || want == errVersions && !strings.Contains(err.Error(), "install both from one release") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// framed is a frame that holds text.
func framed(kind frame, text string) string {
	b, err := sealed(kind, append(make([]byte, frameHead), text...))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// recorder is a Speaker that keeps what it was given last.
type recorder struct {
	Speaker
	got       Desired
	announced int   // how often by Announce
	err       error // what it says
}

func (r *recorder) Set(_ context.Context, d Desired) error {
	r.got = d
	return r.err
}

func (r *recorder) Announce(ctx context.Context, c Change) error {
	r.announced++
	d := r.got
	d.Announcements = c.Apply(slices.Clone(d.Announcements))
	return r.Set(ctx, d)
}

// A change is made of what it builds on, or refused: not where another Set came between,
// nor where the one before failed.
func TestServeChange(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParsePrefix("10.1.0.0/26"), netip.MustParsePrefix("10.2.0.0/26")
	settings := Desired{Local: Local{ASN: 64512}, Announcements: Plainly(a)}
	to := func(from, number uint64) request {
		return request{Op: opChange, Number: number, Change: &change{from, Change{Announced: Plainly(b), Withdrawn: []netip.Prefix{a}}}}
	}
	set := request{Op: opSet, Number: 1, Desired: toWire(settings)}
	failing := errors.New("failing")
	for name, c := range map[string]struct {
		before []request
		fails  bool // the last of them
		want   error
	}{
		"after a Set":              {before: []request{set}},
		"after nothing":            {want: errUnfounded},
		"after another Set":        {before: []request{set, {Op: opSet, Number: 2, Desired: toWire(settings)}}, want: errUnfounded},
		"after one without number": {before: []request{set, {Op: opSet, Desired: toWire(settings)}}, want: errUnfounded},
		"after one that failed":    {before: []request{set}, fails: true, want: errUnfounded},
		"after another change":     {before: []request{set, to(1, 2)}, want: errUnfounded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{}
			served := &child{speaker: r}
			for i, one := range c.before {
				if c.fails && i == len(c.before)-1 {
					r.err = failing
				}
				served.do(t.Context(), one)
			}
			r.err, r.announced = nil, 0
			answer := served.do(t.Context(), to(1, 3))
			if err := answer.err(); !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if c.want == nil && (r.announced != 1 || r.got.Local.ASN != 64512 || !slices.Equal(r.got.Prefixes(), []netip.Prefix{b})) {
				t.Errorf("%d changes, the last to %+v", r.announced, r.got)
			}
		})
	}
}

// A Set that another one meets leaves nothing to build on: which of them came last is not
// known.
func TestServeSetsThatMeet(t *testing.T) {
	t.Parallel()
	served := &child{speaker: &recorder{}}
	within := func(number uint64, f func()) {
		if err := served.set(number, func() error { f(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	on := func(number uint64) bool { return served.number == number }
	within(1, func() {
		within(2, func() {})
		if on(2) {
			t.Error("a change may build on a Set while the one before goes on")
		}
	})
	if on(1) || on(2) {
		t.Error("a change may build on one of two Sets that met")
	}
	if within(3, func() {}); !on(3) {
		t.Error("no change may build on a Set that met no other")
	}
}
