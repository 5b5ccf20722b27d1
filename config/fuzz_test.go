package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzLoad: no text makes Load panic; it gives a configuration or problems
// that say something on one line each; and the same text gives the same again.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "testdata/wrong/*.yaml", "../deploy/examples/*.yaml", "../deploy/examples/*/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := load("fairway.yaml", text)
		again, errAgain := load("fairway.yaml", text)
		if !reflect.DeepEqual(c, again) || !reflect.DeepEqual(err, errAgain) {
			t.Fatalf("two results:\n%+v, %v\n%+v, %v", c, err, again, errAgain)
		}
		if err == nil {
			if c == nil {
				t.Fatal("neither a configuration nor an error")
			}
			sound(t, c)
			return
		}
		var problems Problems
		if c != nil || !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("Load = %v, %v; want Problems alone", c, err)
		}
		for _, p := range problems {
			if strings.ContainsAny(p.Error(), "\n\r") || p.Text == "" || len(p.Text) > 1000 {
				t.Errorf("not one line: %q", p.Error())
			}
		}
		_ = passwordFiles(text)
	})
}

// sound holds what users of a Config rely on.
func sound(t *testing.T, c *Config) {
	t.Helper()
	self := c.Self()
	here, err := c.For(self)
	bare, _ := c.For(Node{Name: c.Node, Before: &self})
	if err == nil && bare.BGP.ASN != here.BGP.ASN {
		t.Errorf("without its labels the node's ASN is %d, before %d", bare.BGP.ASN, here.BGP.ASN)
	}
	if len(here.Peers) > 0 && here.BGP.ASN == 0 {
		t.Error("peers without an ASN")
	}
	for _, p := range here.Peers {
		placed := p.Address.IsValid() || p.Range.IsValid() || p.Interface != ""
		if p.Name == "" || !placed || p.ASN == 0 && p.Interface == "" || p.Port == 0 || p.HoldTime == 0 || len(p.Families) == 0 {
			t.Errorf("peer is not whole: %+v", p)
		}
	}
	for i, p := range c.Pools {
		if p.Checked() == nil || p.Checked().Name() != p.Name {
			t.Fatalf("pool is not checked: %+v", p)
		}
		for _, q := range c.Pools[:i] {
			if both, overlap := p.Checked().Overlap(q.Checked()); overlap {
				t.Errorf("pools %s and %s share %s", p.Name, q.Name, both)
			}
		}
	}
}
