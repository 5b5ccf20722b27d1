package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
)

// attachmentEnv is what a runtime sets for ADD, DEL and CHECK; more replaces
// or adds variables, and an empty value takes one away.
func attachmentEnv(command string, more ...string) []string {
	env := []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=c1", "CNI_NETNS=/run/netns/c1", "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin"}
	for _, m := range more {
		name, value, _ := strings.Cut(m, "=")
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if value != "" {
			env = append(env, m)
		}
	}
	return env
}

// conf is a network configuration with a few keys in place.
func conf(version, ipam, more string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":"net1","type":"ptp","ipMasq":false,"ipam":%s%s}`, version, ipam, more)
}

const plainIPAM = `{"type":"fairway-ipam"}`

// serve returns what the plugin would print, and whether it would fail.
func serve(t *testing.T, h *Handler, env []string, stdin string) (text string, failed bool) {
	t.Helper()
	answer := h.Serve(context.Background(), wire.AppendRequest(nil, env, []byte(stdin)))
	b, failed, ok := wire.SplitAnswer(answer)
	if !ok {
		t.Fatalf("not an answer: %q", answer)
	}
	return string(b), failed
}

// succeed is serve for what must not fail.
func succeed(t *testing.T, h *Handler, env []string, stdin string) string {
	t.Helper()
	text, failed := serve(t, h, env, stdin)
	if failed {
		t.Fatalf("%s: %s", env, text)
	}
	return text
}

// refused is serve for what must fail with code; it returns the whole message.
func refused(t *testing.T, h *Handler, env []string, stdin string, code wire.Code) string {
	t.Helper()
	text, failed := serve(t, h, env, stdin)
	if len(text) >= wire.MaxAnswer {
		t.Fatalf("an answer of %d bytes", len(text))
	}
	var f struct {
		CNIVersion string
		Code       wire.Code
		Msg        string
		Details    string
	}
	if err := json.Unmarshal([]byte(text), &f); err != nil || !failed || f.Code != code || f.Msg == "" || !wire.Supported(f.CNIVersion) {
		t.Fatalf("%v %.200s:\n got %s failed %v (%v)\nwant code %d", env, stdin, text, failed, err, code)
	}
	return f.Msg + "; " + f.Details
}

func TestAddPrintsAResultInTheVersionAskedFor(t *testing.T) {
	for _, c := range []struct{ name, version, ipam, want string }{
		{"pool default", "1.1.0", plainIPAM,
			`{"cniVersion":"1.1.0","ips":[{"address":"10.244.120.7/24","gateway":"10.244.120.1"}],"routes":[{"dst":"0.0.0.0/0"}]}`},
		{"1.0.0", "1.0.0", plainIPAM,
			`{"cniVersion":"1.0.0","ips":[{"address":"10.244.120.7/24","gateway":"10.244.120.1"}],"routes":[{"dst":"0.0.0.0/0"}]}`},
		{"0.4.0", "0.4.0", plainIPAM,
			`{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.244.120.7/24","gateway":"10.244.120.1"}],"routes":[{"dst":"0.0.0.0/0"}]}`},
		{"dual-stack", "1.0.0", `{"type":"fairway-ipam","pool":"dual"}`,
			`{"cniVersion":"1.0.0","ips":[{"address":"10.244.120.20/24","gateway":"10.244.120.1"},{"address":"fd00:10:244::7/128","gateway":"fe80::1"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}`},
		{"dual-stack 0.4.0", "0.4.0", `{"type":"fairway-ipam","pool":"dual"}`,
			`{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.244.120.20/24","gateway":"10.244.120.1"},{"version":"6","address":"fd00:10:244::7/128","gateway":"fe80::1"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}`},
		{"no gateway, no default route", "1.1.0", `{"pool":"flat"}`,
			`{"cniVersion":"1.1.0","ips":[{"address":"192.0.2.9/32"}],"routes":[]}`},
		{"own routes", "1.1.0", `{"pool":"dual","routes":[{"dst":"10.0.0.0/8","gw":"10.244.120.1","mtu":1400,"advmss":1300,"priority":5,"table":0,"scope":253},{"dst":"fd00::/8"}],"range":{"x":1}}`,
			`{"cniVersion":"1.1.0","ips":[{"address":"10.244.120.20/24","gateway":"10.244.120.1"},{"address":"fd00:10:244::7/128","gateway":"fe80::1"}],"routes":[{"dst":"10.0.0.0/8","gw":"10.244.120.1","mtu":1400,"advmss":1300,"priority":5,"table":0,"scope":253},{"dst":"fd00::/8"}]}`},
		{"own routes of another family", "1.1.0", `{"pool":"v6","routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}`,
			`{"cniVersion":"1.1.0","ips":[{"address":"fd00:10:244::7/128","gateway":"fe80::1"}],"routes":[{"dst":"::/0"}]}`},
		{"no route at all", "1.1.0", `{"routes":[],"pool":""}`,
			`{"cniVersion":"1.1.0","ips":[{"address":"10.244.120.7/24","gateway":"10.244.120.1"}],"routes":[]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &Handler{Leases: newDesk()}
			for range 2 { // the second time the section comes out of the cache and the address is the same
				got := succeed(t, h, attachmentEnv("ADD"), conf(c.version, c.ipam, ""))
				if got != c.want+"\n" {
					t.Fatalf("\n got %s\nwant %s", got, c.want)
				}
				result, err := create.CreateFromBytes([]byte(got))
				if err != nil {
					t.Fatalf("the CNI library refuses it: %v", err)
				}
				if _, err := result.GetAsVersion("1.0.0"); err != nil || result.Version() != c.version {
					t.Fatalf("the CNI library takes it for %s: %v", result.Version(), err)
				}
			}
		})
	}
}

func TestLeaseNamesThePodAndTheAttachment(t *testing.T) {
	d := newDesk()
	h := &Handler{Leases: d}
	args := "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=6b1c-2;X=y"
	succeed(t, h, attachmentEnv("ADD", args), conf("1.0.0", plainIPAM, ""))
	want := pools.Owner{Attachment: pools.Attachment{Network: "net1", ContainerID: "c1", IfName: "eth0"}, PodUID: "6b1c-2", Namespace: "shop", Pod: "web-0"}
	if len(d.leases) != 1 || d.leases[0].Owner != want {
		t.Fatalf("leases %v, want one of %v", d.leases, want)
	}
	if msg := refused(t, h, attachmentEnv("DEL", "CNI_ARGS=K8S_POD_UID=other"), conf("1.0.0", plainIPAM, ""), wire.NotOwner); !strings.Contains(msg, "10.244.120.7") {
		t.Error(msg)
	}
	if len(d.leases) != 1 {
		t.Fatal("another pod's DEL released the lease")
	}
}

func TestDelReleasesOnceAndSucceedsAlways(t *testing.T) {
	d := newDesk()
	h := &Handler{Leases: d}
	succeed(t, h, attachmentEnv("ADD"), conf("1.0.0", plainIPAM, ""))
	succeed(t, h, attachmentEnv("ADD", "CNI_IFNAME=eth1"), conf("1.0.0", plainIPAM, ""))
	for range 2 {
		if got := succeed(t, h, attachmentEnv("DEL", "CNI_NETNS="), conf("1.0.0", plainIPAM, `,"prevResult":{"ips":7}`)); got != "" {
			t.Errorf("DEL printed %q", got)
		}
		if len(d.leases) != 1 || d.leases[0].Owner.IfName != "eth1" {
			t.Fatalf("left are %v", d.leases)
		}
	}
	// What ADD refused is deleted all the same.
	for _, stdin := range []string{conf("0.4.0", `{"pool":"gone"}`, ""), conf("1.1.0", `{"pool":7}`, ""), conf("1.1.0", `null`, "")} {
		succeed(t, h, attachmentEnv("DEL"), stdin)
	}
	succeed(t, h, attachmentEnv("DEL", "CNI_ARGS=A=B=C", "CNI_IFNAME=eth1"), conf("1.0.0", plainIPAM, ""))
	if len(d.leases) != 0 {
		t.Errorf("left are %v", d.leases)
	}
}

func TestChosenAddresses(t *testing.T) {
	for _, c := range []struct{ name, args, more, want string }{
		{"CNI_ARGS", "IP=10.244.120.8", "", "10.244.120.8/24"},
		{"capability", "", `,"runtimeConfig":{"ips":["10.244.120.8/16"],"portMappings":[]}`, "10.244.120.8/24"},
		{"args", "", `,"args":{"cni":{"ips":["10.244.120.8"]}}`, "10.244.120.8/24"},
		{"same twice", "IP=10.244.120.8", `,"runtimeConfig":{"ips":["10.244.120.8","fd00::1"]}`, "10.244.120.8/24"},
		{"none", "IP=", `,"runtimeConfig":{"ips":null},"args":null`, "10.244.120.7/24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := succeed(t, &Handler{Leases: newDesk()}, attachmentEnv("ADD", "CNI_ARGS="+c.args), conf("1.0.0", plainIPAM, c.more))
			if !strings.Contains(got, `"`+c.want+`"`) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestCheckHoldsTheLeasesAgainstThePreviousResult(t *testing.T) {
	prev := func(addrs ...string) string {
		var ips []string
		for _, a := range addrs {
			ips = append(ips, fmt.Sprintf(`{"address":%q,"interface":1}`, a))
		}
		return `,"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"}],"ips":[` + strings.Join(ips, ",") + `]}`
	}
	h := &Handler{Leases: newDesk()}
	dual := `{"type":"fairway-ipam","pool":"dual"}`
	refused(t, h, attachmentEnv("CHECK"), conf("1.0.0", dual, prev("10.244.120.20/24")), wire.CheckFailed)
	succeed(t, h, attachmentEnv("ADD"), conf("1.0.0", dual, ""))
	for _, version := range wire.Versions() {
		succeed(t, h, attachmentEnv("CHECK"), conf(version, dual, prev("10.244.120.20/24", "fd00:10:244::7/128", "192.0.2.1/24")))
	}
	for want, more := range map[string]string{
		"10.244.120.20 of pool dual":  prev("10.244.120.21/24", "fd00:10:244::7/128"),
		"fd00:10:244::7 of pool dual": prev("10.244.120.20/24"),
	} {
		if msg := refused(t, h, attachmentEnv("CHECK"), conf("1.0.0", dual, more), wire.CheckFailed); !strings.Contains(msg, want) {
			t.Errorf("%q does not name %q", msg, want)
		}
	}
	// A plugin after ours may add addresses, of a family that our pool has not
	// too.
	succeed(t, h, attachmentEnv("ADD", "CNI_CONTAINERID=c2"), conf("1.0.0", `{"pool":"v4"}`, ""))
	succeed(t, h, attachmentEnv("CHECK", "CNI_CONTAINERID=c2"), conf("1.0.0", `{"pool":"v4"}`, prev("10.244.120.30/24", "2001:db8::1/64")))
	refused(t, h, attachmentEnv("CHECK", "CNI_IFNAME=eth1"), conf("1.0.0", dual, prev("10.244.120.20/24")), wire.CheckFailed)
	refused(t, h, attachmentEnv("CHECK"), conf("1.0.0", dual, ""), wire.InvalidNetworkConfig)
	refused(t, h, attachmentEnv("CHECK"), conf("1.0.0", dual, prev("10.244.120.20")), wire.DecodingFailure)
	refused(t, h, attachmentEnv("CHECK"), conf("1.0.0", dual, `,"prevResult":{"ips":{}}`), wire.DecodingFailure)
}

func TestGCReleasesWhatIsNotListed(t *testing.T) {
	d := newDesk()
	h := &Handler{Leases: d}
	env := []string{"CNI_COMMAND=GC", "CNI_PATH=/opt/cni/bin"}
	succeed(t, h, attachmentEnv("ADD"), conf("1.1.0", plainIPAM, ""))
	succeed(t, h, attachmentEnv("ADD", "CNI_CONTAINERID=c2"), conf("1.1.0", plainIPAM, ""))
	for _, more := range []string{"", `,"cni.dev/valid-attachments":[{"containerID":"c1"}]`} {
		refused(t, h, env, conf("1.1.0", plainIPAM, more), wire.InvalidNetworkConfig)
	}
	refused(t, h, env, conf("1.1.0", plainIPAM, `,"cni.dev/valid-attachments":{}`), wire.DecodingFailure)
	refused(t, h, env, conf("1.0.0", plainIPAM, ""), wire.IncompatibleVersion)
	refused(t, h, env[:1], conf("1.1.0", plainIPAM, `,"cni.dev/valid-attachments":[]`), wire.InvalidEnvironment)
	if len(d.leases) != 2 {
		t.Fatalf("a refused GC released: left are %v", d.leases)
	}
	succeed(t, h, env, conf("1.1.0", plainIPAM, `,"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}]`))
	if len(d.leases) != 1 || d.leases[0].Owner.ContainerID != "c2" {
		t.Fatalf("left are %v", d.leases)
	}
	succeed(t, h, env, conf("1.1.0", plainIPAM, `,"cni.dev/valid-attachments":null`))
	if len(d.leases) != 0 {
		t.Fatalf("left are %v", d.leases)
	}
}

func TestStatusAndVersion(t *testing.T) {
	d := newDesk()
	h := &Handler{Leases: d}
	env := []string{"CNI_COMMAND=STATUS"}
	if got := succeed(t, h, env, conf("1.1.0", plainIPAM, "")); got != "" {
		t.Errorf("STATUS printed %q", got)
	}
	refused(t, h, env, conf("1.0.0", plainIPAM, ""), wire.IncompatibleVersion)
	d.unfit = errors.New("the kernel's table is not restored yet")
	if msg := refused(t, h, env, conf("1.1.0", plainIPAM, ""), wire.NotAvailable); !strings.Contains(msg, "not restored") {
		t.Error(msg)
	}
	d.unfit = nil
	msg := refused(t, h, env, conf("1.1.0", `{"type":"fairway-ipam","pool":"gone"}`, ""), wire.NotAvailable)
	if !strings.Contains(msg, `"gone"`) || !strings.Contains(msg, "ipam.pool") {
		t.Error(msg)
	}
	want := `{"cniVersion":"0.4.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}` + "\n"
	if got := succeed(t, h, []string{"CNI_COMMAND=VERSION"}, `{"cniVersion":"0.4.0"}`); got != want {
		t.Error(got)
	}
}

func TestBadInputIsRefusedByNameAndChangesNothing(t *testing.T) {
	good := conf("1.0.0", plainIPAM, "")
	long := strings.Repeat("a", 300)
	for _, c := range []struct {
		name  string
		env   []string
		stdin string
		code  wire.Code
		says  string
	}{
		{"no command", []string{"CNI_X=1"}, good, 4, "CNI_COMMAND"},
		{"unknown command", attachmentEnv("add"), good, 4, `"add"`},
		{"no container", attachmentEnv("ADD", "CNI_CONTAINERID="), good, 4, "CNI_CONTAINERID"},
		{"all missing", []string{"CNI_COMMAND=ADD"}, good, 4, "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"},
		{"no netns", attachmentEnv("ADD", "CNI_NETNS="), good, 4, "CNI_NETNS"},
		{"CHECK without netns", attachmentEnv("CHECK", "CNI_NETNS="), good, 4, "CNI_NETNS"},
		{"DEL without interface", attachmentEnv("DEL", "CNI_IFNAME="), good, 4, "CNI_IFNAME"},
		{"container ID with slash", attachmentEnv("ADD", "CNI_CONTAINERID=../x"), good, 4, `"../x"`},
		{"container ID too long", attachmentEnv("DEL", "CNI_CONTAINERID="+long), good, 4, "CNI_CONTAINERID"},
		{"interface dots", attachmentEnv("ADD", "CNI_IFNAME=.."), good, 4, "CNI_IFNAME"},
		{"interface too long", attachmentEnv("ADD", "CNI_IFNAME=abcdefghijklmnop"), good, 4, "CNI_IFNAME"},
		{"interface with space", attachmentEnv("ADD", "CNI_IFNAME=a\u2003b"), good, 4, "CNI_IFNAME"},
		{"args no pair", attachmentEnv("ADD", "CNI_ARGS=abc"), good, 4, `"abc"`},
		{"args empty pair", attachmentEnv("ADD", "CNI_ARGS=IP=;"), good, 4, "CNI_ARGS"},
		{"args two equals", attachmentEnv("ADD", "CNI_ARGS=A=B=C"), good, 4, `"A=B=C"`},
		{"args unknown", attachmentEnv("ADD", "CNI_ARGS=COLOUR=red"), good, 4, `"COLOUR"`},
		{"args unknown, not ignored", attachmentEnv("ADD", "CNI_ARGS=IgnoreUnknown=0;COLOUR=red"), good, 4, `"COLOUR"`},
		{"args IgnoreUnknown", attachmentEnv("ADD", "CNI_ARGS=IgnoreUnknown=yes"), good, 4, `"yes"`},
		{"args pod name", attachmentEnv("ADD", "CNI_ARGS=K8S_POD_NAME=a b"), good, 4, `"a b"`},
		{"args IP", attachmentEnv("ADD", "CNI_ARGS=IP=10.0.0.256"), good, 7, "10.0.0.256"},
		{"two IPs", attachmentEnv("ADD", "CNI_ARGS=IP=10.0.0.1"), conf("1.0.0", plainIPAM, `,"runtimeConfig":{"ips":["10.0.0.2"]}`), 7, "10.0.0.2"},
		{"ips no list", attachmentEnv("ADD"), conf("1.0.0", plainIPAM, `,"runtimeConfig":{"ips":"10.0.0.2"}`), 6, "ips"},
		{"ips zone", attachmentEnv("ADD"), conf("1.0.0", plainIPAM, `,"args":{"cni":{"ips":["fe80::1%eth0"]}}`), 7, "fe80::1%eth0"},
		{"empty", attachmentEnv("ADD"), "", 6, "JSON"},
		{"garbage", attachmentEnv("DEL"), "\x00\xff\x01garbage", 6, "JSON"},
		{"truncated", attachmentEnv("ADD"), good[:len(good)-1], 6, "unexpected end"},
		{"no object", attachmentEnv("ADD"), `["cniVersion"]`, 6, "JSON"},
		{"two objects", attachmentEnv("ADD"), good + good, 6, "after top-level value"},
		{"deep", attachmentEnv("ADD"), `{"a":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000) + "}", 6, "JSON"},
		{"deep, but not for everybody", attachmentEnv("ADD"), `{"a":` + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + "}", 6, "too deep"},
		{"huge", attachmentEnv("ADD"), conf("1.0.0", plainIPAM, `,"a":"`+strings.Repeat("a", 1<<20)+`"`), 6, "1 MiB"},
		{"no version", attachmentEnv("ADD"), `{"name":"net1","ipam":{}}`, 1, `""`},
		{"old version", attachmentEnv("ADD"), conf("0.3.1", plainIPAM, ""), 1, `"0.3.1"`},
		{"new version", attachmentEnv("DEL"), conf("2.0.0", plainIPAM, ""), 1, "1.1.0"},
		{"version no string", attachmentEnv("ADD"), `{"cniVersion":1.0}`, 6, "cniVersion"},
		{"name no string", attachmentEnv("ADD"), `{"cniVersion":"1.0.0","name":{}}`, 6, "name"},
		{"no name", attachmentEnv("ADD"), `{"cniVersion":"1.0.0","ipam":{}}`, 7, "name"},
		{"bad name", attachmentEnv("ADD"), `{"cniVersion":"1.0.0","name":"a/b","ipam":{}}`, 7, `"a/b"`},
		{"no ipam", attachmentEnv("ADD"), `{"cniVersion":"1.0.0","name":"net1"}`, 7, "ipam"},
		{"ipam no object", attachmentEnv("ADD"), conf("1.0.0", `"fairway-ipam"`, ""), 6, "ipam"},
		{"pool no string", attachmentEnv("ADD"), conf("1.0.0", `{"pool":["web"]}`, ""), 6, "ipam.pool"},
		{"socket no string", attachmentEnv("ADD"), conf("1.0.0", `{"socket":7}`, ""), 6, "ipam.socket"},
		{"routes no list", attachmentEnv("ADD"), conf("1.0.0", `{"routes":{}}`, ""), 6, "ipam.routes"},
		{"route no CIDR", attachmentEnv("ADD"), conf("1.0.0", `{"routes":[{"dst":"10.0.0.0/8"},{"dst":"10.0.0.0"}]}`, ""), 7, "ipam.routes[1]"},
		{"route host bits", attachmentEnv("ADD"), conf("1.0.0", `{"routes":[{"dst":"10.0.0.1/8"}]}`, ""), 7, "10.0.0.0/8"},
		{"route gateway", attachmentEnv("ADD"), conf("1.0.0", `{"routes":[{"dst":"::/0","gw":"10.0.0.1"}]}`, ""), 7, "family"},
		{"too many routes", attachmentEnv("ADD"), conf("1.0.0", `{"routes":[{}`+strings.Repeat(",{}", maxRoutes)+`]}`, ""), 7, "256"},
		{"ips huge", attachmentEnv("ADD"), conf("1.0.0", plainIPAM, `,"runtimeConfig":{"ips":["`+strings.Repeat("\\u0001", 150_000)+`"]}`), 7, "ips"},
		{"route mtu", attachmentEnv("ADD"), conf("1.0.0", `{"routes":[{"dst":"::/0","mtu":-1}]}`, ""), 6, "mtu"},
		{"unknown pool", attachmentEnv("ADD"), conf("1.0.0", `{"pool":"web"}`, ""), 7, `"web"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk()
			if msg := refused(t, &Handler{Leases: d}, c.env, c.stdin, c.code); !strings.Contains(msg, c.says) {
				t.Errorf("%q does not say %q", msg, c.says)
			}
			if len(d.leases) != 0 {
				t.Errorf("leased %v", d.leases)
			}
		})
	}
}

func TestExhaustedPoolMayBeTriedAgain(t *testing.T) {
	h := &Handler{Leases: newDesk()}
	for _, id := range []string{"a", "b"} {
		succeed(t, h, attachmentEnv("ADD", "CNI_CONTAINERID="+id), conf("1.0.0", plainIPAM, ""))
	}
	if msg := refused(t, h, attachmentEnv("ADD"), conf("1.0.0", plainIPAM, ""), wire.TryAgainLater); !strings.Contains(msg, `pool "default": all of its 2 addresses are in use`) {
		t.Error(msg)
	}
}

func TestAgentThatStopsGivesNoAnswer(t *testing.T) {
	h := &Handler{Leases: newDesk()}
	if got := h.Serve(canceled(t), wire.AppendRequest(nil, attachmentEnv("ADD"), []byte(conf("1.0.0", plainIPAM, "")))); got != nil {
		t.Errorf("a request that was cancelled was answered: %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if got := h.Serve(ctx, wire.AppendRequest(nil, attachmentEnv("ADD"), []byte(conf("1.0.0", plainIPAM, "")))); !strings.Contains(string(got), `"code":11`) {
		t.Errorf("a request that took too long was answered by %q", got)
	}
}

// failing refuses every lease.
type failing struct {
	Leases
	err error
}

func (f failing) Lease(context.Context, pools.Request) (Grant, error) { return Grant{}, f.err }

// Only a request's own cancellation hangs up. To hang up on any other error
// would have the plugin lease what the agent just refused.
func TestOtherCancellationsAreAnswered(t *testing.T) {
	live, stopping := t.Context(), canceled(t)
	overtaken := errors.New("overtaken by a release of the same interface")
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want string
	}{
		{"overtaken", live, overtaken, `"code":999`},
		{"overtaken, then the agent stops", stopping, overtaken, `"code":999`},
		{"exhausted, then the agent stops", stopping, pools.ErrExhausted, `"code":11`},
		{"something else was cancelled", live, fmt.Errorf("claim: %w", context.Canceled), `"code":11`},
		{"the agent stops", stopping, fmt.Errorf("claim: %w", context.Canceled), ""},
	} {
		h := &Handler{Leases: failing{err: c.err}}
		got := string(h.Serve(c.ctx, wire.AppendRequest(nil, attachmentEnv("ADD"), []byte(conf("1.0.0", plainIPAM, "")))))
		if !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: answered %q, want %s", c.name, got, c.want)
		}
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestErrorsOfLeasesHaveCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want wire.Code
	}{
		{pools.ErrNoFree, 11}, {pools.ErrExhausted, 11}, {pools.ErrTaken, 11}, {pools.ErrOutside, 7}, {pools.ErrUnknownPool, 7},
		{pools.ErrNotOwner, 100}, {context.DeadlineExceeded, 11}, {errors.New("no such thing"), 999},
		{pools.ErrBlockExists, 11}, {pools.ErrMismatch, 7},
		{fmt.Errorf("%w: journal: no space left on device", ErrTryAgain), 11},
		{fmt.Errorf("not announced: %w: %w", ErrTryAgain, pools.ErrUnknownPool), 11},
	} {
		if f := faultOf(fmt.Errorf("pool x: %w", c.err)); f.Code != c.want || !strings.HasPrefix(f.Msg, "pool x: ") {
			t.Errorf("%v: %+v, want code %d", c.err, f, c.want)
		}
	}
}

func TestSettingsCacheIsBounded(t *testing.T) {
	var c settingsCache
	for i := range 10 * maxCached {
		s, err := c.of([]byte(fmt.Sprintf(`{"pool":"p%d"}`, i)))
		if err != nil || s.pool != fmt.Sprintf("p%d", i) {
			t.Fatal(s, err)
		}
	}
	if _, err := c.of([]byte(`{"pool":"big","x":"` + strings.Repeat("x", maxCachedSize) + `"}`)); err != nil || len(c.parsed) > maxCached {
		t.Errorf("%d sections are kept: %v", len(c.parsed), err)
	}
}

// FuzzServe: whatever comes in, the answer is whole and decodable, and what
// fails says so in a known version.
func FuzzServe(f *testing.F) {
	for _, stdin := range []string{conf("1.0.0", plainIPAM, ""), conf("0.4.0", `{"pool":"dual","routes":[{"dst":"::/0","gw":"fe80::1"}]}`, ""),
		conf("1.1.0", plainIPAM, `,"runtimeConfig":{"ips":["10.244.120.8"]},"args":{"cni":{"ips":["fd00::1/64"]}}`),
		conf("1.1.0", plainIPAM, `,"prevResult":{"ips":[{"address":"10.244.120.7/24"}]},"cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}]`), "{", ""} {
		for _, command := range []string{"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"} {
			f.Add(wire.AppendRequest(nil, attachmentEnv(command, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=a;IP=10.244.120.8"), []byte(stdin)))
		}
	}
	f.Add([]byte("CNI_COMMAND=ADD"))
	f.Fuzz(func(t *testing.T, request []byte) {
		h := &Handler{Leases: newDesk()}
		text, failed, ok := wire.SplitAnswer(h.Serve(context.Background(), request))
		if !ok || len(text) >= wire.MaxAnswer {
			t.Fatalf("no whole answer: %q", text)
		}
		var got struct {
			CNIVersion string
			Code       int
			Msg        string
		}
		if len(text) > 0 || failed {
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
		if failed != (got.Code != 0) || failed && (!wire.Supported(got.CNIVersion) || got.Msg == "") {
			t.Fatalf("failed %v: %q", failed, text)
		}
		if !failed && got.CNIVersion != "" && strings.Contains(string(text), `"ips"`) {
			if _, err := create.CreateFromBytes(text); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
	})
}

// BenchmarkServe is the cost of the translation alone. Nothing is leased: the
// agent's own benchmark has the desk and the journal in it.
func BenchmarkServe(b *testing.B) {
	stdin := conf("1.0.0", `{"type":"fairway-ipam","pool":"web"}`, `,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"tcp"}]}`)
	prev := `,"prevResult":{"cniVersion":"1.0.0","dns":{},"interfaces":[{"name":"veth1","mac":"0a:00:00:00:00:01"},{"name":"eth0","mac":"0a:00:00:00:00:02","sandbox":"/run/netns/c1"}],"ips":[{"address":"10.244.120.7/24","gateway":"10.244.120.1","interface":1}],"routes":[{"dst":"0.0.0.0/0"}]}}`
	args := "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=0e3fd6f2-6b1c-4f4e-9d4f-6a4c1b8d2f10"
	for _, c := range []struct{ command, stdin string }{{"ADD", stdin}, {"DEL", stdin[:len(stdin)-1] + prev}} {
		b.Run(c.command, func(b *testing.B) {
			h := &Handler{Leases: stamp{grant: Grant{Addresses: newDesk().pools["dual"]}}}
			request := wire.AppendRequest(nil, attachmentEnv(c.command, args), []byte(c.stdin))
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if a := h.Serve(ctx, request); a[len(a)-1] != 0 {
					b.Fatalf("%s", a)
				}
			}
		})
	}
}

// stamp grants everybody the same.
type stamp struct {
	Leases
	grant Grant
}

func (s stamp) Lease(context.Context, pools.Request) (Grant, error) { return s.grant, nil }

func (s stamp) Release(context.Context, pools.Owner) error { return nil }
