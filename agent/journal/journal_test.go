package journal

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
)

func record(op pools.Op, n int) pools.Record {
	return pools.Record{
		Op: op, Pool: "web", At: time.Unix(1_700_000_000, int64(n)),
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", n))},
		Owner: pools.Owner{Attachment: pools.Attachment{Network: "net", ContainerID: fmt.Sprint("c", n), IfName: "eth0"}, PodUID: "u", Namespace: "ns", Pod: "p"},
	}
}

// placed is a record of a lease that says where the sandbox is.
func placed(n int) pools.Record {
	rec := record(pools.Leased, n)
	rec.Netns = pools.Netns{
		Path: fmt.Sprint("/run/netns/cni-", n), Namespace: pools.FileID{Dev: 4, Inode: 4026532000 + uint64(n)}, Dir: pools.FileID{Dev: 25, Inode: 1187},
	}
	return rec
}

func open1(t *testing.T, path, boot string) (*Journal, Opened) {
	t.Helper()
	j, found, err := Open(path, boot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, found
}

// blockRecord is of a block in either family, with every field that op can have.
func blockRecord(op pools.Op, n int) pools.Record {
	b := pools.Block{
		Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(n), 0}), 26), Pool: "web", Node: "node-a", Lender: "node-b",
		Created: time.Unix(1_600_000_000, int64(n)), UID: fmt.Sprint("uid-", n), Machine: "m", Tenure: n,
	}
	if n%2 == 1 {
		b.Prefix = netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%x::/122", n))
	}
	rec := pools.Record{Op: op, Pool: "web", At: time.Unix(1_700_000_000, int64(n)), Block: &b}
	switch op {
	case pools.Lent:
		rec.Ref = "request uid"
	case pools.Regained:
		rec.Block = &pools.Block{Prefix: b.Prefix, Pool: b.Pool}
	}
	return rec
}

// some records in a fresh journal, the last of them of a lease, and the file's
// bytes.
func some(t *testing.T, path string) ([]pools.Record, []byte) {
	t.Helper()
	j, _ := open1(t, path, "b1")
	recs := []pools.Record{
		record(pools.Leased, 1), blockRecord(pools.Claimed, 1), record(pools.Leased, 2), blockRecord(pools.Lent, 2),
		blockRecord(pools.Returned, 1), blockRecord(pools.Regained, 2), record(pools.Released, 1),
	}
	for _, r := range recs {
		if err := j.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return recs, data
}

func TestRecordsComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	recs, _ := some(t, path)
	odd := record(pools.Rested, 3)
	odd.Pool, odd.Owner = "quote \" back \\ line \n tab \t ü \x00", pools.Owner{}
	j, found := open1(t, path, "b1")
	if err := j.Append(odd); err != nil || !reflect.DeepEqual(found.Records, recs) {
		t.Fatalf("read %+v, %v; wrote %+v", found.Records, err, recs)
	}
	_, found = open1(t, path, "b1")
	if !reflect.DeepEqual(found.Records, append(recs, odd)) || found.Torn != 0 || found.Stale {
		t.Errorf("read %+v; wrote %+v", found, append(recs, odd))
	}
}

// The file cut off anywhere behind the header is what a crash leaves: all
// whole records are there, and the next append goes behind them.
func TestCutAnywhere(t *testing.T) {
	dir := t.TempDir()
	recs, data := some(t, filepath.Join(dir, "whole"))
	header := bytes.IndexByte(data, '\n') + 1
	for cut := header; cut < len(data); cut++ {
		path := filepath.Join(dir, "cut")
		if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		whole := bytes.Count(data[:cut], []byte("\n")) - 1
		j, found := open1(t, path, "b1")
		if len(found.Records) != whole || whole > 0 && !reflect.DeepEqual(found.Records, recs[:whole]) {
			t.Fatalf("cut at %d: %d records, want %d", cut, len(found.Records), whole)
		}
		next := recs[cut%2] // a lease or a block
		if err := j.Append(next); err != nil {
			t.Fatal(err)
		}
		if _, again := open1(t, path, "b1"); !reflect.DeepEqual(again.Records, append(found.Records, next)) || again.Torn != 0 {
			t.Fatalf("cut at %d: %+v and %d torn bytes after an append, want one more than %+v and 0", cut, again.Records, again.Torn, found.Records)
		}
	}
}

// A bit flipped anywhere but in the last newline, which makes the last record
// one that was not written whole, is damage, and the file is left as it is.
func TestFlipAnywhere(t *testing.T) {
	dir := t.TempDir()
	_, data := some(t, filepath.Join(dir, "whole"))
	for i := range len(data) - 1 {
		path := filepath.Join(dir, "flipped")
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 7)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		j, found, err := Open(path, "b1")
		if hexCase(data[i], bad[i]) {
			continue // the same digit in another case is the same digit
		}
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove the file") {
			t.Fatalf("bit flipped in byte %d (%q): %v, %+v", i, data[i], err, found)
		}
		if j != nil {
			t.Fatal("a journal beside an error")
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, bad) {
			t.Fatalf("the damaged file was changed: %v", err)
		}
	}
}

func hexCase(a, b byte) bool { return a != b && bytes.EqualFold([]byte{a}, []byte{b}) }

func TestGarbageIsNotTorn(t *testing.T) {
	for name, data := range map[string]string{"no newline": "hello", "a line": "hello\n", "zeros": strings.Repeat("\x00", 4096), "only a newline": "\n"} {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(path, "b1"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnotherBoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	some(t, path)
	_, found := open1(t, path, "b2")
	if !found.Stale || len(found.Records) != 0 {
		t.Errorf("opened %+v", found)
	}
	if _, found = open1(t, path, "b2"); found.Stale {
		t.Error("the new boot's journal is stale")
	}
}

func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	recs, before := some(t, path)
	j, _ := open1(t, path, "b1")
	if err := j.Rewrite(recs[1:2]); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(recs[0]); err != nil {
		t.Fatal(err)
	}
	_, found := open1(t, path, "b1")
	if !reflect.DeepEqual(found.Records, []pools.Record{recs[1], recs[0]}) || j.Size() >= int64(len(before)) {
		t.Errorf("after a rewrite: %+v, %d bytes", found.Records, j.Size())
	}
}

// mount gives a directory on a tmpfs of its own.
func mount(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// On a full disk an append fails and leaves no trace; with room again the
// next one works.
func TestFullDisk(t *testing.T) {
	dir := mount(t, "size=64k")
	path := filepath.Join(dir, "j")
	j, _ := open1(t, path, "b1")
	kept := 0
	var err error
	for err == nil && kept < 10_000 {
		if err = j.Append(record(pools.Leased, kept)); err == nil {
			kept++
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("append to a full disk: %v", err)
	}
	if _, found := open1(t, path, "b1"); len(found.Records) != kept || found.Torn != 0 {
		t.Fatalf("%d records and %d torn bytes, want %d and 0", len(found.Records), found.Torn, kept)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=128k"); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(record(pools.Leased, kept)); err != nil {
		t.Fatal(err)
	}
	if _, found := open1(t, path, "b1"); len(found.Records) != kept+1 {
		t.Errorf("%d records after room was made, want %d", len(found.Records), kept+1)
	}
}

func TestRewriteOnAFullDiskKeepsTheOldJournal(t *testing.T) {
	dir := mount(t, "size=64k")
	path := filepath.Join(dir, "j")
	recs, _ := some(t, path)
	j, _ := open1(t, path, "b1")
	var many []pools.Record
	for n := range 1000 {
		many = append(many, record(pools.Leased, n))
	}
	if err := j.Rewrite(many); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("rewrite on a full disk: %v", err)
	}
	if err := j.Append(recs[0]); err != nil {
		t.Fatal(err)
	}
	if _, found := open1(t, path, "b1"); len(found.Records) != len(recs)+1 {
		t.Errorf("%d records, want %d", len(found.Records), len(recs)+1)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := mount(t, "size=64k")
	path := filepath.Join(dir, "j")
	j, _ := open1(t, path, "b1")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path, "b1"); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), path) {
		t.Errorf("open on a read-only disk: %v", err)
	}
}

// What is decoded and written again is the same, whatever the file is.
func FuzzDecode(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "j")
	j, _, err := Open(path, "b1")
	if err != nil {
		f.Fatal(err)
	}
	for _, recs := range [][]pools.Record{
		{record(pools.Leased, 0), record(pools.Leased, 1), record(pools.Leased, 2)},
		{blockRecord(pools.Claimed, 1), blockRecord(pools.Lent, 2), blockRecord(pools.Regained, 2), blockRecord(pools.Returned, 1)},
		{placed(3), record(pools.Released, 3), placed(4)},
	} {
		for _, rec := range recs {
			if err := j.Append(rec); err != nil {
				f.Fatal(err)
			}
		}
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-5])
	}
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := decode(data, "b1")
		if err != nil || d.Stale || d.whole == 0 {
			return
		}
		again, _, err := encode(d.Records, "b1")
		if err != nil {
			t.Fatalf("read %+v, which can't be written: %v", d.Records, err)
		}
		e, err := decode(again, "b1")
		if err != nil || !reflect.DeepEqual(d.Records, e.Records) {
			t.Errorf("%v: %+v became %+v", err, d.Records, e.Records)
		}
	})
}

// What scanRecord reads, decodeRecord reads as the same; and it reads what
// appendRecord writes.
func FuzzScan(f *testing.F) {
	for op := pools.Leased; op <= pools.Regained; op++ {
		rec := record(op, 5)
		if !op.OfLease() {
			rec = blockRecord(op, 5)
		}
		line := appendRecord(nil, rec)
		payload := line[crcLen : len(line)-1]
		if _, ok := scanRecord(payload); !ok {
			f.Fatalf("scanRecord does not read %s", payload)
		}
		f.Add(payload)
	}
	where := appendRecord(nil, placed(5))
	f.Add(where[crcLen : len(where)-1])
	f.Add([]byte(`{"op":"lease","at":1,"pool":"","addrs":["10.0.0.1"],"netns":"/n","netnsID":"04:7"}`))
	f.Add([]byte(`{"op":"claim","pool":"web","block":"10.0.0.0/26","node":"a","tenure":-1}`))
	f.Add([]byte(`{"op":"lend","at":1,"pool":"web","block":"10.0.0.1/26","node":"a"}`))
	f.Add([]byte(`{"op":"rest","at":-01,"pool":"","addrs":["10.0.0.1"]}`))
	f.Add([]byte(`{"op":"lease","at":1,"pool":"a\u0062","addrs":["10.0.0.1"]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		scanned, ok := scanRecord(payload)
		if !ok {
			return
		}
		decoded, err := decodeRecord(payload)
		if err != nil || !reflect.DeepEqual(scanned, decoded) {
			t.Errorf("%q: scanned %+v, decoded %+v, %v", payload, scanned, decoded, err)
		}
	})
}

// What is set aside may be nobody's: a block that was lost, and is vacant perhaps.
func TestWhatIsSetAsideNeedsNoNode(t *testing.T) {
	path := t.TempDir() + "/j"
	rec := blockRecord(pools.Lent, 2)
	rec.Block = &pools.Block{Prefix: rec.Block.Prefix, Pool: rec.Block.Pool}
	rec.Ref = ""
	j, _ := open1(t, path, "b1")
	if err := errors.Join(j.Append(rec), j.Close()); err != nil {
		t.Fatal(err)
	}
	if _, found := open1(t, path, "b1"); len(found.Records) != 1 || !reflect.DeepEqual(found.Records[0], rec) {
		t.Errorf("it comes back as %+v, want %+v", found.Records, rec)
	}
}
