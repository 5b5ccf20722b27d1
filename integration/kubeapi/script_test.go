package kubeapi

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/kube"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairway-network/fairway/api/v1alpha1"
)

// update has the tests write what they see into the files that they compare
// it with.
func update() bool { return flag.Lookup("update").Value.String() == "true" }

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files")
	os.Exit(m.Run())
}

// golden compares got with a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if update() {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Errorf("%s:%d:\n got  %s\n want %s\nIf that is as it should be, run the test with -update.", file, i+1, gotLines[i], wantLines[i])
		}
	}
	if len(gotLines) != len(wantLines) {
		t.Errorf("%s has %d lines, want %d: run the test with -update", file, len(wantLines), len(gotLines))
	}
}

// stage is a control plane with Fairway's manifests, and those who act on it.
type stage struct {
	*kube.Cluster
	actors map[string]dynamic.Interface
}

// Actors beside the nodes n1 and n2.
const (
	admin      = "admin"      // may do all
	controller = "controller" // Fairway's
	loose      = "loose"      // has the agent's account, and a token that names no node
)

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{Cluster: kube.Start(t, kube.Options{}), actors: map[string]dynamic.Interface{}}
	if err := s.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.enter(t, admin, s.Config())
	s.enter(t, controller, s.impersonate("fairway-controller"))
	s.enter(t, loose, s.impersonate("fairway-agent"))
	for _, node := range []string{"n1", "n2"} {
		config, err := s.NodeAgentConfig(t.Context(), kube.AgentAccount(), node)
		if err != nil {
			t.Fatal(err)
		}
		s.enter(t, node, config)
	}
	s.awaitPolicies(t)
	return s
}

// impersonate acts as a service account without a pod.
func (s *stage) impersonate(account string) *rest.Config {
	config := s.Config()
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:fairway-system:" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:fairway-system", "system:authenticated"},
	}
	return config
}

func (s *stage) enter(t *testing.T, name string, config *rest.Config) {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s.actors[name] = client
}

// awaitPolicies waits until each of the policies acts: that is a moment after
// it was created.
func (s *stage) awaitPolicies(t *testing.T) {
	t.Helper()
	block := `{prefix: 192.0.2.0/26, pool: probe, node: n1}`
	if got := s.do(t.Context(), step{admin, "create", "AddressBlock", "192-0-2-0-26", block}); got != taken {
		t.Fatalf("a block to try the policies with: %s", got)
	}
	probes := map[string]step{
		"fairway-agent-blocks":   {loose, "delete", "AddressBlock", "192-0-2-0-26", ""},
		"fairway-agent-requests": {loose, "create", "AddressRequest", "probe-1", `{node: n1, pool: probe, family: IPv4}`},
		"fairway-agent-speakers": {loose, "create", "NodeSpeaker", "probe", `{}`},
		"fairway-block-labels":   {admin, "replace", "AddressBlock", "192-0-2-0-26", `{metadata: {labels: {fairway.network/pool: other}}}`},
		"fairway-block-deletion": {admin, "delete", "AddressBlock", "192-0-2-0-26", ""},
	}
	deadline := time.Now().Add(30 * time.Second)
	for _, policy := range []string{"fairway-agent-blocks", "fairway-agent-requests", "fairway-agent-speakers", "fairway-block-labels", "fairway-block-deletion"} {
		for !strings.Contains(s.dryRun(t.Context(), probes[policy]), policy) {
			if time.Now().After(deadline) {
				t.Fatalf("policy %s does not act: %s", policy, s.dryRun(t.Context(), probes[policy]))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	s.clear(t)
}

// step is one line of a script: who does what with which object.
type step struct{ who, verb, kind, name, body string }

// taken is the answer to a step that the API server took.
const taken = "taken"

// parseStep reads "[as WHO] VERB KIND [NAME [BODY]]".
func parseStep(line string) step {
	s := step{who: admin}
	word := func() (w string) { w, line, _ = strings.Cut(line, " "); return w }
	if s.verb = word(); s.verb == "as" {
		s.who, s.verb = word(), word()
	}
	s.kind, s.name, s.body = word(), word(), line
	return s
}

func (s *stage) do(ctx context.Context, st step) string { return s.answer(ctx, st, nil) }
func (s *stage) dryRun(ctx context.Context, st step) string {
	return s.answer(ctx, st, []string{metav1.DryRunAll})
}

// answer carries a step out and returns taken, or what the API server said.
func (s *stage) answer(ctx context.Context, st step, dry []string) string {
	actor, ok := s.actors[st.who]
	if !ok {
		return "the script names an unknown actor: " + st.who
	}
	objects := actor.Resource(v1alpha1.GroupVersion().WithResource(strings.ToLower(st.kind) + "s"))
	if err := s.act(ctx, objects, st, dry); err != nil {
		return err.Error()
	}
	return taken
}

func (s *stage) act(ctx context.Context, objects dynamic.ResourceInterface, st step, dry []string) (err error) {
	switch st.verb {
	case "create":
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": v1alpha1.GroupVersion().String(), "kind": st.kind}}
		if err = st.change(o, "spec"); err == nil {
			_, err = objects.Create(ctx, o, metav1.CreateOptions{DryRun: dry, FieldValidation: metav1.FieldValidationStrict})
		}
	case "replace", "status":
		var o *unstructured.Unstructured
		if o, err = s.actors[admin].Resource(v1alpha1.GroupVersion().WithResource(strings.ToLower(st.kind)+"s")).Get(ctx, st.name, metav1.GetOptions{}); err != nil {
			return err
		}
		options := metav1.UpdateOptions{DryRun: dry, FieldValidation: metav1.FieldValidationStrict}
		if st.verb == "replace" {
			if err = st.change(o, "spec"); err == nil {
				_, err = objects.Update(ctx, o, options)
			}
		} else if err = st.change(o, "status"); err == nil {
			_, err = objects.UpdateStatus(ctx, o, options)
		}
	case "patch":
		err = st.patch(ctx, objects, "spec", dry)
	case "patchstatus":
		err = st.patch(ctx, objects, "status", dry, "status")
	case "delete":
		err = objects.Delete(ctx, st.name, metav1.DeleteOptions{DryRun: dry})
	case "deleteall":
		err = objects.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: dry}, metav1.ListOptions{})
	case "get":
		_, err = objects.Get(ctx, st.name, metav1.GetOptions{})
	case "list":
		_, err = objects.List(ctx, metav1.ListOptions{})
	case "watch":
		watch, err := objects.Watch(ctx, metav1.ListOptions{})
		if err == nil {
			watch.Stop()
		}
		return err
	default:
		err = fmt.Errorf("the script has an unknown verb: %s", st.verb)
	}
	return err
}

// patch merges the body into a part of the object.
func (st step) patch(ctx context.Context, objects dynamic.ResourceInterface, part string, dry []string, subresource ...string) error {
	body := map[string]any{}
	if err := yaml.Unmarshal([]byte(st.body), &body); err != nil {
		return fmt.Errorf("the script has a wrong body: %w", err)
	}
	text, err := json.Marshal(map[string]any{part: body})
	if err != nil {
		return err
	}
	options := metav1.PatchOptions{DryRun: dry, FieldValidation: metav1.FieldValidationStrict}
	_, err = objects.Patch(ctx, st.name, types.MergePatchType, text, options, subresource...)
	return err
}

// change sets the part of o that the step's body is: the whole of a part, or,
// if the body has metadata, what it says of each. A block has the labels that
// go with its spec unless the body says otherwise.
func (st step) change(o *unstructured.Unstructured, part string) error {
	body := map[string]any{}
	if err := yaml.Unmarshal([]byte(st.body), &body); err != nil {
		return fmt.Errorf("the script has a wrong body: %w", err)
	}
	metadata, whole := body["metadata"].(map[string]any)
	if !whole {
		body = map[string]any{part: body}
	}
	for name, value := range body {
		if name != "metadata" {
			o.Object[name] = value
		}
	}
	o.SetName(st.name)
	if st.kind == "AddressBlock" {
		st.label(o)
	}
	for name, value := range metadata {
		if err := unstructured.SetNestedField(o.Object, value, "metadata", name); err != nil {
			return err
		}
	}
	return nil
}

func (st step) label(o *unstructured.Unstructured) {
	text := func(field string) string { s, _, _ := unstructured.NestedString(o.Object, "spec", field); return s }
	labels := map[string]string{v1alpha1.LabelPool: text("pool"), v1alpha1.LabelNode: v1alpha1.NodeLabel(text("node"))}
	if p, err := netip.ParsePrefix(text("prefix")); err == nil {
		labels[v1alpha1.LabelAround] = v1alpha1.BlockAround(p)
	}
	o.SetLabels(labels)
}

// clear removes all objects.
func (s *stage) clear(t *testing.T) {
	t.Helper()
	for _, resource := range []string{v1alpha1.AddressPools, v1alpha1.AddressBlocks, v1alpha1.AddressRequests, v1alpha1.NodeSpeakers} {
		client := s.actors[controller]
		if resource != v1alpha1.AddressBlocks {
			client = s.actors[admin]
		}
		objects, err := client.Resource(v1alpha1.GroupVersion().WithResource(resource)).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects.Items {
			if err := client.Resource(v1alpha1.GroupVersion().WithResource(resource)).Delete(t.Context(), o.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// play carries out a script, a text of paragraphs that have nothing to do with
// each other, and returns it with the API server's answers behind the arrows.
func (s *stage) play(t *testing.T, script string) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "=>"):
			continue
		case line == "":
			s.clear(t)
		}
		out = append(out, line)
		if line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, "=> "+s.do(t.Context(), parseStep(line)))
		}
	}
	s.clear(t)
	return strings.Join(out, "\n") + "\n"
}

// TestScripts carries out testdata/*.txt. Their lines are
//
//	[as WHO] VERB KIND [NAME [BODY]]
//
// where WHO is admin, controller, loose or a node, VERB is create, replace (the
// spec), status (replace it), delete, deleteall, get, list or watch, and BODY is
// YAML: the spec, the status, or a whole object with its metadata. Each is
// followed by the answer: "=> taken" or what the API server says.
func TestScripts(t *testing.T) {
	s := newStage(t)
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	slices.Sort(scripts)
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file, s.play(t, string(script)))
		})
	}
	t.Run("ranges", func(t *testing.T) { ranges(t, s) })
	t.Run("gateways", func(t *testing.T) { gateways(t, s) })
	t.Run("a full pool", func(t *testing.T) { fullPool(t, s) })
	t.Run("every field", func(t *testing.T) { everyField(t, s) })
	t.Run("queues", func(t *testing.T) { claimsHaveAQueueOfTheirOwn(t, s) })
	t.Run("columns", func(t *testing.T) { columns(t, s) })
	t.Run("agents of the version before", func(t *testing.T) { upgrade(t, s) })
	t.Run("examples of the manual", func(t *testing.T) { examples(t, s) })
	t.Run("pools of the version before", func(t *testing.T) { olderPools(t, s) })
}
