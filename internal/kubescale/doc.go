// Package kubescale measures one node's daemon in a large Kubernetes cluster, of
// which everything else is objects in a real API server.
package kubescale
