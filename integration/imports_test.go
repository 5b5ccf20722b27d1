// Package integration holds tests of the parts put together, and the labs
// that they run in.
package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fairway-network/fairway"

// room is what the packages of a room may import beside the standard library.
// A path that ends in "/..." stands for all below it as well; one without a
// dot in its first element is ours.
type room struct {
	path    string
	imports []string
	tests   []string // by its tests, too
}

// rooms is the import table of the design. The longest path that fits a
// package is its room; a package that fits none needs a row here.
func rooms() []room {
	const (
		gobgp   = "github.com/osrg/gobgp/v3/..."
		netlink = "github.com/vishvananda/netlink/..."
		netns   = "github.com/vishvananda/netns"
		cni     = "github.com/containernetworking/cni/..."
		sys     = "golang.org/x/sys/unix"
		netipx  = "go4.org/netipx"
		machine = "k8s.io/apimachinery/..."
		client  = "k8s.io/client-go/..."
		kinds   = "k8s.io/api/..."
		lab     = "integration/lab/..."
	)
	return []room{
		{"api/...", []string{machine}, nil},
		{"pools", []string{netipx}, []string{"pools/..."}},
		{"pools/exchange/...", []string{"pools", netipx}, []string{"pools/..."}},
		{"pools/storetest", []string{"pools", "pools/exchange", netipx}, nil},
		{"pools/embedded", []string{"pools", "pools/exchange", "internal/lockfile", "go.etcd.io/bbolt"}, []string{"pools/storetest", netipx, sys}},
		{"pools/kube", []string{"pools", "pools/exchange", "api/...", netipx, machine, client, kinds, "github.com/go-logr/logr"}, []string{"pools/storetest", "integration/kube"}},
		{"routes", nil, []string{"routes"}},
		{"routes/kernel", []string{"routes", netlink, netns, sys}, []string{"internal/namespace"}},
		{"routes/vpc", []string{"routes"}, []string{"routes/..."}},
		{"discovery", []string{sys}, nil},
		{"speaker", []string{"internal/deadline", "internal/nonblocking"}, nil},
		{"speaker/server", []string{"speaker", "routes", "internal/deadline", "internal/nonblocking", "discovery", gobgp, "google.golang.org/grpc/...", "google.golang.org/protobuf/..."}, []string{"integration/interop", "integration/router", "internal/namespace", netlink, netns, sys}},
		{"config/...", []string{
			"config/...", "pools", netipx, "github.com/spf13/viper", "github.com/go-viper/mapstructure/v2",
			"github.com/fsnotify/fsnotify", "go.yaml.in/yaml/v3",
		}, nil},
		{"bfd", []string{sys}, []string{"integration/interop", "integration/router", "internal/namespace"}},
		{"agent", []string{"agent/...", "pools", "pools/exchange", "routes", "speaker", "bfd", "internal/lockfile", netipx, sys, "github.com/prometheus/client_golang/...", "github.com/prometheus/common/expfmt"}, []string{"pools/...", cni, netlink, netns}},
		{"agent/choice", []string{"pools", "k8s.io/apimachinery/pkg/labels"}, []string{"k8s.io/apimachinery/..."}},
		{"agent/cluster", []string{"agent", "agent/choice", "agent/cni", "api/...", "pools", "pools/exchange", "pools/kube", machine},
			[]string{"agent/...", "integration/kube", "routes", "speaker", client, kinds}},
		{"agent/cni", []string{"agent/wire", "pools"}, []string{cni, netns, netlink, sys}},
		{"agent/journal", []string{"pools"}, []string{sys}},
		{"agent/wire", nil, []string{"agent/wire"}},
		{"agent/wire/wiretest", []string{"agent/wire"}, nil},
		{"controller/...", []string{"controller/...", "pools/...", "api/...", "routes/vpc/...", "routes", netipx, machine, client, kinds, "sigs.k8s.io/controller-runtime/..."}, []string{"integration/kube"}},
		{"internal/...", []string{"internal/...", sys}, nil},
		{"cmd/fairway-controller", []string{"controller", "github.com/spf13/cobra", client, "k8s.io/klog/v2"}, nil},
		{"cmd/fairway", []string{
			"agent/...", "api/...", "config", "pools/...", "routes/...", "speaker", "internal/...",
			"github.com/spf13/cobra", machine, client, kinds, sys, "k8s.io/klog/v2",
		}, []string{lab, sys, netns, cni}},
		{"cmd/fairway-speaker", []string{"routes/kernel", "speaker/server"}, nil},
		{"cmd/fairway-ipam", []string{"agent/wire"}, nil},
		{"integration/...", []string{
			"agent/...", "api/...", "config", "pools/...", "routes/...", "speaker", "integration/...", "internal/namespace",
			netlink, netns, sys, cni, "go.yaml.in/yaml/v3", machine, client, kinds,
		}, []string{gobgp, netipx, "speaker/server", "controller"}},
		{"scripts/...", nil, nil},
	}
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath                               string
	Imports, TestImports, XTestImports, Deps []string
}

func listed(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps"}, patterns...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("needs the go command")
	}
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var list []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		list = append(list, p)
	}
}

// short is the name of a package in the table.
func short(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

// standard says whether a package is of the standard library: those have no
// dot in their first element.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func fits(name, pattern string) bool {
	above, wide := strings.CutSuffix(pattern, "/...")
	return name == above || wide && strings.HasPrefix(name, above+"/")
}

// roomOf returns the room of a package.
func roomOf(name string) (best room, ok bool) {
	for _, r := range rooms() {
		if fits(name, r.path) && len(r.path) > len(best.path) {
			best, ok = r, true
		}
	}
	return best, ok
}

func TestImportsGoOneWay(t *testing.T) {
	for _, p := range listed(t, module+"/...") {
		name := short(p.ImportPath)
		r, ok := roomOf(name)
		if !ok {
			t.Errorf("package %s has no room: give it a row in the table, or a better place", name)
			continue
		}
		forbid(t, name, p.Imports, r.imports)
		forTests := slices.Concat(r.imports, r.tests, []string{name})
		forbid(t, name+" (test)", p.TestImports, forTests)
		forbid(t, name+" (test)", p.XTestImports, forTests)
	}
}

func forbid(t *testing.T, name string, imports, allowed []string) {
	t.Helper()
	for _, i := range imports {
		if !standard(i) && !slices.ContainsFunc(allowed, func(a string) bool { return fits(short(i), a) }) {
			t.Errorf("%s imports %s; its room may import the standard library and %v", name, short(i), allowed)
		}
	}
}

// What the plugin links runs at its start, for each pod: it may link what the
// runtime and the syscall package need anyway, and the wire format.
func TestImportsOfThePlugin(t *testing.T) {
	linked := listed(t, module+"/cmd/fairway-ipam")[0].Deps
	for _, name := range linked {
		switch first, _, _ := strings.Cut(name, "/"); {
		case first == "internal", short(name) == "agent/wire":
		case slices.Contains([]string{"runtime", "syscall", "unsafe", "errors", "cmp", "iter", "slices", "sync", "sync/atomic", "math/bits"}, name):
		default:
			t.Errorf("cmd/fairway-ipam links %s", short(name))
		}
	}
}

// What the agent links runs at its start, before a pod can have an address: BGP has a
// program of its own.
func TestImportsOfTheAgent(t *testing.T) {
	for _, name := range listed(t, module+"/cmd/fairway")[0].Deps {
		for _, far := range []string{"speaker/server", "github.com/osrg/gobgp/v3/...", "google.golang.org/grpc/..."} {
			if fits(short(name), far) {
				t.Errorf("cmd/fairway links %s", short(name))
			}
		}
	}
}

// The pure core is told the time and the randomness, and knows no file and no
// socket.
func TestImportsOfTheCore(t *testing.T) {
	outside := []string{"crypto/rand", "log", "log/slog", "math/rand", "math/rand/v2", "net", "net/http", "os", "os/exec", "syscall"}
	for _, p := range listed(t, module+"/pools", module+"/routes") {
		for _, name := range p.Imports {
			if slices.Contains(outside, name) {
				t.Errorf("%s imports %s", short(p.ImportPath), name)
			}
		}
	}
}
