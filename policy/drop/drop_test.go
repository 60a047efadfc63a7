package drop

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The manual lists every reason with what it is, and none that is not.
func TestManualListsReasons(t *testing.T) {
	b, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "| Reason |")
	section, _, _ = strings.Cut(section, "\n\n")
	var listed []Reason
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (.+) \\|$").FindAllStringSubmatch(section, -1) {
		r := Reason(row[1])
		listed = append(listed, r)
		if !strings.EqualFold(row[2], r.Text()) {
			t.Errorf("%s is %q, and in the manual %q", r, r.Text(), row[2])
		}
	}
	if !slices.Equal(listed, Reasons()) {
		t.Errorf("the manual lists %v, and there are %v", listed, Reasons())
	}
}
