package speaker

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// A request of an agent of another version, which has settings that this process knows
// nothing of, ends it with words about that: what it would pass over would not hold.
func TestServeAnotherVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		`{"ID":1,"Op":"set","Desired":{"Local":{"ASN":64512},"Quiet":true}}`:     errVersions,
		`{"ID":1,"Op":"set","Desired":{"Peers":[{"Name":"tor","Silent":true}]}}`: errVersions,
		`no JSON`: errVersions,
		`{"ID":1`: ErrParentGone,
		``:        ErrParentGone,
	} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.WriteString(theirs, text)
			_ = theirs.Close()
		}()
		err := serveLink(t.Context(), ours, nil)
		if !errors.Is(err, want) || want == errVersions && !strings.Contains(err.Error(), "install both from one release") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
