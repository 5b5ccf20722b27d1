package journal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// header is the first line's object.
type header struct {
	Journal string `json:"journal"`
	Version int    `json:"version"`
	Boot    string `json:"boot"`
}

const (
	format  = "fairway leases"
	version = 1
)

// entry is a record's object. appendRecord writes the same by hand, because
// it stands on the path of every pod.
type entry struct {
	Op        string       `json:"op"`
	At        int64        `json:"at"` // Unix time, nanoseconds
	Pool      string       `json:"pool"`
	Addrs     []netip.Addr `json:"addrs"`
	Network   string       `json:"network,omitempty"`
	Container string       `json:"container,omitempty"`
	IfName    string       `json:"if,omitempty"`
	PodUID    string       `json:"podUID,omitempty"`
	Namespace string       `json:"namespace,omitempty"`
	Pod       string       `json:"pod,omitempty"`
}

// opName and opOf are each other's inverse.
func opName(op pools.Op) string {
	switch op {
	case pools.Leased:
		return "lease"
	case pools.Released:
		return "release"
	case pools.Rested:
		return "rest"
	}
	return ""
}

func opOf(name string) (pools.Op, error) {
	for _, op := range []pools.Op{pools.Leased, pools.Released, pools.Rested} {
		if opName(op) == name {
			return op, nil
		}
	}
	return 0, fmt.Errorf("unknown operation %q", name)
}

const crcLen = 8 + 1 // hex digits and a space

func appendHeader(b []byte, boot string) []byte {
	// A struct of plain strings and numbers always marshals.
	payload, _ := json.Marshal(header{format, version, boot})
	return seal(append(append(b, "00000000 "...), payload...), len(b))
}

func appendRecord(b []byte, rec pools.Record) []byte {
	start := len(b)
	b = append(b, `00000000 {"op":"`...)
	b = append(b, opName(rec.Op)...)
	b = append(b, `","at":`...)
	b = strconv.AppendInt(b, rec.At.UnixNano(), 10)
	b = appendString(b, `,"pool":`, rec.Pool)
	b = append(b, `,"addrs":[`...)
	for i, a := range rec.Addrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(a.AppendTo(append(b, '"')), '"')
	}
	b = append(b, ']')
	b = appendField(b, `,"network":`, rec.Owner.Network)
	b = appendField(b, `,"container":`, rec.Owner.ContainerID)
	b = appendField(b, `,"if":`, rec.Owner.IfName)
	b = appendField(b, `,"podUID":`, rec.Owner.PodUID)
	b = appendField(b, `,"namespace":`, rec.Owner.Namespace)
	b = appendField(b, `,"pod":`, rec.Owner.Pod)
	return seal(append(b, '}'), start)
}

func appendField(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(b, key, value)
}

func appendString(b []byte, key, value string) []byte {
	b = append(b, key...)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(value) // a string always marshals
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), value...), '"')
}

// seal fills in the checksum of the line that begins at start and ends it.
func seal(b []byte, start int) []byte {
	sum := checksum(b[start+crcLen:])
	hex.Encode(b[start:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return append(b, '\n')
}

func checksum(payload []byte) uint32 {
	return crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
}

// open returns a line's payload, or what is wrong with it.
func open(line []byte) ([]byte, error) {
	if len(line) < crcLen || line[crcLen-1] != ' ' {
		return nil, errors.New("no checksum")
	}
	sum, err := strconv.ParseUint(string(line[:crcLen-1]), 16, 32)
	if err != nil {
		return nil, errors.New("no checksum")
	}
	if payload := line[crcLen:]; checksum(payload) == uint32(sum) {
		return payload, nil
	}
	return nil, errors.New("wrong checksum")
}

type decoded struct {
	Opened
	whole int64 // length of what was read whole and stays, header included
}

// decode reads a journal. No data, or the header of another boot, makes an
// empty one.
func decode(data []byte, boot string) (decoded, error) {
	whole := bytes.LastIndexByte(data, '\n') + 1
	if whole == 0 && len(data) > 0 {
		// A journal gets its header together with its name.
		return decoded{}, errors.New("line 1: no end")
	}
	d := decoded{Opened: Opened{Torn: len(data) - whole}, whole: int64(whole)}
	const usual = 128 // bytes of a line
	d.Records = make([]pools.Record, 0, len(data)/usual)
	for n, rest := 1, data[:whole]; len(rest) > 0; n++ {
		end := bytes.IndexByte(rest, '\n')
		payload, err := open(rest[:end])
		switch {
		case err != nil:
		case n == 1:
			var h header
			if h, err = decodeHeader(payload); err == nil && h.Boot != boot {
				return decoded{Opened: Opened{Stale: true}}, nil
			}
		default:
			var rec pools.Record
			if rec, ok := scanRecord(payload); ok {
				d.Records = append(d.Records, rec)
				break
			}
			rec, err = decodeRecord(payload)
			d.Records = append(d.Records, rec)
		}
		if err != nil {
			return decoded{}, fmt.Errorf("line %d: %w", n, err)
		}
		rest = rest[end+1:]
	}
	return d, nil
}

func decodeHeader(payload []byte) (header, error) {
	var h header
	if err := strict(payload, &h); err != nil {
		return h, err
	}
	if h.Journal != format || h.Version != version {
		return h, fmt.Errorf("it is a %q of version %d, not a %q of version %d", h.Journal, h.Version, format, version)
	}
	return h, nil
}

func decodeRecord(payload []byte) (pools.Record, error) {
	var e entry
	if err := strict(payload, &e); err != nil {
		return pools.Record{}, err
	}
	op, err := opOf(e.Op)
	if err != nil {
		return pools.Record{}, err
	}
	if len(e.Addrs) == 0 {
		return pools.Record{}, errors.New("no address")
	}
	for _, a := range e.Addrs {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return pools.Record{}, fmt.Errorf("address %q", a)
		}
	}
	return pools.Record{Op: op, Pool: e.Pool, Addrs: e.Addrs, At: time.Unix(0, e.At), Owner: pools.Owner{
		Attachment: pools.Attachment{Network: e.Network, ContainerID: e.Container, IfName: e.IfName},
		PodUID:     e.PodUID, Namespace: e.Namespace, Pod: e.Pod,
	}}, nil
}

// strict decodes one object and nothing behind it, all of its keys known.
func strict(payload []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.InputOffset() != int64(len(payload)) {
		return errors.New("more than one object")
	}
	return nil
}
