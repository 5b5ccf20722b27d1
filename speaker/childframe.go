package speaker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// A Child and its process talk in frames: what one is, the length of the rest in four
// octets (the highest first), and the rest. That is JSON but for what routers wait for: a
// change, and the answer that all is well. To write and read these takes a tenth of the time.

// frame says what a frame holds.
type frame byte

const (
	frameJSON   frame = 'j' // a request or an answer
	frameChange frame = 'c' // a request of a change
	frameDone   frame = 'd' // an answer without an error: the number of its request
)

const (
	frameHead = 5
	// longestFrame is far beyond what a node announces.
	longestFrame = 1 << 28
)

// errFrame: what came is no message that is known here.
var errFrame = errors.New("an unknown message")

// readFrame gives what a frame holds, without having read anything behind it. Its errors are
// errFrame and those of in, io.EOF where no frame has begun.
func readFrame(in *bufio.Reader) (frame, []byte, error) {
	head, err := in.Peek(frameHead)
	if len(head) > 0 {
		if kind := frame(head[0]); kind != frameJSON && kind != frameChange && kind != frameDone {
			return 0, nil, fmt.Errorf("%w: it begins with %q", errFrame, head)
		}
	}
	if err != nil {
		return 0, nil, err
	}
	kind, length := frame(head[0]), binary.BigEndian.Uint32(head[1:])
	if length > longestFrame {
		return 0, nil, fmt.Errorf("%w: it has %d octets, want at most %d", errFrame, length, longestFrame)
	}
	rest := make([]byte, frameHead+int(length))
	if _, err := io.ReadFull(in, rest); err != nil {
		return 0, nil, err
	}
	return kind, rest[frameHead:], nil
}

// sealed is a frame whose first octets were left free.
func sealed(kind frame, b []byte) ([]byte, error) {
	if len(b)-frameHead > longestFrame {
		return nil, fmt.Errorf("a message of %d octets: want at most %d", len(b), longestFrame)
	}
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-frameHead))
	return b, nil
}

func jsonFrame(v any) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, frameHead))
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		return nil, err
	}
	return sealed(frameJSON, b.Bytes())
}

// readJSON gives v what a frame holds.
func readJSON(frame *json.Decoder, v any) error {
	if err := frame.Decode(v); err != nil {
		return fmt.Errorf("%w: %v", errFrame, err) // it is all there: an end of it is none of the link
	}
	return nil
}

// frame is the frame of a request.
func (r request) frame() ([]byte, error) {
	if r.Op == opChange {
		return sealed(frameChange, r.appendChange(make([]byte, frameHead, 128)))
	}
	return jsonFrame(r)
}

// readRequest gives the next one.
func readRequest(in *bufio.Reader) (r request, err error) {
	kind, b, err := readFrame(in)
	switch {
	case err != nil:
		return r, err
	case kind == frameChange:
		return changeRequest(b)
	case kind == frameJSON:
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields() // a setting that is passed over would be one that does not hold
		return r, readJSON(d, &r)
	}
	return r, fmt.Errorf("%w: an answer came, want a request", errFrame)
}

// frame is the frame of an answer.
func (a answer) frame() ([]byte, error) {
	if a.Error == "" && a.State == nil {
		return sealed(frameDone, binary.AppendUvarint(make([]byte, frameHead, frameHead+binary.MaxVarintLen64), a.ID))
	}
	return jsonFrame(a)
}

// readAnswer gives the next one.
func readAnswer(in *bufio.Reader) (a answer, err error) {
	kind, b, err := readFrame(in)
	switch {
	case err != nil:
		return a, err
	case kind == frameDone:
		c := cutter{rest: b}
		a.ID = c.number()
		return a, c.end()
	case kind == frameJSON:
		return a, readJSON(json.NewDecoder(bytes.NewReader(b)), &a)
	}
	return a, fmt.Errorf("%w: a request came, want an answer", errFrame)
}

// appendChange adds a request of a change: its number, those of the Set that it is and of the one
// that it builds on, what is announced, each with the name of its terms, and what is withdrawn.
// Numbers are uvarints; lists, names and prefixes begin with their length.
func (r request) appendChange(b []byte) []byte {
	for _, n := range []uint64{r.ID, r.Number, r.Change.From, uint64(len(r.Change.Announced))} {
		b = binary.AppendUvarint(b, n)
	}
	for _, a := range r.Change.Announced {
		b = appendPrefix(b, a.Prefix)
		b = append(binary.AppendUvarint(b, uint64(len(a.Terms))), a.Terms...)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Change.Withdrawn)))
	for _, p := range r.Change.Withdrawn {
		b = appendPrefix(b, p)
	}
	return b
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	at := len(b)
	b, _ = p.AppendBinary(append(b, 0)) // which has no errors
	b[at] = byte(len(b) - at - 1)
	return b
}

// changeRequest reads what appendChange writes.
func changeRequest(b []byte) (request, error) {
	c := cutter{rest: b}
	r := request{Op: opChange, ID: c.number(), Change: new(change)}
	r.Number, r.Change.From = c.number(), c.number()
	for range c.number() {
		if r.Change.Announced = append(r.Change.Announced, Announcement{c.prefix(), string(c.octets())}); c.short {
			break
		}
	}
	for range c.number() {
		if r.Change.Withdrawn = append(r.Change.Withdrawn, c.prefix()); c.short {
			break
		}
	}
	return r, c.end()
}

// cutter takes a frame apart from its front. What it gives once it is short is of no use.
type cutter struct {
	rest  []byte
	short bool // something was not there, or not well-formed
}

func (c *cutter) number() uint64 {
	n, length := binary.Uvarint(c.rest)
	if length <= 0 {
		c.rest, c.short = nil, true
		return 0
	}
	c.rest = c.rest[length:]
	return n
}

func (c *cutter) octets() []byte {
	n := c.number()
	if n > uint64(len(c.rest)) {
		c.rest, c.short = nil, true
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cutter) prefix() (p netip.Prefix) {
	if p.UnmarshalBinary(c.octets()) != nil {
		c.short = true
	}
	return p
}

// end says whether all was there, and nothing else.
func (c *cutter) end() error {
	if c.short || len(c.rest) > 0 {
		return fmt.Errorf("%w: it is cut short, or goes on after its end", errFrame)
	}
	return nil
}
