package speaker

import (
	"net/netip"
	"reflect"
	"testing"
)

// Whatever part of a Desired changes but the announcements, equalBesides sees it: each is
// changed in turn.
func TestEqualBesides(t *testing.T) {
	t.Parallel()
	full := func() Desired {
		var d Desired
		fill(reflect.ValueOf(&d).Elem())
		return d
	}
	same, other := full(), full()
	other.Announcements = nil
	if !same.equalBesides(&other) {
		t.Fatal("two of the same differ")
	}
	n := 0
	for ; ; n++ {
		changed, left := full(), n
		where := alter(reflect.ValueOf(&changed).Elem(), "Desired", &left)
		if where == "" {
			break
		}
		if same.equalBesides(&changed) || changed.equalBesides(&same) {
			t.Errorf("a change of %s is not seen", where)
		}
	}
	if n < 60 {
		t.Errorf("%d parts were changed, want all", n)
	}
}

// fill gives everything a value, each list and map one element.
func fill(v reflect.Value) {
	if set(v, 1) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Map:
		element := reflect.New(v.Type().Elem()).Elem()
		fill(element)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("a"), element)
	default:
		panic("no value for a " + v.Kind().String())
	}
}

// set gives a part that has no parts its nth value, and says whether it is one.
func set(v reflect.Value, n byte) bool {
	switch v.Addr().Interface().(type) {
	case *netip.Addr:
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{n})))
		return true
	case *netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{n}), 8)))
		return true
	}
	switch {
	case v.Kind() == reflect.String:
		v.SetString(string('a' + rune(n)))
	case v.Kind() == reflect.Bool:
		v.SetBool(n == 1)
	case v.CanInt():
		v.SetInt(int64(n))
	case v.CanUint():
		v.SetUint(uint64(n))
	default:
		return false
	}
	return true
}

// alter changes the nth part of v, counted down in n, and says which that is; "" if there are
// not so many. A list, a map or what a pointer points to is also left out as a whole.
func alter(v reflect.Value, name string, n *int) string {
	if set(v, 1) {
		if *n--; *n >= 0 {
			return ""
		}
		set(v, 2)
		return name
	}
	if v.Kind() == reflect.Struct {
		for i := range v.NumField() {
			field := v.Type().Field(i).Name
			if v.Type() == reflect.TypeFor[Desired]() && field == "Announcements" {
				continue
			}
			if where := alter(v.Field(i), name+"."+field, n); where != "" {
				return where
			}
		}
		return ""
	}
	if *n--; *n < 0 {
		v.SetZero()
		return name
	}
	switch v.Kind() {
	case reflect.Slice:
		return alter(v.Index(0), name+"[0]", n)
	case reflect.Pointer:
		return alter(v.Elem(), "*"+name, n)
	}
	element := reflect.New(v.Type().Elem()).Elem()
	element.Set(v.MapIndex(reflect.ValueOf("a")))
	where := alter(element, name+"[a]", n)
	v.SetMapIndex(reflect.ValueOf("a"), element)
	return where
}
