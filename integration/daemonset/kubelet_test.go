package daemonset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/integration/nodes"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// account is where a kubelet puts the token of a pod's service account.
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// kubelet carries out pods on a node, without an image: the root of every container is
// made as the Containerfile says.
type kubelet struct {
	*nodes.Node
	root string // of containers
	path string // PATH in them
	// ConfigMaps are folders with their files, by name.
	configMaps map[string]string
}

// newKubelet makes the root from programs that are built.
func newKubelet(t *testing.T, n *nodes.Node) *kubelet {
	t.Helper()
	k := &kubelet{Node: n, root: n.File("root"), configMaps: make(map[string]string)}
	text, err := os.ReadFile("../../deploy/image/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		switch words := strings.Fields(line); {
		case len(words) == 0:
		case words[0] == "COPY":
			to := filepath.Join(k.root, words[len(words)-1])
			if err := os.MkdirAll(to, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, program := range words[1 : len(words)-1] {
				if err := os.Link(filepath.Join(n.Built, program), filepath.Join(to, program)); err != nil {
					t.Fatal(err)
				}
			}
		case words[0] == "ENV":
			k.path = strings.TrimPrefix(words[1], "PATH=")
		}
	}
	return k
}

// host is where a path of the node's is in this test.
func (k *kubelet) host(path string) string { return k.File("host" + path) }

// bind is a folder that a container sees.
type bind struct {
	from, to string
	readOnly bool
}

// token puts what a pod's service account is to have into a folder.
func (k *kubelet) token(t *testing.T, serviceAccount string) string {
	t.Helper()
	config, err := k.NodeAgentConfig(t.Context(), kube.Account{Namespace: "fairway-system", Name: serviceAccount}, k.Name)
	if err != nil {
		t.Fatal(err)
	}
	dir := k.File(serviceAccount)
	k.write(t, filepath.Join(dir, "token"), config.BearerToken)
	k.write(t, filepath.Join(dir, "ca.crt"), string(config.CAData))
	k.write(t, filepath.Join(dir, "namespace"), "fairway-system")
	return dir
}

func (k *kubelet) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// volume is the folder of a volume.
func (k *kubelet) volume(t *testing.T, v core.Volume) string {
	t.Helper()
	var dir string
	switch {
	case v.ConfigMap != nil && k.configMaps[v.ConfigMap.Name] != "":
		return k.configMaps[v.ConfigMap.Name]
	case v.Secret != nil && v.Secret.Optional != nil && *v.Secret.Optional:
		dir = k.File("secret-" + v.Secret.SecretName)
	case v.HostPath != nil && v.HostPath.Type != nil && *v.HostPath.Type == core.HostPathDirectoryOrCreate:
		dir = k.host(v.HostPath.Path)
	default:
		t.Fatalf("a volume that this test knows nothing of: %+v", v)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// binds are all that a container sees of the host.
func (k *kubelet) binds(t *testing.T, pod *core.PodSpec, c *core.Container) []bind {
	t.Helper()
	all := []bind{{from: "/dev", to: "/dev"}, {k.token(t, pod.ServiceAccountName), account, true}}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			t.Fatalf("container %s: there is no volume %q", c.Name, m.Name)
		}
		all = append(all, bind{k.volume(t, pod.Volumes[i]), m.MountPath, m.ReadOnly})
	}
	for _, b := range all {
		if err := os.MkdirAll(filepath.Join(k.root, b.to), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// environment is what a container finds in it.
func (k *kubelet) environment(t *testing.T, c *core.Container) []string {
	t.Helper()
	server, err := url.Parse(k.Config().Host)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"PATH=" + k.path, "KUBERNETES_SERVICE_HOST=" + server.Hostname(), "KUBERNETES_SERVICE_PORT=" + server.Port()}
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil {
			field := map[string]string{"spec.nodeName": k.Name, "metadata.name": "pod-of-" + k.Name}
			if value = field[e.ValueFrom.FieldRef.FieldPath]; value == "" {
				t.Fatalf("container %s: field %q", c.Name, e.ValueFrom.FieldRef.FieldPath)
			}
		}
		all = append(all, e.Name+"="+value)
	}
	return all
}

// command is a container, in mount and process namespaces of its own.
func (k *kubelet) command(t *testing.T, pod *core.PodSpec, c *core.Container) *exec.Cmd {
	t.Helper()
	if !pod.HostNetwork || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
		t.Fatalf("container %s: not on the node's network, or its root can be written", c.Name)
	}
	mounts := k.binds(t, pod, c)
	environment := k.environment(t, c)
	var script strings.Builder
	step := func(format string, a ...any) { fmt.Fprintf(&script, format+" &&\n", a...) }
	if err := os.MkdirAll(filepath.Join(k.root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	step("mount --bind %s %[1]s", k.root)
	step("mount -t proc proc %s/proc", k.root)
	for _, b := range mounts {
		step("mount --bind %s %s%s", b.from, k.root, b.to)
		if b.readOnly {
			step("mount -o remount,bind,ro %s%s", k.root, b.to)
		}
	}
	step("mount -o remount,bind,ro %s", k.root)
	user := "0:0"
	if s := pod.SecurityContext; s != nil && s.RunAsUser != nil {
		user = fmt.Sprintf("%d:%d", *s.RunAsUser, *s.RunAsGroup)
	}
	// The program is looked for with the container's PATH.
	fmt.Fprintf(&script, `exec env -i "$@"`)
	argv := append([]string{"unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script.String(), "sh"}, environment...)
	chroot, err := exec.LookPath("chroot")
	if err != nil {
		t.Fatal(err)
	}
	argv = append(append(argv, chroot, "--userspec="+user, k.root), c.Command...)
	for _, a := range c.Args {
		for _, e := range environment {
			name, value, _ := strings.Cut(e, "=")
			a = strings.ReplaceAll(a, "$("+name+")", value)
		}
		argv = append(argv, a)
	}
	return k.Command(context.Background(), argv...)
}

// completes runs a container to its good end.
func (k *kubelet) completes(t *testing.T, pod *core.PodSpec, c *core.Container) {
	t.Helper()
	if out, err := k.command(t, pod, c).CombinedOutput(); err != nil {
		t.Fatalf("container %s: %v: %s", c.Name, err, out)
	}
}

// container is one that runs.
type container struct {
	kubelet *kubelet
	*core.Container
	cmd   *exec.Cmd
	ended chan struct{}
}

// runs starts a container, which is killed when the test ends.
func (k *kubelet) runs(t *testing.T, pod *core.PodSpec, c *core.Container) *container {
	t.Helper()
	cmd := k.command(t, pod, c)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	running := &container{k, c, cmd, make(chan struct{})}
	go func() {
		defer close(running.ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = running.signal(syscall.SIGKILL)
		_ = cmd.Process.Kill()
		<-running.ended
		if t.Failed() {
			t.Logf("container %s: %s", c.Name, &said)
		}
	})
	return running
}

// signal sends a signal to the first process in the container.
func (c *container) signal(s syscall.Signal) error {
	parent := strconv.Itoa(c.cmd.Process.Pid)
	children, err := os.ReadFile(filepath.Join("/proc", parent, "task", parent, "children"))
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		return fmt.Errorf("the processes below %s: %w", parent, err)
	}
	return syscall.Kill(first, s)
}

// stop ends a container as a kubelet does that replaces it.
func (c *container) stop(t *testing.T) {
	t.Helper()
	if err := c.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	nodes.Await(t, "container "+c.Name+" ends", func() error {
		select {
		case <-c.ended:
			return nil
		default:
			return errors.New("it runs")
		}
	})
}

// probed waits until the container's probes say that it lives and is ready.
func (c *container) probed(t *testing.T) {
	t.Helper()
	for what, probe := range map[string]*core.Probe{"lives": c.LivenessProbe, "is ready": c.ReadinessProbe} {
		at := fmt.Sprintf("http://%s:%d%s", probe.HTTPGet.Host, probe.HTTPGet.Port.IntVal, probe.HTTPGet.Path)
		nodes.Await(t, c.Name+" "+what, func() error {
			ask := c.kubelet.Command(t.Context(), "curl", "--silent", "--fail-with-body", at)
			answer, err := ask.Output()
			if err != nil {
				err = fmt.Errorf("%s: %w: %s", at, err, answer)
			}
			return err
		})
	}
}

// manifest reads the object of a kind out of a file of deploy/kubernetes. It has no fields
// that the kind does not have.
func manifest(t *testing.T, file, kind string, into any) {
	t.Helper()
	f, err := os.Open(filepath.Join("../../deploy/kubernetes", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for documents := yaml.NewYAMLOrJSONDecoder(f, 4096); ; {
		var text json.RawMessage
		var is metav1.TypeMeta
		err := documents.Decode(&text)
		if err == nil {
			err = json.Unmarshal(text, &is)
		}
		if err == nil && is.Kind == kind {
			strict := json.NewDecoder(bytes.NewReader(text))
			strict.DisallowUnknownFields()
			if err = strict.Decode(into); err == nil {
				return
			}
		}
		if err != nil {
			t.Fatalf("%s: %s: %v", file, kind, err)
		}
	}
}
