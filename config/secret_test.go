package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/fairway-network/fairway/config"
)

func TestSecretIsNeverSeen(t *testing.T) {
	const word = "hunter2"
	p := config.Peer{Name: "tor1", Password: word}
	c := config.Config{Peers: []config.Peer{p}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%U"} {
		fmt.Fprintf(&out, verb+verb+verb+verb+"\n", p.Password, p, &p, c)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "secret", p.Password, "peer", p, "config", &c)
	}
	for _, encode := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		for _, v := range []any{p.Password, p, &c} {
			text, err := encode(v)
			must(t, err)
			out.Write(text)
		}
	}
	if seen := out.String(); strings.Contains(seen, word) || strings.Contains(seen, fmt.Sprintf("%x", word)) {
		t.Errorf("the secret is in:\n%s", seen)
	}
}
