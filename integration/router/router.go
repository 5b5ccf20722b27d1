// Package router runs the BGP routers that fabrics are built with, as the peers
// of a speaker under test: FRR, BIRD, OpenBGPD and GoBGP's own daemon, told what
// to do by one Config and asked for their tables in one form. A test that goes
// through all of them says what the speaker does, not what one of its peers makes
// of it.
package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Implementation is one of the routers.
type Implementation string

const (
	FRR      Implementation = "FRR"
	BIRD     Implementation = "BIRD"
	OpenBGPD Implementation = "OpenBGPD"
	GoBGP    Implementation = "GoBGP"
)

// All are the implementations, in the order of a table for people.
func All() []Implementation { return []Implementation{FRR, BIRD, OpenBGPD, GoBGP} }

// Family of prefixes, as the speaker names it.
type Family string

const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// Config is a router and what it speaks. Its zero values are the implementation's
// own defaults, but for these: a router waits to be dialled, and accepts and
// tells everything.
type Config struct {
	// Addresses are what it listens on, and its ends of the sessions: at most one
	// of each family.
	Addresses []netip.Addr
	ASN       uint32
	RouterID  netip.Addr // IPv4; the zero address is 192.0.2.1
	Port      uint16     // to listen on; 0 is 179
	Neighbors []Neighbor
	// Originates are prefixes that it announces as its own.
	Originates []netip.Prefix
	// Loopback says that the sessions run over a loopback interface, on which no
	// neighbor is in a subnet of the router's.
	Loopback bool
	// Extra stands in the file before the neighbors, in the implementation's own
	// language (FRR's is inside of the BGP instance).
	Extra string
}

// Neighbor is what a router speaks with.
type Neighbor struct {
	// Address has a zone where the session is over link-local addresses: the router's
	// interface. FRR and GoBGP are told that alone, and find out the rest.
	Address netip.Addr
	ASN     uint32
	// LocalASN is the router's own towards this neighbor; 0 is Config.ASN.
	LocalASN uint32
	// Families that the session carries; none is that of Address.
	Families []Family
	Port     uint16 // to dial; 0 is 179
	Dials    bool
	Password string
	// Multihop is the TTL for a neighbor that is not directly connected.
	Multihop uint8
	// TTLSecurity is the number of hops of RFC 5082.
	TTLSecurity uint8
	// HoldTime and a third of it for keepalives, in whole seconds.
	HoldTime time.Duration
	// GracefulRestart is how long the router asks its neighbor to keep its routes;
	// FRR and OpenBGPD offer what they do of RFC 4724 without being asked.
	GracefulRestart time.Duration
	// LongLived is for how long after that (RFC 9494), for GoBGP; BIRD helps without being
	// asked, FRR has a word for all neighbors, OpenBGPD does not know it.
	LongLived    time.Duration
	SendPaths    bool // ADD-PATH, RFC 7911
	ReceivePaths bool
	Reflect      bool // it is a route reflector's client, RFC 4456
	// Extra stands among the neighbor's settings, in the implementation's own
	// language; for FRR it follows "neighbor ADDRESS", line by line.
	Extra []string
}

func (n Neighbor) families() []Family {
	if len(n.Families) > 0 {
		return n.Families
	}
	if n.Address.Is4() {
		return []Family{IPv4}
	}
	return []Family{IPv6}
}

// onLinks says whether there is a neighbor on a link without addresses but link-local
// ones.
func (c Config) onLinks() bool {
	return slices.ContainsFunc(c.Neighbors, func(n Neighbor) bool { return n.Address.Zone() != "" })
}

// local is the router's end of the session with n.
func (c Config) local(n Neighbor) netip.Addr {
	for _, a := range c.Addresses {
		if a.Is4() == n.Address.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

func (c Config) routerID() string {
	if c.RouterID.IsValid() {
		return c.RouterID.String()
	}
	return "192.0.2.1"
}

func (c Config) port() uint16 {
	if c.Port == 0 {
		return 179
	}
	return c.Port
}

// Route is a path in a router's table.
type Route struct {
	Prefix    netip.Prefix
	NextHop   netip.Addr
	ASPath    []uint32
	MED       *uint32
	LocalPref *uint32 // nil where the implementation does not show it
	// Communities are written as "64512:1" and "64512:1:2", well-known ones as
	// numbers, too: "65535:0" is graceful shutdown. Sorted.
	Communities      []string
	LargeCommunities []string
	From             netip.Addr // the neighbor; the zero address is the router itself
	Best             bool
	Stale            bool // kept for a graceful restart
}

// State is what a router says of a session.
type State struct {
	Session  string // of RFC 4271 section 8
	ASN      uint32 // the neighbor's
	RouterID netip.Addr
	HoldTime time.Duration // negotiated; 0 if there is no session
	// Said is all that the router says of it, the shutdown communication and the
	// last error among it.
	Said string
}

// Established says whether routes flow.
func (s State) Established() bool { return s.Session == "Established" }

// Host is where a router runs. A lab's node is one.
type Host interface {
	Command(ctx context.Context, argv ...string) *exec.Cmd
}

// Here is the namespaces of the test itself.
type Here struct{}

// Command implements Host.
func (Here) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, argv[0], argv[1:]...)
}

// driver knows one implementation.
type driver interface {
	// programs that it needs, by name or path.
	programs() []string
	// file is the configuration.
	file(c Config, dir string) string
	// daemon runs it in the foreground with the configuration in dir/conf.
	daemon(c Config, dir string) []string
	// control is the command that asks it, less the question.
	control(dir string) []string
	// ready is a question that it answers once it runs.
	ready() []string
	routes(ask asker, f Family) ([]Route, error)
	neighbor(ask asker, a netip.Addr) (State, error)
	// originate announces what the file can't say.
	originate(ask asker, ps []netip.Prefix) error
}

// asker asks a running router with its own command and gives the answer.
type asker func(argv ...string) (string, error)

func driverOf(i Implementation) driver {
	switch i {
	case FRR:
		return frr{}
	case BIRD:
		return bird{}
	case OpenBGPD:
		return openbgpd{}
	case GoBGP:
		return gobgp{}
	}
	return nil
}

// Router is one that runs.
type Router struct {
	Implementation Implementation
	Config         Config
	driver         driver
	host           Host
	dir            string
	stop           context.CancelFunc
	ended          chan struct{}
}

// Need skips the test when it can't run the implementations.
func Need(t testing.TB, list ...Implementation) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: BGP routers run in namespaces")
	}
	for _, i := range list {
		for _, program := range driverOf(i).programs() {
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("%s is not installed: %v", i, err)
			}
		}
	}
}

// startTime bounds the wait for a router to answer its own command.
const startTime = 30 * time.Second

// Start runs a router until the test ends or Kill. It returns once the router
// answers questions. Without the programs the test is skipped.
func Start(t testing.TB, i Implementation, host Host, c Config) *Router {
	t.Helper()
	Need(t, i)
	dir, err := os.MkdirTemp("", "rtr") // short enough for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	r := &Router{Implementation: i, Config: c, driver: driverOf(i), host: host, dir: dir}
	t.Cleanup(func() {
		r.end()
		if t.Failed() {
			t.Logf("log of %s:\n%s", i, r.log())
		}
		_ = os.RemoveAll(dir)
		_ = host.Command(context.Background(), "rm", "-rf", dir).Run() // where it is another directory there
	})
	r.Again(t)
	return r
}

// Again starts a router anew that was killed, with its Config as it is now.
func (r *Router) Again(t testing.TB) {
	t.Helper()
	if err := r.place(`rm -f "$1/ctl"`); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.ended = stop, make(chan struct{})
	log := filepath.Join(r.dir, "log")
	// The shell is replaced by the router, so that the process is the router.
	script := `echo $$ >` + filepath.Join(r.dir, "process") + `; exec "$@" >>` + log + ` 2>&1`
	argv := append([]string{"sh", "-c", script, "sh"}, r.driver.daemon(r.Config, r.dir)...)
	cmd := r.host.Command(ctx, argv...)
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatalf("start %s: %v", r.Implementation, err)
	}
	var died error
	go func() {
		died = cmd.Wait()
		close(r.ended)
	}()
	Await(t, fmt.Sprintf("%s answers", r.Implementation), startTime, func() error {
		select {
		case <-r.ended:
			t.Fatalf("%s ended: %v: %s", r.Implementation, died, r.log())
		default:
		}
		_, err := r.ask(r.driver.ready()...)
		return err
	})
	Await(t, fmt.Sprintf("%s originates its prefixes", r.Implementation), startTime, func() error {
		return r.driver.originate(r.ask, r.Config.Originates) // which may be slow to answer
	})
}

// Configure writes the router's Config as it is now; the router reads it when it
// is told to, or starts.
func (r *Router) Configure(t testing.TB) {
	t.Helper()
	if err := r.place("true"); err != nil {
		t.Fatal(err)
	}
}

// Signal sends the router's process a signal, by its name without the SIG.
func (r *Router) Signal(t testing.TB, name string) {
	t.Helper()
	cmd := r.host.Command(context.Background(), "sh", "-c", `kill -s "$2" "$(cat "$1/process")"`, "sh", r.dir, name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("signal %s for %s: %v: %s", name, r.Implementation, err, out)
	}
}

// place runs a command and writes the configuration where the host sees it.
func (r *Router) place(before string) error {
	script := `mkdir -p "$1" /run/openbgpd && ` + before + ` && umask 077 && cat >"$1/conf"`
	cmd := r.host.Command(context.Background(), "sh", "-c", script, "sh", r.dir)
	cmd.Stdin = strings.NewReader(r.driver.file(r.Config, r.dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("configure %s: %w: %s", r.Implementation, err, out)
	}
	return nil
}

func (r *Router) log() string {
	out, err := r.host.Command(context.Background(), "sh", "-c", `tail -n 200 "$1"/log*`, "sh", r.dir).CombinedOutput()
	return string(out) + errorText(err)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Kill ends the router as a crash does: without a word to its neighbors.
func (r *Router) Kill() { r.end() }

func (r *Router) end() {
	if r.stop != nil {
		r.stop()
		<-r.ended
		r.stop = nil
	}
}

// ask runs the implementation's own command.
func (r *Router) ask(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	full := slices.Concat(r.driver.control(r.dir), argv)
	cmd := r.host.Command(ctx, full...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s", strings.Join(full, " "), err, out.String(), said.String())
	}
	return out.String(), nil
}

// Do runs the implementation's own command (vtysh, birdc, bgpctl, gobgp) with
// arguments and gives what it says.
func (r *Router) Do(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := r.ask(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Routes are all paths of its tables that it learned or originates, by prefix.
func (r *Router) Routes(t testing.TB) []Route {
	t.Helper()
	all, err := r.routes()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (r *Router) routes() ([]Route, error) {
	var all []Route
	for _, f := range []Family{IPv4, IPv6} {
		list, err := r.driver.routes(r.ask, f)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	slices.SortStableFunc(all, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return all, nil
}

// Route is its path of one prefix, the best if there are several, and whether
// there is one.
func (r *Router) Route(t testing.TB, prefix string) (Route, bool) {
	t.Helper()
	var found Route
	ok := false
	for _, route := range r.Routes(t) {
		if route.Prefix.String() == prefix && (!ok || route.Best) {
			found, ok = route, true
		}
	}
	return found, ok
}

// Neighbor is what it says of a session.
func (r *Router) Neighbor(t testing.TB, a netip.Addr) State {
	t.Helper()
	s, err := r.driver.neighbor(r.ask, a)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Has waits until what the router learned is exactly the prefixes.
func (r *Router) Has(t testing.TB, prefixes ...string) {
	t.Helper()
	slices.Sort(prefixes)
	Await(t, fmt.Sprintf("%s has %v", r.Implementation, prefixes), startTime, func() error {
		routes, err := r.routes()
		if err != nil {
			return err // it may be too busy to answer
		}
		var got []string
		for _, route := range routes {
			if route.From.IsValid() {
				got = append(got, route.Prefix.String())
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, prefixes) {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
}

// Await calls check until it returns nil, and fails the test with its last
// error when the time is over.
func Await(t testing.TB, what string, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v in vain for this: %s: %v", limit, what, err)
		}
	}
}

var errNoNeighbor = errors.New("it knows no such neighbor")
