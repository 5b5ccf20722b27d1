package kernel

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func setSysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func expectSysctls(t *testing.T, want map[string]string) {
	t.Helper()
	for name, value := range want {
		got, err := os.ReadFile("/proc/sys/" + name)
		if err != nil || strings.TrimSpace(string(got)) != value {
			t.Errorf("sysctl %s is %q (%v), not %s", name, got, err, value)
		}
	}
}

func forwarding(t *testing.T, mode Mode, f Families) error {
	t.Helper()
	return Forwarding(t.Context(), mode, f, slog.New(slog.DiscardHandler))
}

func hostThatDoesNotForward(t *testing.T) {
	inNamespace(t)
	uplink(t)
	for name, value := range map[string]string{
		"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0",
		"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/up0/rp_filter": "1", "net/ipv4/conf/up1/rp_filter": "0",
		"net/ipv6/conf/up0/accept_ra": "1", "net/ipv6/conf/up1/accept_ra": "0", "net/ipv6/conf/default/accept_dad": "1",
	} {
		setSysctl(t, name, value)
	}
}

func TestForwardingIsSet(t *testing.T) {
	hostThatDoesNotForward(t)
	if err := forwarding(t, Set, Families{IPv4: true}); err != nil {
		t.Fatal(err)
	}
	expectSysctls(t, map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "2", "net/ipv4/conf/up0/rp_filter": "1",
		"net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/up0/accept_ra": "1",
	})
	for range 2 {
		if err := forwarding(t, Set, Families{IPv4: true, IPv6: true}); err != nil {
			t.Fatal(err)
		}
		expectSysctls(t, map[string]string{
			"net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/up0/forwarding": "1",
			"net/ipv6/conf/up0/accept_ra": "2", "net/ipv6/conf/up1/accept_ra": "0", "net/ipv6/conf/default/accept_dad": "0",
		})
	}
}

func TestLooseFilterStays(t *testing.T) {
	hostThatDoesNotForward(t)
	setSysctl(t, "net/ipv4/conf/up0/rp_filter", "2")
	if err := forwarding(t, Set, Families{IPv4: true}); err != nil {
		t.Fatal(err)
	}
	expectSysctls(t, map[string]string{"net/ipv4/conf/all/rp_filter": "0"})
	setSysctl(t, "net/ipv4/conf/all/rp_filter", "1") // strict for up1, whose own is 0
	if err := forwarding(t, Set, Families{IPv4: true}); err != nil {
		t.Fatal(err)
	}
	expectSysctls(t, map[string]string{"net/ipv4/conf/all/rp_filter": "2"})
}

func TestForwardingIsChecked(t *testing.T) {
	hostThatDoesNotForward(t)
	both := Families{IPv4: true, IPv6: true}
	err := forwarding(t, Check, both)
	if err == nil {
		t.Fatal("no error")
	}
	for _, words := range []string{
		"net/ipv4/ip_forward is 0 and must be 1", "sysctl -w net/ipv4/ip_forward=1",
		"net/ipv4/conf/all/rp_filter is 0 and must be 2", "sysctl -w net/ipv4/conf/all/rp_filter=2",
		"net/ipv6/conf/all/forwarding is 0 and must be 1", "sysctl -w net/ipv6/conf/all/forwarding=1",
	} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error lacks %q: %v", words, err)
		}
	}
	expectSysctls(t, map[string]string{"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0"})
	if err := forwarding(t, Off, both); err != nil {
		t.Errorf("off: %v", err)
	}
	expectSysctls(t, map[string]string{"net/ipv4/ip_forward": "0"})
	if err := forwarding(t, "maybe", both); err == nil || !strings.Contains(err.Error(), `"maybe"`) {
		t.Errorf("an unknown mode: %v", err)
	}
	if err := forwarding(t, Set, both); err != nil {
		t.Fatal(err)
	}
	if err := forwarding(t, Check, both); err != nil {
		t.Errorf("after set, check says %v", err)
	}
}

// onReadOnlySysctls calls do on a thread of its own, in its own network and
// mount namespaces with /proc/sys read-only; the thread ends with it.
func onReadOnlySysctls(do func() error) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ended <- errors.Join(unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
			unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
			unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
			do())
	}()
	return <-ended
}

func TestReadOnlySysctls(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	err := onReadOnlySysctls(func() error { return forwarding(t, Set, Families{IPv4: true, IPv6: true}) })
	if !errors.Is(err, unix.EROFS) {
		t.Fatalf("not EROFS: %v", err)
	}
	for _, words := range []string{"net/ipv4/ip_forward is 0 and must be 1", "read-only", "sysctl -w net/ipv4/ip_forward=1"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error lacks %q: %v", words, err)
		}
	}
}
