package config

import (
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"time"
	"unicode"

	"go4.org/netipx"
)

// shape is what may stand at one place of the file: a mapping (it has
// fields), a list (it has an elem) or a scalar.
type shape struct {
	typ    reflect.Type
	fields []field
	elem   *shape
	lone   bool // a list that may be written as its one element
	rules
}

// rules bound a scalar beyond its type.
type rules struct {
	oneof     []string
	low, high string
	unit      string
	quiet     bool
}

// field is one key of a mapping.
type field struct {
	key       string
	goName    string // "Peer.HoldTime"
	def       string
	otherwise string
	required  bool
	shape     *shape
}

// squash is the key tag of an embedded struct whose keys stand beside the others.
const squash = ",squash"

// schemaOf reads the tags of t, a struct of this package.
func schemaOf(t reflect.Type) *shape { return shapeOf(t, "") }

func shapeOf(t reflect.Type, tag reflect.StructTag) *shape {
	s := &shape{typ: t}
	switch {
	case s.isLabels():
	case isScalar(t):
		s.rules = rulesOf(tag)
	case t.Kind() == reflect.Pointer:
		return shapeOf(t.Elem(), tag)
	case t.Kind() == reflect.Slice:
		s.elem, s.lone = shapeOf(t.Elem(), tag), tag.Get("lone") == "true"
	default:
		for f := range t.Fields() {
			key := f.Tag.Get("key")
			if key == squash {
				s.fields = append(s.fields, shapeOf(f.Type, "").fields...)
				continue
			}
			if !f.IsExported() || key == "-" {
				continue
			}
			s.fields = append(s.fields, field{
				key: key, goName: t.Name() + "." + f.Name,
				def: f.Tag.Get("default"), otherwise: f.Tag.Get("otherwise"), required: f.Tag.Get("required") == "true",
				shape: shapeOf(f.Type, f.Tag),
			})
		}
	}
	return s
}

func rulesOf(tag reflect.StructTag) rules {
	r := rules{unit: tag.Get("unit"), quiet: tag.Get("quiet") == "true"}
	r.low, r.high, _ = strings.Cut(tag.Get("limits"), "..")
	if words := tag.Get("oneof"); words != "" {
		r.oneof = strings.Split(words, ",")
	}
	return r
}

// isScalar says whether one word in the file makes a t.
func isScalar(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.Prefix](), reflect.TypeFor[netip.AddrPort](),
		reflect.TypeFor[netipx.IPRange](), reflect.TypeFor[time.Duration](), reflect.TypeFor[slog.Level](),
		reflect.TypeFor[Network](), reflect.TypeFor[LargeCommunity]():
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Map, reflect.Pointer:
		return false
	}
	return true
}

func (s *shape) isMapping() bool { return s.fields != nil }

// isLabels is for a mapping whose keys are for the person who writes it to choose.
func (s *shape) isLabels() bool { return s.typ == reflect.TypeFor[Labels]() }

// field returns the one of that key, nil without one.
func (s *shape) field(key string) *field {
	for i := range s.fields {
		if s.fields[i].key == key {
			return &s.fields[i]
		}
	}
	return nil
}

func (s *shape) keys() []string {
	out := make([]string, len(s.fields))
	for i, f := range s.fields {
		out[i] = f.key
	}
	return out
}

// Key is one key of the file, for its reference.
type Key struct {
	// Path of the key, with [] for any element of a list.
	Path string
	// Field is the Go field, as "Type.Name".
	Field string
	// Type in words; empty for a mapping.
	Type string
	// Default, as it would stand in the file, or else Otherwise in words.
	Default   string
	Otherwise string
	Required  bool
	// Env is the variable that overrides the key, empty if none does.
	Env string
}

// Keys are all keys of the file in the order of the reference, mappings before
// what is in them.
func Keys() []Key { return keysOf(schemaOf(reflect.TypeFor[Config]()), "", false) }

func keysOf(s *shape, prefix string, listed bool) []Key {
	var out []Key
	for _, f := range s.fields {
		k := Key{Path: prefix + f.key, Field: f.goName, Type: f.shape.words(), Default: f.def, Otherwise: f.otherwise, Required: f.required}
		switch inner := f.shape; {
		case inner.isMapping():
			out = append(append(out, k), keysOf(inner, k.Path+".", listed)...)
		case inner.elem != nil && inner.elem.isMapping():
			out = append(append(out, k), keysOf(inner.elem, k.Path+"[].", true)...)
		default:
			if inner.elem == nil && !inner.isLabels() && !listed {
				k.Env = variable(k.Path)
			}
			out = append(out, k)
		}
	}
	return out
}

// variable is the environment variable of a key path: FAIRWAY_BGP_ROUTER_ID
// for bgp.routerID.
func variable(path string) string {
	var b strings.Builder
	b.WriteString(envPrefix)
	wasLower := false
	for _, r := range path {
		if unicode.IsUpper(r) && wasLower {
			b.WriteByte('_')
		}
		wasLower = unicode.IsLower(r)
		if r == '.' {
			r = '_'
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// words describes a scalar or a list for people.
func (s *shape) words() string {
	switch {
	case s.isMapping():
		return ""
	case s.elem != nil && s.elem.isMapping():
		return "list"
	case s.lone:
		return s.elem.words() + ", or a list"
	case s.elem != nil:
		return "list: " + s.elem.words()
	case s.oneof != nil:
		return "`" + strings.Join(s.oneof, "`, `") + "`"
	}
	name := s.kind()
	if s.low != "" {
		name += ", " + s.low + " to " + s.high
	}
	return name
}

// wanted is words for an error.
func (s *shape) wanted() string { return strings.ReplaceAll(s.words(), "`", "") }

func (s *shape) kind() string {
	switch s.typ {
	case reflect.TypeFor[Labels]():
		return "labels and their values"
	case reflect.TypeFor[Network]():
		return "CIDR"
	case reflect.TypeFor[Community](), reflect.TypeFor[LargeCommunity]():
		return "community"
	case reflect.TypeFor[NextHop]():
		return "`self`, `unchanged`, IP address"
	case reflect.TypeFor[netip.Addr]():
		return "IP address"
	case reflect.TypeFor[netip.Prefix]():
		return "address/length"
	case reflect.TypeFor[netip.AddrPort]():
		return "address:port"
	case reflect.TypeFor[netipx.IPRange]():
		return "CIDR, range or address"
	case reflect.TypeFor[time.Duration]():
		return "duration"
	}
	switch s.typ.Kind() {
	case reflect.Bool:
		return "`true`, `false`"
	case reflect.String:
		return "string"
	}
	return "number"
}
