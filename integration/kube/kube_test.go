package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func client(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// self is who the API server takes the owner of a configuration for.
func self(t *testing.T, config *rest.Config) authentication.UserInfo {
	t.Helper()
	review, err := client(t, config).AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authentication.SelfSubjectReview{}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo
}

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer, description: how wide it is}
            x-kubernetes-validations:
            - {rule: "self.size < 10", message: too wide}
---
`

const widget = `
apiVersion: example.com/v1
kind: Widget
metadata: {name: small}
spec: {size: 3}
`

// One cluster for all: a start takes seconds.
func TestCluster(t *testing.T) {
	c := Start(t, Options{})
	t.Run("identities", func(t *testing.T) { identities(t, c) })
	t.Run("a token bound to a node", func(t *testing.T) { boundTokens(t, c) })
	t.Run("a policy that reads the node", func(t *testing.T) { nodePolicy(t, c) })
	t.Run("manifests", func(t *testing.T) { manifests(t, c) })
	t.Run("objects in etcd", func(t *testing.T) { stored(t, c) })
	t.Run("counts", func(t *testing.T) { counts(t, c) })
	t.Run("API server away", func(t *testing.T) { away(t, c) })
}

func identities(t *testing.T, c *Cluster) {
	if got := self(t, c.As("jane", "dev", "ops")); got.Username != "jane" || !strings.Contains(strings.Join(got.Groups, " "), "dev ops") {
		t.Errorf("As(jane, dev, ops) is %+v", got)
	}
	_, err := client(t, c.As("jane")).CoreV1().Nodes().List(t.Context(), meta.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("jane lists nodes: %v; she has no rights", err)
	}
	if _, err := client(t, c.Config()).CoreV1().Nodes().List(t.Context(), meta.ListOptions{}); err != nil {
		t.Errorf("the administrator lists nodes: %v", err)
	}
	// NodeRestriction holds a kubelet to its own node.
	_, err = client(t, c.As("system:node:n1", "system:nodes")).CoreV1().Nodes().
		Create(t.Context(), &core.Node{ObjectMeta: meta.ObjectMeta{Name: "n2"}}, meta.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("n1 creates n2: %v", err)
	}
}

func boundTokens(t *testing.T, c *Cluster) {
	account := Account{Namespace: "agents", Name: "agent"}
	for _, node := range []string{"n1", "n2", "n1"} {
		config, err := c.NodeAgentConfig(t.Context(), account, node)
		if err != nil {
			t.Fatal(err)
		}
		got := self(t, config)
		if got.Username != "system:serviceaccount:agents:agent" {
			t.Errorf("the agent of %s is %s", node, got.Username)
		}
		if name := got.Extra["authentication.kubernetes.io/node-name"]; len(name) != 1 || name[0] != node {
			t.Errorf("the agent of %s has the node name %q in its token", node, name)
		}
	}
}

// ownNode lets agents make ConfigMaps, but only those named after their node.
const ownNode = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: agent}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: agent}
subjects: [{kind: ServiceAccount, namespace: agents, name: agent}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: own-node}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations:
  - expression: request.userInfo.extra["authentication.kubernetes.io/node-name"][0] == object.metadata.name
    message: not your node
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: own-node}
spec:
  policyName: own-node
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: agents}}}
`

func nodePolicy(t *testing.T, c *Cluster) {
	if err := c.Apply(t.Context(), ownNode); err != nil {
		t.Fatal(err)
	}
	config, err := c.NodeAgentConfig(t.Context(), Account{Namespace: "agents", Name: "agent"}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	maps := client(t, config).CoreV1().ConfigMaps("agents")
	create := func(name string, options meta.CreateOptions) error {
		_, err := maps.Create(t.Context(), &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: name}}, options)
		return err
	}
	await(t, "the policy to act", func() bool {
		err := create("n2", meta.CreateOptions{DryRun: []string{meta.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "not your node")
	})
	if err := create("n1", meta.CreateOptions{}); err != nil {
		t.Errorf("the agent of n1 makes what it may: %v", err)
	}
}

func manifests(t *testing.T, c *Cluster) {
	file := filepath.Join(t.TempDir(), "widget.yaml")
	if err := os.WriteFile(file, []byte(widgets+widget), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.ApplyFiles(t.Context(), file, file); err != nil {
		t.Fatal(err)
	}
	err := c.Apply(t.Context(), strings.Replace(widget, "3", "30", 1))
	if err == nil || !strings.Contains(err.Error(), "Widget small") || !strings.Contains(err.Error(), "too wide") {
		t.Errorf("a widget that is too wide: %v", err)
	}
	if err := c.Apply(t.Context(), strings.Replace(widget, "Widget", "Gadget", 1)); err == nil {
		t.Error("an object of a kind that is not defined was applied")
	}
	await(t, "kubectl explain to know a widget", func() bool {
		out, err := c.Kubectl(t.Context(), "explain", "widget.spec.size")
		return err == nil && strings.Contains(out, "how wide it is")
	})
	if out, err := c.Kubectl(t.Context(), "get", "widget", "large"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("kubectl get of what is not there: %q, %v", out, err)
	}
}

func stored(t *testing.T, c *Cluster) {
	if err := c.Apply(t.Context(), widgets+widget); err != nil {
		t.Fatal(err)
	}
	const under = "/registry/example.com/widgets/"
	small, err := c.Stored(t.Context(), under+"small")
	if err != nil {
		t.Fatal(err)
	}
	var pairs []Pair
	for i := range 250 {
		name := fmt.Sprintf("copy-%d", i)
		pairs = append(pairs, Pair{[]byte(under + name), []byte(strings.Replace(string(small), `"small"`, `"`+name+`"`, 1))})
	}
	if err := c.Store(t.Context(), pairs); err != nil {
		t.Fatal(err)
	}
	await(t, "the API server to show what was written into etcd", func() bool {
		out, err := c.Kubectl(t.Context(), "get", "widgets", "-o", "name")
		return err == nil && strings.Count(out, "/copy-") == len(pairs)
	})
	if _, err := c.Stored(t.Context(), under+"none"); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key that is not there: %v", err)
	}
}

func counts(t *testing.T, c *Cluster) {
	// Of secrets, nobody else makes any.
	admin := client(t, c.Config()).CoreV1()
	before, err := c.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := c.CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	const writes = 5
	for i := range writes {
		name := "counted-" + string(rune('a'+i))
		if _, err := admin.Secrets("default").Create(t.Context(), &core.Secret{ObjectMeta: meta.ObjectMeta{Name: name}}, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	after, err := c.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	labels := []string{`resource="secrets"`, `verb="POST"`, `code="201"`}
	if n := after.Sum("apiserver_request_total", labels...) - before.Sum("apiserver_request_total", labels...); n != writes {
		t.Errorf("%d writes were counted as %v", writes, n)
	}
	used, err := c.CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	if used.APIServer <= cpu.APIServer || used.Etcd <= cpu.Etcd {
		t.Errorf("processor time of %d writes: from %v to %v", writes, cpu, used)
	}
}

func away(t *testing.T, c *Cluster) {
	admin := client(t, c.Config()).CoreV1().Namespaces()
	if _, err := admin.Create(t.Context(), &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: "kept"}}, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.PauseAPIServer(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := admin.Get(short, "kept", meta.GetOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused API server: %v; want no answer", err)
	}
	if err := c.ResumeAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Get(t.Context(), "kept", meta.GetOptions{}); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Get(t.Context(), "kept", meta.GetOptions{}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("an API server that is away: %v; want the connection refused", err)
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Get(t.Context(), "kept", meta.GetOptions{}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestControllers(t *testing.T) {
	c := Start(t, Options{Controllers: []string{"serviceaccount-controller"}})
	// The admission of pods wants an account, which the controller makes.
	await(t, "a pod to be admitted", func() bool {
		pod := &core.Pod{ObjectMeta: meta.ObjectMeta{Name: "web"}, Spec: core.PodSpec{Containers: []core.Container{{Name: "web", Image: "web"}}}}
		made, err := client(t, c.Config()).CoreV1().Pods("default").Create(t.Context(), pod, meta.CreateOptions{})
		return err == nil && made.Spec.ServiceAccountName == "default"
	})
}

func TestAWrongFlagIsReported(t *testing.T) {
	_, err := Up(t.Context(), Options{APIServer: []string{"--no-such-flag"}})
	if errors.Is(err, ErrNotBuilt) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("Up with a wrong flag: %v", err)
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestMetricsText(t *testing.T) {
	m, err := parseMetrics("# HELP up it is\n# TYPE up gauge\nup 1\nr_total{code=\"200\",verb=\"GET\"} 2\nr_total{code=\"201\",verb=\"PUT\"} 4e0\n\nr_total_x{verb=\"PUT\"} 9\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"up", nil, 1},
		{"r_total", nil, 6},
		{"r_total", []string{`verb="PUT"`}, 4},
		{"r_total", []string{`code="200"`, `verb="GET"`}, 2},
		{"r_total", []string{`verb="P"`}, 0},
		{"down", nil, 0},
	} {
		if got := m.Sum(c.name, c.labels...); got != c.want {
			t.Errorf("Sum(%s, %v) = %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	for _, bad := range []string{"lonely", "up one"} {
		if _, err := parseMetrics(bad); err == nil {
			t.Errorf("%q is taken for a metric", bad)
		}
	}
}
