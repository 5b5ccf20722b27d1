package kubeapi

import (
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// upgrade does what agents of the version before do: until the last one has been
// replaced they follow their Node and all namespaces.
func upgrade(t *testing.T, s *stage) {
	for _, kind := range []string{"nodes", "namespaces"} {
		objects := s.actors["n1"].Resource(core.SchemeGroupVersion.WithResource(kind))
		if _, err := objects.List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Error("an agent of the version before can't start: ", err)
		}
		watch, err := objects.Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Error("an agent of the version before sees no changes: ", err)
			continue
		}
		watch.Stop()
	}
}
