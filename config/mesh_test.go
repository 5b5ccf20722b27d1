package config_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/config"
)

// meshFile is a configuration with a mesh that says text as well.
func meshFile(text, templates string) string {
	return "store: kubernetes\nnode: n1\nbgp:\n  asn: 64512\n  mesh: {enabled: true, " + text + "}\ntemplates: [" + templates + "]\n"
}

func TestMesh(t *testing.T) {
	clearEnvironment(t)
	dir := passwordDir(t)
	const template = "{name: nodes, holdTime: 9s, keepaliveTime: 2s, ttlSecurity: 1, families: [ipv4], passwordFile: DIR/80bytes, accept: {max: 7}}"
	nodes := plain(config.Options{HoldTime: 9 * time.Second, KeepaliveTime: 2 * time.Second, TTLSecurity: 1, Families: []config.Family{config.IPv4}, PasswordFile: dir + "/80bytes", Port: 179})
	nodes.Accept.Max = 7
	ipv6 := nodes
	ipv6.Families = []config.Family{config.IPv6}
	for text, want := range map[string]config.Mesh{
		"":                {Learn: true, MaxNodes: 200},
		"learn: false":    {MaxNodes: 200},
		"template: nodes": {Learn: true, MaxNodes: 200, Template: "nodes", Session: nodes, Password: config.Secret(strings.Repeat("x", 80))},
		"template: nodes, families: [ipv6], passwordFile: DIR/good, maxNodes: 12": {
			Learn: true, MaxNodes: 12, Template: "nodes", Families: ipv6.Families, PasswordFile: dir + "/good", Session: ipv6, Password: "hunter2",
		},
		"passwordFile: DIR/good": {Learn: true, MaxNodes: 200, PasswordFile: dir + "/good", Password: "hunter2"},
	} {
		want.Enabled = true
		c := mustLoad(t, strings.ReplaceAll(meshFile(text, template), "DIR", dir))
		check(t, text, c.BGP.Mesh, want)
		if string(c.BGP.Mesh.Password) != string(want.Password) {
			t.Errorf("%s: it is another password", text)
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s: warnings %v", text, c.Warnings)
		}
	}
	_, err := config.Load("testdata/mesh.yaml") // of the manual
	must(t, err)
}

// The password of a mesh is one of the files that a change of is noticed.
func TestMeshPasswordIsWatched(t *testing.T) {
	clearEnvironment(t)
	dir := passwordDir(t)
	file := filepath.Join(dir, "fairway.yaml")
	write(t, file, meshFile("passwordFile: "+dir+"/good", ""))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	changed, ended := make(chan struct{}, 8), make(chan error, 1)
	go func() { ended <- config.Watch(ctx, file, func() { changed <- struct{}{} }) }()
	<-changed
	must(t, os.WriteFile(filepath.Join(dir, "good"), []byte("another\n"), 0o600))
	select {
	case <-changed:
	case <-ctx.Done():
		t.Error("nobody noticed")
	}
	cancel()
	must(t, <-ended)
}
