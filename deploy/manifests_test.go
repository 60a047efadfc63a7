package deploy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/poldernet/polder/internal/kubetest/program"
	"github.com/poldernet/polder/spec"
)

// variants are the folders that can be applied.
var variants = []string{"base", "network", "migrate"}

// render is what `kubectl apply -k` would apply.
func render(t *testing.T, variant string) []runtime.Object {
	t.Helper()
	return decode(t, output(t, exec.CommandContext(t.Context(), program.Need(t, program.Kustomize), "build", "kubernetes/"+variant)))
}

// decode reads objects of Kubernetes' types, and refuses what these do not have.
func decode(t *testing.T, text string) (objects []runtime.Object) {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := kubeyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		objects = append(objects, object)
	}
}

// the is the only object of a type.
func the[T runtime.Object](t *testing.T, objects []runtime.Object) (found T) {
	t.Helper()
	n := 0
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found, n = o, n+1
		}
	}
	if n != 1 {
		t.Fatalf("there are %d of %T", n, found)
	}
	return found
}

// TestSpec reads each spec as a pod does, where a ConfigMap's files are links into
// a folder that is replaced (kubernetes, pkg/volume/util/atomic_writer.go).
func TestSpec(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			objects, dir := render(t, variant), t.TempDir()
			mount(t, dir, the[*corev1.ConfigMap](t, objects))
			config, diags := spec.Load(dir, spec.Inputs{})
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			if config.Spec.Kubernetes == nil || (config.Spec.Network == nil) != (variant == "base") {
				t.Errorf("%+v", config.Spec)
			}
			template := the[*appsv1.DaemonSet](t, objects).Spec.Template.Spec
			at := func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/polder" }
			if !slices.ContainsFunc(template.Containers[0].VolumeMounts, at) {
				t.Error("nothing is mounted where polder reads its spec")
			}
		})
	}
}

func mount(t *testing.T, dir string, c *corev1.ConfigMap) {
	t.Helper()
	const data, now = "..data", "..2026_11_29_12_00_00.1"
	err := errors.Join(os.Mkdir(filepath.Join(dir, now), 0o755), os.Symlink(now, filepath.Join(dir, data)))
	for name, text := range c.Data {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, now, name), []byte(text), 0o600),
			os.Symlink(filepath.Join(data, name), filepath.Join(dir, name)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPrivileges is what the containers may, in full: more than this needs a reason
// here and in docs/kubernetes-deploy.md.
func TestPrivileges(t *testing.T) {
	for variant, want := range map[string]map[string]string{
		"base":    {"install-cni": "[DAC_OVERRIDE]", "polder": "[NET_ADMIN]"},
		"network": {"install-cni": "[DAC_OVERRIDE]", "polder": "[NET_ADMIN DAC_OVERRIDE]"},
		"migrate": {"install-cni": "[DAC_OVERRIDE]", "polder": "[NET_ADMIN DAC_OVERRIDE]"},
	} {
		t.Run(variant, func(t *testing.T) {
			privileges(t, the[*appsv1.DaemonSet](t, render(t, variant)).Spec.Template.Spec, want)
		})
	}
	t.Run("check", func(t *testing.T) { privileges(t, check(t, "n1").Spec, map[string]string{"polder": "[NET_ADMIN]"}) })
}

func privileges(t *testing.T, pod corev1.PodSpec, want map[string]string) {
	t.Helper()
	if pod.HostPID || pod.HostIPC || !pod.HostNetwork || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%+v", pod)
	}
	document := file(t, "../docs/kubernetes-deploy.md")
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		s := c.SecurityContext
		if s.Privileged != nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || fmt.Sprint(s.Capabilities.Drop) != "[ALL]" ||
			fmt.Sprint(s.Capabilities.Add) != want[c.Name] {
			t.Errorf("%s: %+v", c.Name, s)
		}
		for _, capability := range s.Capabilities.Add {
			if !strings.Contains(document, "\n| `"+string(capability)+"` | ") {
				t.Errorf("the document does not say what %s is for", capability)
			}
		}
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil && !strings.Contains(document, "\n| `"+v.HostPath.Path+"` | ") {
			t.Errorf("the document does not say what %s is for", v.HostPath.Path)
		}
	}
}

// TestRulesAreExplained holds the rules to the lines of the document: a right that
// has none is one too many, and so is a line that has no right.
func TestRulesAreExplained(t *testing.T) {
	var rights []string
	for _, r := range the[*rbacv1.ClusterRole](t, decode(t, file(t, "kubernetes/base/rbac.yaml"))).Rules {
		if len(r.NonResourceURLs)+len(r.ResourceNames) > 0 {
			t.Errorf("the document has no column for %+v", r)
		}
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				if group != "" {
					resource += "." + group
				}
				rights = append(rights, resource+": "+strings.Join(r.Verbs, ", "))
			}
		}
	}
	var lines []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z./0-9]+)` \\| ((?:get|list|watch|create|update|patch|delete|, )+) \\| .{20,} \\|$").FindAllStringSubmatch(file(t, "../docs/kubernetes-deploy.md"), -1) {
		lines = append(lines, m[1]+": "+m[2])
	}
	slices.Sort(rights)
	slices.Sort(lines)
	if len(rights) == 0 || !slices.Equal(rights, lines) {
		t.Errorf("the role has\n%s\nthe document has\n%s", strings.Join(rights, "\n"), strings.Join(lines, "\n"))
	}
}

func file(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s: %v\n%s%s", cmd, err, out, exit.Stderr)
		}
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}
