// Package kubenodes tests nodes of the pod network that are those of a real API
// server: what daemons make of Nodes, and what they write to them.
package kubenodes
