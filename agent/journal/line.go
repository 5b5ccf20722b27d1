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
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairway-network/fairway/pools"
)

// header is the first line's object.
type header struct {
	Journal string `json:"journal"`
	Version int    `json:"version"`
	Boot    string `json:"boot"`
}

const format = "fairway leases"

// The version of a journal is that of what is in it.
const (
	ofLeases     = 1 // records of leases alone
	ofBlocks     = 2 // records of blocks as well
	ofNamespaces = 3 // leases may say where their sandboxes are, too
)

// versionOf is the lowest one that has room for all of records.
func versionOf(records []pools.Record) int {
	version := ofLeases
	for i := range records {
		version = max(version, roomFor(&records[i]))
	}
	return version
}

// roomFor is the lowest version that has room for rec.
func roomFor(rec *pools.Record) int {
	switch {
	case rec.Netns != pools.Netns{}:
		return ofNamespaces
	case !rec.Op.OfLease():
		return ofBlocks
	}
	return ofLeases
}

// entry is a record's object. appendRecord writes the same by hand, because
// it stands on the path of every pod. Times are Unix times in nanoseconds; the
// zero time.Time is left out.
type entry struct {
	Op   string `json:"op"`
	At   *int64 `json:"at,omitempty"`
	Pool string `json:"pool"`

	// Of a lease.
	Addrs     []netip.Addr `json:"addrs,omitempty"`
	Network   string       `json:"network,omitempty"`
	Container string       `json:"container,omitempty"`
	IfName    string       `json:"if,omitempty"`
	PodUID    string       `json:"podUID,omitempty"`
	Namespace string       `json:"namespace,omitempty"`
	Pod       string       `json:"pod,omitempty"`
	Netns     string       `json:"netns,omitempty"`
	NetnsID   fileID       `json:"netnsID,omitzero"`
	NetnsDir  fileID       `json:"netnsDir,omitzero"`

	// Of a block.
	Block   *netip.Prefix `json:"block,omitempty"`
	Node    string        `json:"node,omitempty"`
	Lender  string        `json:"lender,omitempty"`
	Created *int64        `json:"created,omitempty"`
	UID     string        `json:"uid,omitempty"`
	Machine string        `json:"machine,omitempty"`
	Tenure  int           `json:"tenure,omitempty"`
	Ref     string        `json:"ref,omitempty"`
}

// owner of a lease.
func (e entry) owner() pools.Owner {
	return pools.Owner{
		Attachment: pools.Attachment{Network: e.Network, ContainerID: e.Container, IfName: e.IfName},
		PodUID:     e.PodUID, Namespace: e.Namespace, Pod: e.Pod,
	}
}

// fileID is written as device:inode.
type fileID pools.FileID

func (id fileID) appendTo(b []byte) []byte {
	b = strconv.AppendUint(b, id.Dev, 10)
	return strconv.AppendUint(append(b, ':'), id.Inode, 10)
}

func parseFileID(s string) (id fileID, err error) {
	dev, inode, _ := strings.Cut(s, ":")
	if id.Dev, err = strconv.ParseUint(dev, 10, 64); err == nil {
		id.Inode, err = strconv.ParseUint(inode, 10, 64)
	}
	if err != nil || id == (fileID{}) || string(id.appendTo(nil)) != s {
		return fileID{}, fmt.Errorf("%q is not device:inode", s)
	}
	return id, nil
}

// MarshalText implements encoding.TextMarshaler.
func (id fileID) MarshalText() ([]byte, error) { return id.appendTo(nil), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *fileID) UnmarshalText(text []byte) (err error) {
	*id, err = parseFileID(string(text))
	return err
}

// netns is where the sandbox of a lease is.
func (e entry) netns() pools.Netns {
	return pools.Netns{Path: e.Netns, Namespace: pools.FileID(e.NetnsID), Dir: pools.FileID(e.NetnsDir)}
}

// block is nil if e has nothing of one.
func (e entry) block() *pools.Block {
	b := pools.Block{Node: e.Node, Lender: e.Lender, Created: timeOf(e.Created), UID: e.UID, Machine: e.Machine, Tenure: e.Tenure}
	if e.Block == nil && b == (pools.Block{}) && e.Created == nil {
		return nil
	}
	b.Pool = e.Pool
	if e.Block != nil {
		b.Prefix = *e.Block
	}
	return &b
}

func timeOf(nanoseconds *int64) time.Time {
	if nanoseconds == nil {
		return time.Time{}
	}
	return time.Unix(0, *nanoseconds)
}

// check says what of rec could not be read again, or should not be there. It
// leaves the addresses of a lease to the ledger that granted them.
func check(rec *pools.Record) error {
	switch name := opName(rec.Op); {
	case name == "":
		return fmt.Errorf("unknown operation %d", rec.Op)
	case !rec.Op.OfLease():
		return checkBlock(name, rec)
	case rec.Block != nil || rec.Ref != "":
		return fmt.Errorf("operation %q with a block", name)
	case len(rec.Addrs) == 0:
		return errors.New("no address")
	case rec.At.IsZero():
		return fmt.Errorf("operation %q without a time", name)
	case rec.Netns != pools.Netns{} && (rec.Netns.Path == "" || !utf8.ValidString(rec.Netns.Path)):
		return fmt.Errorf("operation %q with a network namespace at %q", name, rec.Netns.Path)
	}
	return nil
}

func checkBlock(name string, rec *pools.Record) error {
	if len(rec.Addrs) > 0 || rec.Owner != (pools.Owner{}) || rec.Netns != (pools.Netns{}) {
		return fmt.Errorf("operation %q with addresses, an owner or a network namespace", name)
	}
	if rec.Block == nil {
		return fmt.Errorf("operation %q without a block", name)
	}
	switch b := rec.Block; {
	case !b.Prefix.IsValid() || b.Prefix != b.Prefix.Masked() || b.Prefix.Addr().Is4In6():
		return fmt.Errorf("operation %q of block %q, which is no plain prefix", name, b.Prefix)
	case b.Pool != rec.Pool:
		return fmt.Errorf("operation %q in pool %q of block %s of pool %q", name, rec.Pool, b.Prefix, b.Pool)
	case b.Node == "" && rec.Op == pools.Claimed: // what is set aside may be vacant, or nobody knows whose
		return fmt.Errorf("operation %q of block %s without a node", name, b.Prefix)
	case b.Tenure < 0:
		return fmt.Errorf("operation %q of block %s with tenure %d", name, b.Prefix, b.Tenure)
	case rec.Ref != "" && rec.Op != pools.Lent:
		return fmt.Errorf("operation %q of block %s with a reference", name, b.Prefix)
	}
	return nil
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
	case pools.Claimed:
		return "claim"
	case pools.Returned:
		return "return"
	case pools.Lent:
		return "lend"
	case pools.Regained:
		return "regain"
	}
	return ""
}

func opOf(name string) (pools.Op, error) {
	for op := pools.Leased; op <= pools.Regained; op++ {
		if opName(op) == name {
			return op, nil
		}
	}
	return 0, fmt.Errorf("unknown operation %q", name)
}

const crcLen = 8 + 1 // hex digits and a space

func appendHeader(b []byte, version int, boot string) []byte {
	// A struct of plain strings and numbers always marshals.
	payload, _ := json.Marshal(header{format, version, boot})
	return seal(append(append(b, "00000000 "...), payload...), len(b))
}

func appendRecord(b []byte, rec pools.Record) []byte {
	start := len(b)
	b = append(b, `00000000 {"op":"`...)
	b = append(b, opName(rec.Op)...)
	b = append(b, '"')
	b = appendTime(b, `,"at":`, rec.At)
	b = appendString(b, `,"pool":`, rec.Pool)
	if rec.Op.OfLease() {
		b = appendLease(b, &rec)
	} else {
		b = appendBlock(b, &rec)
	}
	return seal(append(b, '}'), start)
}

func appendLease(b []byte, rec *pools.Record) []byte {
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
	b = appendField(b, `,"netns":`, rec.Netns.Path)
	b = appendFileID(b, `,"netnsID":`, fileID(rec.Netns.Namespace))
	return appendFileID(b, `,"netnsDir":`, fileID(rec.Netns.Dir))
}

func appendFileID(b []byte, key string, id fileID) []byte {
	if id == (fileID{}) {
		return b
	}
	return append(id.appendTo(append(append(b, key...), '"')), '"')
}

func appendBlock(b []byte, rec *pools.Record) []byte {
	b = append(b, `,"block":"`...)
	b = append(rec.Block.Prefix.AppendTo(b), '"')
	b = appendField(b, `,"node":`, rec.Block.Node)
	b = appendField(b, `,"lender":`, rec.Block.Lender)
	b = appendTime(b, `,"created":`, rec.Block.Created)
	b = appendField(b, `,"uid":`, rec.Block.UID)
	b = appendField(b, `,"machine":`, rec.Block.Machine)
	if rec.Block.Tenure != 0 {
		b = strconv.AppendInt(append(b, `,"tenure":`...), int64(rec.Block.Tenure), 10)
	}
	return appendField(b, `,"ref":`, rec.Ref)
}

func appendTime(b []byte, key string, at time.Time) []byte {
	if at.IsZero() {
		return b
	}
	return strconv.AppendInt(append(b, key...), at.UnixNano(), 10)
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
	version int
	body    int64 // where the records begin
	whole   int64 // length of what was read whole and stays, header included
}

// usual is how long a line is, in bytes.
const usual = 128

// encode makes a journal of records, of which the first body bytes are the
// header. The error is about a record that could not be read again.
func encode(records []pools.Record, boot string) (data []byte, body int, err error) {
	data = appendHeader(make([]byte, 0, (1+len(records))*usual), versionOf(records), boot)
	body = len(data)
	for i := range records {
		rec := &records[i]
		if err := check(rec); err != nil {
			return nil, 0, fmt.Errorf("record %d of %d: %w", i+1, len(records), err)
		}
		data = appendRecord(data, *rec)
	}
	return data, body, nil
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
			d.version, d.body = h.Version, int64(end+1)
		default:
			var rec pools.Record
			rec, err = readRecord(payload, d.version)
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
	if h.Journal != format || h.Version < ofLeases || h.Version > ofNamespaces {
		return h, fmt.Errorf("it is a %q of version %d, not a %q of version %d to %d; run the agent that wrote it", h.Journal, h.Version, format, ofLeases, ofNamespaces)
	}
	return h, nil
}

// readRecord reads a record of a journal of that version.
func readRecord(payload []byte, version int) (pools.Record, error) {
	rec, ok := scanRecord(payload)
	if !ok {
		var err error
		if rec, err = decodeRecord(payload); err != nil {
			return rec, err
		}
	}
	if needs := roomFor(&rec); version < needs {
		return rec, fmt.Errorf("operation %q of version %d in a journal of version %d", opName(rec.Op), needs, version)
	}
	return rec, nil
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
	if !op.OfLease() && e.Addrs != nil {
		return pools.Record{}, fmt.Errorf("operation %q with addresses", e.Op)
	}
	for _, a := range e.Addrs {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return pools.Record{}, fmt.Errorf("address %q", a)
		}
	}
	rec := pools.Record{Op: op, Pool: e.Pool, Addrs: e.Addrs, At: timeOf(e.At), Owner: e.owner(), Netns: e.netns(), Block: e.block(), Ref: e.Ref}
	if err := check(&rec); err != nil {
		return pools.Record{}, err
	}
	return rec, nil
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
