// Package kubetest runs the real programs of a Kubernetes cluster for tests: an
// API server with etcd on loopback, CNI plugins in the namespaces of a lab, and
// what connects the two. There is no kubelet, scheduler or controller manager:
// tests write what those would.
package kubetest
