package daemonset

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fairway-network/fairway/integration/kube"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// confined has the API server refuse pods that can do harm, where their namespace does not
// say otherwise, as some distributions do.
const confined = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: restricted, enforce-version: latest}
`

// The pods of the manifests are admitted where others would not be.
func TestPodsAreAdmitted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "admission.yaml")
	if err := os.WriteFile(file, []byte(confined), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster := kube.Start(t, kube.Options{APIServer: []string{"--admission-control-config-file", file}})
	if err := cluster.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	var daemons apps.DaemonSet
	manifest(t, "agent.yaml", "DaemonSet", &daemons)
	var deployment apps.Deployment
	manifest(t, "controller.yaml", "Deployment", &deployment)
	for _, template := range []core.PodTemplateSpec{daemons.Spec.Template, deployment.Spec.Template} {
		pod := &core.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "fairway-", Labels: template.Labels}, Spec: template.Spec}
		if _, err := client.CoreV1().Pods(daemons.Namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
			t.Errorf("%s: %v", template.Labels, err)
		}
	}
}
