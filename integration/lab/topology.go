package lab

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Topology describes a lab.
type Topology struct {
	// Name of the lab: letters, digits, dots, dashes.
	Name string
	// Dir is where the relative sources of binds start.
	Dir   string
	Nodes []NodeSpec
	Links []Link
}

// NodeSpec describes a node.
type NodeSpec struct {
	// Name of the node, which is its hostname as well.
	Name string
	// Image is what containerlab would run; unused here.
	Image string
	// Cmd is the node's main program, which runs from the start of the node,
	// before its links are there. The node outlives it.
	Cmd string
	// Binds are files and directories of the host seen by the node.
	Binds []Bind
	// Exec are commands run one after the other once all links of the node are
	// there, without a shell. One that fails stops the lab.
	Exec []string
	// Env is added to the environment of everything run in the node.
	Env map[string]string
	// Sysctls, such as net.ipv4.ip_forward, are set before the links are there.
	Sysctls map[string]string
	// StartupDelay is waited before the node is created.
	StartupDelay time.Duration
	// WaitFor orders the stages of the nodes.
	WaitFor []Wait
}

// Bind shows Source of the host as Target in a node.
type Bind struct {
	Source   string // relative to the topology's Dir
	Target   string // absolute
	ReadOnly bool
}

// Stage is a step of a node on its way up.
type Stage string

// The stages in their order: the node is there and runs its Cmd; its links are
// there; its Exec commands are done.
const (
	Create      Stage = "create"
	CreateLinks Stage = "create-links"
	Configure   Stage = "configure"
)

func stages() []Stage { return []Stage{Create, CreateLinks, Configure} }

// Wait keeps a node from entering Stage until Node is through Until.
type Wait struct {
	Stage Stage
	Node  string
	Until Stage
}

// Link is a cable between two nodes.
type Link struct {
	A, B Endpoint
	MTU  int // 0 is the kernel's default
}

// Endpoint is one end of a link, written "node:interface".
type Endpoint string

// Node is the name of the node that the end is at.
func (e Endpoint) Node() string { node, _, _ := strings.Cut(string(e), ":"); return node }

// Interface is the name of the end in its node.
func (e Endpoint) Interface() string { _, ifname, _ := strings.Cut(string(e), ":"); return ifname }

var (
	validName      = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)
	validInterface = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
	validSysctl    = regexp.MustCompile(`^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$`)
	validEnv       = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// Validate returns everything that is wrong with t, joined.
func (t *Topology) Validate() error {
	var errs []error
	if !validName.MatchString(t.Name) {
		errs = append(errs, fmt.Errorf("lab name %q: use letters, digits, dots and dashes", t.Name))
	}
	if len(t.Nodes) == 0 {
		errs = append(errs, errors.New("no nodes: a lab needs at least one"))
	}
	seen := map[string]bool{}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if seen[n.Name] {
			errs = append(errs, fmt.Errorf("node %q: defined twice", n.Name))
		}
		seen[n.Name] = true
		if err := n.validate(); err != nil {
			errs = append(errs, fmt.Errorf("node %q: %w", n.Name, err))
		}
	}
	errs = append(errs, t.validateLinks())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return t.validateOrder()
}

func (n *NodeSpec) validate() error {
	var errs []error
	if !validName.MatchString(n.Name) {
		errs = append(errs, errors.New("bad name: use letters, digits, dots and dashes"))
	}
	for _, b := range n.Binds {
		if b.Source == "" || !filepath.IsAbs(b.Target) || filepath.Clean(b.Target) == "/" {
			errs = append(errs, fmt.Errorf("bind %q to %q: it needs a source and an absolute target other than /", b.Source, b.Target))
		}
	}
	for _, line := range append([]string{n.Cmd}, n.Exec...) {
		if _, err := splitWords(line); err != nil {
			errs = append(errs, fmt.Errorf("command %q: %w", line, err))
		}
	}
	for key := range n.Sysctls {
		if !validSysctl.MatchString(key) {
			errs = append(errs, fmt.Errorf("sysctl %q: write it like net.ipv4.ip_forward", key))
		}
	}
	for key := range n.Env {
		if !validEnv.MatchString(key) {
			errs = append(errs, fmt.Errorf("environment variable %q: use letters, digits and underscores", key))
		}
	}
	if n.StartupDelay < 0 {
		errs = append(errs, fmt.Errorf("startup delay %s: can't be negative", n.StartupDelay))
	}
	return errors.Join(errs...)
}

func (t *Topology) validateLinks() error {
	var errs []error
	used := map[Endpoint]bool{}
	for _, link := range t.Links {
		for _, end := range []Endpoint{link.A, link.B} {
			switch {
			case t.index(end.Node()) < 0:
				errs = append(errs, fmt.Errorf("link endpoint %q: no node %q", end, end.Node()))
			case !validInterface.MatchString(end.Interface()) || end.Interface() == "lo":
				errs = append(errs, fmt.Errorf("link endpoint %q: %q can't name an interface, write it like node:eth1", end, end.Interface()))
			case used[end]:
				errs = append(errs, fmt.Errorf("link endpoint %q: used twice", end))
			}
			used[end] = true
		}
		if link.MTU != 0 && (link.MTU < 68 || link.MTU > 65535) {
			errs = append(errs, fmt.Errorf("link %s %s: MTU %d is not between 68 and 65535", link.A, link.B, link.MTU))
		}
	}
	return errors.Join(errs...)
}

func (t *Topology) index(node string) int {
	return slices.IndexFunc(t.Nodes, func(n NodeSpec) bool { return n.Name == node })
}
