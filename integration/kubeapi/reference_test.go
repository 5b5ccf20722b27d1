package kubeapi

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

const manual = "../../docs/kubernetes.md"

// The reference part of the manual stands between these lines.
const (
	referenceBegins = "<!-- The reference, written by: go test ./integration/kubeapi -run TestReference -update -->\n"
	referenceEnds   = "<!-- The end of the reference. -->\n"
)

// definition is what the manual says of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Names struct {
			Kind, Plural string
			ShortNames   []string
		}
		Versions []struct {
			Schema struct{ OpenAPIV3Schema *schema }
		}
	}
}

// schema is a part of an OpenAPI schema.
type schema struct {
	Type, Format, Description string
	Default                   any
	Enum                      []string
	Required                  []string
	Properties                map[string]*schema
	Items                     *schema
	Rules                     []struct{ Message, FieldPath string } `json:"x-kubernetes-validations"`
}

// TestReference holds the manual's reference to the definitions.
func TestReference(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), referenceBegins)
	_, after, ends := strings.Cut(rest, referenceEnds)
	if !begins || !ends {
		t.Fatalf("%s has no lines that enclose the reference", manual)
	}
	var out strings.Builder
	for _, kind := range []string{"addresspools", "addressblocks", "addressrequests", "nodespeakers"} {
		out.WriteString(reference(t, filepath.Join("../../deploy/crds", "fairway.network_"+kind+".yaml")))
	}
	golden(t, manual, before+referenceBegins+out.String()+"\n"+referenceEnds+after)
}

func reference(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var d definition
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	root := d.Spec.Versions[0].Schema.OpenAPIV3Schema
	var out strings.Builder
	fmt.Fprintf(&out, "\n### %s\n\n%s\n\n", d.Spec.Names.Kind, strings.TrimSpace(root.Description))
	fmt.Fprintf(&out, "`kubectl get %s`, or `%s`.\n", d.Spec.Names.Plural, strings.Join(d.Spec.Names.ShortNames, "`, `"))
	fmt.Fprint(&out, "\n| field | type | default | meaning |\n| --- | --- | --- | --- |\n")
	var refusals []string
	for _, part := range []string{"spec", "status"} {
		if s := root.Properties[part]; s != nil {
			rows(t, &out, part, s, &refusals)
		}
	}
	for _, r := range root.Rules {
		refusals = append(refusals, "`"+strings.TrimPrefix(r.FieldPath, ".")+"`: "+r.Message)
	}
	fmt.Fprintf(&out, "\n%s", refused(refusals))
	return out.String()
}

// rows writes what is below s, and gathers why it may be refused.
func rows(t *testing.T, out *strings.Builder, path string, s *schema, refusals *[]string) {
	t.Helper()
	for _, r := range s.Rules {
		*refusals = append(*refusals, "`"+path+r.FieldPath+"`: "+r.Message)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		field := path + "." + name
		if p.Description == "" {
			t.Errorf("%s has no description", field)
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", field, typeOf(p), defaultOf(p, slices.Contains(s.Required, name)), oneLine(p.Description))
		// Kubernetes' own types are described by Kubernetes.
		if strings.HasSuffix(name, "Selector") || name == "conditions" {
			continue
		}
		if p.Items != nil {
			rows(t, out, field+"[]", p.Items, refusals)
			p = &schema{Rules: p.Rules}
		}
		rows(t, out, field, p, refusals)
	}
}

func typeOf(s *schema) string {
	switch {
	case len(s.Enum) > 0:
		return "`" + strings.Join(s.Enum, "`, `") + "`"
	case s.Items != nil:
		return "list: " + typeOf(s.Items)
	case s.Format == "date-time":
		return "time"
	}
	return s.Type
}

func defaultOf(s *schema, required bool) string {
	switch {
	case required:
		return "required"
	case s.Default == nil:
		return ""
	case s.Default == "":
		return "empty"
	}
	return fmt.Sprintf("`%v`", s.Default)
}

func oneLine(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}

// refused is a list without repetitions.
func refused(reasons []string) string {
	if len(reasons) == 0 {
		return ""
	}
	var out strings.Builder
	fmt.Fprint(&out, "What the API server refuses, beside what the types do:\n\n")
	var said []string
	for _, r := range reasons {
		if !slices.Contains(said, r) {
			said = append(said, r)
			fmt.Fprintf(&out, "- %s\n", oneLine(r))
		}
	}
	return out.String()
}

// examples has the API server take the manual's objects.
func examples(t *testing.T, s *stage) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	pieces := strings.Split(string(text), "```yaml\n")[1:]
	var tried int
	for _, piece := range pieces {
		example, _, _ := strings.Cut(piece, "```")
		for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(example)), 4096); ; {
			object := map[string]any{}
			if err := d.Decode(&object); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			kind, _ := object["kind"].(string)
			if object["apiVersion"] != "fairway.network/v1alpha1" {
				continue
			}
			tried++
			s.tryExample(t, kind, object)
		}
	}
	if tried < 2 {
		t.Errorf("%s has %d examples", manual, tried)
	}
}
