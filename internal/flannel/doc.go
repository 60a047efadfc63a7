// Package flannel reads what configures flannel, and what it has made of a
// node, and writes the spec of polder's that says the same. Parsing and writing
// are functions of values; only the kernel_*.go files look at a host.
package flannel
