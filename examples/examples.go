// Package examples holds complete specs, each with a lab file that describes a
// network to try it in. They are embedded, so that the demo needs no files.
package examples

import "embed"

// FS has a folder for each example.
//
//go:embed */*.hcl */*.yaml
var FS embed.FS

// Demo is the folder of the example that `polder lab demo` shows.
const Demo = "dual-stack"
