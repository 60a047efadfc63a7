package policy

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// Check holds the policies to the spec's checks. What is expected must be so
// between any two addresses of the ends, in each family that both have.
func (m *Model) Check() hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, c := range m.spec.Checks {
		q := Question{From: c.From, To: c.To, Services: c.Services}
		decisions, err := m.Answer(q)
		if err != nil {
			diags = append(diags, problem(c, fmt.Sprintf("There is nothing to judge: %v.", err)))
			continue
		}
		if wrong := other(decisions, c.Expect); len(wrong) > 0 {
			diags = append(diags, problem(c, disappointment(c, q.Service(), decisions, wrong)))
		}
	}
	return diags
}

func problem(c *spec.Check, detail string) *hcl.Diagnostic {
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("Check %q fails", c.Name), Detail: detail}
	if c.Range.Filename != "" {
		d.Subject = c.Range.Ptr()
	}
	return d
}

// other are the decisions that are not as expected.
func other(decisions []Decision, expected spec.Action) []Decision {
	var out []Decision
	for _, d := range decisions {
		if d.Verdict != expected {
			out = append(out, d)
		}
	}
	return out
}

// disappointment says what was expected, what is so, and why.
func disappointment(c *spec.Check, service string, all, wrong []Decision) string {
	var b strings.Builder
	expected, found := "allowed", "denied"
	if c.Expect == spec.Deny {
		expected, found = found, expected
	}
	if len(wrong) < len(all) {
		found += " between some addresses"
	}
	fmt.Fprintf(&b, "%s from %s to %s is expected to be %s, and is %s:\n", service, c.From, c.To, expected, found)
	for len(wrong) > 0 {
		first := &wrong[0]
		var rest []Decision
		for _, d := range wrong[1:] {
			if !Alike(first, &d) {
				rest = append(rest, d)
			}
		}
		fmt.Fprintf(&b, "\n  %s -> %s", first.Flow.From, first.Flow.To)
		if n := len(wrong) - len(rest) - 1; n > 0 {
			fmt.Fprintf(&b, " (and %d more)", n)
		}
		fmt.Fprintf(&b, "\n    egress of %s: %s\n    ingress of %s: %s\n",
			c.From, first.Sides[0].Why(), c.To, first.Sides[1].Why())
		wrong = rest
	}
	fmt.Fprintf(&b, "\nEach rule that was looked at, with the options of this command:\n\n  polder explain %s %s %s", c.From, c.To, service)
	return b.String()
}
