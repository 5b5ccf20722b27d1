package speaker

import (
	"bufio"
	"bytes"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// requests are one of each form.
func requests() []request {
	four, six := netip.MustParsePrefix("10.1.2.0/26"), netip.MustParsePrefix("2001:db8::/64")
	return []request{
		{ID: 1, Op: opState, Deadline: time.Unix(1e9, 1).UTC()},
		{ID: 1 << 40, Op: opFail, Peer: "tor"},
		{ID: 2, Op: opChange, Number: 3, Change: &change{From: 2}},
		{ID: 3, Op: opChange, Number: 4, Change: &change{3, Change{Announced: []Announcement{{four, ""}, {six, "web"}}, Withdrawn: []netip.Prefix{six, four}}}},
		{ID: 4, Op: opChange, Change: &change{Change: Change{Announced: Plainly(netip.Prefix{}, netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 120))}}},
	}
}

// What is written is read, in a row and nothing beyond it.
func TestFrames(t *testing.T) {
	t.Parallel()
	var stream bytes.Buffer
	for _, r := range requests() {
		b, err := r.frame()
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(b)
	}
	in := bufio.NewReader(&stream)
	for _, want := range requests() {
		if got, err := readRequest(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v was read as %+v, %v", want, got, err)
		}
	}
	for _, want := range []answer{{ID: 1}, {ID: 1 << 63}, {ID: 2, Error: "no", Is: []string{"peers"}}, {ID: 3, State: &State{Prefixes: 1}}} {
		b, err := want.frame()
		if err != nil {
			t.Fatal(err)
		}
		in.Reset(bytes.NewReader(b))
		if got, err := readAnswer(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v was read as %+v, %v", want, got, err)
		}
	}
	if _, err := readRequest(in); err != io.EOF {
		t.Errorf("after all was read: %v", err)
	}
}

// What a process of a later version says beside what is known here is passed over: to a
// setting, which does not hold then, an answer is none.
func TestAnswerOfALaterVersion(t *testing.T) {
	t.Parallel()
	in := bufio.NewReader(strings.NewReader(framed(frameJSON, `{"ID":7,"State":{"Prefixes":1,"Later":true},"Later":2}`)))
	if a, err := readAnswer(in); err != nil || a.ID != 7 || a.State == nil || a.State.Prefixes != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

// FuzzRequest holds that what is read of a change is what was written, and that no more is read
// than there is.
func FuzzRequest(f *testing.F) {
	for _, r := range requests() {
		b, err := r.frame()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= frameHead && b[1] > 0 {
			t.Skip("it says that it has more than 16 MB")
		}
		r, err := readRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil || r.Op != opChange || r.Change == nil {
			return
		}
		again, err := r.frame()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readRequest(bufio.NewReader(bytes.NewReader(again))); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%x is %+v, and that %+v, %v", b, r, got, err)
		}
	})
}
