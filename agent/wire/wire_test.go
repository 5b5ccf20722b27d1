package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestRequestRoundTrip(t *testing.T) {
	environ := []string{"PATH=/bin", "CNI_COMMAND=ADD", "CNI_=x", "CNI_ARGS=", "HOME=/root"}
	for _, stdin := range []string{"", "{}", "\x00{}\x00"} {
		env, got, ok := SplitRequest(AppendRequest([]byte{}, environ, []byte(stdin)))
		if !ok || string(got) != stdin {
			t.Errorf("stdin %q came out as %q, %v", stdin, got, ok)
		}
		if want := "CNI_COMMAND=ADD|CNI_=x|CNI_ARGS="; string(bytes.Join(env, []byte("|"))) != want {
			t.Errorf("environment %q, want %q", env, want)
		}
	}
	for _, b := range []string{"", "CNI_COMMAND=ADD", "CNI_COMMAND=ADD\x00"} {
		if _, _, ok := SplitRequest([]byte(b)); ok {
			t.Errorf("%q was taken for a request", b)
		}
	}
}

// FuzzVariable: what is asked of a request is what the environment has first.
func FuzzVariable(f *testing.F) {
	f.Add("PATH=/bin\x00CNI_COMMAND=ADD\x00CNI_ARGS=")
	f.Add("CNI_COMMAND=ADD")
	f.Add("\x00\x00CNI_\x00CNI_COMMAND\x00=CNI_COMMAND=x\x00CNI_COMMAND=\x00CNI_COMMAND=y")
	f.Fuzz(func(t *testing.T, block string) {
		environ := strings.Split(block, "\x00")
		want := ""
		if i := slices.IndexFunc(environ, func(e string) bool { return strings.HasPrefix(e, "CNI_COMMAND=") }); i >= 0 {
			want = environ[i][len("CNI_COMMAND="):]
		}
		if got := Variable(AppendRequest(nil, environ, nil), "CNI_COMMAND"); string(got) != want {
			t.Fatalf("CNI_COMMAND is %q, want %q", got, want)
		}
	})
}

func TestAnswerRoundTrip(t *testing.T) {
	for _, failed := range []bool{false, true} {
		for _, text := range []string{"", "{\"a\":1}\n"} {
			whole := AppendAnswer(nil, []byte(text), failed)
			got, gotFailed, ok := SplitAnswer(whole)
			if !ok || string(got) != text || gotFailed != failed {
				t.Errorf("%q, %v came out as %q, %v, %v", text, failed, got, gotFailed, ok)
			}
			for cut := range whole {
				if _, _, ok := SplitAnswer(whole[:cut]); ok {
					t.Errorf("%q was taken for a whole answer", whole[:cut])
				}
			}
		}
	}
}

func TestVersionsRepeatTheVersionAskedFor(t *testing.T) {
	for asked, want := range map[string]string{"": "1.1.0", "0.3.1": "0.3.1", "\"\n": "\"\n", string(make([]byte, 100)): "1.1.0"} {
		var got struct {
			CNIVersion        string
			SupportedVersions []string
		}
		if err := json.Unmarshal(AppendVersions(nil, asked), &got); err != nil || got.CNIVersion != want || len(got.SupportedVersions) != 3 {
			t.Errorf("%q: %+v, %v", asked, got, err)
		}
	}
}

func TestFaultIsJSON(t *testing.T) {
	f := &Fault{Code: TryAgainLater, Msg: "a \"b\" \\ \x00\x1f\x7f\xff é", Details: "<line>\n"}
	var got struct {
		CNIVersion   string
		Code         int
		Msg, Details string
	}
	if err := json.Unmarshal(f.AppendJSON(nil, "1.0.0"), &got); err != nil {
		t.Fatal(err)
	}
	if got.CNIVersion != "1.0.0" || got.Code != 11 || got.Msg != "a \"b\" \\ \x00\x1f\x7f\ufffd é" || got.Details != "<line>\n" {
		t.Errorf("%+v", got)
	}
	if got := string((&Fault{Code: Internal}).AppendJSON(nil, "9")); got != `{"cniVersion":"1.1.0","code":999,"msg":""}`+"\n" {
		t.Error(got)
	}
}
