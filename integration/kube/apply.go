package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// applyTime bounds Apply.
const applyTime = 30 * time.Second

// ApplyFiles applies the manifests in YAML or JSON files, in their order, as
// Apply does.
func (c *Cluster) ApplyFiles(ctx context.Context, files ...string) error {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := c.Apply(ctx, string(text)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// Apply applies manifests (YAML documents or JSON), in their order, with
// server-side apply and the rights of Config, and returns when the kinds that
// they define are served. It stops at the first that fails; the error is the API
// server's and says which object it is about.
func (c *Cluster) Apply(ctx context.Context, manifests string) error {
	ctx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	a, err := c.newApplier()
	if err != nil {
		return err
	}
	for d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096); ; {
		object := &unstructured.Unstructured{}
		if err := d.Decode(&object.Object); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := a.apply(ctx, object); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

// applier applies single objects.
type applier struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
}

func (c *Cluster) newApplier() (*applier, error) {
	client, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		return nil, err
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(c.Config())
	if err != nil {
		return nil, err
	}
	return &applier{client, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kinds))}, nil
}

func (a *applier) apply(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	var to dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		namespace := object.GetNamespace()
		if namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		to = a.client.Resource(mapping.Resource).Namespace(namespace)
	}
	if _, err := to.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "fairway-test", Force: true}); err != nil {
		return err
	}
	if kind.Kind == "CustomResourceDefinition" {
		return a.awaitServed(ctx, object)
	}
	return nil
}

// awaitServed waits until all versions that a definition serves can be used.
func (a *applier) awaitServed(ctx context.Context, definition *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok || version["served"] != true {
			continue
		}
		name, _, _ := unstructured.NestedString(version, "name")
		if err := a.awaitKind(ctx, schema.GroupVersionKind{Group: group, Version: name, Kind: kind}); err != nil {
			return err
		}
	}
	return nil
}

// awaitKind waits until the API server lists a kind and answers for it: it
// lists one a moment before it has the handler for it.
func (a *applier) awaitKind(ctx context.Context, kind schema.GroupVersionKind) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		a.mapper.Reset()
		mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err == nil {
			_, err = a.client.Resource(mapping.Resource).List(ctx, metav1.ListOptions{Limit: 1})
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not served: %w: %w", kind, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Kubectl runs kubectl with the rights of Config and returns what it printed. The
// error holds what it wrote to its standard error.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Programs(), "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HOME="+c.home.dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		err = errors.Join(err, ctx.Err())
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
