package deploy

import (
	"encoding/json"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kubeyaml "sigs.k8s.io/yaml"
)

// flannelDaemonSet is where flannel's own has its pods (Documentation/kube-flannel.yml
// in flannel v0.28.9).
const flannelDaemonSet = `{"spec": {"template": {"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
	"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}]
}}}}}}}`

// TestOneOfBoth: while nodes are taken over from flannel, each has a pod of flannel's
// or of polder's, and none has both.
func TestOneOfBoth(t *testing.T) {
	patch, err := kubeyaml.YAMLToJSON([]byte(file(t, "kubernetes/migrate/flannel.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	patched, err := strategicpatch.StrategicMergePatch([]byte(flannelDaemonSet), patch, appsv1.DaemonSet{})
	if err != nil {
		t.Fatal(err)
	}
	var flannel appsv1.DaemonSet
	if err := json.Unmarshal(patched, &flannel); err != nil {
		t.Fatal(err)
	}
	terms := flannel.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 1 {
		t.Fatalf("flannel runs where one of %+v is so", terms)
	}
	polder := labels.SelectorFromSet(the[*appsv1.DaemonSet](t, render(t, "migrate")).Spec.Template.Spec.NodeSelector)
	for _, test := range []struct {
		node            labels.Set
		flannel, polder bool
	}{
		{labels.Set{"kubernetes.io/os": "linux"}, true, false},
		{labels.Set{"kubernetes.io/os": "linux", "pod-network": "flannel"}, true, false},
		{labels.Set{"kubernetes.io/os": "linux", "pod-network": "polder"}, false, true},
		{labels.Set{"kubernetes.io/os": "windows"}, false, false},
	} {
		if got := term(t, terms[0]).Matches(test.node); got != test.flannel {
			t.Errorf("flannel runs on %v: %t", test.node, got)
		}
		if got := polder.Matches(test.node); got != test.polder {
			t.Errorf("polder runs on %v: %t", test.node, got)
		}
	}
}

// check is the pod that says what a switch of a node would do, as the page has it made.
func check(t *testing.T, node string) *corev1.Pod {
	t.Helper()
	const edit = `sed 's,NODE,n1,; s,image: polder,image: registry.example.net/polder:v1,'`
	if !strings.Contains(file(t, "../docs/flannel.md"), edit) {
		t.Errorf("the page does not say %s", edit)
	}
	sed := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(edit, "n1", node, 1)+" kubernetes/migrate/check.yaml")
	return the[*corev1.Pod](t, decode(t, output(t, sed)))
}

// TestCheck: the check runs on its node, with the account, the spec and the network
// that the daemon there will have.
func TestCheck(t *testing.T) {
	p, d := check(t, "n7").Spec, the[*appsv1.DaemonSet](t, decode(t, file(t, "kubernetes/base/daemonset.yaml"))).Spec.Template.Spec
	if p.NodeName != "n7" || !slices.Contains(p.Containers[0].Args, "--node=n7") || p.Containers[0].Image != "registry.example.net/polder:v1" {
		t.Errorf("it runs on %q, with %q of %s", p.NodeName, p.Containers[0].Args, p.Containers[0].Image)
	}
	if p.ServiceAccountName != d.ServiceAccountName || !*p.AutomountServiceAccountToken || !reflect.DeepEqual(p.SecurityContext, d.SecurityContext) ||
		!reflect.DeepEqual(p.Containers[0].VolumeMounts[0], d.Containers[0].VolumeMounts[0]) || !reflect.DeepEqual(p.Volumes[0], d.Volumes[0]) {
		t.Errorf("it is another one than the daemon: %+v", p)
	}
}

// term is a term of an affinity as a selector of labels.
func term(t *testing.T, from corev1.NodeSelectorTerm) labels.Selector {
	t.Helper()
	selector := labels.NewSelector()
	for _, e := range from.MatchExpressions {
		r, err := labels.NewRequirement(e.Key, selection.Operator(strings.ToLower(string(e.Operator))), e.Values)
		if err != nil {
			t.Fatal(err)
		}
		selector = selector.Add(*r)
	}
	return selector
}
