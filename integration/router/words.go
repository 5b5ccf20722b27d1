package router

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// communities puts well-known names into numbers and sorts.
func communities(list []string) []string {
	known := map[string]string{
		"graceful_shutdown": "65535:0", "graceful-shutdown": "65535:0", "gracefulshutdown": "65535:0",
		"no-export": "65535:65281", "noexport": "65535:65281", "no_export": "65535:65281",
		"no-advertise": "65535:65282", "noadvertise": "65535:65282", "no_advertise": "65535:65282",
		"blackhole": "65535:666", "llgr-stale": "65535:6", "llgrstale": "65535:6", "llgr_stale": "65535:6",
		"no-llgr": "65535:7", "nollgr": "65535:7", "no_llgr": "65535:7",
	}
	out := make([]string, 0, len(list))
	for _, c := range list {
		if number, is := known[strings.ToLower(c)]; is {
			c = number
		}
		out = append(out, c)
	}
	return sorted(out)
}

// sorted is nil for nothing, so that routes compare.
func sorted(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// numbers reads an AS path; sets in braces are as good as sequences here.
func numbers(text string) ([]uint32, error) {
	var out []uint32
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" {},", r) }) {
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("AS path %q: %w", text, err)
		}
		out = append(out, uint32(n))
	}
	return out, nil
}
