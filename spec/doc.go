// Package spec reads the description of a cluster's network, in HCL or its
// JSON form, into one validated value.
//
// Reading has three steps. Files are parsed, and variables and locals are
// evaluated (source.go, inputs.go, variable.go, local.go). Blocks are decoded
// one by one into declarations, which are the values of a Spec with the places
// they came from (decode*.go, after the table in schema.go). Then the
// declarations are compared with each other (validate*.go). A mistake in one
// of them makes it unknown to what follows, so that it is reported once and
// hides no other.
//
// Nothing in this package reads the network of the host or changes it.
package spec
