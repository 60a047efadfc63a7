// Package cluster takes nodes, namespaces, pods and NetworkPolicies from an API
// server, as a source of a daemon's beside its spec.
//
// What objects mean is computed from them alone; only source.go and what it uses
// of client-go talks to somebody.
package cluster
