// Package peers runs the daemons that polder is measured against and takes over
// from, in the namespaces of a lab. Only tests import it.
package peers
