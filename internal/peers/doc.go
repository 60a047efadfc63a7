// Package peers runs the real programs that polder is measured against and
// takes over from, in the namespaces of a lab. They are built from modfiles of
// this folder, so that what they need is not in polder's go.mod, and only
// tests import the package.
package peers
