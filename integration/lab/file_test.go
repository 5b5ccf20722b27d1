package lab

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const complete = `
name: demo
topology:
  defaults:
    kind: linux
    image: debian:12
    binds: [shared:/shared]
    env: {COLOUR: green, PORT: 80}
  kinds:
    linux:
      cmd: sleep infinity
      network-mode: none
      env: {COLOUR: blue}
  nodes:
    b:
      group: routers
      labels: {graph-level: 1}
      binds: ["../bin/x:/usr/local/bin/x:ro"]
      exec:
        - sh -c 'echo "two words"'
      sysctls: {net.ipv4.ip_forward: 1}
      cap-add: [NET_ADMIN]
      startup-delay: 2
      stages:
        configure:
          wait-for:
            - {node: a, stage: create-links}
    a:
  links:
    - endpoints: ["b:eth1", "a:eth2"]
      mtu: 9000
    - endpoints: [a:eth1, a:eth3]
`

func TestParse(t *testing.T) {
	got, err := Parse([]byte(complete))
	if err != nil {
		t.Fatal(err)
	}
	want := &Topology{
		Name: "demo",
		Nodes: []NodeSpec{
			{
				Name: "b", Image: "debian:12", Cmd: "sleep infinity",
				Binds:        []Bind{{Source: "shared", Target: "/shared"}, {Source: "../bin/x", Target: "/usr/local/bin/x", ReadOnly: true}},
				Exec:         []string{`sh -c 'echo "two words"'`},
				Env:          map[string]string{"COLOUR": "blue", "PORT": "80"},
				Sysctls:      map[string]string{"net.ipv4.ip_forward": "1"},
				StartupDelay: 2 * time.Second,
				WaitFor:      []Wait{{Stage: Configure, Node: "a", Until: CreateLinks}},
			},
			{
				Name: "a", Image: "debian:12", Cmd: "sleep infinity",
				Binds: []Bind{{Source: "shared", Target: "/shared"}},
				Env:   map[string]string{"COLOUR": "blue", "PORT": "80"},
			},
		},
		Links: []Link{{A: "b:eth1", B: "a:eth2", MTU: 9000}, {A: "a:eth1", B: "a:eth3"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "name: x\ntopology:\n  defaults: {kind: linux}\n  nodes:\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":              {"", "empty file"},
		"not a mapping":      {"- a\n", "line 1: topology file: not a mapping"},
		"unknown key":        {"name: x\nmgmt: {}\n", `line 2: topology file: unknown key "mgmt"`},
		"unknown node key":   {head + "    a:\n      ports: [80]\n", `line 6: node a: unknown key "ports"`},
		"unknown link key":   {head + "    a:\n  links:\n    - {endpoints: [a:e1, a:e2], vars: 1}\n", `line 7: link: unknown key "vars"`},
		"wrong type":         {head + "    a:\n      exec: {a: b}\n", "line 6: cannot unmarshal"},
		"another kind":       {head + "    a: {kind: srl}\n", `line 5: node "a": kind "srl"`},
		"network mode":       {head + "    a: {network-mode: host}\n", `network-mode "host"`},
		"bind":               {head + "    a: {binds: [x]}\n", `bind "x": write it as`},
		"bind option":        {head + "    a: {binds: ['x:/x:z']}\n", `bind "x:/x:z"`},
		"bind target":        {head + "    a: {binds: ['x:y']}\n", `bind "x" to "y"`},
		"bind on root":       {head + "    a: {binds: ['x:/../']}\n", "other than /"},
		"open quote":         {head + "    a: {exec: [\"echo 'a\"]}\n", "a quote is left open"},
		"sysctl":             {head + "    a: {sysctls: {../../etc/passwd: 1}}\n", `sysctl "../../etc/passwd"`},
		"environment":        {head + "    a: {env: {A=B: 1}}\n", `environment variable "A=B"`},
		"node twice":         {head + "    a:\n    a:\n", `node "a": defined twice`},
		"node name":          {head + "    a/b:\n", `node "a/b": bad name`},
		"no nodes":           {"name: x\n", "no nodes"},
		"lab name":           {"name: ../x\ntopology: {nodes: {a: {kind: linux}}}\n", `lab name "../x"`},
		"three ends":         {head + "    a:\n  links:\n    - endpoints: [a:e1, a:e2, a:e3]\n", "line 7: link with 3 endpoints"},
		"unknown end":        {head + "    a:\n  links:\n    - endpoints: [a:e1, b:e1]\n", `link endpoint "b:e1": no node "b"`},
		"end used twice":     {head + "    a:\n  links:\n    - endpoints: [a:e1, a:e1]\n", `link endpoint "a:e1": used twice`},
		"long interface":     {head + "    a:\n  links:\n    - endpoints: [a:abcdefghijklmnop, a:e1]\n", "can't name an interface"},
		"mtu":                {head + "    a:\n  links:\n    - {endpoints: [a:e1, a:e2], mtu: 7}\n", "MTU 7"},
		"negative delay":     {head + "    a: {startup-delay: -1}\n", "startup delay -1s"},
		"wait for stranger":  {head + "    a: {stages: {create: {wait-for: [{node: b, stage: create}]}}}\n", `waits for "b"`},
		"wait for health":    {head + "    a: {stages: {create: {wait-for: [{node: a, stage: healthy}]}}}\n", `stage "healthy"`},
		"wait in a circle":   {head + "    a: {stages: {create: {wait-for: [{node: b, stage: configure}]}}}\n    b: {stages: {create: {wait-for: [{node: a, stage: create}]}}}\n", "in a circle"},
		"unknown stage key":  {head + "    a: {stages: {create: {exec: []}}}\n", `line 5: stage create: unknown key "exec"`},
		"yaml is broken":     {"name: [\n", "yaml: line"},
		"a key that is list": {head + "    ? [a]\n    : {}\n", "bad name"},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

func TestTopologiesOfTheProject(t *testing.T) {
	files, err := filepath.Glob("../topologies/*.clab.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no topologies: %v", err)
	}
	for _, f := range files {
		if _, err := Load(f); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(complete))
	for _, s := range []string{"", "name: x", "topology: {nodes: {a: }}", "topology: {links: [{endpoints: [a, b]}]}", "a: &a [*a]", "? {}\n: 1"} {
		f.Add([]byte(s))
	}
	if text, err := os.ReadFile("../topologies/road.clab.yml"); err == nil {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		topology, err := Parse(text)
		if err != nil {
			return
		}
		// What was accepted has an order to come up in.
		for _, n := range topology.Nodes {
			for _, s := range stages() {
				for _, b := range topology.before(milestone{n.Name, s}) {
					if topology.index(b.node) < 0 {
						t.Errorf("%s waits for %s, which never comes", n.Name, b)
					}
				}
			}
		}
	})
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":                        nil,
		"  ip  link\tshow ":       {"ip", "link", "show"},
		`sh -c "a 'b' \"c\" \n"`:  {"sh", "-c", `a 'b' "c" \n`},
		`echo 'a\b' c\ d "" x''y`: {"echo", `a\b`, "c d", "", "xy"},
		"'$HOME' *":               {"$HOME", "*"},
		"grüße \\\n über":         {"grüße", "\n", "über"},
		`"a`:                      nil,
		`a\`:                      nil,
	} {
		got, err := splitWords(line)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
}

// FuzzSplitWords checks that words written with quotes are read back.
func FuzzSplitWords(f *testing.F) {
	f.Add("a", "b c")
	f.Add("it's", `"\`)
	f.Add("", "\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
		got, err := splitWords(quote(a) + " " + quote(b))
		if err != nil || !reflect.DeepEqual(got, []string{a, b}) {
			t.Errorf("%q %q: got %q, %v", a, b, got, err)
		}
	})
}

func TestSysctlPath(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.ip_forward":             "net/ipv4/ip_forward",
		"net/ipv4/conf/eth1.5/forwarding": "net/ipv4/conf/eth1.5/forwarding",
		"net.ipv4.conf.eth1/5.forwarding": "net/ipv4/conf/eth1.5/forwarding",
	} {
		if got := sysctlPath(key); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
}
