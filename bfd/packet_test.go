package bfd

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"
)

// wireDown is a packet as FRR's bfdd sends it: Down, multiplier 3, 1 s, 300 ms,
// 50 ms of echo.
const wireDown = "20400318" + "6fca3e11" + "00000000" + "000f4240" + "000493e0" + "0000c350"

func wire(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	want := Packet{State: Down, Multiplier: 3, MyDiscriminator: 0x6fca3e11, DesiredMinTx: time.Second,
		RequiredMinRx: 300 * time.Millisecond, RequiredMinEchoRx: 50 * time.Millisecond}
	got, err := Parse(wire(t, wireDown))
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	got, err = Parse(wire(t, wireDown+"0102030405"))
	if err != nil || got != want {
		t.Errorf("with a tail: got %+v, %v", got, err)
	}
	flags := wire(t, "23ea0518"+"00000001"+"00000002"+"00000000"+"00000000"+"00000000")
	got, err = Parse(flags)
	if want := (Packet{Diagnostic: NeighborDown, State: Up, Poll: true, ControlPlaneIndependent: true, Demand: true, Multiplier: 5,
		MyDiscriminator: 1, YourDiscriminator: 2}); err != nil || got != want {
		t.Errorf("flags: got %+v, %v, want %+v", got, err, want)
	}
	if b := got.Append(nil); !bytes.Equal(b, flags) {
		t.Errorf("it goes back on the wire as %x, came as %x", b, flags)
	}
}

// The list of RFC 5880 section 6.8.6, one line each.
func TestParseRefuses(t *testing.T) {
	rest := "6fca3e11" + "00000000" + "000f4240" + "000493e0" + "0000c350"
	for name, c := range map[string]struct{ text, words string }{
		"empty":               {"", "0 bytes"},
		"short":               {wireDown[:46], "23 bytes"},
		"version 0":           {"00400318" + rest, "version 0"},
		"version 2":           {"40400318" + rest, "version 2"},
		"length 23":           {"20400317" + rest, "length field 23"},
		"length over the end": {"20400319" + rest, "length field 25"},
		"authentication":      {"2044031a" + rest + "0102", "take authentication away"},
		"multiplier 0":        {"20400018" + rest, "multiplier 0"},
		"multipoint":          {"20410318" + rest, "multipoint"},
		"my discriminator 0":  {"20400318" + "00000000" + rest[8:], "my discriminator 0"},
		"Init to nobody":      {"20800318" + rest, "your discriminator 0 in state Init"},
		"Up to nobody":        {"20c00318" + rest, "your discriminator 0 in state Up"},
		"poll and final":      {"20700318" + rest, "poll and final"},
	} {
		p, err := Parse(wire(t, c.text))
		if !errors.Is(err, ErrPacket) || !strings.Contains(err.Error(), c.words) || p != (Packet{}) {
			t.Errorf("%s: got %+v, %v, want an error with %q", name, p, err, c.words)
		}
	}
}

// What Parse takes, Append writes back bit by bit, and the session and its
// peer survive it.
func FuzzParse(f *testing.F) {
	for _, text := range []string{wireDown, "23ea0518" + "00000001" + "00000002" + strings.Repeat("ff", 12), "20c00118" + "00000001" + "00000007" + strings.Repeat("00", 12)} {
		b, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrPacket) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again := p.Append(nil); !bytes.Equal(again[:3], b[:3]) || !bytes.Equal(again[4:], b[4:packetLength]) {
			t.Fatalf("%x became %x", b[:packetLength], again)
		}
		now := time.Unix(1000, 0)
		s := NewSession(now, 7, Timers{MinTx: time.Second, MinRx: time.Second, Multiplier: 3}, false, func() float64 { return 0.5 })
		p.YourDiscriminator = 7
		for range 3 {
			if step := s.Receive(now, p); step.Send && step.Packet.Poll && step.Packet.Final {
				t.Fatalf("answered with %+v", step.Packet)
			}
			now = now.Add(time.Second)
			s.Tick(now)
			if d := s.Deadline(); !d.IsZero() && !d.After(now) {
				t.Fatalf("due at %v again after a tick at %v", d, now)
			}
		}
	})
}
