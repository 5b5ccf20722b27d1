package kubeapi

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ranges tries ranges that are right and wrong against the core, which has the
// last word on them: what the API server refuses is wrong there, and what it
// takes is right.
func ranges(t *testing.T, s *stage) {
	random := rand.New(rand.NewPCG(1, 2))
	var right, wrong int
	for range 400 {
		text := randomRange(random)
		r, err := pools.ParseRange(text)
		if err == nil {
			_, err = pools.New(pools.Definition{Name: "web", Ranges: []netipx.IPRange{r}, BlockSize: 1})
		}
		// A single address has none left for the gateway, and a range with
		// reserved addresses in its middle is the controller's to refuse.
		if err != nil && (strings.Contains(err.Error(), "is the pods' gateway") || strings.Contains(text, "-") && strings.Contains(err.Error(), "no pod can have")) {
			continue
		}
		answer := s.dryRun(t.Context(), step{admin, "create", "AddressPool", "web", fmt.Sprintf("{addresses: [%q]}", text)})
		if (answer == taken) != (err == nil) {
			t.Errorf("range %s: the API server says %q, the core %v", text, answer, err)
		}
		if err == nil {
			right++
		} else {
			wrong++
		}
	}
	if right < 50 || wrong < 50 {
		t.Errorf("%d right and %d wrong ranges: that tries little", right, wrong)
	}
}

// randomRange writes a CIDR or a range whose ends differ in few bits.
func randomRange(random *rand.Rand) string {
	bytes := make([]byte, []int{4, 16}[random.IntN(2)])
	for i := range bytes {
		bytes[i] = []byte{0, 1, 9, 10, 0x7f, 0x80, 0xfe, 0xff, byte(random.Uint32())}[random.IntN(9)]
	}
	a, _ := netip.AddrFromSlice(bytes)
	if random.IntN(3) == 0 {
		bits := random.IntN(len(bytes)*8 + 2)
		if p, err := a.Prefix(bits); err == nil && random.IntN(4) > 0 {
			return p.String()
		}
		return fmt.Sprintf("%s/%d", a, bits)
	}
	other := append([]byte(nil), bytes...)
	for range 1 + random.IntN(2) {
		other[random.IntN(len(other))] ^= 1 << random.IntN(8)
	}
	b, _ := netip.AddrFromSlice(other)
	return fmt.Sprintf("%s-%s", a, b)
}

// fullPool has the rules work on the largest spec that there can be, which has
// to stay within what one object may cost the API server.
func fullPool(t *testing.T, s *stage) {
	const most = 48
	var addresses, exclude []string
	for i := range most {
		addresses = append(addresses, fmt.Sprintf("%q", fmt.Sprintf("fd00:1111:2222:3333:4444:5555:%04x:1111-fd00:1111:2222:3333:4444:5555:%04x:ffff", i, i)))
		exclude = append(exclude, fmt.Sprintf("%q", fmt.Sprintf("fd00:1111:2222:3333:4444:5555:%04x:eeee-fd00:1111:2222:3333:4444:5555:%04x:ffff", i, i)))
	}
	body := fmt.Sprintf("{addresses: [%s], exclude: [%s], gateways: ['fd00::1/8']}", strings.Join(addresses, ", "), strings.Join(exclude, ", "))
	if got := s.do(t.Context(), step{admin, "create", "AddressPool", "full", body}); got != taken {
		t.Errorf("a full pool: %s", got)
	}
	accepted := fmt.Sprintf("{blockSize: 64, addresses: [%s], exclude: [%s], gateways: ['fd00::1/8']}", strings.Join(addresses, ", "), strings.Join(exclude, ", "))
	if got := s.do(t.Context(), step{admin, "status", "AddressPool", "full", accepted}); got != taken {
		t.Errorf("a full pool is accepted: %s", got)
	}
	changed := strings.Replace(body, "gateways", "state: Draining, gateways", 1)
	if got := s.do(t.Context(), step{admin, "replace", "AddressPool", "full", changed}); got != taken {
		t.Errorf("a change of a full pool: %s", got)
	}
	s.clear(t)
}

// everyField has the API server read objects with all fields of the Go types,
// and refuse fields that it does not know.
func everyField(t *testing.T, s *stage) {
	size, hour := int32(16), metav1.Duration{Duration: time.Hour}
	since := metav1.NewTime(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}, MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: metav1.LabelSelectorOpIn, Values: []string{"b"}}}}
	condition := metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Serving", Message: "m", LastTransitionTime: since, ObservedGeneration: 1}
	for _, c := range []struct {
		kind, name   string
		spec, status any
	}{
		{"AddressPool", "web", &v1alpha1.AddressPoolSpec{
			Addresses: []v1alpha1.AddressRange{"10.0.0.0/24"}, Exclude: []v1alpha1.AddressRange{"10.0.0.7"}, BlockSize: &size,
			Gateways: []v1alpha1.Gateway{"10.0.0.1/24"}, ReuseAfter: &hour, IdleAfter: &hour, State: v1alpha1.PoolDraining,
			NamespaceSelector: selector, PodSelector: selector, NodeSelector: selector,
		}, &v1alpha1.AddressPoolStatus{
			ObservedGeneration: 1, State: v1alpha1.PoolIsDraining, BlockSize: &size, Gateways: []v1alpha1.Gateway{"10.0.0.1/24"},
			Addresses: []string{"10.0.0.0/24"}, Exclude: []string{"10.0.0.7"},
			Total: v1alpha1.ManyAddresses, Used: 1, Free: 1, Blocks: 1, Nodes: 1, Routes: 1,
			Families:   []v1alpha1.FamilyUse{{Family: v1alpha1.IPv4, Total: 1, Used: 1, Free: 1}},
			Drain:      &v1alpha1.DrainProgress{Since: since, Leases: 1, Blocks: 1, Nodes: 1},
			Conditions: []metav1.Condition{condition},
		}},
		{"AddressBlock", "10-0-0-0-26", &v1alpha1.AddressBlockSpec{
			Prefix: "10.0.0.0/26", Pool: "web", Node: "n1", NodeUID: "a", Lender: "n2",
		}, nil},
		{"AddressRequest", "web-1", &v1alpha1.AddressRequestSpec{
			Node: "n1", Pool: "web", Family: v1alpha1.IPv4, Want: "10.0.0.7", Count: 1, Holders: 1,
		}, &v1alpha1.AddressRequestStatus{Grant: &v1alpha1.AddressGrant{
			Lender: "n2", Prefix: "10.0.0.7/32", Outer: "10.0.0.0/26", OuterUID: "a", OuterTenure: 1,
		}, Further: []v1alpha1.AddressGrant{{
			Lender: "n3", Prefix: "10.0.0.7/32", Outer: "10.0.0.0/27", OuterUID: "b", OuterTenure: 1,
		}}}},
		{"NodeSpeaker", "n1", &v1alpha1.NodeSpeakerSpec{Fence: &v1alpha1.Fence{NodeUID: "a", Since: since, Reason: "gone", Lifting: true}},
			&v1alpha1.NodeSpeakerStatus{
				ObservedGeneration: 1, Version: "v1", ASN: 4294967295, RouterID: "10.0.0.1", PeerCount: 1, EstablishedCount: 1, Blocks: 1, Routes: 1,
				Peers:      []v1alpha1.PeerStatus{{Name: "tor", Address: "10.0.0.2", ASN: 1, State: "Idle", Since: &since, Received: 1, Accepted: 1, Advertised: 1, Flaps: 1, BFD: "Up", LastError: "e"}},
				Mesh:       &v1alpha1.MeshEndpoint{ASN: 1, Port: 179, Addresses: []v1alpha1.NodeAddress{"192.0.2.1"}},
				Conditions: []metav1.Condition{condition},
			}},
	} {
		for _, part := range []any{c.spec, c.status} {
			// Tenure is 0 in a new block.
			if field := zeroField(reflect.ValueOf(part)); field != "" && field != "Tenure" {
				t.Errorf("%s: %T.%s is left out of this test", c.kind, part, field)
			}
		}
		s.write(t, step{admin, "create", c.kind, c.name, ""}, c.spec)
		if c.status != nil {
			s.write(t, step{admin, "status", c.kind, c.name, ""}, c.status)
		}
	}
	s.clear(t)
}

// zeroField names a field of a struct, or of one in it, that is not set.
func zeroField(v reflect.Value) string {
	switch {
	case v.IsValid() && v.Kind() == reflect.Pointer && !v.IsNil():
		return zeroField(v.Elem())
	case v.IsValid() && v.Kind() == reflect.Slice && v.Len() > 0:
		return zeroField(v.Index(0))
	case !v.IsValid() || v.Kind() != reflect.Struct || !strings.HasSuffix(v.Type().PkgPath(), "/v1alpha1"):
		return ""
	}
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			return v.Type().Field(i).Name
		}
		if inner := zeroField(v.Field(i)); inner != "" {
			return inner
		}
	}
	return ""
}

func (s *stage) write(t *testing.T, st step, part any) {
	t.Helper()
	text, err := json.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	st.body = string(text)
	if got := s.do(t.Context(), st); got != taken {
		t.Errorf("%s of a %s with all fields: %s", st.verb, st.kind, got)
	}
}

// columns shows what people see.
func columns(t *testing.T, s *stage) {
	for _, line := range []string{
		`create AddressPool web {addresses: [10.244.120.0/24, 10.244.130.10-10.244.130.20]}`,
		`status AddressPool web {blockSize: 8, state: Active, total: 263, used: 21, free: 242, blocks: 5, nodes: 2, routes: 3, conditions: [{type: Accepted, status: "True", reason: Accepted, message: "", lastTransitionTime: "2020-01-01T00:00:00Z"}]}`,
		`create AddressPool db {addresses: [10.244.121.0/24]}`,
		`as n1 create AddressBlock 10-244-120-0-29 {prefix: 10.244.120.0/29, pool: web, node: n1, nodeUID: 0a1b}`,
		`as n2 create AddressBlock 10-244-120-4-30 {prefix: 10.244.120.4/30, pool: web, node: n2, nodeUID: 2c3d, lender: n1}`,
		`as n2 create AddressRequest web-1 {pool: web, node: n2, family: IPv4, count: 2}`,
		`as n1 status AddressRequest web-1 {grant: {lender: n1, prefix: 10.244.120.2/31, outer: 10.244.120.0/29, outerUID: a}}`,
		`as n2 create AddressRequest web-2 {pool: web, node: n2, family: IPv4, want: 10.244.120.7}`,
		`as n1 create NodeSpeaker n1 {}`,
		`as n1 patchstatus NodeSpeaker n1 {version: v0.3.0, asn: 64512, routerID: 10.9.0.1, peerCount: 2, establishedCount: 1, blocks: 4, routes: 2, conditions: [{type: Ready, status: "True", reason: Serving, message: "", lastTransitionTime: "2020-01-01T00:00:00Z"}]}`,
	} {
		if got := s.do(t.Context(), parseStep(line)); got != taken {
			t.Fatalf("%s: %s", line, got)
		}
	}
	age := regexp.MustCompile(`( )[0-9]+[ms]([0-9]+s)?\n`)
	var out strings.Builder
	for _, command := range []string{
		"get apool", "get apool -o wide", "get ablock", "get ablock -o wide", "get ablock --field-selector spec.node=n2",
		"get ablock -l fairway.network/pool=web,fairway.network/node=n1", "get areq", "get nspeaker", "get nspeaker -o wide", "get fairway -o name",
	} {
		got, err := s.Kubectl(t.Context(), strings.Fields(command)...)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "$ kubectl %s\n%s\n", command, age.ReplaceAllString(got, "${1}7s\n"))
	}
	golden(t, "testdata/columns.golden", out.String())
	s.clear(t)
}

func (s *stage) tryExample(t *testing.T, kind string, object map[string]any) {
	t.Helper()
	metadata, _ := object["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	text, err := json.Marshal(map[string]any{"metadata": metadata, "spec": object["spec"]})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.dryRun(t.Context(), step{admin, "create", kind, name, string(text)}); got != taken {
		t.Errorf("the manual's %s %s: %s", kind, name, got)
	}
}
