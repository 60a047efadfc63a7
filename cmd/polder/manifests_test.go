package main

import (
	"os"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	kubeyaml "sigs.k8s.io/yaml"
)

// The containers of the DaemonSet, and of the check, run commands and flags that there
// are.
func TestManifestsRunPolder(t *testing.T) {
	text, err := os.ReadFile("../../deploy/kubernetes/base/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.DaemonSet
	if err := kubeyaml.UnmarshalStrict(text, &d); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile("../../deploy/kubernetes/migrate/check.yaml"); err != nil {
		t.Fatal(err)
	}
	var check corev1.Pod
	if err := kubeyaml.UnmarshalStrict(text, &check); err != nil {
		t.Fatal(err)
	}
	containers := slices.Concat(d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers, check.Spec.Containers)
	if len(containers) != 3 {
		t.Errorf("there are %d containers", len(containers))
	}
	for _, c := range containers {
		root, err := newRootCommand(&app{})
		if err != nil {
			t.Fatal(err)
		}
		cmd, flags, err := root.Find(c.Args)
		if err != nil || cmd == root {
			t.Errorf("%s: %q is no command of polder's: %v", c.Name, c.Args, err)
			continue
		}
		if err := cmd.ParseFlags(flags); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}
