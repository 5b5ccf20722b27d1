package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/pools"
)

// ofVersion is the header of a journal as it stands in the file.
func ofVersion(version int) string {
	return string(appendHeader(nil, version, "b1"))
}

func wantVersion(t *testing.T, path string, version int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(data), ofVersion(version)) {
		t.Errorf("the journal is not of version %d: %s, %v", version, data, err)
	}
}

// firstJournal is one as it was written before there were records of blocks.
const firstJournal = `b8df4e8e {"journal":"fairway leases","version":1,"boot":"b1"}
` + `494c0808 {"op":"lease","at":1700000000000000001,"pool":"web","addrs":["10.0.0.1","fd00::1"],"network":"net","container":"c1","if":"eth0","podUID":"u","namespace":"ns","pod":"p"}
`

// TestOldJournal: one of leases alone reads, grows, and stays what an agent
// without blocks reads; the first block changes that, and nothing else.
func TestOldJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	if err := os.WriteFile(path, []byte(firstJournal), 0o600); err != nil {
		t.Fatal(err)
	}
	recs := []pools.Record{record(pools.Leased, 1), record(pools.Leased, 2), blockRecord(pools.Claimed, 3), record(pools.Released, 1)}
	j, found := open1(t, path, "b1")
	if !reflect.DeepEqual(found.Records, recs[:1]) {
		t.Fatalf("read %+v", found.Records)
	}
	for i, rec := range recs[1:] {
		if err := j.Append(rec); err != nil {
			t.Fatal(err)
		}
		wantVersion(t, path, []int{1, 2, 2}[i])
		if _, found := open1(t, path, "b1"); !reflect.DeepEqual(found.Records, recs[:i+2]) {
			t.Fatalf("read %+v, want %+v", found.Records, recs[:i+2])
		}
	}
	data, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || j.Size() != int64(len(data)) || info.Mode().Perm() != 0o600 {
		t.Errorf("size %d of %d bytes, %v, %v, %v", j.Size(), len(data), info.Mode(), err, statErr)
	}
	if err := j.Rewrite(recs[:2]); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, path, 1)
	if err := j.Append(recs[2]); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, path, 2)
	if _, found := open1(t, path, "b1"); !reflect.DeepEqual(found.Records, recs[:3]) {
		t.Errorf("read %+v, want %+v", found.Records, recs[:3])
	}
}

// secondJournal is one as it was written before leases said where their
// sandboxes are.
const secondJournal = `44d6b144 {"journal":"fairway leases","version":2,"boot":"b1"}
` + `494c0808 {"op":"lease","at":1700000000000000001,"pool":"web","addrs":["10.0.0.1","fd00::1"],"network":"net","container":"c1","if":"eth0","podUID":"u","namespace":"ns","pod":"p"}
`

// TestFirstNamespace: an older journal reads, and takes its first lease with a
// network namespace as what only a newer agent reads.
func TestFirstNamespace(t *testing.T) {
	for version, old := range map[int]string{1: firstJournal, 2: secondJournal} {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		j, found := open1(t, path, "b1")
		recs := append(found.Records, placed(2), record(pools.Released, 2))
		wantVersion(t, path, version)
		for _, rec := range recs[1:] {
			if err := j.Append(rec); err != nil {
				t.Fatal(err)
			}
			wantVersion(t, path, 3)
		}
		if _, found := open1(t, path, "b1"); !reflect.DeepEqual(found.Records, recs) {
			t.Errorf("read %+v, want %+v", found.Records, recs)
		}
		if err := j.Rewrite(recs[:1]); err != nil {
			t.Fatal(err)
		}
		wantVersion(t, path, 1)
	}
}

func TestWrongVersion(t *testing.T) {
	claim := string(appendRecord(nil, blockRecord(pools.Claimed, 1)))
	lease := string(appendRecord(nil, placed(1)))
	for data, want := range map[string]string{
		ofVersion(1) + claim: `line 2: operation "claim" of version 2 in a journal of version 1`,
		ofVersion(2) + lease: `line 2: operation "lease" of version 3 in a journal of version 2`,
		ofVersion(4):         "line 1: it is a \"fairway leases\" of version 4, not a \"fairway leases\" of version 1 to 3; run the agent that wrote it",
		ofVersion(0):         "of version 0",
	} {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(path, "b1"); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Where there is no room for the journal of another version beside the old
// one, no block is kept, but leases are.
func TestFirstBlockOnAFullDisk(t *testing.T) {
	dir := mount(t, "size=64k")
	path := filepath.Join(dir, "j")
	j, _ := open1(t, path, "b1")
	kept := 0
	for ; j.Size() < 40<<10; kept++ {
		if err := j.Append(record(pools.Leased, kept)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Append(blockRecord(pools.Claimed, 1)); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Fatalf("a first block without room: %v", err)
	}
	wantVersion(t, path, 1)
	if err := j.Append(record(pools.Leased, kept)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=256k"); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(blockRecord(pools.Claimed, 1)); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, path, 2)
	if _, found := open1(t, path, "b1"); len(found.Records) != kept+2 || found.Torn != 0 {
		t.Errorf("%d records and %d torn bytes, want %d and 0", len(found.Records), found.Torn, kept+2)
	}
}

// A journal that is broken takes no block, which would copy half a record.
func TestBrokenJournalTakesNoBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open1(t, path, "b1")
	j.broken = errors.New("test")
	if err := j.Append(blockRecord(pools.Claimed, 1)); !errors.Is(err, ErrBroken) {
		t.Fatal(err)
	}
	if err := j.Rewrite([]pools.Record{blockRecord(pools.Claimed, 1)}); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(blockRecord(pools.Returned, 1)); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, path, 2)
}

func BenchmarkAppend(b *testing.B) {
	for name, rec := range map[string]pools.Record{"lease": record(pools.Leased, 1), "block": blockRecord(pools.Claimed, 1)} {
		b.Run(name, func(b *testing.B) {
			j, _, err := Open(filepath.Join(b.TempDir(), "j"), "b1")
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			for b.Loop() {
				if err := j.Append(rec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecode is what a start costs for 1,000 records.
func BenchmarkDecode(b *testing.B) {
	for name, recordOf := range map[string]func(int) pools.Record{
		"leases": func(n int) pools.Record { return record(pools.Leased, n) },
		"blocks": func(n int) pools.Record { return blockRecord(pools.Claimed, n&0xff) },
	} {
		b.Run(name, func(b *testing.B) {
			var recs []pools.Record
			for n := range 1000 {
				recs = append(recs, recordOf(n))
			}
			data, _, err := encode(recs, "b1")
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if d, err := decode(data, "b1"); err != nil || len(d.Records) != len(recs) {
					b.Fatal(fmt.Errorf("%d records, %w", len(d.Records), err))
				}
			}
		})
	}
}
