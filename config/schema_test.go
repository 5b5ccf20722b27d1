package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/pools"
)

// everyScalar calls visit with each scalar of the schema and the field it is of.
func everyScalar(s *shape, visit func(f field, scalar *shape)) {
	for _, f := range s.fields {
		inner := f.shape
		if inner.elem != nil {
			inner = inner.elem
		}
		if inner.isMapping() {
			everyScalar(inner, visit)
		} else {
			visit(f, inner)
		}
	}
}

// The tags are text: that they mean something is checked here.
func TestTagsAreRight(t *testing.T) {
	everyScalar(schemaOf(reflect.TypeFor[Config]()), func(f field, s *shape) {
		if f.def == "" && f.otherwise == "" && !f.required {
			t.Errorf("%s: nothing says what holds without it", f.goName)
		}
		if f.required && f.def != "" {
			t.Errorf("%s: it is required and has a default", f.goName)
		}
		if isWhole(s.typ) && s.low == "" && s.oneof == nil {
			t.Errorf("%s: a number needs limits, or the file could overflow it", f.goName)
		}
		for _, limit := range []string{s.low, s.high, s.unit} {
			if _, err := parseAs(s.typ, limit); err != nil && limit != "" {
				t.Errorf("%s: limit %q: %v", f.goName, limit, err)
			}
		}
		if s.low != "" && reflect.Zero(s.typ).CanUint() && reflect.Zero(s.typ).OverflowUint(uint64(s.bound(s.high))) {
			t.Errorf("%s: %s does not fit its type", f.goName, s.high)
		}
		for def := range strings.SplitSeq(f.def, ",") {
			if _, err := s.parse(def); err != nil && def != "" {
				t.Errorf("%s: default %q: %v", f.goName, def, err)
			}
		}
		for _, word := range s.oneof {
			if _, err := s.parse(word); err != nil {
				t.Errorf("%s: %q: %v", f.goName, word, err)
			}
		}
	})
}

func TestBlockSizeIsThatOfPools(t *testing.T) {
	f := schemaOf(reflect.TypeFor[Pool]()).field("blockSize")
	if f.shape.bound(f.shape.high) != pools.MaxBlockSize || f.shape.bound(f.def) != pools.DefaultBlockSize {
		t.Errorf("blockSize is %s, at most %s; package pools has %d, at most %d", f.def, f.shape.high, pools.DefaultBlockSize, pools.MaxBlockSize)
	}
}

func TestVariables(t *testing.T) {
	seen := map[string]string{}
	for _, k := range Keys() {
		if k.Env == "" {
			continue
		}
		if other := seen[k.Env]; other != "" {
			t.Errorf("%s overrides both %s and %s", k.Env, other, k.Path)
		}
		seen[k.Env] = k.Path
	}
	for name, path := range map[string]string{
		"FAIRWAY_NODE": "node", "FAIRWAY_BGP_ASN": "bgp.asn", "FAIRWAY_BGP_ROUTER_ID": "bgp.routerID", "FAIRWAY_STATE_DIR": "stateDir",
		"FAIRWAY_IPAM_SOCKET": "ipam.socket", "FAIRWAY_BGP_GRACEFUL_RESTART_RESTART_TIME": "bgp.gracefulRestart.restartTime",
	} {
		if seen[name] != path {
			t.Errorf("%s overrides %q, want %s", name, seen[name], path)
		}
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"asn", "", 3}, {"asn", "asn", 0}, {"asn", "asm", 1}, {"peer", "peers", 1}, {"kitten", "sitting", 3}} {
		if got := edits(c.a, c.b); got != c.want || edits(c.b, c.a) != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
