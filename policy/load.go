package policy

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// Load reads the spec at path with its policies, and holds these to the spec's
// checks. As with spec.Load, all mistakes are reported at once, and the Config
// is never nil; there is no Model if there are errors.
func Load(path string, in spec.Inputs) (*spec.Config, *Model, hcl.Diagnostics) {
	config, m, diags := Read(path, in)
	if m == nil {
		return config, nil, diags
	}
	if diags = append(diags, m.Check()...); diags.HasErrors() {
		return config, nil, diags
	}
	return config, m, diags
}

// Read is Load without the checks, for finding out why they fail, and where
// nothing is put into force.
func Read(path string, in spec.Inputs) (*spec.Config, *Model, hcl.Diagnostics) {
	config, diags := spec.Load(path, in)
	if diags.HasErrors() {
		return config, nil, diags
	}
	m, more := New(config.Spec)
	if diags = append(diags, more...); diags.HasErrors() {
		return config, nil, diags
	}
	return config, m, diags
}
