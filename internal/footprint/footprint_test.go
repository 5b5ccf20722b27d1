package footprint

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// Only what is read from the file, and is as it is there, may be let go of.
func TestUnchanged(t *testing.T) {
	const smaps = `00400000-00e00000 r-xp 00000000 fe:00 77                         /opt/fairway
Size:              10240 kB
Anonymous:             0 kB
00e00000-00e10000 r--p 00a00000 fe:00 77                         /opt/fairway
Anonymous:             4 kB
VmFlags: rd mr mw me ac
00e10000-01800000 r--p 00a10000 fe:00 77                         /opt/fairway
Anonymous:             0 kB
01800000-01900000 rw-p 01400000 fe:00 77                         /opt/fairway
Anonymous:             0 kB
01900000-01a00000 r--p 00000000 fe:00 78                         /opt/fairway.d/opt/fairway2
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]
Anonymous:             0 kB
`
	got, err := unchanged(strings.NewReader(smaps), "/opt/fairway")
	want := []span{{0x400000, 0xe00000}, {0xe10000, 0x1800000}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%x, %v, want %x", got, err, want)
	}
}

// The program runs on, with less of its file in memory.
func TestShrink(t *testing.T) {
	before := resident(t)
	if err := Shrink(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after >= before {
		t.Errorf("%d kB of files are in memory, were %d", after, before)
	}
}

// resident is how much of files this process has in memory, in kB.
func resident(t *testing.T) (kB int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, _ := fmt.Sscanf(line, "RssFile: %d kB", &kB); n == 1 {
			return kB
		}
	}
	t.Fatal("the kernel does not say how much of files is in memory")
	return 0
}
