// Package deploy has the tests of what lies beside it, by which polder is
// installed: manifests for Kubernetes and an image. The systemd units are tested
// with the commands that they run.
package deploy
