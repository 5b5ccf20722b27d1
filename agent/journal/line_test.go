package journal

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// appendRecord, written by hand, is what encoding/json makes of an entry.
func TestRecordIsJSON(t *testing.T) {
	lease, claim, lend, where := record(pools.Leased, 7), blockRecord(pools.Claimed, 7), blockRecord(pools.Lent, 8), placed(9)
	placedAt := where.At.UnixNano()
	at, created, lentAt, lentCreated := lease.At.UnixNano(), claim.Block.Created.UnixNano(), lend.At.UnixNano(), lend.Block.Created.UnixNano()
	for _, c := range []struct {
		rec  pools.Record
		want entry
	}{
		{lease, entry{Op: "lease", At: &at, Pool: "web", Addrs: lease.Addrs, Network: "net",
			Container: "c7", IfName: "eth0", PodUID: "u", Namespace: "ns", Pod: "p"}},
		{where, entry{Op: "lease", At: &placedAt, Pool: "web", Addrs: where.Addrs, Network: "net",
			Container: "c9", IfName: "eth0", PodUID: "u", Namespace: "ns", Pod: "p",
			Netns: "/run/netns/cni-9", NetnsID: fileID{4, 4026532009}, NetnsDir: fileID{25, 1187}}},
		{claim, entry{Op: "claim", At: &at, Pool: "web", Block: &claim.Block.Prefix, Node: "node-a", Lender: "node-b",
			Created: &created, UID: "uid-7", Machine: "m", Tenure: 7}},
		{lend, entry{Op: "lend", At: &lentAt, Pool: "web", Block: &lend.Block.Prefix, Node: "node-a", Lender: "node-b",
			Created: &lentCreated, UID: "uid-8", Machine: "m", Tenure: 8, Ref: "request uid"}},
		{pools.Record{Op: pools.Regained, Pool: "web", Block: &pools.Block{Prefix: claim.Block.Prefix, Pool: "web"}},
			entry{Op: "regain", Pool: "web", Block: &claim.Block.Prefix}},
	} {
		line := appendRecord(nil, c.rec)
		want, err := json.Marshal(c.want)
		if err != nil || string(line[crcLen:len(line)-1]) != string(want) {
			t.Errorf("wrote %s\nwant  %s (%v)", line[crcLen:], want, err)
		}
	}
}

// TestDecodeIsStrict: what no agent writes is not read, neither fast nor slow.
func TestDecodeIsStrict(t *testing.T) {
	const claim = `{"op":"claim","at":1,"pool":"web","block":"10.0.0.0/26","node":"a","uid":"u","tenure":1}`
	const lend = `{"op":"lend","at":1,"pool":"web","block":"10.0.0.0/26","node":"a","ref":"r u"}`
	const lease = `{"op":"lease","at":1,"pool":"web","addrs":["10.0.0.1"],"container":"c"}`
	const placed = `{"op":"lease","at":1,"pool":"web","addrs":["10.0.0.1"],"netns":"/n","netnsID":"4:7","netnsDir":"5:8"}`
	for _, good := range []string{claim, lend, lease, placed} {
		if _, err := readRecord([]byte(good), ofNamespaces); err != nil {
			t.Fatalf("%s: %v", good, err)
		}
	}
	for _, c := range []struct{ of, old, new, want string }{
		{claim, `"op":"claim"`, `"op":"clam"`, `unknown operation "clam"`},
		{claim, `"op":"claim"`, `"op":""`, `unknown operation ""`},
		{claim, `"node"`, `"knot"`, `unknown field "knot"`},
		{claim, `}`, `}{}`, `more than one object`},
		{claim, `,"block":"10.0.0.0/26"`, ``, `invalid Prefix`},
		{claim, `,"block":"10.0.0.0/26","node":"a","uid":"u","tenure":1`, ``, `without a block`},
		{claim, `10.0.0.0/26`, ``, `no plain prefix`},
		{claim, `10.0.0.0/26`, `10.0.0.1/26`, `no plain prefix`},
		{claim, `10.0.0.0/26`, `10.0.0.0/33`, `ParsePrefix`},
		{claim, `10.0.0.0/26`, `10.0.0.0`, `ParsePrefix`},
		{claim, `10.0.0.0/26`, `::ffff:10.0.0.0/122`, `no plain prefix`},
		{claim, `10.0.0.0/26`, `fe80::%eth0/122`, `ParsePrefix`},
		{claim, `,"node":"a"`, ``, `without a node`},
		{claim, `"tenure":1`, `"tenure":-1`, `tenure -1`},
		{claim, `"tenure":1`, `"tenure":1.5`, `tenure`},
		{claim, `"at":1`, `"at":"1"`, `at`},
		{claim, `"node"`, `"addrs":["10.0.0.1"],"node"`, `with addresses`},
		{claim, `"node"`, `"addrs":[],"node"`, `with addresses`},
		{claim, `"node"`, `"container":"c","node"`, `an owner`},
		{claim, `"node"`, `"podUID":"c","node"`, `an owner`},
		{claim, `"node"`, `"ref":"r","node"`, `with a reference`},
		{lend, `"lend"`, `"regain"`, `with a reference`},
		{lend, `"lend"`, `"return"`, `with a reference`},
		{lease, `"addrs":["10.0.0.1"]`, `"addrs":[]`, `no address`},
		{lease, `,"addrs":["10.0.0.1"]`, ``, `no address`},
		{lease, `10.0.0.1`, `fe80::1%eth0`, `address`},
		{lease, `"at":1,`, ``, `without a time`},
		{lease, `"container"`, `"block":"10.0.0.0/26","container"`, `with a block`},
		{lease, `"container"`, `"block":"","container"`, `with a block`},
		{lease, `"container"`, `"node":"a","container"`, `with a block`},
		{lease, `"container"`, `"lender":"a","container"`, `with a block`},
		{lease, `"container"`, `"created":1,"container"`, `with a block`},
		{lease, `"container"`, `"uid":"a","container"`, `with a block`},
		{lease, `"container"`, `"machine":"a","container"`, `with a block`},
		{lease, `"container"`, `"tenure":1,"container"`, `with a block`},
		{lease, `"container"`, `"ref":"a","container"`, `with a block`},
		{placed, `"netns":"/n",`, ``, `network namespace at ""`},
		{placed, `"netns":"/n"`, `"netns":""`, `network namespace at ""`},
		{placed, `4:7`, ``, `"" is not device:inode`},
		{placed, `4:7`, `4`, `"4" is not device:inode`},
		{placed, `4:7`, `4:`, `"4:" is not device:inode`},
		{placed, `4:7`, `4:7:1`, `"4:7:1" is not device:inode`},
		{placed, `4:7`, `04:7`, `"04:7" is not device:inode`},
		{placed, `4:7`, `4:-7`, `"4:-7" is not device:inode`},
		{placed, `4:7`, `0:0`, `"0:0" is not device:inode`},
		{placed, `5:8`, `5:18446744073709551616`, `is not device:inode`},
		{claim, `"node"`, `"netns":"/n","node"`, `network namespace`},
		{claim, `"node"`, `"netnsID":"4:7","node"`, `network namespace`},
	} {
		bad := strings.Replace(c.of, c.old, c.new, 1)
		if rec, err := readRecord([]byte(bad), ofNamespaces); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q; read %+v", bad, err, c.want, rec)
		}
		if rec, ok := scanRecord([]byte(bad)); ok {
			t.Errorf("%s: scanned as %+v", bad, rec)
		}
	}
}

// TestAppendRefusesWhatCanNotBeRead: and leaves no trace of it.
func TestAppendRefusesWhatCanNotBeRead(t *testing.T) {
	path := t.TempDir() + "/j"
	recs, before := some(t, path)
	j, _ := open1(t, path, "b1")
	for name, spoil := range map[string]func(r *pools.Record){
		"no operation":     func(r *pools.Record) { r.Op = 0 },
		"a later one":      func(r *pools.Record) { r.Op = pools.Regained + 1 },
		"no block":         func(r *pools.Record) { r.Block = nil },
		"no prefix":        func(r *pools.Record) { r.Block.Prefix = netip.Prefix{} },
		"host bits":        func(r *pools.Record) { r.Block.Prefix = netip.MustParsePrefix("10.0.0.1/24") },
		"another pool":     func(r *pools.Record) { r.Block.Pool = "db" },
		"no node":          func(r *pools.Record) { r.Block.Node = "" },
		"negative tenure":  func(r *pools.Record) { r.Block.Tenure = -1 },
		"a reference":      func(r *pools.Record) { r.Ref = "r" },
		"an address":       func(r *pools.Record) { r.Addrs = []netip.Addr{r.Block.Prefix.Addr()} },
		"an owner":         func(r *pools.Record) { r.Owner.PodUID = "u" },
		"a lease's block":  func(r *pools.Record) { *r = record(pools.Leased, 1); r.Block = &pools.Block{} },
		"a lease's ref":    func(r *pools.Record) { *r = record(pools.Leased, 1); r.Ref = "r" },
		"a bare lease":     func(r *pools.Record) { *r = record(pools.Leased, 1); r.Addrs = nil },
		"a namespace":      func(r *pools.Record) { r.Netns.Path = "/n" },
		"one without path": func(r *pools.Record) { *r = placed(1); r.Netns.Path = "" },
		"one of bad text":  func(r *pools.Record) { *r = placed(1); r.Netns.Path = "/\xff" },
		"a timeless lease": func(r *pools.Record) { *r = record(pools.Leased, 1); r.At = time.Time{} },
	} {
		rec := blockRecord(pools.Claimed, 1)
		spoil(&rec)
		if err := j.Append(rec); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("append %s: %v", name, err)
		}
		if err := j.Rewrite(append(recs[:len(recs):len(recs)], rec)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("rewrite %s: %v", name, err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the journal became %s, %v", after, err)
	}
}

// TestRandomRecordsComeBack: through either reader, whatever is in them.
func TestRandomRecordsComeBack(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("FAIRWAY_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	var recs []pools.Record
	for range 2000 {
		recs = append(recs, randomRecord(rnd))
	}
	data, _, err := encode(recs, "b1")
	if err != nil {
		t.Fatal(err)
	}
	d, err := decode(data, "b1")
	if err != nil || len(d.Records) != len(recs) {
		t.Fatalf("FAIRWAY_TEST_SEED=%d: %d records, %v; wrote %d", seed, len(d.Records), err, len(recs))
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")[1:] {
		slow, err := decodeRecord([]byte(line[crcLen:]))
		if err != nil || !reflect.DeepEqual(slow, recs[i]) || !reflect.DeepEqual(d.Records[i], recs[i]) {
			t.Fatalf("FAIRWAY_TEST_SEED=%d: %+v became %+v, slowly %+v, %v", seed, recs[i], d.Records[i], slow, err)
		}
	}
}

func randomRecord(rnd *rand.Rand) pools.Record {
	text := func() string {
		return []string{"", "a", "web-1", "two words", `"`, `\`, "ü", "<&>", "\n\x00", "\u2028"}[rnd.IntN(10)]
	}
	at := func() time.Time { return time.Unix(0, rnd.Int64()-rnd.Int64()) }
	addr := netip.AddrFrom4([4]byte{10, byte(rnd.Int()), byte(rnd.Int()), byte(rnd.Int())})
	if rnd.IntN(2) == 0 {
		addr = netip.MustParseAddr(fmt.Sprintf("fd00::%x:%x", rnd.IntN(1<<16), rnd.IntN(1<<16)))
	}
	rec := pools.Record{Op: pools.Op(rnd.IntN(int(pools.Regained)) + 1), Pool: text(), At: at()}
	if rec.Op.OfLease() {
		rec.Addrs = []netip.Addr{addr}
		rec.Owner = pools.Owner{
			Attachment: pools.Attachment{Network: text(), ContainerID: text(), IfName: text()},
			PodUID:     text(), Namespace: text(), Pod: text(),
		}
		if rnd.IntN(2) == 0 {
			rec.Netns = pools.Netns{Path: "/" + text(), Namespace: pools.FileID{Inode: rnd.Uint64()}, Dir: pools.FileID{Dev: rnd.Uint64N(2)}}
		}
		return rec
	}
	rec.Block = &pools.Block{
		Prefix: netip.PrefixFrom(addr, rnd.IntN(addr.BitLen()+1)).Masked(), Pool: rec.Pool, Node: "n" + text(), Lender: text(),
		Created: at(), UID: text(), Machine: text(), Tenure: rnd.IntN(3),
	}
	if rec.Op == pools.Lent {
		rec.Ref = text()
	}
	if rnd.IntN(4) == 0 {
		rec.At, rec.Block.Created = time.Time{}, time.Unix(0, 0)
	}
	if rnd.IntN(4) == 0 {
		rec.Block.Created = time.Time{}
	}
	return rec
}
