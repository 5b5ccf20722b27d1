package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mode is what Forwarding does about the sysctls.
type Mode string

const (
	Set   Mode = "set"   // make them right
	Check Mode = "check" // refuse if they are not
	Off   Mode = "off"   // nothing: somebody else sees to them
)

// Families are those that the node forwards.
type Families struct{ IPv4, IPv6 bool }

// Forwarding makes or finds the kernel of the calling thread's network
// namespace ready to forward to pods:
//
//   - net.ipv4.ip_forward and net.ipv6.conf.all.forwarding are 1. A host that
//     forwards IPv6 takes no default route from router advertisements unless
//     accept_ra is 2, so the interfaces that take one now are given that
//     first.
//
//   - no interface filters by strict reverse path (rp_filter 1, the larger of
//     the interface's and all's): with two routers, what comes in from one may
//     be answered through the other. Set makes all's 2, loose.
//
//   - with Set, net.ipv6.conf.default.accept_dad is 0. A plugin such as ptp puts
//     the pods' gateway on each new link; while the kernel looks for a duplicate
//     of it, for two seconds, the pod that is Running already can't answer.
//     Links that are there keep their setting. Check does not ask for it.
//
// An error names the sysctl, its value, the one that it needs, and the command
// that sets it.
func Forwarding(ctx context.Context, mode Mode, f Families, log *slog.Logger) error {
	switch mode {
	case Off:
		return nil
	case Set, Check:
		return sysctls{root: "/proc/sys", mode: mode, log: log}.forwarding(ctx, f)
	}
	return fmt.Errorf("forwarding mode %q: use %s, %s or %s", mode, Set, Check, Off)
}

// sysctls is a tree of files, by name with slashes ("net/ipv4/ip_forward"):
// dots also stand in interface names.
type sysctls struct {
	root string
	mode Mode
	log  *slog.Logger
}

func (s sysctls) forwarding(ctx context.Context, f Families) error {
	var errs []error
	if f.IPv4 {
		errs = append(errs, s.need("net/ipv4/ip_forward", 1), s.loosen(ctx))
	}
	if f.IPv6 {
		errs = append(errs, s.forwardIPv6(ctx))
	}
	return errors.Join(errs...)
}

func (s sysctls) forwardIPv6(ctx context.Context) error {
	const forwarding = "net/ipv6/conf/all/forwarding"
	if s.mode == Set {
		if err := s.need("net/ipv6/conf/default/accept_dad", 0); err != nil {
			return err
		}
	}
	if on, err := s.read(forwarding); err != nil {
		return err
	} else if on == 1 {
		return nil
	}
	if s.mode == Set {
		if err := s.keepRouterAdvertisements(ctx); err != nil {
			return err // rather than lose the default route
		}
	}
	return s.need(forwarding, 1)
}

// keepRouterAdvertisements lets the interfaces that obey router
// advertisements go on doing so when the host forwards.
func (s sysctls) keepRouterAdvertisements(ctx context.Context) error {
	return s.interfaces(ctx, "net/ipv6/conf", func(conf string) error {
		forwards, err := s.read(conf + "/forwarding")
		if err != nil || forwards != 0 {
			return err
		}
		accepts, err := s.read(conf + "/accept_ra")
		if err == nil && accepts == 1 {
			err = s.need(conf+"/accept_ra", 2)
		}
		return err
	})
}

func (s sysctls) loosen(ctx context.Context) error {
	const all, strict, loose = "net/ipv4/conf/all/rp_filter", 1, 2
	everywhere, err := s.read(all)
	if err != nil || everywhere == loose {
		return err
	}
	filters := everywhere == strict
	err = s.interfaces(ctx, "net/ipv4/conf", func(conf string) error {
		own, err := s.read(conf + "/rp_filter")
		filters = filters || own == strict
		return err
	})
	if err != nil || !filters {
		return err
	}
	return s.need(all, loose)
}

// interfaces calls do for the folder of each interface but the loopback. One
// that goes away meanwhile is no error.
func (s sysctls) interfaces(ctx context.Context, folder string, do func(conf string) error) error {
	entries, err := os.ReadDir(filepath.Join(s.root, folder))
	if err != nil {
		return fmt.Errorf("list the interfaces' sysctls: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch e.Name() {
		case "all", "default", "lo":
			continue
		}
		if err := do(folder + "/" + e.Name()); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// need makes or finds a sysctl to be value.
func (s sysctls) need(name string, value int) error {
	is, err := s.read(name)
	if err != nil || is == value {
		return err
	}
	way := fmt.Sprintf("run `sysctl -w %s=%d` on the host", name, value)
	if s.mode == Check {
		return fmt.Errorf("sysctl %s is %d and must be %d: %s, or let Fairway set it (mode %q)", name, is, value, way, Set)
	}
	err = os.WriteFile(filepath.Join(s.root, name), []byte(strconv.Itoa(value)), 0)
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("sysctl %s is %d and must be %d, but %s is read-only here (a container that is not privileged?): %s: %w",
			name, is, value, s.root, way, err)
	case err != nil:
		return fmt.Errorf("sysctl %s is %d and must be %d: %s: %w", name, is, value, way, err)
	}
	s.log.Info("set a sysctl", "sysctl", name, "value", value, "was", is)
	return nil
}

func (s sysctls) read(name string) (int, error) {
	text, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		return 0, fmt.Errorf("read sysctl %s: %w", name, err)
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("sysctl %s is %q, not a number: %w", name, text, err)
	}
	return value, nil
}
