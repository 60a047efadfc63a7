package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// Validation is what `validate --json` prints.
type Validation struct {
	FormatVersion string       `json:"format_version"`
	Type          string       `json:"type"` // "validation"
	Valid         bool         `json:"valid"`
	ErrorCount    int          `json:"error_count"`
	WarningCount  int          `json:"warning_count"`
	Diagnostics   []Diagnostic `json:"diagnostics"`
}

// Diagnostic is one finding about the spec.
type Diagnostic struct {
	Severity string `json:"severity"` // "error" or "warning"
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
	Range    *Range `json:"range,omitempty"`
}

// Range is a stretch of a source file.
type Range struct {
	Filename string   `json:"filename"`
	Start    Position `json:"start"`
	End      Position `json:"end"` // the first position behind the range
}

// String is "file:line", or what is named where that has no lines, as an object of
// Kubernetes.
func (r Range) String() string {
	return spec.FileLine(hcl.Range{Filename: r.Filename, Start: hcl.Pos(r.Start)})
}

// Position is a place in a source file. Lines and columns count from 1,
// columns in grapheme clusters; Byte counts from 0.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// NewValidation is the model of a validation.
func NewValidation(diags hcl.Diagnostics) Validation {
	v := Validation{FormatVersion: FormatVersion, Type: "validation", Valid: !diags.HasErrors(), Diagnostics: []Diagnostic{}}
	for _, d := range diags {
		model := Diagnostic{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			model.Severity = "warning"
			v.WarningCount++
		} else {
			v.ErrorCount++
		}
		if d.Subject != nil {
			model.Range = &Range{
				Filename: d.Subject.Filename,
				Start:    Position(d.Subject.Start),
				End:      Position(d.Subject.End),
			}
		}
		v.Diagnostics = append(v.Diagnostics, model)
	}
	return v
}

// WriteValid says that the spec at path has no mistakes, and how much is in it:
// of policies, if there are any.
func WriteValid(w io.Writer, t Text, path string, s *spec.Spec) error {
	parts := []string{count(len(s.Nodes), "node"), count(len(s.Endpoints), "endpoint")}
	for _, part := range []struct {
		n    int
		noun string
	}{
		{len(s.Policies), "policy"},
		{len(s.HostEndpoints), "host endpoint"},
		{len(s.Checks), "check"},
		{len(s.Manifests), "Kubernetes manifest"},
	} {
		if part.n > 0 {
			parts = append(parts, count(part.n, part.noun))
		}
	}
	more := ""
	if s.Kubernetes != nil {
		more = " What there is in the cluster beside them was not looked at."
	}
	_, err := fmt.Fprintf(w, "%s %s is valid: %s.%s\n", t.good("Success!"), path, strings.Join(parts, ", "), more)
	return err
}
