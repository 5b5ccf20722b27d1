package kubeapi

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// gateways tries gateways that are right and wrong against the core, as ranges
// does.
func gateways(t *testing.T, s *stage) {
	random := rand.New(rand.NewPCG(3, 4))
	var right, wrong int
	for range 300 {
		g, addresses := randomGateway(random)
		r := netipx.RangeOfPrefix(addresses)
		p, err := pools.New(pools.Definition{Name: "web", Ranges: []netipx.IPRange{r}, Gateways: []netip.Prefix{g}, BlockSize: 1})
		if err == nil {
			err = p.CheckGateways()
		}
		if err != nil && (strings.Contains(err.Error(), "no pod can have") || strings.Contains(err.Error(), "is the pods' gateway")) {
			continue
		}
		answer := s.dryRun(t.Context(), step{admin, "create", "AddressPool", "web", fmt.Sprintf("{addresses: [%q], gateways: [%q]}", addresses, g)})
		if (answer == taken) != (err == nil) {
			t.Errorf("gateway %s of %s: the API server says %q, the core %v", g, addresses, answer, err)
		}
		if err == nil {
			right++
		} else {
			wrong++
		}
	}
	if right < 50 || wrong < 50 {
		t.Errorf("%d right and %d wrong gateways: that tries little", right, wrong)
	}
}

// randomGateway writes a gateway and addresses that its prefix often holds.
func randomGateway(random *rand.Rand) (g, addresses netip.Prefix) {
	bytes := make([]byte, []int{4, 16}[random.IntN(2)])
	for i := range bytes {
		bytes[i] = []byte{0, 1, 0x7f, 0x80, 0xff, byte(random.Uint32())}[random.IntN(6)]
	}
	bytes[0] = []byte{0, 10, 10, 127, 192, 224, 0xfd, 0xfe, 0xff}[random.IntN(9)]
	if len(bytes) == 16 && random.IntN(2) == 0 {
		bytes[1] = 0x80 // link-local after 0xfe
	}
	a, _ := netip.AddrFromSlice(bytes)
	most := len(bytes) * 8
	bits := random.IntN(most + 1)
	g = netip.PrefixFrom(a, bits)
	inside := a
	if a.IsLinkLocalUnicast() || random.IntN(8) == 0 {
		inside = map[int]netip.Addr{32: netip.MustParseAddr("10.9.9.9"), 128: netip.MustParseAddr("fd00::9")}[most]
	}
	addresses, err := inside.Prefix(min(bits+random.IntN(4), most))
	if err != nil {
		panic(err)
	}
	return g, addresses
}

// olderPools has pools that were accepted when fewer gateways were refused
// changed otherwise, and drained.
func olderPools(t *testing.T, s *stage) {
	text, err := os.ReadFile(filepath.Join("../../deploy/crds", "fairway.network_addresspools.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	define := func(manifest string, answer bool) {
		t.Helper()
		if err := s.Apply(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
		probe := step{admin, "create", "AddressPool", "probe", `{addresses: [10.0.0.0/24], gateways: [10.0.0.0/24]}`}
		for deadline := time.Now().Add(30 * time.Second); (s.dryRun(t.Context(), probe) == taken) != answer; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the definition does not act: %s", s.dryRun(t.Context(), probe))
			}
		}
	}
	define(withoutRules(t, text), true)
	for _, line := range []string{
		`create AddressPool odd {addresses: [10.93.0.0/24], gateways: [10.93.0.255/24]}`,
		`status AddressPool odd {blockSize: 8, gateways: [10.93.0.255/24], addresses: [10.93.0.0/24]}`,
		`create AddressPool zero {addresses: ["fd00::/64"], gateways: ["fe80::1/0"]}`,
		`status AddressPool zero {blockSize: 8, gateways: ["fe80::1/0"], addresses: ["fd00::/64"]}`,
		`create AddressPool far {addresses: [10.111.0.0/28, 192.168.111.0/28]}`,
		`status AddressPool far {blockSize: 1, gateways: [10.111.0.1/0], addresses: [10.111.0.0/28, 192.168.111.0/28]}`,
	} {
		if got := s.do(t.Context(), parseStep(line)); got != taken {
			t.Fatalf("%s: %s", line, got)
		}
	}
	define(string(text), false)
	for _, c := range []struct{ line, want string }{
		{`replace AddressPool odd {addresses: [10.93.0.0/24], gateways: [10.93.0.255/24], reuseAfter: 10m}`, taken},
		{`replace AddressPool odd {addresses: [10.93.0.0/24, "fd09::/64"], gateways: [10.93.0.255/24], state: Draining}`, taken},
		{`status AddressPool odd {blockSize: 8, gateways: [10.93.0.255/24, "fe80::1/128"], addresses: [10.93.0.0/24, "fd09::/64"], state: Draining}`, taken},
		{`replace AddressPool odd {addresses: [10.93.0.0/24, "fd09::/64"], gateways: [10.93.0.255/23]}`, taken},
		{`replace AddressPool zero {addresses: ["fd00::/64"], gateways: ["fe80::1/0"], state: Draining}`, taken},
		{`replace AddressPool zero {addresses: ["fd00::/64"], gateways: ["fe80::1/128"]}`, taken},
		{`status AddressPool zero {blockSize: 8, gateways: ["fe80::1/128"], addresses: ["fd00::/64"]}`, taken},
		{`replace AddressPool zero {addresses: ["fd00::/64"], gateways: ["fe80::1/0"]}`, "has prefix length 0"},
		{`replace AddressPool far {addresses: [10.111.0.0/28, 192.168.111.0/28], state: Draining}`, taken},
		{`status AddressPool far {blockSize: 1, gateways: [10.111.0.1/0], addresses: [10.111.0.0/28, 192.168.111.0/28], state: Draining}`, taken},
	} {
		if got := s.do(t.Context(), parseStep(c.line)); got != c.want && (c.want == taken || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %s", c.line, got)
		}
	}
	s.clear(t)
}

// withoutRules is a definition in which all is allowed that the types can say.
func withoutRules(t *testing.T, manifest []byte) string {
	t.Helper()
	var definition map[string]any
	if err := yaml.Unmarshal(manifest, &definition); err != nil {
		t.Fatal(err)
	}
	var strip func(any)
	strip = func(part any) {
		switch part := part.(type) {
		case map[string]any:
			delete(part, "x-kubernetes-validations")
			for _, inner := range part {
				strip(inner)
			}
		case []any:
			for _, inner := range part {
				strip(inner)
			}
		}
	}
	strip(definition)
	text, err := json.Marshal(definition)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
